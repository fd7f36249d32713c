package main

import (
	"bufio"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/a4cafe1a/presence/bench/memory"
)

// server is a line of servers.conf.
type server struct {
	name, label, mode, cmd string
	usr1                   bool
}

func readConf() []server {
	b, err := os.ReadFile(*conf)
	check(err)
	lines := strings.Split(string(b), "\n")
	if *addDef != "" {
		lines = append(lines, *addDef)
	}
	var servers []server
	wanted := strings.FieldsFunc(*only, func(r rune) bool { return r == ',' || r == ' ' })
	for _, l := range lines {
		l = strings.TrimSpace(l)
		if l == "" || l[0] == '#' {
			continue
		}
		p := strings.SplitN(l, "|", 5)
		if len(p) != 5 {
			check(fmt.Errorf("bad line: %s", l))
		}
		for i := range p {
			p[i] = strings.TrimSpace(p[i])
		}
		if len(wanted) == 0 || slices.Contains(wanted, p[0]) {
			servers = append(servers, server{name: p[0], label: p[1], mode: p[2], usr1: p[3] == "1", cmd: p[4]})
		}
	}
	for _, name := range wanted {
		if !slices.ContainsFunc(servers, func(s server) bool { return s.name == name }) {
			check(fmt.Errorf("no server is called %s", name))
		}
	}
	return servers
}

var moduleIn = regexp.MustCompile(`\{[^}]+\}`)

// title is the label with the versions of modules, as the server's program was built with them.
func (s server) title() string {
	bin := strings.ReplaceAll(strings.Fields(s.cmd)[0], "{bin}", *binDir)
	return moduleIn.ReplaceAllStringFunc(s.label, func(m string) string {
		info, err := buildinfo.ReadFile(bin)
		if err != nil {
			return "?"
		}
		for _, d := range info.Deps {
			if d.Path == strings.Trim(m, "{}") {
				return d.Version
			}
		}
		return "?"
	})
}

// process is a running server.
type process struct {
	cmd     *exec.Cmd
	reports chan memory.Report
	log     *os.File
	done    chan struct{}
}

// life: after this long every process of a run ends by itself.
func life() time.Duration { return 5**interval + *window + *timeout + 2*time.Minute }

func (s server) start(addr string, n int) (*process, error) {
	dir, _ := filepath.Abs(".")
	bin, _ := filepath.Abs(*binDir)
	seconds := func(d time.Duration) string { return strconv.Itoa(int(d.Seconds())) }
	f := strings.Fields(strings.NewReplacer(
		"{addr}", addr, "{interval}", interval.String(), "{timeout}", timeout.String(), "{max}", life().String(),
		"{interval_s}", seconds(*interval), "{timeout_s}", seconds(*timeout), "{max_s}", seconds(life()),
		"{n}", strconv.Itoa(n), "{bin}", bin, "{dir}", dir).Replace(s.cmd))
	if *growth && strings.HasSuffix(f[0], "/presence") {
		f = append(f, "-sessions", strconv.Itoa(n)) // by default nine tenths of the open files
	}
	p := &process{cmd: exec.Command(f[0], f[1:]...), reports: make(chan memory.Report, 4), done: make(chan struct{})}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := os.MkdirAll("logs", 0o755); err != nil {
		return nil, err
	}
	var err error
	if p.log, err = os.Create(filepath.Join("logs", s.name+".err")); err != nil {
		return nil, err
	}
	p.cmd.Stderr = p.log
	o, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go p.follow(o)
	return p, p.awaitPort(addr)
}

// follow reads what the server prints until it ends.
func (p *process) follow(o io.Reader) {
	defer close(p.done)
	sc := bufio.NewScanner(o)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		if j, ok := strings.CutPrefix(sc.Text(), "MEM "); ok {
			var r memory.Report
			if json.Unmarshal([]byte(j), &r) == nil {
				p.reports <- r
			}
		}
	}
	_, _ = io.Copy(io.Discard, o)
	_ = p.cmd.Wait()
}

// stop ends the server and what it started.
func (p *process) stop() {
	children := tree(p.cmd.Process.Pid)
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(3 * time.Second):
	}
	for _, pid := range children {
		if pid == p.cmd.Process.Pid || parentOf(pid) == p.cmd.Process.Pid {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	<-p.done
	p.log.Close()
}

// collect makes the server collect garbage, and returns what it says of its memory.
func (p *process) collect() (memory.Report, bool) {
	_ = syscall.Kill(p.cmd.Process.Pid, syscall.SIGUSR1)
	select {
	case r := <-p.reports:
		time.Sleep(200 * time.Millisecond)
		return r, true
	case <-p.done:
	case <-time.After(5 * time.Second):
	}
	return memory.Report{}, false
}

// awaitPort returns when somebody listens on the port, without connecting to it.
func (p *process) awaitPort(addr string) error {
	port, err := strconv.Atoi(addr[strings.LastIndexByte(addr, ':')+1:])
	if err != nil {
		return err
	}
	want := fmt.Sprintf(":%04X", port)
	for range 600 {
		for _, f := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
			b, _ := os.ReadFile(f)
			for _, l := range strings.Split(string(b), "\n") {
				x := strings.Fields(l)
				if len(x) > 3 && strings.HasSuffix(x[1], want) && x[3] == "0A" {
					return nil
				}
			}
		}
		select {
		case <-p.done:
			return fmt.Errorf("ended at once, see %s", p.log.Name())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("not listening on %s after 30 s", addr)
}
