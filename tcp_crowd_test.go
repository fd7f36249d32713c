//go:build unix

package presence_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// residue is what a test leaves in the process. Tests that compare it do not
// run in parallel, and those that do wait until they have ended.
type residue struct{ goroutines, files int }

func count() residue {
	if ln, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		ln.Close() // the first one opens what the runtime keeps
	}
	r := residue{goroutines: runtime.NumGoroutine()}
	if dir, err := os.ReadDir("/proc/self/fd"); err == nil {
		r.files = len(dir)
	}
	return r
}

// nothingMore waits until no more is left than before.
func nothingMore(t *testing.T, before residue) {
	t.Helper()
	var now residue
	for late := time.Now().Add(patience); time.Now().Before(late); time.Sleep(5 * time.Millisecond) {
		if now = count(); now.goroutines <= before.goroutines && now.files <= before.files {
			return
		}
	}
	var stacks strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
	require.Failf(t, "left behind", "%+v, before: %+v\n%s", now, before, stacks.String())
}

// Thousands come, answer for a while, and go in every way.
func TestCrowd(t *testing.T) {
	n := 9_000
	var files syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files))
	if room := int(min(files.Cur, 100_000)) * 8 / 10; room < n {
		n = room
	}
	t.Run("tcp", func(t *testing.T) { throng(t, n/3, false) })
	t.Run("tls", func(t *testing.T) { throng(t, min(n/3, 200), true) })
}

// throng: three times n clients.
func throng(t *testing.T, n int, secure bool) {
	before := count()
	s := newSite(t, siteSetup{secure: secure, Options: presence.Options{
		HeartbeatInterval: 3 * time.Second, HeartbeatTimeout: time.Minute,
		VerifyTimeout: time.Minute, CloseTimeout: 10 * time.Second, // the machine may be busy
	}})
	clients := start(t, "crowd", plan{Addr: s.addr(), TLS: secure, Path: "/?user=u%d", N: 3 * n})
	clients.hear("ready")
	s.settles(3 * n)
	clients.ask("beaten") // from here on, each of them
	clients.hear("beaten")
	require.Empty(t, s.causes(), "nobody was reaped")

	clients.ask("leave %d", n)
	clients.hear("leave")
	eventually(t, func() bool { return s.causes()[presence.CauseClientClosed] == n }, "who left should be gone")
	s.settles(2 * n)

	for i := n; i < 2*n; i++ {
		s.connected(fmt.Sprintf("u%d", i)).Disconnect(presence.Reason{})
	}
	clients.ask("told %d 4403", n)
	clients.hear("told")
	eventually(t, func() bool { return s.causes()[presence.CauseKicked] == n }, "who was told should be gone")
	s.settles(n)

	clients.kill()
	eventually(t, func() bool { return s.causes()[presence.CauseLost] == n }, "the killed should be noticed")
	s.settles(0)
	require.Len(t, s.causes(), 3)

	require.NoError(t, s.shutdown())
	s.srv.Close()
	s.mu.Lock()
	clear(s.conns)
	s.mu.Unlock()
	nothingMore(t, before)
}

// settles waits until so many sessions are counted: the store follows in
// batches.
func (s *site) settles(n int) {
	s.t.Helper()
	eventually(s.t, func() bool {
		c, err := s.p.Count(context.Background(), "")
		require.NoError(s.t, err)
		return c.Sessions == n
	}, "there should be %d sessions", n)
}

// causes counts how sessions have ended.
func (s *site) causes() map[presence.Cause]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	causes := map[presence.Cause]int{}
	for _, e := range s.ends {
		causes[e.Cause]++
	}
	return causes
}

// Whatever is going on, after Shutdown it is not.
func TestShutdownLeavesNothing(t *testing.T) {
	for name, secure := range map[string]bool{"tcp": false, "tls": true} {
		t.Run(name, func(t *testing.T) {
			before := count()
			o := beats()
			o.CloseTimeout = 300 * time.Millisecond
			writing := make(chan error, 1)
			s := newSite(t, siteSetup{Options: o, secure: secure, send: 8 << 10, route: func(p *presence.Presence) http.Handler {
				mux := http.NewServeMux()
				mux.Handle("/reads", p.Handler(drop))
				mux.Handle("/deaf", p.Handler(deaf))
				mux.Handle("/writes", p.Handler(func(ctx context.Context, c *presence.Conn) error {
					err := c.Write(context.Background(), websocket.MessageBinary, make([]byte, 4<<20))
					writing <- err
					return err
				}))
				mux.Handle("/callback", p.Callback(nil))
				mux.Handle("/middleware", p.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if c, err := websocket.Accept(w, r, nil); err == nil {
						go func() { // it returns, and the connection lives on
							for err == nil {
								_, _, err = c.Read(context.Background())
							}
							c.CloseNow()
						}()
					}
				})))
				return mux
			}})
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			raw, err := net.Dial("tcp", ln.Addr().String())
			require.NoError(t, err)
			far, err := ln.Accept()
			require.NoError(t, err)
			attached, _, err := s.p.Attach(t.Context(), far, nil)
			require.NoError(t, err)
			open, err := s.p.Open(t.Context(), presence.Identity{User: "open"})
			require.NoError(t, err)

			var clients []net.Conn
			for _, path := range []string{"reads", "deaf", "callback", "middleware"} {
				nc := s.conn()
				c, err := wstest.Dial(nc, "/"+path+"?user="+path)
				require.NoError(t, err)
				s.connected(path)
				require.NoError(t, c.SendText("unread, where nobody reads"))
				clients = append(clients, nc)
			}
			slow, _ := s.slowConn(4<<10, 5*time.Millisecond)
			_, err = wstest.Dial(slow, "/writes?user=slow")
			require.NoError(t, err)
			s.connected("slow")
			mute := s.conn() // is being verified
			_, err = io.WriteString(mute, wstest.Request("/reads?user=mute"))
			require.NoError(t, err)
			_, err = io.ReadFull(mute, make([]byte, 12)) // the 101
			require.NoError(t, err)
			half := s.conn() // has not finished its request
			_, err = io.WriteString(half, "GET /reads HTTP/1.1\r\nHost:")
			require.NoError(t, err)
			clients = append(clients, slow, mute, half, raw)

			require.NoError(t, s.shutdown())
			require.True(t, isEnd(<-writing))
			require.ErrorIs(t, s.p.Shutdown(t.Context()), nil)
			require.NotNil(t, open.Context().Err())
			_, err = attached.Write([]byte("x"))
			require.True(t, isEnd(err), "%v", err)
			require.Equal(t, map[presence.Cause]int{presence.CauseShutdown: 7}, s.causes())
			require.Zero(t, s.countAll())
			for _, nc := range clients {
				if secure, ok := nc.(*tls.Conn); ok {
					nc = secure.NetConn()
				}
				nc.Close()
			}
			ln.Close()
			s.srv.Close()
			nothingMore(t, before)
		})
	}
}

// countAll is the number of places taken, in use or pending.
func (s *site) countAll() int64 {
	sessions, verifying := s.p.PlacesTaken()
	return sessions + verifying
}
