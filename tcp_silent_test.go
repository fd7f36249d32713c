//go:build unix

package presence_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// chatter is an app that sends 100 B often, whatever comes.
func chatter(every time.Duration) func(context.Context, *presence.Conn) error {
	return func(ctx context.Context, c *presence.Conn) error {
		ctx = c.CloseRead(ctx)
		return talk(ctx, c, every)
	}
}

func talk(ctx context.Context, c *presence.Conn, every time.Duration) error {
	words := []byte(strings.Repeat("x", 100))
	for t := time.NewTicker(every); ; {
		select {
		case <-t.C:
			if err := c.Write(ctx, websocket.MessageText, words); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// handle mounts serve.
func handle(serve func(context.Context, *presence.Conn) error) func(*presence.Presence) http.Handler {
	return func(p *presence.Presence) http.Handler { return p.Handler(serve) }
}

// The kernel of a frozen process goes on to acknowledge all it is sent. That is
// no sign of life, neither for a quiet app nor for one that talks all the time.
func TestFrozenProcessIsReaped(t *testing.T) {
	overBoth(t, func(t *testing.T, secure bool) {
		for name, serve := range map[string]func(context.Context, *presence.Conn) error{
			"quiet": drop, "broadcast": chatter(40 * time.Millisecond),
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newSite(t, siteSetup{Options: beats(), secure: secure, route: handle(serve)})
				ben := s.dial("ben")
				client := start(t, "crowd", plan{Addr: s.addr(), TLS: secure, Path: "/?user=ann", N: 1})
				client.hear("ready")
				s.connected("ann")
				client.ask("beaten")
				client.hear("beaten")
				client.freeze()
				e := s.end("ann")
				require.Equal(t, presence.CauseSilent, e.Cause)
				timeout := beats().HeartbeatTimeout
				require.GreaterOrEqual(t, e.Quiet, timeout)
				require.Less(t, e.Quiet, 2*timeout)
				require.Zero(t, e.Code, "silent is a reset")
				require.Positive(t, ben.Pings.Load())
				s.stays("ben")
			})
		}
	})
}

// A process that dies takes its connections with it, and its kernel says so: no
// heartbeat is needed, whether the app reads or is busy elsewhere.
func TestKilledProcessIsNoticed(t *testing.T) {
	overBoth(t, func(t *testing.T, secure bool) {
		t.Run("at once", func(t *testing.T) {
			t.Parallel()
			s := newSite(t, siteSetup{Options: noBeats(), secure: secure})
			s.killed()
		})
		t.Run("within an interval when the app is not reading", func(t *testing.T) {
			t.Parallel()
			o := presence.Options{HeartbeatInterval: 5 * time.Second, HeartbeatTimeout: time.Hour}
			s := newSite(t, siteSetup{Options: o, secure: secure, route: handle(deaf)})
			e := s.killed()
			require.Less(t, e.Quiet, o.HeartbeatInterval*8/5, "not by the look, but by a write that failed")
		})
	})
}

func (s *site) killed() ended {
	client := start(s.t, "crowd", plan{Addr: s.addr(), TLS: s.secure, Path: "/?user=ann", N: 1})
	client.hear("ready")
	s.connected("ann")
	client.kill()
	e := s.end("ann")
	require.Equal(s.t, presence.CauseLost, e.Cause)
	return e
}

// A server that was stopped for longer than the timeout finds the answers of
// its clients in its kernel, and nobody else.
func TestThawedServerReapsNobodyWhoAnswers(t *testing.T) {
	overBoth(t, func(t *testing.T, secure bool) {
		const n = 20
		o := beats()
		server := start(t, "server", plan{TLS: secure, Beat: o.HeartbeatInterval, Silent: o.HeartbeatTimeout})
		s := &site{t: t, secure: secure}
		s.remote = server.hear("addr ")
		var clients []*wstest.Client
		for i := range n {
			c, err := wstest.Dial(s.conn(), fmt.Sprintf("/%s?user=u%d", []string{"", "deaf"}[i%2], i))
			require.NoError(t, err)
			clients = append(clients, c)
		}
		beaten(t, 2, clients...)
		dead := clients[n-1]
		dead.Mute.Store(true)
		server.freeze()
		time.Sleep(o.HeartbeatTimeout * 3 / 2) // not to wait for something: this is the sleep it is about
		server.thaw()
		require.Equal(t, fmt.Sprintf("u%d silent", n-1), server.hear("end "), "only who does not answer")
		beaten(t, 2, clients[:n-1]...)
		require.Empty(t, server.lines, "somebody was ended who answers")
	})
}

// A server that is busy for longer than the timeout takes its time, not its
// clients.
func TestBusyServerReapsNobodyWhoAnswers(t *testing.T) {
	t.Parallel()
	o := beats()
	server := start(t, "server", plan{Beat: o.HeartbeatInterval, Silent: o.HeartbeatTimeout, Busy: o.HeartbeatTimeout * 3 / 2}, "GOMAXPROCS=1")
	s := &site{t: t, remote: server.hear("addr ")}
	var clients []*wstest.Client
	for i := range 20 {
		c, err := wstest.Dial(s.conn(), fmt.Sprintf("/?user=u%d", i))
		require.NoError(t, err)
		clients = append(clients, c)
	}
	beaten(t, 2, clients...)
	server.ask("busy")
	server.hear("idle")
	beaten(t, 2, clients...)
	require.Empty(t, server.lines, "somebody was ended who answers")
}
