package browser

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/proctest"
)

// redisServer starts a Redis of the test's own.
func redisServer(t *testing.T) (url string, server *os.Process) {
	t.Helper()
	port := strconv.Itoa(proctest.FreePort(t))
	cmd := exec.Command(proctest.RedisServer(t), "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir())
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	cmd.Stdout, cmd.Stderr = log, log
	proctest.DieWithParent(cmd)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); _ = log.Close() })
	return "redis://127.0.0.1:" + port + "/0", cmd.Process
}

// balance is one address in front of several servers. A connection goes to the
// first of them that takes it.
func balance(t *testing.T, to ...*server) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for _, s := range to {
					up, err := net.Dial("tcp", s.addr)
					if err != nil {
						continue
					}
					defer up.Close()
					go func() { _, _ = io.Copy(c, up); _ = c.Close() }()
					_, _ = io.Copy(up, c)
					return
				}
			}()
		}
	}()
	return "http://" + ln.Addr().String()
}

// Two nodes and a Redis, as in the README. Each page shows who is on the other
// node, and where. The node that a page talks to is stopped, and killed: behind
// one address the page goes on at the other node, and nobody saw its user
// leave. Without one it waits for its own.
func TestTwoNodes(t *testing.T) {
	t.Parallel()
	redis, _ := redisServer(t)
	args := []string{"-redis", redis, "-lease", "3s", "-grace", "8s"}
	one := serve(t, append(args, "-node", "one")...)
	two := serve(t, append(args, "-node", "two")...)
	b := newBrowser(t)
	site := balance(t, one, two)
	ann := b.open(site + "/?user=ann")
	bob := b.here(two, "bob")
	nodeOf := func(user, node string) string {
		return `[...row("` + user + `").querySelectorAll(".tabs li")].map((li) => li.textContent).join().includes("node ` + node + `")`
	}
	for _, tb := range []*tab{ann, bob} {
		tb.until(`link() === "open" && live() && state("ann") === "online" && state("bob") === "online" && text("count") === "2 people here"`)
	}
	bob.until(nodeOf("bob", "two")) // until then what is below moves away from under a click
	bob.do(click(`[data-user=ann] [aria-expanded=false]`))
	bob.until(nodeOf("ann", "one"))
	for i, how := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		one.stop(how)
		for _, tb := range []*tab{ann, bob} {
			tb.until(`link() === "open" && live() && state("ann") === "online" && state("bob") === "online" && text("count") === "2 people here"`)
			tb.until(nodeOf("ann", "two"))
		}
		bob.equal(0, `feed("leave", "ann").length`)
		if i == 0 {
			one.start()
			ann.do(script(`location.reload()`)) // to node one again
			ann.until(`link() === "open" && live() && ` + nodeOf("ann", "one"))
		}
	}
	one.start()

	cem := b.here(one, "cem")
	one.stop(syscall.SIGKILL)
	cem.until(`!live()`)
	one.start()
	cem.until(`link() === "open" && live() && state("cem") === "online" && state("bob") === "online"`)
	bob.equal(0, `feed("leave", "cem").length`)
	bob.equal(0, `feed("leave", "ann").length`)
}

// While Redis does not answer, the page says in words that its list may be out
// of date, also a page that has come only then. Nobody leaves meanwhile.
func TestRedisIsAway(t *testing.T) {
	t.Parallel()
	redis, server := redisServer(t)
	s := serve(t, "-redis", redis, "-lease", "3s")
	b := newBrowser(t)
	ann, bob := b.here(s, "ann"), b.here(s, "bob")
	ann.until(`state("bob") === "online"`)
	ann.equal(true, `document.getElementById("live").hidden`)
	require.NoError(t, server.Signal(syscall.SIGSTOP))
	stale := `!live() && !document.getElementById("live").hidden && document.getElementById("live").role === "status" &&
		text("live") === "This may be out of date: the server cannot tell now who is here."`
	for _, tb := range []*tab{ann, bob} {
		tb.until(stale + ` && link() === "open" && state("ann") === "online" && state("bob") === "online"`)
	}
	bob.do(script(`location.reload()`))
	bob.until(stale + ` && link() === "open" && state("ann") === "online"`)
	require.NoError(t, server.Signal(syscall.SIGCONT))
	for _, tb := range []*tab{ann, bob} {
		tb.until(`live() && document.getElementById("live").hidden && state("ann") === "online" && state("bob") === "online"`)
		tb.equal(0, `document.querySelectorAll("#log > [data-kind=leave]").length`)
	}
}
