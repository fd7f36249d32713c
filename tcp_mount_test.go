//go:build unix

package presence_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// echoes are the same app in the three ways to write it. served counts the
// connections that the app got.
func echoes(served *atomic.Int64) map[string]func(*presence.Presence) http.Handler {
	loop := func(ctx context.Context, c *websocket.Conn) error {
		served.Add(1)
		for {
			typ, b, err := c.Read(ctx)
			if err != nil {
				return err
			}
			if err := c.Write(ctx, typ, b); err != nil {
				return err
			}
		}
	}
	return map[string]func(*presence.Presence) http.Handler{
		"handler": func(p *presence.Presence) http.Handler {
			return p.Handler(func(ctx context.Context, c *presence.Conn) error { return loop(ctx, c.Conn) })
		},
		"callback": func(p *presence.Presence) http.Handler {
			return p.Callback(func(r *http.Request, peer *presence.Peer) (presence.Callbacks, error) {
				return presence.Callbacks{Message: func(ctx context.Context, typ websocket.MessageType, b []byte) error {
					served.Add(1)
					return peer.Send(typ, b)
				}}, nil
			})
		},
		"middleware": func(p *presence.Presence) http.Handler {
			return p.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c, err := websocket.Accept(w, r, nil)
				if err != nil {
					return
				}
				defer c.CloseNow()
				_ = loop(r.Context(), c)
			}))
		},
	}
}

// Whoever upgrades and says nothing is nobody, whoever answers is served and
// kept under heartbeat that the app never sees, and the end is told.
func TestMountsOverTheNetwork(t *testing.T) {
	overBoth(t, func(t *testing.T, secure bool) {
		for _, name := range []string{"handler", "callback", "middleware"} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				var served atomic.Int64
				o := beats()
				o.VerifyTimeout = 4 * time.Second
				s := newSite(t, siteSetup{Options: o, secure: secure, route: echoes(&served)[name]})

				mute, err := wstest.Handshake(s.conn(), "/?user=mute")
				require.NoError(t, err)
				mute.Mute.Store(true)
				go mute.Read()
				eventually(t, func() bool { return s.closed(mute.Conn) }, "VerifyTimeout should close it")
				require.Zero(t, served.Load(), "the app got an unverified connection")
				require.Zero(t, s.count("mute"))

				c := s.dial("ann")
				require.NoError(t, c.SendText("one"))
				require.Equal(t, "one", message(t, c))
				beaten(t, 3, c)
				require.NoError(t, c.SendText("two"))
				require.Equal(t, "two", message(t, c), "something else came in between")
				s.stays("ann")

				require.NoError(t, c.SendClose(1001, "bye"))
				require.Equal(t, 1001, code(t, c))
				e := s.end("ann")
				require.Equal(t, presence.CauseClientClosed, e.Cause)
				require.Equal(t, 1001, e.Code)

				ben := s.dial("ben")
				ben.Mute.Store(true)
				e = s.end("ben")
				require.Equal(t, presence.CauseSilent, e.Cause)

				cat := s.dial("cat")
				found, err := s.p.DisconnectSession(t.Context(), "cat", s.connected("cat").ID(), presence.Reason{Code: 4100, Text: "enough"})
				require.NoError(t, err)
				require.True(t, found)
				require.Equal(t, 4100, code(t, cat))
				require.Equal(t, presence.CauseKicked, s.end("cat").Cause)
				_, told := s.told("mute")
				require.False(t, told, "nobody's end was told")
			})
		}
	})
}

// TestAskedAgain over sockets and TLS, where the first wait ends by a deadline of
// the connection.
func TestAskedAgainOverTheNetwork(t *testing.T) {
	overBoth(t, func(t *testing.T, secure bool) {
		var served atomic.Int64
		s := newSite(t, siteSetup{Options: presence.Options{}, secure: secure, route: echoes(&served)["handler"]})
		c, err := wstest.Handshake(s.conn(), "/?user=ann")
		require.NoError(t, err)
		defer c.Close()
		c.Mute.Store(true)
		go c.Read()
		eventually(t, func() bool { return c.Pings.Load() == 1 }, "the first ping")
		c.Mute.Store(false)
		s.connected("ann")
		require.EqualValues(t, 2, c.Pings.Load())
		require.NoError(t, c.SendText("one"))
		require.Equal(t, "one", message(t, c))
	})
}
