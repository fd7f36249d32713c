package presence_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// tick is the scheduler's, at the default interval.
const tick = 50 * time.Millisecond

func TestSilentIsReapedAtTheRightInstant(t *testing.T) {
	inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
		c := b.dial("/?user=ann")
		last := time.Now().Add(-settle)
		c.Mute.Store(true)
		wait(55*time.Second - settle - time.Millisecond)
		require.Equal(t, 1, b.sessions("ann"), "reaped too early")
		require.GreaterOrEqual(t, c.Pings.Load(), int64(2), "verification and a heartbeat")
		wait(2*tick + time.Millisecond)
		require.Zero(t, b.sessions("ann"), "a ghost")
		e := b.end("ann")
		require.Equal(t, presence.CauseSilent, e.Cause)
		require.WithinDuration(t, last.Add(55*time.Second), e.at, 2*tick)
		require.InDelta(t, 55, e.Quiet.Seconds(), 0.1)
		_, open := <-c.Frames
		require.False(t, open, "silent is a reset, without a close frame")
	})
}

func TestAnsweringIsNeverReaped(t *testing.T) {
	inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
		c := b.dial("/?user=ann")
		wait(time.Hour)
		require.Equal(t, 1, b.sessions("ann"))
		require.InDelta(t, 3600/25, c.Pings.Load(), 3600/25*0.12, "one ping per interval, jitter only shortens")
	})
}

func TestBusyIsNotPinged(t *testing.T) {
	inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
		c := b.dial("/?user=ann")
		verified := c.Pings.Load()
		for range 30 {
			wait(20 * time.Second)
			require.NoError(t, c.SendText("Hello!"))
		}
		require.Equal(t, verified, c.Pings.Load())
		require.Equal(t, 1, b.sessions("ann"))
	})
}

func TestWatchingClientHearsAMessageEveryInterval(t *testing.T) {
	inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
		c := b.dial("/?user=ann")
		require.NoError(t, c.SendText(""))
		synctest.Wait()
		require.Len(t, c.Frames, 1, "an empty message is answered at once")
		require.Empty(t, (<-c.Frames).Payload)
		for range 20 {
			for range 5 { // it talks all the time
				wait(5 * time.Second)
				require.NoError(t, c.SendText("words"))
			}
			wait(2 * tick)
			require.NotEmpty(t, c.Frames, "nothing to hear for an interval")
			for len(c.Frames) > 0 {
				f := <-c.Frames
				require.Equal(t, byte(wstest.Text), f.Op)
				require.Empty(t, f.Payload)
			}
		}
	})
}

func TestEmptyMessagesNeverEchoForEver(t *testing.T) {
	inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
		c := b.dial("/?user=ann")
		require.NoError(t, c.SendText(""))
		for range 10 {
			wait(30 * time.Second)
			beats := len(c.Frames)
			for range beats {
				<-c.Frames
				require.NoError(t, c.SendText("")) // it answers what it hears
			}
			synctest.Wait()
			require.LessOrEqual(t, len(c.Frames), 1)
		}
	})
}

func TestPingIsAnsweredAndNeverSeen(t *testing.T) {
	var seen []string
	serve := func(ctx context.Context, c *presence.Conn) error {
		for {
			_, m, err := c.Read(ctx)
			if err != nil {
				return err
			}
			seen = append(seen, string(m))
		}
	}
	inBubble(t, presence.Options{}, func(p *presence.Presence) http.Handler { return p.Handler(serve) }, func(t *testing.T, b *bubble) {
		c := b.dial("/?user=ann")
		require.NoError(t, c.SendText("ping"))
		require.NoError(t, c.SendText("pings"))
		synctest.Wait()
		require.Equal(t, "pong", string((<-c.Frames).Payload))
		require.Equal(t, []string{"pings"}, seen)
	})
}

func TestDialectsAreOffInMiddleware(t *testing.T) {
	var seen []string
	app := func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		for {
			_, m, err := c.Read(r.Context())
			if err != nil {
				return
			}
			seen = append(seen, string(m))
		}
	}
	mount := func(p *presence.Presence) http.Handler { return p.Middleware(http.HandlerFunc(app)) }
	inBubble(t, presence.Options{}, mount, func(t *testing.T, b *bubble) {
		c := b.dial("/?user=ann")
		require.NoError(t, c.SendText("ping"))
		require.NoError(t, c.SendText(""))
		synctest.Wait()
		require.Equal(t, []string{"ping", ""}, seen)
		require.Empty(t, c.Frames)
	})
}

func TestUnverifiedIsNobody(t *testing.T) {
	served := false
	serve := func(ctx context.Context, c *presence.Conn) error { served = true; return nil }
	connected := false
	o := presence.Options{OnConnect: func(*presence.Session) { connected = true }}
	inBubble(t, o, func(p *presence.Presence) http.Handler { return p.Handler(serve) }, func(t *testing.T, b *bubble) {
		c, err := wstest.Handshake(b.conn(), "/?user=ann")
		require.NoError(t, err)
		c.Mute.Store(true)
		go c.Read()
		wait(10*time.Second - time.Millisecond)
		require.Zero(t, b.sessions("ann"))
		counts, err := b.p.Count(t.Context(), "")
		require.NoError(t, err)
		require.Zero(t, counts.Users)
		wait(10 * time.Millisecond)
		_, open := <-c.Frames
		require.False(t, open, "the connection should be closed")
		require.False(t, served, "the app got an unverified connection")
		require.False(t, connected)
		require.Empty(t, b.ends)
	})
}

func TestIdle(t *testing.T) {
	inBubble(t, presence.Options{IdleTimeout: time.Minute}, nil, func(t *testing.T, b *bubble) {
		c := b.dial("/?user=ann")
		wait(50 * time.Second)
		require.NoError(t, c.SendText("still here"))
		wait(59 * time.Second)
		require.Equal(t, 1, b.sessions("ann"))
		wait(time.Second + 2*tick)
		require.Equal(t, presence.CauseIdle, b.end("ann").Cause)
		require.Equal(t, 4408, (<-c.Frames).Code())
	})
}

// A sign-in that ran out while the client was pending does not go live.
func TestExpiredWhilePending(t *testing.T) {
	for name, route := range mounts {
		t.Run(name, func(t *testing.T) {
			o := presence.Options{
				Identify: func(r *http.Request) (presence.Identity, error) {
					return presence.Identity{User: "ann", Expires: time.Now().Add(time.Second)}, nil
				},
				OnConnect: func(*presence.Session) { t.Error("it went live") },
			}
			inBubble(t, o, route, func(t *testing.T, b *bubble) {
				c, err := wstest.Handshake(b.conn(), "/")
				require.NoError(t, err)
				wait(2 * time.Second)
				c.Mute.Store(true) // this network has no buffers
				go c.Read()
				require.NoError(t, c.SendText("here I am"))
				wait(time.Second)
				require.Equal(t, 4401, (<-c.Frames).Code())
				require.Empty(t, b.ends)
			})
		})
	}
}

func TestExpiry(t *testing.T) {
	o := presence.Options{Identify: func(r *http.Request) (presence.Identity, error) {
		return presence.Identity{User: r.URL.Query().Get("user"), Expires: time.Now().Add(time.Minute)}, nil
	}}
	var ben *presence.Session
	o.OnConnect = func(s *presence.Session) {
		if s.User() == "ben" {
			ben = s
		}
	}
	inBubble(t, o, nil, func(t *testing.T, b *bubble) {
		ann, _ := b.dial("/?user=ann"), b.dial("/?user=ben")
		ben.SetExpires(time.Now().Add(2 * time.Hour))
		wait(time.Minute - time.Second)
		require.Equal(t, 1, b.sessions("ann"))
		wait(time.Second + 2*tick)
		require.Equal(t, presence.CauseExpired, b.end("ann").Cause)
		require.Equal(t, 4401, (<-ann.Frames).Code())
		wait(time.Hour)
		require.Equal(t, 1, b.sessions("ben"), "SetExpires moved it")
		ben.SetExpires(time.Now().Add(time.Second))
		wait(time.Second + 2*tick)
		require.Equal(t, presence.CauseExpired, b.end("ben").Cause)
	})
}

func TestReplaceOldest(t *testing.T) {
	o := presence.Options{Limits: presence.Limits{PerUser: 1, WhenUserFull: presence.ReplaceOldest}}
	inBubble(t, o, nil, func(t *testing.T, b *bubble) {
		first := b.dial("/?user=ann")
		wait(5 * time.Second)
		second := b.dial("/?user=ann")
		require.Equal(t, 4409, (<-first.Frames).Code())
		require.Equal(t, presence.CauseReplaced, b.end("ann").Cause)
		require.Equal(t, 1, b.sessions("ann"))
		third := b.dial("/?user=ann") // within two seconds: no ping-pong
		require.Equal(t, 4429, (<-third.Frames).Code())
		require.Empty(t, second.Frames)
		require.Equal(t, 1, b.sessions("ann"))
	})
}

func TestRefuseNewChallengesTheOldest(t *testing.T) {
	o := presence.Options{Limits: presence.Limits{PerUser: 1}}
	inBubble(t, o, nil, func(t *testing.T, b *bubble) {
		first := b.dial("/?user=ann")
		resp := b.refused("/?user=ann", http.StatusTooManyRequests)
		require.NotEmpty(t, resp.Header.Get("Retry-After"))
		require.Equal(t, 1, b.sessions("ann"))
		wait(time.Second)
		first.Mute.Store(true) // half-open
		start := time.Now()
		second := b.dial("/?user=ann")
		require.LessOrEqual(t, time.Since(start), 3*time.Second, "locked out by a dead socket")
		require.Equal(t, presence.CauseSilent, b.end("ann").Cause)
		wait(time.Minute)
		require.Equal(t, 1, b.sessions("ann"))
		require.Empty(t, second.Frames)
	})
}

func TestDrainIsPaced(t *testing.T) {
	const n = 100
	inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
		var clients []*wstest.Client
		for i := range n {
			clients = append(clients, b.dial(fmt.Sprintf("/?user=u%d", i)))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		start := time.Now()
		done := make(chan error)
		go func() { done <- b.p.Shutdown(ctx) }()
		synctest.Wait()
		b.refused("/?user=late", http.StatusServiceUnavailable)
		require.NoError(t, <-done)
		require.NoError(t, b.p.Shutdown(ctx), "again: the same result")
		buckets := map[int]int{}
		retries := map[string]bool{}
		for _, e := range b.ends {
			require.Equal(t, presence.CauseShutdown, e.Cause)
			buckets[int(e.at.Sub(start)/time.Second)]++
		}
		require.Len(t, b.ends, n)
		require.Len(t, buckets, 5, "spread over half of the time: %v", buckets)
		for second, k := range buckets {
			require.InDelta(t, n/5, k, 3, "second %d", second)
		}
		for _, c := range clients {
			f := <-c.Frames
			require.Equal(t, 1012, f.Code())
			require.True(t, strings.HasPrefix(f.Reason(), "retry="), f.Reason())
			retries[f.Reason()] = true
		}
		require.Greater(t, len(retries), n/2, "retry is random")
	})
}
