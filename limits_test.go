package presence_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/memstore"
	"github.com/stretchr/testify/require"
)

// cluster runs f with two nodes that share a store.
func cluster(t *testing.T, o presence.Options, f func(t *testing.T, a, b *bubble)) {
	t.Helper()
	first := o
	first.Store = &lazyStore{}
	inBubble(t, first, nil, func(t *testing.T, a *bubble) {
		o.Store = sharedStore(a)
		f(t, a, a.another(o, nil))
	})
}

// lazyStore is made at its first use, inside of a bubble.
type lazyStore struct {
	once sync.Once
	store.Store
}

func (s *lazyStore) Position(ctx context.Context, shard int) (store.Version, error) {
	s.once.Do(func() { s.Store = memstore.New(memstore.Options{}) })
	return s.Store.Position(ctx, shard)
}

func (b *bubble) all(user string) []presence.SessionInfo {
	b.t.Helper()
	infos, err := b.p.Sessions(b.t.Context(), user)
	require.NoError(b.t, err)
	return infos
}

// A full node can be seen: in the log, but not once for each newcomer, and in
// Stats.
func TestFullNodeIsSeen(t *testing.T) {
	book := &logbook{}
	o := presence.Options{Logger: book.logger(), Limits: presence.Limits{Sessions: 1}}
	inBubble(t, o, nil, func(t *testing.T, b *bubble) {
		require.Equal(t, 1, b.p.Stats().MaxSessions)
		b.dial("/?user=ann")
		const n = 90
		for range n {
			b.refused("/?user=late", http.StatusServiceUnavailable)
			time.Sleep(time.Second)
		}
		_, err := b.p.Open(t.Context(), presence.Identity{User: "late"})
		require.ErrorIs(t, err, presence.ErrUnavailable)
		st := b.p.Stats()
		require.EqualValues(t, n+1, st.NoRoom)
		require.EqualValues(t, n, st.Refused5xx)
		require.Zero(t, st.Refused4xx)
		lines := book.lines("no room")
		require.Len(t, lines, 4, "at once, and twice a minute")
		require.Contains(t, lines[0], `level=WARN msg="presence: no room: newcomers are refused" reason="1 sessions, which is Limits.Sessions" no_room=1`)
		require.Contains(t, lines[1], "no_room=31")

		b.refused("/?user=ann", http.StatusForbidden, "Origin: https://evil.com")
		require.EqualValues(t, 1, b.p.Stats().Refused4xx)
		require.NoError(t, b.p.Shutdown(t.Context()))
		b.refused("/?user=late", http.StatusServiceUnavailable)
		require.EqualValues(t, n+1, b.p.Stats().NoRoom, "shutting down is no lack of room")
	})
}

func TestSessionsLimit(t *testing.T) {
	o := presence.Options{Limits: presence.Limits{Sessions: 3}}
	inBubble(t, o, nil, func(t *testing.T, b *bubble) {
		var clients []*wstest.Client
		for i := range 3 {
			clients = append(clients, b.dial(fmt.Sprintf("/?user=u%d", i)))
		}
		resp := b.refused("/?user=late", http.StatusServiceUnavailable)
		require.NotEmpty(t, resp.Header.Get("Retry-After"))
		resp = get(b.srv.Handler, "/?user=late")
		require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode, "what an upgrade would get")
		_, err := b.p.Open(t.Context(), presence.Identity{User: "late"})
		require.ErrorIs(t, err, presence.ErrUnavailable)
		clients[0].Close()
		wait(2 * time.Second)
		b.dial("/?user=late")
		for _, c := range clients[1:] {
			require.Empty(t, c.Frames, "others are not affected")
		}
		require.Equal(t, 1, b.sessions("late"))
	})
}

func TestVerifyingLimit(t *testing.T) {
	o := presence.Options{Limits: presence.Limits{Verifying: 2}}
	inBubble(t, o, nil, func(t *testing.T, b *bubble) {
		b.dial("/?user=live")
		var mute []*wstest.Client
		for range 2 {
			c, err := wstest.Handshake(b.conn(), "/?user=slow")
			require.NoError(t, err)
			c.Mute.Store(true)
			go c.Read()
			mute = append(mute, c)
		}
		wait(time.Second)
		b.refused("/?user=late", http.StatusServiceUnavailable)
		mute[0].Mute.Store(false)
		require.NoError(t, mute[0].SendText("here"))
		wait(settle)
		b.dial("/?user=next") // the live one's place is free
		wait(10 * time.Second)
		_, verifying := b.p.PlacesTaken()
		require.Zero(t, verifying, "who never proved itself gave its place back")
		require.EqualValues(t, 1, b.p.Stats().Unverified)
		b.dial("/?user=late")
	})
}

func TestUserLimitAcrossNodes(t *testing.T) {
	refuse := presence.Options{Limits: presence.Limits{PerUser: 1}}
	t.Run("refused where it is known", func(t *testing.T) {
		cluster(t, refuse, func(t *testing.T, a, b *bubble) {
			a.dial("/?user=ann")
			resp := a.refused("/?user=ann", http.StatusTooManyRequests)
			require.NotEmpty(t, resp.Header.Get("Retry-After"))
			require.Equal(t, http.StatusTooManyRequests, get(a.srv.Handler, "/?user=ann").StatusCode)
		})
	})
	t.Run("closed where it is found out", func(t *testing.T) {
		cluster(t, refuse, func(t *testing.T, a, b *bubble) {
			first := a.dial("/?user=ann")
			second := b.dial("/?user=ann")
			wait(3 * time.Second)
			require.Len(t, second.Frames, 1)
			require.Equal(t, 4429, (<-second.Frames).Code())
			require.Empty(t, first.Frames)
			require.Equal(t, 1, a.sessions("ann"))
			require.Equal(t, 1, b.sessions("ann"))
			wait(time.Minute)
			require.Equal(t, 1, a.sessions("ann"), "the old one stays")
		})
	})
	t.Run("a half-open session locks nobody out", func(t *testing.T) {
		cluster(t, refuse, func(t *testing.T, a, b *bubble) {
			first := a.dial("/?user=ann")
			wait(time.Second)
			first.Mute.Store(true)
			second := b.dial("/?user=ann")
			wait(4 * time.Second)
			require.Empty(t, second.Frames, "let in")
			require.Equal(t, presence.CauseSilent, a.end("ann").Cause)
			infos := b.all("ann")
			require.Len(t, infos, 1)
			require.True(t, infos[0].Local)
			require.Len(t, a.all("ann"), 1)
		})
	})
	t.Run("who gives up while waiting leaves no ghost", func(t *testing.T) {
		cluster(t, refuse, func(t *testing.T, a, _ *bubble) {
			sessions := make(chan *presence.Session, 1)
			o := refuse
			o.Store = sharedStore(a)
			b := a.another(o, func(p *presence.Presence) http.Handler {
				return p.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					sessions <- presence.FromContext(r.Context())
					echo(w, r)
				}))
			})
			first := a.dial("/?user=ann")
			wait(time.Second)
			first.Mute.Store(true)
			b.dial("/?user=ann")
			wait(1100 * time.Millisecond)
			first.Close() // there is room, which the newcomer has not seen yet
			wait(settle)
			(<-sessions).Disconnect(presence.Reason{})
			wait(time.Minute)
			require.Empty(t, a.all("ann"))
			counts, err := a.p.Count(t.Context(), "")
			require.NoError(t, err)
			require.Zero(t, counts.Sessions)
		})
	})
	t.Run("replaced", func(t *testing.T) {
		o := refuse
		o.Limits.WhenUserFull = presence.ReplaceOldest
		cluster(t, o, func(t *testing.T, a, b *bubble) {
			first := a.dial("/?user=ann")
			wait(5 * time.Second)
			second := b.dial("/?user=ann")
			wait(time.Second)
			require.Equal(t, 4409, (<-first.Frames).Code())
			require.Equal(t, presence.CauseReplaced, a.end("ann").Cause)
			require.Empty(t, second.Frames)
			require.Len(t, a.all("ann"), 1)
			require.False(t, a.all("ann")[0].Local)
			third := a.dial("/?user=ann") // within two seconds
			require.Equal(t, 4429, (<-third.Frames).Code())
			wait(5 * time.Second)
			fourth := a.dial("/?user=ann")
			wait(time.Second)
			require.Equal(t, 4409, (<-second.Frames).Code())
			require.Empty(t, fourth.Frames)
			require.Len(t, b.all("ann"), 1)
		})
	})
}

// sharedStore is the store of a node made by cluster.
func sharedStore(b *bubble) store.Store { return presence.StoreOf(b.p).(*lazyStore).Store }

func TestOneOfManyAtOnce(t *testing.T) {
	const n = 20
	for _, rule := range []presence.UserLimit{presence.RefuseNew, presence.ReplaceOldest} {
		t.Run(fmt.Sprint(rule), func(t *testing.T) {
			o := presence.Options{Limits: presence.Limits{PerUser: 1, WhenUserFull: rule}}
			cluster(t, o, func(t *testing.T, a, b *bubble) {
				var clients [n]*wstest.Client
				var all sync.WaitGroup
				for i := range n {
					node := a
					if i%2 == 1 {
						node = b
					}
					nc := node.conn()
					all.Go(func() { clients[i], _ = wstest.Dial(nc, "/?user=ann") })
				}
				all.Wait()
				wait(10 * time.Second)
				left := 0
				for _, c := range clients {
					if c.Response.StatusCode != http.StatusSwitchingProtocols {
						require.Equal(t, http.StatusTooManyRequests, c.Response.StatusCode)
						continue
					}
					if len(c.Frames) == 0 {
						left++
						continue
					}
					require.Contains(t, []int{4429, 4409}, (<-c.Frames).Code())
				}
				require.Equal(t, 1, left)
				require.Len(t, a.all("ann"), 1)
				require.Len(t, b.all("ann"), 1)
				counts, err := a.p.Count(t.Context(), "")
				require.NoError(t, err)
				require.Equal(t, presence.Counts{Users: 1, Sessions: 1}, counts)
				for _, c := range clients {
					c.Close()
				}
			})
		})
	}
}

func TestChallengeWithoutHeartbeats(t *testing.T) {
	o := presence.Options{HeartbeatInterval: -1, Limits: presence.Limits{PerUser: 1}}
	inBubble(t, o, nil, func(t *testing.T, b *bubble) {
		first := b.dial("/?user=ann")
		wait(time.Hour)
		b.refused("/?user=ann", http.StatusTooManyRequests)
		first.Mute.Store(true)
		wait(time.Second)
		start := time.Now()
		b.dial("/?user=ann")
		require.LessOrEqual(t, time.Since(start), 3*time.Second)
		require.Equal(t, presence.CauseSilent, b.end("ann").Cause)
		require.Equal(t, 1, b.sessions("ann"))
	})
}

func TestChallengeSparesWhoCannotBeAsked(t *testing.T) {
	o := presence.Options{Limits: presence.Limits{PerUser: 1}}
	inBubble(t, o, nil, func(t *testing.T, b *bubble) {
		opened, err := b.p.Open(t.Context(), presence.Identity{User: "ann"})
		require.NoError(t, err)
		client, nc, s := b.attach("ben")
		defer client.Close()
		defer nc.Close()
		for range 3 { // each newcomer asks
			wait(5 * time.Second)
			for _, user := range []string{"ann", "ben"} {
				b.refused("/?user="+user, http.StatusTooManyRequests)
			}
		}
		require.NoError(t, opened.Context().Err())
		require.NoError(t, s.Context().Err(), "a quiet client of another protocol is not asked, and not silent yet")
	})
}

func TestManyNewcomersDoNotKeepADeadSession(t *testing.T) {
	o := presence.Options{Limits: presence.Limits{PerUser: 1}}
	inBubble(t, o, nil, func(t *testing.T, b *bubble) {
		b.dial("/?user=ann").Mute.Store(true)
		wait(time.Second)
		var all sync.WaitGroup
		for range 3 { // each asks again before the time of the one before is over
			nc := b.conn()
			all.Go(func() {
				c, _ := wstest.Dial(nc, "/?user=ann")
				b.t.Cleanup(func() { c.Close() })
			})
			wait(time.Second)
		}
		require.Equal(t, presence.CauseSilent, b.end("ann").Cause)
		require.Equal(t, 1, b.sessions("ann"))
		all.Wait()
	})
}

func TestFullUserGraceAndGoodbye(t *testing.T) {
	// A user in grace has no session: it is not full.
	o := presence.Options{Limits: presence.Limits{PerUser: 1}}
	inBubble(t, o, nil, func(t *testing.T, b *bubble) {
		for range 3 {
			c := b.dial("/?user=ann")
			require.Empty(t, c.Frames)
			require.NoError(t, c.SendClose(1001, ""))
			wait(time.Second)
		}
	})
}

func TestNamedLimits(t *testing.T) {
	o := presence.Options{Limits: presence.Limits{TopicsPerSession: 3, NameBytes: 8, MetaBytes: 32}}
	inBubble(t, o, nil, func(t *testing.T, b *bubble) {
		ctx := t.Context()
		s, err := b.p.Open(ctx, presence.Identity{User: "ann", Topics: []string{"a", "", "a"}})
		require.NoError(t, err)
		require.NoError(t, s.SetMeta(ctx, "before"))
		for _, c := range []struct {
			name string
			call func() error
		}{
			{"topic too long", func() error { return s.Join(ctx, "b", "123456789") }},
			{"topic not UTF-8", func() error { return s.Join(ctx, "b", "\xff") }},
			{"topic with zero byte", func() error { return s.Join(ctx, "b", "x\x00") }},
			{"too many topics", func() error { return s.Join(ctx, "b", "c", "d") }},
			{"metadata too large", func() error { return s.SetMeta(ctx, strings.Repeat("m", 40)) }},
			{"user too long", func() error { _, err := b.p.Open(ctx, presence.Identity{User: "123456789"}); return err }},
			{"bad metadata", func() error {
				_, err := b.p.Open(ctx, presence.Identity{Meta: []byte("{")})
				return err
			}},
			{"count", func() error { _, err := b.p.Count(ctx, "123456789"); return err }},
			{"subscribe", func() error { _, err := b.p.Subscribe(ctx, "\xff"); return err }},
			{"members", func() error {
				for _, err := range b.p.Members(ctx, "123456789", "") {
					return err
				}
				return nil
			}},
			{"reason", func() error { _, err := b.p.DisconnectUser(ctx, "ann", presence.Reason{Code: 1000}); return err }},
			{"reason text", func() error {
				_, err := b.p.DisconnectSession(ctx, "ann", s.ID(), presence.Reason{Text: strings.Repeat("x", 124)})
				return err
			}},
		} {
			require.ErrorIs(t, c.call(), presence.ErrLimit, c.name)
		}
		infos := b.all("ann")
		require.Len(t, infos, 1)
		require.Equal(t, []string{"a"}, infos[0].Topics, "none is joined")
		require.JSONEq(t, `"before"`, string(infos[0].Meta))
		require.NoError(t, s.Join(ctx, "b", "c"))
		require.Error(t, s.SetMeta(ctx, func() {}), "no JSON")
	})
}

// Who asks about a name that no user can have is told so, and does not take it
// for somebody who is offline.
func TestNamesNobodyHas(t *testing.T) {
	inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
		ctx := t.Context()
		for _, name := range []string{"", strings.Repeat("u", 257), "\xff", "u\x00"} {
			for what, call := range map[string]func() error{
				"Online":         func() error { _, err := b.p.Online(ctx, name); return err },
				"Lookup":         func() error { _, err := b.p.Lookup(ctx, "ann", name); return err },
				"Sessions":       func() error { _, err := b.p.Sessions(ctx, name); return err },
				"DisconnectUser": func() error { _, err := b.p.DisconnectUser(ctx, name, presence.Reason{}); return err },
				"DisconnectSession": func() error {
					_, err := b.p.DisconnectSession(ctx, name, "0123456789abcdef", presence.Reason{})
					return err
				},
				"Members": func() error {
					for _, err := range b.p.Members(ctx, "", name) {
						return err
					}
					return nil
				},
			} {
				if what == "Members" && name == "" {
					require.NoError(t, call(), "from the start")
					continue
				}
				require.ErrorIs(t, call(), presence.ErrLimit, "%s %.8q", what, name)
			}
		}
		online, err := b.p.Online(ctx, strings.Repeat("u", 256))
		require.NoError(t, err)
		require.False(t, online)
		none, err := b.p.Lookup(ctx)
		require.NoError(t, err)
		require.Empty(t, none)
	})
}

// Anonymous users have names of 16 bytes, also where those of others must be
// shorter.
func TestAnonymousAmongShortNames(t *testing.T) {
	inBubble(t, presence.Options{Limits: presence.Limits{NameBytes: 8}}, nil, func(t *testing.T, b *bubble) {
		ctx := t.Context()
		s, err := b.p.Open(ctx, presence.Identity{})
		require.NoError(t, err)
		wait(settle)
		require.Equal(t, []string{s.User()}, b.members("", ""))
		require.Empty(t, b.members("", s.User()), "what Members has shown is where it may begin")
		s.Disconnect(presence.Reason{})
		wait(settle)
		online, err := b.p.Online(ctx, s.User())
		require.NoError(t, err, "it had that name")
		require.False(t, online)
		_, err = b.p.Online(ctx, "123456789")
		require.ErrorIs(t, err, presence.ErrLimit)
	})
}

func TestMetadataOfOneUser(t *testing.T) {
	inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
		ctx := t.Context()
		var last *presence.Session
		for range 17 { // 17 x 4 KiB is more than 64 KiB
			s, err := b.p.Open(ctx, presence.Identity{User: "ann"})
			require.NoError(t, err)
			last = s
			wait(settle)
			if err = s.SetMeta(ctx, strings.Repeat("m", 4000)); err != nil {
				require.ErrorIs(t, err, presence.ErrLimit)
				break
			}
		}
		require.Nil(t, last.Info().Meta, "the value from before")
		require.NoError(t, last.SetMeta(ctx, "small"))
		online, err := b.p.Online(ctx, "ann")
		require.NoError(t, err)
		require.True(t, online)
	})
}

// attach connects user with a raw connection.
func (b *bubble) attach(user string) (client, server net.Conn, s *presence.Session) {
	b.t.Helper()
	client, nc := net.Pipe()
	server, s, err := b.p.Attach(b.t.Context(), nc, func(net.Conn) (presence.Identity, error) {
		return presence.Identity{User: user}, nil
	})
	require.NoError(b.t, err)
	wait(settle)
	return client, server, s
}
