package presence_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/stretchr/testify/require"
)

// steps notes what happened, in order.
type steps struct {
	mu  sync.Mutex
	all []string
}

func (s *steps) add(step string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, step)
}

func (s *steps) get() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

func TestHookOrder(t *testing.T) {
	var steps steps
	var p *presence.Presence
	locally := func(when, user string) {
		infos, err := p.Sessions(context.Background(), user)
		require.NoError(t, err)
		steps.add(fmt.Sprintf("%s, %d sessions", when, len(infos)))
	}
	o := presence.Options{
		OnConnect: func(s *presence.Session) {
			locally("connect", s.User())
			time.Sleep(time.Second)
			steps.add("connected")
		},
		OnDisconnect: func(s *presence.Session, e presence.End) {
			require.Equal(t, presence.CauseClientClosed, e.Cause)
			require.Equal(t, 1001, e.Code)
			var end *presence.End
			require.ErrorAs(t, context.Cause(s.Context()), &end)
			locally("disconnect", s.User())
		},
	}
	mount := func(pp *presence.Presence) http.Handler {
		p = pp
		return p.Handler(func(ctx context.Context, c *presence.Conn) error {
			steps.add("serve")
			return drop(ctx, c)
		})
	}
	inBubble(t, o, mount, func(t *testing.T, b *bubble) {
		c := b.dial("/?user=ann")
		wait(2 * time.Second)
		require.NoError(t, c.SendClose(1001, ""))
		wait(time.Second)
		require.Equal(t, []string{"connect, 1 sessions", "connected", "serve", "disconnect, 0 sessions"}, steps.get())
	})
}

func TestHooksOverlap(t *testing.T) {
	var release chan struct{}
	var connecting, disconnecting atomic.Int32
	hold := func(n *atomic.Int32) {
		n.Add(1)
		<-release
		n.Add(-1)
	}
	o := presence.Options{
		OnConnect: func(s *presence.Session) {
			if s.User() == "slow" {
				hold(&connecting)
			}
		},
		OnDisconnect: func(s *presence.Session, _ presence.End) {
			if s.User() == "bye" {
				hold(&disconnecting)
			}
		},
	}
	inBubble(t, o, nil, func(t *testing.T, b *bubble) {
		release = make(chan struct{}) // of this bubble
		for range 3 {
			b.dial("/?user=slow")
			require.NoError(t, b.dial("/?user=bye").SendClose(1000, ""))
		}
		wait(time.Second)
		require.EqualValues(t, 3, connecting.Load())
		require.EqualValues(t, 3, disconnecting.Load())
		c := b.dial("/?user=quick")
		require.NoError(t, c.SendText("served meanwhile"))
		require.Equal(t, 1, b.sessions("quick"))
		close(release)
		wait(time.Second)
		require.Zero(t, connecting.Load()+disconnecting.Load())
	})
}

func TestSlowOnConnect(t *testing.T) {
	o := presence.Options{OnConnect: func(*presence.Session) { time.Sleep(5 * time.Minute) }}
	t.Run("misses no heartbeat", func(t *testing.T) {
		inBubble(t, o, nil, func(t *testing.T, b *bubble) {
			c := b.dial("/?user=ann")
			require.NoError(t, c.SendText("kept for later"))
			wait(6 * time.Minute)
			require.Equal(t, 1, b.sessions("ann"))
			require.GreaterOrEqual(t, c.Pings.Load(), int64(10))
		})
	})
	t.Run("and the client dies meanwhile", func(t *testing.T) {
		served := false
		var order steps
		o := o
		inner := o.OnConnect
		o.OnConnect = func(s *presence.Session) { inner(s); order.add("connected") }
		o.OnDisconnect = func(*presence.Session, presence.End) { order.add("disconnected") }
		mount := func(p *presence.Presence) http.Handler {
			return p.Handler(func(context.Context, *presence.Conn) error { served = true; return nil })
		}
		inBubble(t, o, mount, func(t *testing.T, b *bubble) {
			b.dial("/?user=ann").Mute.Store(true)
			wait(time.Minute)
			require.Zero(t, b.sessions("ann"), "reaped in time")
			require.Empty(t, order.get(), "not before OnConnect has returned")
			wait(5 * time.Minute)
			require.Equal(t, []string{"connected", "disconnected"}, order.get())
			require.Equal(t, presence.CauseSilent, b.end("ann").Cause)
			require.False(t, served, "the app gets live connections only")
		})
	})
	t.Run("that disconnects", func(t *testing.T) {
		o := presence.Options{OnConnect: func(s *presence.Session) { s.Disconnect(presence.Reason{Code: 4000, Text: "no"}) }}
		inBubble(t, o, nil, func(t *testing.T, b *bubble) {
			c := b.dial("/?user=ann")
			require.Equal(t, 4000, (<-c.Frames).Code())
			require.Equal(t, presence.CauseKicked, b.end("ann").Cause)
			b.nothingLeft()
		})
	})
}

func TestOneEndIsToldOnce(t *testing.T) {
	inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
		for i := range 20 {
			user := fmt.Sprint("u", i)
			c := b.dial("/?user=" + user)
			s, err := b.p.Sessions(t.Context(), user)
			require.NoError(t, err)
			var all sync.WaitGroup
			all.Go(func() { c.SendClose(1001, "") })
			all.Go(func() { c.Close() })
			for range 3 {
				all.Go(func() { b.p.DisconnectUser(context.Background(), user, presence.Reason{}) })
				all.Go(func() { b.p.DisconnectSession(context.Background(), user, s[0].ID, presence.Reason{}) })
			}
			all.Wait()
			wait(2 * time.Second)
			b.end(user) // exactly one
		}
	})
}

func TestAtMost64HooksAtOnce(t *testing.T) {
	var running, most, done atomic.Int32
	o := presence.Options{OnDisconnect: func(*presence.Session, presence.End) {
		most.Store(max(most.Load(), running.Add(1)))
		time.Sleep(10 * time.Second)
		running.Add(-1)
		done.Add(1)
	}}
	inBubble(t, o, nil, func(t *testing.T, b *bubble) {
		for range 150 {
			_, err := b.p.Open(t.Context(), presence.Identity{User: "ann"})
			require.NoError(t, err)
		}
		n, err := b.p.DisconnectUser(t.Context(), "ann", presence.Reason{})
		require.NoError(t, err)
		require.Equal(t, 150, n)
		wait(25 * time.Second)
		require.EqualValues(t, 64, most.Load())
		wait(10 * time.Second)
		require.EqualValues(t, 150, done.Load())
	})
}

func TestShutdownAwaitsHooks(t *testing.T) {
	for _, c := range []struct {
		name string
		slow func(connect, disconnect *time.Duration)
		raw  func(b *bubble) // how a session comes
	}{
		{"OnDisconnect", func(_, d *time.Duration) { *d = 3 * time.Second }, func(b *bubble) { b.dial("/?user=ann") }},
		{"OnConnect", func(c, _ *time.Duration) { *c = 4 * time.Second }, func(b *bubble) { b.dial("/?user=ann") }},
		{"both", func(c, d *time.Duration) { *c, *d = 2*time.Second, 2*time.Second }, func(b *bubble) { b.dial("/?user=ann") }},
		{"OnDisconnect of Open", func(_, d *time.Duration) { *d = 3 * time.Second }, func(b *bubble) {
			_, err := b.p.Open(context.Background(), presence.Identity{User: "ann"})
			require.NoError(b.t, err)
		}},
		{"OnConnect of Open", func(c, _ *time.Duration) { *c = 4 * time.Second }, func(b *bubble) {
			go b.p.Open(context.Background(), presence.Identity{User: "ann"})
			wait(settle)
		}},
		{"OnDisconnect of who was silent just before", func(_, d *time.Duration) { *d = 3 * time.Second }, func(b *bubble) {
			b.dial("/?user=ann").Mute.Store(true)
			wait(55 * time.Second)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var connect, disconnect time.Duration
			c.slow(&connect, &disconnect)
			var connected, told atomic.Int32
			o := presence.Options{
				OnConnect:    func(*presence.Session) { time.Sleep(connect); connected.Add(1) },
				OnDisconnect: func(*presence.Session, presence.End) { time.Sleep(disconnect); told.Add(1) },
			}
			inBubble(t, o, nil, func(t *testing.T, b *bubble) {
				c.raw(b)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				require.NoError(t, b.p.Shutdown(ctx))
				require.EqualValues(t, 1, connected.Load())
				require.EqualValues(t, 1, told.Load())
			})
		})
	}
}

func TestNoHookWithoutProof(t *testing.T) {
	hooked := atomic.Int32{}
	o := presence.Options{OnConnect: func(*presence.Session) { hooked.Add(1) }, OnDisconnect: func(*presence.Session, presence.End) { hooked.Add(1) }}
	inBubble(t, o, nil, func(t *testing.T, b *bubble) {
		for range 5 {
			c, err := wstest.Handshake(b.conn(), "/?user=ann")
			require.NoError(t, err)
			c.Close() // without having answered
		}
		b.nothingLeft()
		require.Zero(t, hooked.Load())
		require.Zero(t, b.p.Stats().Unverified, "who goes is not silent")
	})
}
