// Package proctest builds and runs a command of this repository for a test.
package proctest

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is far more than a busy machine needs.
const patience = time.Minute

// Process is a running command that serves HTTP and logs where.
type Process struct {
	URL string // http://host:port

	t    *testing.T
	cmd  *exec.Cmd
	done chan error
	once sync.Once
	err  error

	mu  sync.Mutex
	log []string
}

// Build compiles the package in dir and returns the program's path.
func Build(t *testing.T, dir string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command("go", "build", "-o", bin, ".")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", dir, err, out)
	}
	return bin
}

// Start runs a program until the test ends and waits until it serves.
func Start(t *testing.T, bin string, args ...string) *Process {
	t.Helper()
	p := &Process{t: t, cmd: exec.Command(bin, args...), done: make(chan error, 1)}
	DieWithParent(p.cmd)
	out, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	served := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			p.mu.Lock()
			p.log = append(p.log, lines.Text())
			p.mu.Unlock()
			if _, url, ok := strings.Cut(lines.Text(), "url="); ok && strings.Contains(lines.Text(), "serving") {
				served <- url
			}
		}
		p.done <- p.cmd.Wait()
	}()
	t.Cleanup(func() {
		if t.Failed() {
			lines := p.Log()
			t.Logf("end of the log of the process:\n%s", strings.Join(lines[max(0, len(lines)-40):], "\n"))
		}
		_ = p.cmd.Process.Kill()
		p.Wait(10 * time.Second)
	})
	select {
	case p.URL = <-served:
	case <-time.After(patience):
		t.Fatalf("it does not serve:\n%s", strings.Join(p.Log(), "\n"))
	}
	return p
}

// Log returns the lines logged so far.
func (p *Process) Log() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.log...)
}

// Logged waits until a line contains all of these, and returns it.
func (p *Process) Logged(parts ...string) string {
	p.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
	lines:
		for _, line := range p.Log() {
			for _, part := range parts {
				if !strings.Contains(line, part) {
					continue lines
				}
			}
			return line
		}
	}
	p.t.Fatalf("never logged: %q", parts)
	return ""
}

// Interrupt is Ctrl-C.
func (p *Process) Interrupt() { p.Signal(os.Interrupt) }

// Signal sends a signal; os.Kill is kill -9.
func (p *Process) Signal(s os.Signal) {
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// Wait waits for the end of the process, and returns how it ended.
func (p *Process) Wait(d time.Duration) error {
	p.once.Do(func() {
		select {
		case p.err = <-p.done:
		case <-time.After(d):
			_ = p.cmd.Process.Kill()
			p.err = os.ErrDeadlineExceeded
		}
	})
	return p.err
}
