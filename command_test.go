package presence_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/stretchr/testify/require"
)

func TestGraceByCause(t *testing.T) {
	for _, c := range []struct {
		name  string
		o     presence.Options
		end   func(b *bubble, c *wstest.Client)
		cause presence.Cause
		grace time.Duration
	}{
		{"the client goes away", presence.Options{}, func(_ *bubble, c *wstest.Client) { c.SendClose(1001, "") }, presence.CauseClientClosed, 5 * time.Second},
		{"the client says goodbye", presence.Options{}, func(_ *bubble, c *wstest.Client) { c.SendClose(1000, "") }, presence.CauseClientClosed, 5 * time.Second},
		{"the network", presence.Options{}, func(_ *bubble, c *wstest.Client) { c.Close() }, presence.CauseLost, 5 * time.Second},
		{"a longer grace", presence.Options{LeaveGrace: time.Minute}, func(_ *bubble, c *wstest.Client) { c.Close() }, presence.CauseLost, time.Minute},
		{"no grace", presence.Options{LeaveGrace: -1}, func(_ *bubble, c *wstest.Client) { c.Close() }, presence.CauseLost, 0},
		{"silent", presence.Options{}, func(_ *bubble, c *wstest.Client) {
			c.Mute.Store(true)
			wait(55*time.Second + 2*tick)
		}, presence.CauseSilent, 5 * time.Second},
		{"protocol error", presence.Options{}, func(_ *bubble, c *wstest.Client) { c.Write([]byte{0xff, 0xff}) }, presence.CauseProtocolError, 5 * time.Second},
		{"kicked", presence.Options{}, func(b *bubble, _ *wstest.Client) {
			b.p.DisconnectUser(context.Background(), "ann", presence.Reason{})
		}, presence.CauseKicked, 0},
		{"idle", presence.Options{IdleTimeout: time.Minute}, func(*bubble, *wstest.Client) { wait(time.Minute + 2*tick) }, presence.CauseIdle, 0},
		{"flooding", presence.Options{}, func(_ *bubble, c *wstest.Client) { go c.Write(flood(wstest.Pong)) }, presence.CauseLimit, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, c.o, nil, func(t *testing.T, b *bubble) {
				client := b.dial("/?user=ann&topic=room")
				c.end(b, client)
				wait(settle)
				require.Equal(t, c.cause, b.end("ann").Cause)
				require.Zero(t, b.sessions("ann"))
				if c.grace > 0 {
					st := b.status("ann")
					require.Equal(t, presence.Grace, st.State)
					require.Zero(t, st.Sessions)
					online, err := b.p.Online(t.Context(), "ann")
					require.NoError(t, err)
					require.True(t, online)
					require.Equal(t, presence.Counts{Users: 1}, b.count("room"))
					require.Equal(t, []string{"ann"}, b.members("", ""))
					wait(c.grace - 200*time.Millisecond)
					require.Equal(t, presence.Grace, b.status("ann").State)
					wait(250 * time.Millisecond)
				}
				require.Equal(t, presence.Offline, b.status("ann").State)
				online, err := b.p.Online(t.Context(), "ann")
				require.NoError(t, err)
				require.False(t, online)
				require.Zero(t, b.count("room"))
				require.Empty(t, b.members("", ""))
			})
		})
	}
}

func TestReloadIsNeverOffline(t *testing.T) {
	inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
		since := time.Now()
		c := b.dial("/?user=ann")
		for i := range 10 {
			c.SendClose(1001, "")
			for range 4 {
				wait(time.Second)
				require.NotEqual(t, presence.Offline, b.status("ann").State, "reload %d", i)
			}
			c = b.dial("/?user=ann")
			require.Equal(t, presence.Online, b.status("ann").State)
		}
		require.WithinDuration(t, since, b.status("ann").Since, time.Second, "here all the while")
	})
}

func TestDisconnectUser(t *testing.T) {
	cluster(t, presence.Options{}, func(t *testing.T, a, b *bubble) {
		clients := []*wstest.Client{a.dial("/?user=ann"), a.dial("/?user=ann"), b.dial("/?user=ann")}
		other := b.dial("/?user=ben")
		told, err := a.p.DisconnectUser(t.Context(), "ann", presence.Reason{Code: 4123, Text: "out with you"})
		require.NoError(t, err)
		require.Equal(t, 3, told, "on both nodes")
		wait(100 * time.Millisecond)
		require.Zero(t, a.sessions("ann"))
		for _, c := range clients {
			f := <-c.Frames
			require.Equal(t, 4123, f.Code())
			require.Equal(t, "out with you", f.Reason())
		}
		require.Equal(t, presence.Offline, b.status("ann").State)
		require.Empty(t, other.Frames)
		told, err = a.p.DisconnectUser(t.Context(), "ann", presence.Reason{})
		require.NoError(t, err)
		require.Zero(t, told)
	})
}

func TestDisconnectSession(t *testing.T) {
	cluster(t, presence.Options{}, func(t *testing.T, a, b *bubble) {
		near, far := a.dial("/?user=ann"), b.dial("/?user=ann")
		infos := a.all("ann")
		for _, c := range []struct {
			name, user, id string
		}{
			{"another user's", "ben", infos[0].ID},
			{"nobody's", "ann", "0123456789abcdef"},
			{"no ID", "ann", "x"},
			{"empty", "ann", "0000000000000000"},
		} {
			found, err := a.p.DisconnectSession(t.Context(), c.user, c.id, presence.Reason{})
			require.NoError(t, err, c.name)
			require.False(t, found, c.name)
		}
		for _, info := range infos {
			found, err := a.p.DisconnectSession(t.Context(), "ann", info.ID, presence.Reason{})
			require.NoError(t, err)
			require.True(t, found)
			wait(100 * time.Millisecond)
		}
		require.Equal(t, 4403, (<-near.Frames).Code())
		require.Equal(t, 4403, (<-far.Frames).Code())
		require.Equal(t, presence.Offline, a.status("ann").State)
	})
}

func TestDisconnectEndsAGrace(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(b *bubble)
	}{
		{"user", func(b *bubble) {
			told, err := b.p.DisconnectUser(context.Background(), "ann", presence.Reason{})
			require.NoError(b.t, err)
			require.Zero(b.t, told, "nobody is there to be told")
		}},
		{"session", func(b *bubble) {
			_, err := b.p.DisconnectSession(context.Background(), "ann", "0123456789abcdef", presence.Reason{})
			require.NoError(b.t, err)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
				b.dial("/?user=ann").Close()
				wait(time.Second)
				require.Equal(t, presence.Grace, b.status("ann").State)
				c.end(b)
				require.Equal(t, presence.Offline, b.status("ann").State)
			})
		})
	}
	t.Run("of a session that goes at the same moment", func(t *testing.T) {
		cluster(t, presence.Options{}, func(t *testing.T, a, b *bubble) {
			s := b.user("ann")
			wait(time.Second)
			presence.Lose(b.user("ben")) // so that what follows waits for the group commit
			presence.Lose(s)
			_, err := a.p.DisconnectUser(t.Context(), "ann", presence.Reason{})
			require.NoError(t, err)
			wait(100 * time.Millisecond)
			require.Equal(t, presence.Offline, a.status("ann").State)
		})
	})
}

func TestDisconnectAtOnce(t *testing.T) {
	inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
		b.dial("/?user=ann")
		s := presence.SessionOf(b.p, b.all("ann")[0].ID)
		start := time.Now()
		s.Disconnect(presence.Reason{Code: 1, Text: strings.Repeat("ü", 100)})
		require.Zero(t, time.Since(start))
		require.Zero(t, b.sessions("ann"))
		e := b.end("ann")
		require.Equal(t, 4403, e.Code, "a bad code")
		require.Len(t, e.Text, 122, "a long text is cut between runes")
		s.Disconnect(presence.Reason{Code: 4000})
		require.Equal(t, 4403, b.end("ann").Code, "the first wins")
	})
}

func TestShutdown(t *testing.T) {
	var serving atomic.Int32
	mount := func(p *presence.Presence) http.Handler {
		return p.Handler(func(ctx context.Context, c *presence.Conn) error {
			serving.Add(1)
			defer serving.Add(-1)
			err := drop(ctx, c)
			time.Sleep(time.Second) // it tidies up
			return err
		})
	}
	for _, own := range []bool{true, false} {
		t.Run(map[bool]string{true: "own store", false: "given store"}[own], func(t *testing.T) {
			o := presence.Options{}
			if !own {
				o.Store = &lazyStore{}
			}
			inBubble(t, o, mount, func(t *testing.T, b *bubble) {
				ctx := t.Context()
				c := b.dial("/?user=ann")
				s, err := b.p.Open(ctx, presence.Identity{User: "ben"})
				require.NoError(t, err)
				first := make(chan error, 1)
				go func() { first <- b.p.Shutdown(ctx) }()
				synctest.Wait()
				b.refused("/?user=late", http.StatusServiceUnavailable)
				require.NotEmpty(t, get(b.srv.Handler, "/").Header.Get("Retry-After"))
				require.NoError(t, b.p.Shutdown(ctx), "waits for the first")
				require.NoError(t, <-first)
				require.Zero(t, serving.Load(), "serve has returned")
				f := <-c.Frames
				require.Equal(t, 1012, f.Code())
				require.Equal(t, presence.CauseShutdown, b.end("ben").Cause)
				require.NoError(t, b.p.Shutdown(ctx), "again")

				_, err = b.p.Online(ctx, "ann")
				require.ErrorIs(t, err, presence.ErrClosed, "Online")
				_, err = b.p.Lookup(ctx, "ann")
				require.ErrorIs(t, err, presence.ErrClosed, "Lookup")
				_, err = b.p.Sessions(ctx, "ann")
				require.ErrorIs(t, err, presence.ErrClosed, "Sessions")
				_, err = b.p.Count(ctx, "")
				require.ErrorIs(t, err, presence.ErrClosed, "Count")
				for _, err := range b.p.Members(ctx, "", "") {
					require.ErrorIs(t, err, presence.ErrClosed, "Members")
				}
				_, err = b.p.Subscribe(ctx, "")
				require.ErrorIs(t, err, presence.ErrClosed, "Subscribe")
				_, err = b.p.DisconnectUser(ctx, "ann", presence.Reason{})
				require.ErrorIs(t, err, presence.ErrClosed, "DisconnectUser")
				_, err = b.p.DisconnectSession(ctx, "ann", s.ID(), presence.Reason{})
				require.ErrorIs(t, err, presence.ErrClosed, "DisconnectSession")
				_, err = b.p.Open(ctx, presence.Identity{User: "ann"})
				require.ErrorIs(t, err, presence.ErrClosed, "Open")
				require.ErrorIs(t, s.Join(ctx, "room"), presence.ErrEnded)
				b.refused("/?user=ann", http.StatusServiceUnavailable)
			})
		})
	}
}

func TestShutdownCutsOff(t *testing.T) {
	stuck := make(chan struct{})
	mount := func(p *presence.Presence) http.Handler {
		return p.Handler(func(context.Context, *presence.Conn) error { <-stuck; return nil })
	}
	inBubble(t, presence.Options{}, mount, func(t *testing.T, b *bubble) {
		stuck = make(chan struct{})
		b.dial("/?user=ann")
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		err := b.p.Shutdown(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.LessOrEqual(t, time.Since(start), 4*time.Second)
		require.Error(t, b.p.Shutdown(t.Context()), "the same result")
		close(stuck)
		b.p, _ = presence.New(presence.Options{}) // for the end of the bubble
		wait(time.Second)
	})
}

func TestUsersOfAShutdownNodeMoveWithoutALeave(t *testing.T) {
	cluster(t, presence.Options{}, func(t *testing.T, a, b *bubble) {
		var clients []*wstest.Client
		for _, user := range []string{"ann", "ben", "cid"} {
			clients = append(clients, a.dial("/?topic=room&user="+user))
		}
		sub := b.subscribe("room")
		done := make(chan error, 1)
		go func() { done <- a.p.Shutdown(context.Background()) }()
		for i, user := range []string{"ann", "ben", "cid"} {
			require.Equal(t, 1012, (<-clients[i].Frames).Code())
			if user != "cid" { // who does not come back
				wait(6 * time.Second)
				b.dial("/?topic=room&user=" + user)
			}
		}
		require.NoError(t, <-done)
		for _, e := range pending(t, sub) {
			require.Equal(t, presence.Update, e.Kind, "nobody flickers")
		}
		wait(time.Minute)
		require.Equal(t, []string{"leave cid shutdown"}, told(pending(t, sub)))
		require.Equal(t, []string{"ann", "ben"}, b.members("room", ""))
	})
}
