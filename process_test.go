//go:build unix

package presence_test

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/proctest"
)

// Some tests need a second process, to be stopped or killed: this program
// again, with the role in its environment. It says what happens on its
// standard output, a line each, and ends with its standard input.
const (
	roleEnv = "PRESENCE_TEST_ROLE"
	planEnv = "PRESENCE_TEST_PLAN"
)

var roles = map[string]func(plan plan, in *bufio.Scanner){
	"crowd":  crowd,
	"server": serverProcess,
}

// plan is what a process is told.
type plan struct {
	Addr   string
	TLS    bool
	Path   string // %d is the number of the client
	N      int
	Busy   time.Duration
	Beat   time.Duration
	Silent time.Duration
}

func TestMain(m *testing.M) {
	role := roles[os.Getenv(roleEnv)]
	if role == nil {
		flag.Parse()
		if flag.Lookup("test.parallel").Value.String() == fmt.Sprint(runtime.GOMAXPROCS(0)) {
			_ = flag.Set("test.parallel", "32") // most tests over the network only wait
		}
		os.Exit(m.Run())
	}
	var p plan
	if err := json.Unmarshal([]byte(os.Getenv(planEnv)), &p); err != nil {
		fmt.Println("error", err)
		os.Exit(2)
	}
	role(p, bufio.NewScanner(os.Stdin))
}

// process is a running second process.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
	ended chan struct{}
	once  sync.Once
}

// start runs a role until the test ends.
func start(t *testing.T, role string, p plan, env ...string) *process {
	t.Helper()
	b, err := json.Marshal(p)
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	c := &process{t: t, cmd: exec.Command(self), lines: make(chan string, 1000), ended: make(chan struct{})}
	c.cmd.Env = append(append(os.Environ(), roleEnv+"="+role, planEnv+"="+string(b)), env...)
	c.cmd.Stderr = os.Stderr
	proctest.DieWithParent(c.cmd) // a frozen one does not see the end of its input
	c.in, err = c.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.cmd.Start())
	go func() {
		defer close(c.ended)
		defer close(c.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			c.lines <- s.Text()
		}
	}()
	t.Cleanup(c.kill)
	return c
}

// hear returns the rest of the next line, which begins with prefix.
func (c *process) hear(prefix string) string {
	c.t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		select {
		case line, ok := <-c.lines:
			require.True(c.t, ok, "the process ended before it said %q", prefix)
			if rest, ok := strings.CutPrefix(line, prefix); ok {
				return strings.TrimSpace(rest)
			}
			require.Failf(c.t, "unexpected", "%q, expected %q", line, prefix)
		case <-late.C:
			require.Failf(c.t, "too late", "the process has not said %q", prefix)
		}
	}
}

// ask tells the process something.
func (c *process) ask(format string, args ...any) {
	c.t.Helper()
	_, err := fmt.Fprintf(c.in, format+"\n", args...)
	require.NoError(c.t, err)
}

func (c *process) signal(s syscall.Signal) {
	c.t.Helper()
	require.NoError(c.t, c.cmd.Process.Signal(s))
}

// freeze returns when the process is stopped.
func (c *process) freeze() {
	c.t.Helper()
	c.signal(syscall.SIGSTOP)
	if runtime.GOOS != "linux" {
		return
	}
	eventually(c.t, func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.cmd.Process.Pid))
		require.NoError(c.t, err)
		_, state, _ := strings.Cut(string(b), ") ")
		return strings.HasPrefix(state, "T")
	}, "the process should stop")
}

func (c *process) thaw() { c.signal(syscall.SIGCONT) }

// kill ends the process at once, also a frozen one. A second call does nothing.
func (c *process) kill() {
	c.once.Do(func() {
		_ = c.cmd.Process.Kill()
		for range c.lines { // its last words
		}
		<-c.ended
		_ = c.cmd.Wait()
	})
}

// patience is much longer than any machine needs for anything here.
const patience = 2 * time.Minute

// eventually waits for an event.
func eventually(t *testing.T, done func() bool, format string, args ...any) {
	t.Helper()
	for late := time.Now().Add(patience); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(late) {
			require.Failf(t, "it did not happen", format, args...)
		}
	}
}
