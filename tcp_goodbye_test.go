//go:build unix

package presence_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// A socket that is closed while it holds unread data is reset, and the reset
// overtakes the close frame. So whoever is ended in the middle of sending a
// large message is still heard out.
func TestCloseCodeArrivesWhileTheClientIsSending(t *testing.T) {
	type how struct {
		name  string
		code  int
		cause presence.Cause
		set   func(*presence.Options)
		end   func(*site, *presence.Session)
	}
	nothing := func(*site, *presence.Session) {}
	hows := []how{
		{"kick", 4403, presence.CauseKicked, nil, func(_ *site, x *presence.Session) { x.Disconnect(presence.Reason{}) }},
		{"own code", 4999, presence.CauseKicked, nil, func(s *site, x *presence.Session) {
			n, err := s.p.DisconnectUser(context.Background(), "ann", presence.Reason{Code: 4999, Text: "go"})
			require.NoError(s.t, err)
			require.Equal(s.t, 1, n)
		}},
		{"shutdown", 1012, presence.CauseShutdown, nil, func(s *site, _ *presence.Session) { go s.shutdown() }},
		{"idle", 4408, presence.CauseIdle, func(o *presence.Options) { o.IdleTimeout = 500 * time.Millisecond }, nothing},
		{"expired", 4401, presence.CauseExpired, nil, func(_ *site, x *presence.Session) { x.SetExpires(time.Now()) }},
	}
	overBoth(t, func(t *testing.T, secure bool) {
		for _, h := range hows {
			for _, app := range []string{"reading", "deaf"} {
				t.Run(fmt.Sprintf("%s/%s", h.name, app), func(t *testing.T) {
					t.Parallel()
					o := noBeats()
					o.CloseTimeout = 10 * time.Second // a client that closes does not use it up
					if h.set != nil {
						h.set(&o)
					}
					set := siteSetup{Options: o, secure: secure, route: handle(deaf)}
					if app == "reading" {
						set.route = func(p *presence.Presence) http.Handler {
							return p.At(presence.Route{ReadLimit: 2 << 20}).Handler(drop)
						}
					}
					s := newSite(t, set)
					c := s.dial("ann")
					half, failed := halfway(t, c)
					h.end(s, s.connected("ann"))
					e := s.end("ann")
					require.Equal(t, h.cause, e.Cause)
					close(half)
					require.NoError(t, <-failed, "it should be let finish")
					require.Equal(t, h.code, code(t, c))
				})
			}
		}
	})
}

// halfway begins an upload and returns when half of it is on its way.
func halfway(t *testing.T, c *wstest.Client) (half chan struct{}, failed chan error) {
	t.Helper()
	half, failed = make(chan struct{}), make(chan error, 1)
	var sent atomic.Int64
	go func() { failed <- upload(c, half, &sent) }()
	eventually(t, func() bool { return sent.Load() >= 64<<10 }, "half of it should be on its way")
	return half, failed
}

// upload sends a part of a message of 1 MiB, and the rest when half is closed.
func upload(c *wstest.Client, half <-chan struct{}, sent *atomic.Int64) error {
	b := wstest.Masked(0x80|wstest.Binary, make([]byte, 1<<20))
	for i := 0; i < len(b); i += 16 << 10 {
		if i == 64<<10 {
			<-half
		}
		n, err := c.Write(b[i:min(i+16<<10, len(b))])
		sent.Add(int64(n))
		if err != nil {
			return err
		}
	}
	return nil
}

// Many may be ended at once, and those that never answer are waited for. On
// Linux they hold no goroutines meanwhile, and nobody waits behind them.
func TestGoodbyesOfMany(t *testing.T) {
	const n = 150
	for _, secure := range []bool{false, true} {
		for name, route := range map[string]func(*presence.Presence) http.Handler{"handler": handle(drop), "callback": callback} {
			t.Run(fmt.Sprintf("%s, tls %v", name, secure), func(t *testing.T) {
				before := count()
				o := noBeats()
				o.CloseTimeout = 10 * time.Minute
				s := newSite(t, siteSetup{Options: o, secure: secure, route: route})
				mute := s.mute(n)
				quick := s.conn()
				prove(t, quick, "/?user=quick")
				s.connected("quick").Disconnect(presence.Reason{})
				require.Equal(t, 4403, lastWord(t, quick))
				if secure, ok := quick.(*tls.Conn); ok { // it waits for the server to close first
					require.NoError(t, secure.CloseWrite())
					_, err := io.Copy(io.Discard, secure.NetConn())
					require.NoError(t, err)
				}
				quick.Close()
				eventually(t, func() bool { return s.closed(quick) }, "who answers should not be waited for")
				for _, nc := range mute {
					require.False(t, s.closed(nc))
				}
				if runtime.GOOS == "linux" {
					eventually(t, func() bool { return runtime.NumGoroutine() < before.goroutines+n/2 }, "nobody should wait on a goroutine")
				}
				for _, nc := range mute {
					nc.Close()
				}
				eventually(t, func() bool { return s.countAll() == 0 }, "who has gone should not be waited for")
			})
		}
	}
}

// mute are clients that have been told to go, and do not answer.
func (s *site) mute(n int) (all []net.Conn) {
	for i := range n {
		nc := s.conn()
		prove(s.t, nc, fmt.Sprintf("/?user=u%d", i))
		all = append(all, nc)
	}
	for i := range n {
		s.connected(fmt.Sprintf("u%d", i)).Disconnect(presence.Reason{})
	}
	for _, nc := range all {
		require.Equal(s.t, 4403, lastWord(s.t, nc))
	}
	return all
}

// lastWord is the code of the close frame, where only that is left to read.
func lastWord(t *testing.T, nc net.Conn) int {
	t.Helper()
	require.NoError(t, nc.SetReadDeadline(time.Now().Add(30*time.Second)))
	b, err := io.ReadAll(nc)
	require.NoError(t, err)
	require.NotEmpty(t, b)
	return wstest.Frame{Payload: b[2:]}.Code()
}

func TestGoodbyesAreCutOff(t *testing.T) {
	overBoth(t, func(t *testing.T, secure bool) {
		o := noBeats()
		o.CloseTimeout = 2 * time.Second
		s := newSite(t, siteSetup{Options: o, secure: secure, route: callback})
		for _, nc := range s.mute(50) {
			eventually(t, func() bool { return s.closed(nc) }, "it should be closed after CloseTimeout")
		}
		eventually(t, func() bool { return s.countAll() == 0 }, "none should be left")
	})
}

// Who does not even read what was sent before holds up nobody else.
func TestGoodbyesOverFullSockets(t *testing.T) {
	overBoth(t, func(t *testing.T, secure bool) {
		o := noBeats()
		o.CloseTimeout = 10 * time.Minute
		s := newSite(t, siteSetup{Options: o, secure: secure, send: 8 << 10, route: func(p *presence.Presence) http.Handler {
			return p.Callback(func(r *http.Request, c *presence.Peer) (presence.Callbacks, error) {
				if r.URL.Query().Get("user") == "quick" {
					return presence.Callbacks{}, nil
				}
				return presence.Callbacks{}, c.Send(websocket.MessageBinary, make([]byte, 1<<20))
			})
		}})
		var full []net.Conn
		for i := range 4 * runtime.GOMAXPROCS(0) { // more than there are workers
			nc, _ := s.slowConn(1<<10, 0)
			full = append(full, nc)
			prove(t, nc, fmt.Sprintf("/?user=u%d", i))
		}
		quick := s.dial("quick")
		for i := range full {
			s.connected(fmt.Sprintf("u%d", i)).Disconnect(presence.Reason{})
		}
		s.connected("quick").Disconnect(presence.Reason{})
		require.Equal(t, 4403, code(t, quick))
		quick.Close()
		eventually(t, func() bool { return s.closed(quick.Conn) }, "who answers should not wait behind others")
		for _, nc := range full {
			require.False(t, s.closed(nc))
			nc.Close()
		}
	})
}

// Shutdown takes no longer than it may. Who was cut off in the middle of
// sending is still heard out.
func TestGoodbyesOutliveShutdown(t *testing.T) {
	overBoth(t, func(t *testing.T, secure bool) {
		o := noBeats()
		o.CloseTimeout = 10 * time.Minute
		s := newSite(t, siteSetup{Options: o, secure: secure, route: handle(deaf)})
		cut := s.p
		var err error
		s.p, err = presence.New(o) // which is shut down with the test
		require.NoError(t, err)
		c := s.dial("ann")
		half, failed := halfway(t, c)
		over, cancel := context.WithCancel(context.Background())
		cancel()
		require.ErrorIs(t, cut.Shutdown(over), context.Canceled)
		close(half)
		require.NoError(t, <-failed, "it should be let finish")
		require.Equal(t, 1012, code(t, c))
		c.Close()
		eventually(t, func() bool { return s.closed(c.Conn) }, "it should be closed")
	})
}
