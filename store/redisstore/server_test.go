package redisstore_test

import (
	"context"
	"crypto/tls"
	"flag"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/proctest"
	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/redisstore"
)

var ctx = context.Background()

// server is a Redis of a test's own.
type server struct {
	addr string
	dir  string
	args []string
	conf string      // of a Sentinel
	tls  *tls.Config // of clients; nil: without TLS
	cmd  *exec.Cmd
}

// newServer starts a server that keeps nothing on disk, unless args say so.
func newServer(t testing.TB, args ...string) *server {
	s := &server{dir: t.TempDir(), args: args, addr: "127.0.0.1:" + strconv.Itoa(proctest.FreePort(t))}
	s.start(t)
	t.Cleanup(func() { s.kill() })
	return s
}

func (s *server) start(t testing.TB) {
	_, port, _ := net.SplitHostPort(s.addr)
	args := append([]string{"--port", port, "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--loglevel", "warning"}, s.args...)
	if s.conf != "" {
		args = []string{s.conf, "--sentinel", "--port", port, "--bind", "127.0.0.1", "--dir", s.dir}
	}
	s.cmd = exec.Command(proctest.RedisServer(t), args...)
	proctest.DieWithParent(s.cmd)
	log, err := os.Create(filepath.Join(s.dir, "log"))
	require.NoError(t, err)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	require.NoError(t, s.cmd.Start())
	for range 6000 {
		if c, err := net.Dial("tcp", s.addr); err == nil {
			_ = c.Close()
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	c := redis.NewClient(&redis.Options{Addr: s.addr, TLSConfig: s.tls, MaxRetries: -1, DialerRetries: 1, DisableIdentity: true})
	defer c.Close()
	for range 6000 {
		if c.Ping(ctx).Err() == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	out, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	t.Fatalf("redis-server does not answer: %s", out)
}

func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// pause and resume stop the process and let it go on.
func (s *server) pause(t testing.TB) {
	require.NoError(t, stopProcess(s.cmd.Process))
}

func (s *server) resume(t testing.TB) {
	require.NoError(t, continueProcess(s.cmd.Process))
}

// client connects as the package comment advises.
func (s *server) client(t testing.TB) *redis.Client {
	c := redis.NewClient(&redis.Options{
		Addr: s.addr, TLSConfig: s.tls, MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true,
		DialTimeout: time.Second, DisableIdentity: true,
	})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// shared is one server for all tests that only need keys of their own.
var shared struct {
	sync.Once
	*server
	dir string
}

func sharedServer(t testing.TB) *server {
	proctest.RedisServer(t)
	shared.Do(func() {
		dir, err := os.MkdirTemp("", "redisstore")
		require.NoError(t, err)
		shared.dir = dir
		s := &server{dir: dir, addr: "127.0.0.1:" + strconv.Itoa(proctest.FreePort(t))}
		s.start(t)
		shared.server = s
	})
	if shared.server == nil {
		t.Fatal("the shared redis-server did not start")
	}
	return shared.server
}

func TestMain(m *testing.M) {
	// Tests that run in parallel here wait for leases, and need no processor.
	flag.Parse()
	_ = flag.Set("test.parallel", "16")
	code := m.Run()
	if shared.server != nil {
		shared.server.kill()
		_ = os.RemoveAll(shared.dir)
	}
	os.Exit(code)
}

var namespaces atomic.Int64

// namespace returns one that no other test uses.
func namespace() string { return "t" + strconv.FormatInt(namespaces.Add(1), 10) }

// past lets the hold pass with which a new namespace begins.
func past(t testing.TB, s *redisstore.Store, lease time.Duration, advance func(time.Duration)) {
	for p := range s.Shards() {
		l, err := s.Register(ctx, p, store.Node{ID: "first"})
		require.NoError(t, err)
		require.NoError(t, s.End(ctx, l, 0, store.CauseShutdown))
	}
	advance(lease + time.Millisecond)
	_, err := s.Count(ctx, "")
	require.NoError(t, err)
}

// eventually waits for something that takes so long at most on a machine of
// its own. On a busy one it may be four times that.
func eventually(t testing.TB, within time.Duration, what string, f func() bool) {
	t.Helper()
	within *= 4
	for end := time.Now().Add(within); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %v: %s", within, what)
		}
	}
}
