package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// client is a running cmd/client.
type client struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers chan answer
}

type answer map[string]any

func (a answer) num(k string) float64 { v, _ := a[k].(float64); return v }

func (s server) client(addr string) (*client, error) {
	mode := strings.Fields(s.mode)
	args := append([]string{"-mode", mode[0], "-target", addr, "-interval", interval.String(), "-timeout", timeout.String(),
		"-max", life().String()}, mode[1:]...)
	c := &client{cmd: exec.Command(filepath.Join(*binDir, "client"), args...), answers: make(chan answer, 16)}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c.cmd.Stderr = os.Stderr
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	o, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(c.answers)
		sc := bufio.NewScanner(o)
		for sc.Scan() {
			var a answer
			if json.Unmarshal(sc.Bytes(), &a) == nil {
				c.answers <- a
			}
		}
		_ = c.cmd.Wait()
	}()
	return c, nil
}

// ask sends a command and waits for its answer.
func (c *client) ask(wait time.Duration, format string, args ...any) (answer, error) {
	line := fmt.Sprintf(format, args...)
	if _, err := fmt.Fprintln(c.in, line); err != nil {
		return nil, err
	}
	select {
	case a, ok := <-c.answers:
		if !ok {
			return nil, fmt.Errorf("client ended")
		}
		return a, nil
	case <-time.After(wait):
		return nil, fmt.Errorf("client did not answer %q", line)
	}
}

func (c *client) stat() (answer, error) { return c.ask(5*time.Second, "stat") }

func (c *client) stop() {
	_, _ = fmt.Fprintln(c.in, "quit")
	for end := time.After(5 * time.Second); ; {
		select {
		case _, ok := <-c.answers:
			if !ok {
				return
			}
		case <-end:
			_ = c.cmd.Process.Kill()
		}
	}
}
