//go:build unix

package faults_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/proctest"
)

// redisServer is a Redis that keeps nothing on disk. It listens on a Unix
// socket: a port might be taken by somebody else while it is down.
type redisServer struct {
	socket string
	cmd    *exec.Cmd
}

func startRedis(t *testing.T) *redisServer {
	proctest.RedisServer(t)                // before there is anything to remove
	dir, err := os.MkdirTemp("", "faults") // a path short enough for a socket
	require.NoError(t, err)
	s := &redisServer{socket: filepath.Join(dir, "redis")}
	t.Cleanup(func() {
		if s.cmd != nil {
			s.kill()
		}
		_ = os.RemoveAll(dir)
	})
	s.start(t)
	return s
}

func (s *redisServer) start(t *testing.T) {
	_ = os.Remove(s.socket)
	s.cmd = exec.Command(proctest.RedisServer(t), "--port", "0", "--unixsocket", s.socket, "--dir", filepath.Dir(s.socket),
		"--save", "", "--maxmemory-policy", "noeviction", "--loglevel", "warning")
	proctest.DieWithParent(s.cmd)
	require.NoError(t, s.cmd.Start())
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if _, err := s.ask("PING"); err == nil {
			return
		}
		require.True(t, time.Now().Before(end), "redis-server does not answer")
	}
}

func (s *redisServer) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
}

func (s *redisServer) signal(t *testing.T, sig syscall.Signal) {
	require.NoError(t, s.cmd.Process.Signal(sig))
}

// ask sends one command and returns the first line of the answer, or the bulk
// that it announces.
func (s *redisServer) ask(command string) (string, error) {
	c, err := net.DialTimeout("unix", s.socket, time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := fmt.Fprintf(c, "%s\r\n", command); err != nil {
		return "", err
	}
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil || line[0] != '$' {
		return line, err
	}
	n, err := strconv.Atoi(line[1 : len(line)-2])
	if err != nil {
		return line, err
	}
	bulk := make([]byte, n)
	_, err = io.ReadFull(r, bulk)
	return string(bulk), err
}

// wire is a node's way to Redis, which can be cut: then nothing arrives any
// more in either direction, and nobody is told. Or it is broken: then all
// connections end, and new ones too.
type wire struct {
	addr string
	to   string
	ln   net.Listener

	mu     sync.Mutex
	whole  chan struct{} // closed while it is not cut
	broken bool
	conns  map[net.Conn]bool
}

func newWire(t *testing.T, to string) *wire {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	w := &wire{addr: ln.Addr().String(), to: to, ln: ln, whole: make(chan struct{}), conns: map[net.Conn]bool{}}
	close(w.whole)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() { w.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		w.join()
		w.mu.Lock()
		for c := range w.conns {
			_ = c.Close()
		}
		w.mu.Unlock()
		running.Wait()
	})
	return w
}

func (w *wire) cut() {
	w.mu.Lock()
	w.whole = make(chan struct{})
	w.mu.Unlock()
}

func (w *wire) breakOff() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = true
	for c := range w.conns {
		_ = c.Close()
	}
}

func (w *wire) join() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = false
	select {
	case <-w.whole:
	default:
		close(w.whole)
	}
}

// pass waits until the wire is whole.
func (w *wire) pass() {
	w.mu.Lock()
	whole := w.whole
	w.mu.Unlock()
	<-whole
}

func (w *wire) serve(in net.Conn) {
	defer in.Close()
	w.pass()
	out, err := net.Dial("unix", w.to)
	if err != nil {
		return
	}
	defer out.Close()
	w.mu.Lock()
	broken := w.broken
	w.conns[in], w.conns[out] = true, true
	w.mu.Unlock()
	if broken {
		_ = in.Close()
	}
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
		both.Go(func() {
			defer way[0].Close()
			defer way[1].Close()
			buf := make([]byte, 32<<10)
			for {
				n, err := way[0].Read(buf)
				if err != nil {
					return
				}
				w.pass()
				if _, err := way[1].Write(buf[:n]); err != nil {
					return
				}
			}
		})
	}
	both.Wait()
	w.mu.Lock()
	delete(w.conns, in)
	delete(w.conns, out)
	w.mu.Unlock()
}
