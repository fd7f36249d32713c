package presence_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/memstore"
	"github.com/stretchr/testify/require"
)

// next returns the next event, which must be there by now or come within a minute.
func next(t *testing.T, sub *presence.Subscription) presence.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	e, err := sub.Next(ctx)
	require.NoError(t, err)
	return e
}

// pending returns the events that have happened.
func pending(t *testing.T, sub *presence.Subscription) (events []presence.Event) {
	t.Helper()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		e, err := sub.Next(ctx)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return events
		}
		require.NoError(t, err)
		events = append(events, e)
	}
}

// told is the kinds, users and causes of events.
func told(events []presence.Event) (lines []string) {
	for _, e := range events {
		line := e.Kind.String() + " " + e.Member.User
		if e.Cause != "" {
			line += " " + string(e.Cause)
		}
		lines = append(lines, line)
	}
	return lines
}

// subscribe follows a topic, its first Snapshot taken.
func (b *bubble) subscribe(topic string) *presence.Subscription {
	b.t.Helper()
	sub := b.follow(topic).sub
	require.Equal(b.t, presence.Snapshot, next(b.t, sub).Kind)
	return sub
}

func (b *bubble) follow(topic string) *follower {
	b.t.Helper()
	sub, err := b.p.Subscribe(b.t.Context(), topic)
	require.NoError(b.t, err)
	b.t.Cleanup(sub.Close)
	return &follower{sub: sub}
}

func TestEventsOfGrace(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(b *bubble, c *wstest.Client)
		now  []string // within a second
		then []string // within a minute
	}{
		{"a reload", func(b *bubble, c *wstest.Client) {
			c.SendClose(1001, "")
			wait(time.Second / 2)
			b.dial("/?user=ann&topic=room")
		}, []string{"update ann", "update ann"}, nil},
		{"closing one of two tabs", func(b *bubble, c *wstest.Client) {
			b.dial("/?user=ann&topic=room")
			c.SendClose(1001, "")
		}, []string{"update ann", "update ann"}, nil},
		{"closing the tab", func(b *bubble, c *wstest.Client) { c.SendClose(1001, "") },
			[]string{"update ann"}, []string{"leave ann client-closed"}},
		{"the network", func(b *bubble, c *wstest.Client) { c.Close() },
			[]string{"update ann"}, []string{"leave ann lost"}},
		{"a kick", func(b *bubble, c *wstest.Client) { b.p.DisconnectUser(context.Background(), "ann", presence.Reason{}) },
			[]string{"leave ann kicked"}, nil},
		{"a kick in the grace", func(b *bubble, c *wstest.Client) {
			c.SendClose(1001, "")
			wait(time.Second / 2)
			b.p.DisconnectUser(context.Background(), "ann", presence.Reason{})
		}, []string{"update ann", "leave ann client-closed"}, nil},
		{"leaving the topic", func(b *bubble, c *wstest.Client) {
			s := presence.SessionOf(b.p, b.all("ann")[0].ID)
			require.NoError(b.t, s.Leave(context.Background(), "room"))
		}, []string{"leave ann left"}, nil},
		{"silence", func(b *bubble, c *wstest.Client) {
			c.Mute.Store(true)
			wait(55*time.Second + 3*tick)
		}, []string{"update ann"}, []string{"leave ann silent"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
				client := b.dial("/?user=ann&topic=room&topic=other")
				b.dial("/?user=witness&topic=other")
				room, other := b.subscribe("room"), b.subscribe("other")
				c.do(b, client)
				wait(time.Second / 2)
				require.Equal(t, c.now, told(pending(t, room)))
				wait(time.Minute)
				require.Equal(t, c.then, told(pending(t, room)), "exactly one")
				if c.name == "leaving the topic" {
					require.Equal(t, []string{"update ann"}, told(pending(t, other)), "of its list of topics")
					require.Equal(t, presence.Online, b.status("ann").State)
				}
				b.user("ann", "room")
				wait(settle)
				if len(c.then) > 0 {
					require.Equal(t, []string{"join ann"}, told(pending(t, room)))
				}
			})
		})
	}
}

func TestLeaveComesWhenTheGraceEnds(t *testing.T) {
	inBubble(t, presence.Options{LeaveGrace: 7 * time.Second}, nil, func(t *testing.T, b *bubble) {
		c := b.dial("/?user=ann&topic=room")
		sub := b.subscribe("room")
		gone := time.Now()
		c.Close()
		e := next(t, sub)
		require.Equal(t, presence.Grace, e.Member.State)
		require.Zero(t, e.Member.Sessions)
		came := e.Member.Since
		require.False(t, came.IsZero())
		e = next(t, sub)
		require.Equal(t, presence.Leave, e.Kind)
		require.Equal(t, came, e.Member.Since, "how long the visit was")
		require.Equal(t, presence.CauseLost, e.Cause)
		require.Equal(t, "room", e.Topic)
		require.Equal(t, "ann", e.Member.User)
		require.WithinDuration(t, gone.Add(7*time.Second), time.Now(), 200*time.Millisecond)
		require.WithinDuration(t, time.Now(), e.At, 200*time.Millisecond)
	})
}

func TestEventsAcrossNodes(t *testing.T) {
	cluster(t, presence.Options{}, func(t *testing.T, a, b *bubble) {
		sub := a.subscribe("room")
		c := b.dial("/?user=ann&topic=room")
		require.Equal(t, []string{"join ann"}, told(pending(t, sub)))
		c.SendClose(1001, "")
		wait(time.Second)
		a.dial("/?user=ann&topic=room") // a reload that lands on the other node
		wait(time.Minute)
		require.Equal(t, []string{"update ann", "update ann"}, told(pending(t, sub)))
	})
}

// mute is a store that does not answer who wants to watch.
type mute struct{ store.Store }

func (mute) Watch(ctx context.Context, _ string) (store.Feed, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestSubscribeWhileTheStoreSaysNothing(t *testing.T) {
	o := presence.Options{Store: mute{memstore.New(memstore.Options{})}}
	inBubble(t, o, nil, func(t *testing.T, b *bubble) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := b.p.Subscribe(ctx, "room")
		require.ErrorIs(t, err, presence.ErrUnknown)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

func TestSubscribeEnds(t *testing.T) {
	inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
		ctx := t.Context()
		sub := b.subscribe("room")
		other := b.subscribe("room")
		waiting := make(chan error, 2)
		for _, s := range []*presence.Subscription{sub, other} {
			go func() {
				_, err := s.Next(context.Background())
				waiting <- err
			}()
		}
		wait(time.Second)
		sub.Close()
		sub.Close()
		require.ErrorIs(t, <-waiting, presence.ErrClosed)
		require.Empty(t, waiting, "the other one goes on")
		require.NoError(t, b.p.Shutdown(ctx))
		require.ErrorIs(t, <-waiting, presence.ErrClosed)
		_, err := b.p.Subscribe(ctx, "room")
		require.ErrorIs(t, err, presence.ErrClosed)
	})
}

func TestAllEvents(t *testing.T) {
	inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
		sub, err := b.p.Subscribe(t.Context(), "")
		require.NoError(t, err)
		b.user("ann")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var kinds []presence.Kind
		for e, err := range sub.All(ctx) {
			if err != nil {
				require.ErrorIs(t, err, context.DeadlineExceeded)
				break
			}
			kinds = append(kinds, e.Kind)
		}
		require.Equal(t, []presence.Kind{presence.Snapshot, presence.Join}, kinds)
	})
}

func TestTooLargeForASnapshot(t *testing.T) {
	o := presence.Options{Limits: presence.Limits{SnapshotMembers: 10, SubscriberEvents: 4}}
	inBubble(t, o, nil, func(t *testing.T, b *bubble) {
		sub := b.subscribe("room")
		for i := range 10 {
			b.user(fmt.Sprint("u", i), "room")
			wait(settle)
		}
		_, err := b.p.Subscribe(t.Context(), "room")
		require.NoError(t, err)
		for range 10 {
			_ = pending(t, sub)
		}
		for i := range 5 { // mere growth ends nothing
			b.user(fmt.Sprint("v", i), "room")
			wait(settle)
			require.Len(t, pending(t, sub), 1)
		}
		_, err = b.p.Subscribe(t.Context(), "room")
		require.ErrorIs(t, err, presence.ErrTooLarge)
		require.EqualError(t, err, "presence: subscribe: topic too large: 15 members, at most 10")
		for i := range 20 { // now it falls behind, and needs a snapshot
			b.user(fmt.Sprint("w", i), "room")
			wait(settle)
		}
		_, err = sub.Next(t.Context())
		require.ErrorIs(t, err, presence.ErrTooLarge)
		require.EqualError(t, err, "presence: subscribe: topic too large: 35 members, at most 10")
	})
}

// fold applies an event to what a subscriber knows.
func fold(t *testing.T, known map[string]presence.Member, e presence.Event) map[string]presence.Member {
	t.Helper()
	if e.Kind == presence.Snapshot {
		known = map[string]presence.Member{}
		for _, m := range e.Members {
			known[m.User] = m
		}
		return known
	}
	_, there := known[e.Member.User]
	switch e.Kind {
	case presence.Join:
		require.False(t, there, "join of %s, who is there", e.Member.User)
		known[e.Member.User] = e.Member
	case presence.Update:
		require.True(t, there, "update of %s, who is not there", e.Member.User)
		known[e.Member.User] = e.Member
	case presence.Leave:
		require.True(t, there, "leave of %s, who is not there", e.Member.User)
		delete(known, e.Member.User)
	}
	return known
}

func TestFoldedEventsAreTheMembers(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			o := presence.Options{LeaveGrace: 2 * time.Second, Limits: presence.Limits{SubscriberEvents: 16}}
			cluster(t, o, func(t *testing.T, a, b *bubble) {
				ctx := t.Context()
				r := rand.New(rand.NewPCG(seed, 1))
				topics := []string{"red", "blue"}
				quick, slow := map[string]*follower{}, map[string]*follower{}
				for _, topic := range append(topics, "") {
					quick[topic] = a.follow(topic)
					slow[topic] = b.follow(topic)
					slow[topic].read(t) // the first Snapshot, and nothing for long
				}
				var live []*presence.Session
				for range 300 {
					node := []*bubble{a, b}[r.IntN(2)]
					switch k := r.IntN(12); {
					case k < 4 || len(live) == 0:
						live = append(live, node.user(fmt.Sprint("u", r.IntN(8)), topics[:r.IntN(3)]...))
					case k < 6:
						live[r.IntN(len(live))].Disconnect(presence.Reason{}) // no grace
					case k < 8:
						presence.Lose(live[r.IntN(len(live))]) // with one
					case k < 9:
						_ = live[r.IntN(len(live))].Join(ctx, topics[r.IntN(2)])
					case k < 10:
						_ = live[r.IntN(len(live))].Leave(ctx, topics[r.IntN(2)])
					case k < 11:
						_ = live[r.IntN(len(live))].SetMeta(ctx, r.IntN(3))
					default:
						wait(time.Duration(r.IntN(3000)) * time.Millisecond)
					}
					for _, f := range quick {
						f.read(t)
					}
				}
				wait(time.Second)
				for _, topic := range append(topics, "") {
					for name, f := range map[string]*follower{"quick": quick[topic], "slow": slow[topic]} {
						f.read(t)
						want := map[string]presence.Member{}
						for m, err := range a.p.Members(ctx, topic, "") {
							require.NoError(t, err)
							want[m.User] = m
						}
						require.Len(t, f.known, len(want), "%s in %q", name, topic)
						for user, m := range want {
							got := f.known[user]
							// These move without an event.
							got.AsOf, got.LastSeen, m.AsOf, m.LastSeen = time.Time{}, time.Time{}, time.Time{}, time.Time{}
							require.True(t, reflect.DeepEqual(m, got), "%s in %q: %+v, not %+v", name, topic, got, m)
						}
					}
				}
				require.Greater(t, slow[""].snapshots, 1, "it fell behind")
				require.Equal(t, 1, quick[""].snapshots)
			})
		})
	}
}

// follower folds what a subscription says.
type follower struct {
	sub       *presence.Subscription
	known     map[string]presence.Member
	snapshots int
}

func (f *follower) read(t *testing.T) {
	t.Helper()
	for _, e := range pending(t, f.sub) {
		if e.Kind == presence.Snapshot {
			f.snapshots++
		}
		f.known = fold(t, f.known, e)
	}
}
