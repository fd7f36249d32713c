package mirror_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/mirror"
	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/memstore"
)

// bubble runs a test in fake time. Every goroutine must have ended after it.
func bubble(t *testing.T, o memstore.Options, l mirror.Limits, f func(t *testing.T, r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, o, l)
		defer r.hub.Close()
		f(t, r)
	})
}

func users(from, to int) (names []string) {
	for i := from; i < to; i++ {
		names = append(names, fmt.Sprintf("u%05d", i))
	}
	return names
}

func TestSnapshotThenEvents(t *testing.T) {
	bubble(t, memstore.Options{}, mirror.Limits{}, func(t *testing.T, r *rig) {
		r.add("x", "bob", "ann")
		s := r.subscribe("x")
		r.add("x", "carl")
		r.meta("ann")
		r.remove(store.CauseKicked, "bob")
		r.add("y", "dora")
		e, err := s.Next(bg)
		require.NoError(t, err)
		require.Equal(t, "snapshot ann bob", say(e)) // taken before Subscribe returned
		require.Equal(t, "x", e.Topic)
		require.NotEmpty(t, e.Version)
		require.False(t, e.At.IsZero())
		require.Equal(t, []string{"join carl", "update ann", "leave bob kicked"}, r.rest(s))
		s.Close()
		_, err = s.Next(bg)
		require.ErrorIs(t, err, mirror.ErrClosed)
		s.Close()
	})
}

func TestOneFeedForAll(t *testing.T) {
	bubble(t, memstore.Options{}, mirror.Limits{}, func(t *testing.T, r *rig) {
		var subs []*mirror.Subscription
		for range 20 {
			s := r.subscribe("x")
			require.Equal(t, "snapshot", r.next1(s))
			subs = append(subs, s)
		}
		r.add("x", "ann")
		for _, s := range subs {
			require.Equal(t, "join ann", r.next1(s))
		}
		require.Equal(t, 1, r.at.watches)
		for _, s := range subs[1:] {
			s.Close()
		}
		require.Equal(t, 1, r.at.watches)
		require.Zero(t, r.at.closes)
		subs[0].Close()
		synctest.Wait()
		require.Equal(t, 1, r.at.closes)
		r.add("x", "bob")
		s := r.subscribe("x") // a new mirror, which knows of both
		require.Equal(t, "snapshot ann bob", r.next1(s))
		require.Equal(t, 2, r.at.watches)
	})
}

func TestJoinAndLeaveAreNotLost(t *testing.T) {
	bubble(t, memstore.Options{}, mirror.Limits{}, func(t *testing.T, r *rig) {
		s := r.subscribe("x")
		r.next1(s)
		r.add("x", "first") // the rest waits for 10 ms, and comes in one batch
		synctest.Wait()
		r.add("x", "ann")
		r.meta("ann")
		r.meta("ann")
		r.remove(store.CauseLost, "ann")
		r.add("x", "ann")
		r.meta("ann")
		r.meta("ann")
		require.Equal(t, []string{"join first", "join ann", "update ann", "leave ann lost", "join ann", "update ann"}, r.rest(s))
	})
}

func TestNextLosesNothingToAContext(t *testing.T) {
	bubble(t, memstore.Options{}, mirror.Limits{}, func(t *testing.T, r *rig) {
		s := r.subscribe("x")
		r.next1(s)
		for i, u := range users(0, 50) {
			ctx, cancel := context.WithTimeout(bg, time.Duration(i)*time.Millisecond)
			_, err := s.Next(ctx)
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded)
			r.add("x", u)
			require.Equal(t, "join "+u, r.next1(s))
		}
	})
}

// A slow subscriber gets one Snapshot in place of what it missed; the others
// see every event.
func TestSlowSubscriber(t *testing.T) {
	bubble(t, memstore.Options{}, mirror.Limits{SubscriberEvents: 8}, func(t *testing.T, r *rig) {
		slow, fast, late := r.subscribe("x"), r.subscribe("x"), r.subscribe("x")
		require.Equal(t, "snapshot", r.next1(slow))
		require.Equal(t, "snapshot", r.next1(fast))
		for _, u := range users(0, 30) {
			r.add("x", u)
			require.Equal(t, "join "+u, r.next1(fast))
			time.Sleep(20 * time.Millisecond)
		}
		r.remove(store.CauseLost, users(0, 25)...)
		time.Sleep(20 * time.Millisecond)
		require.Equal(t, []string{"snapshot u00025 u00026 u00027 u00028 u00029"}, r.rest(slow))
		require.Equal(t, []string{"snapshot u00025 u00026 u00027 u00028 u00029"}, r.rest(late))
		require.Len(t, r.rest(fast), 25)
		r.add("x", "zoe")
		for _, s := range []*mirror.Subscription{slow, late, fast} {
			require.Equal(t, []string{"join zoe"}, r.rest(s))
		}
	})
}

// What arrives at once is no overflow for one who was waiting.
func TestBurstIsNoOverflow(t *testing.T) {
	bubble(t, memstore.Options{}, mirror.Limits{SubscriberEvents: 8}, func(t *testing.T, r *rig) {
		s := r.subscribe("x")
		require.Equal(t, "snapshot", r.next1(s))
		r.add("x", users(0, 3000)...)
		require.Len(t, r.rest(s), 3000)
	})
}

// 10,000 joins, ten in each millisecond, into a topic with 1,000 subscribers.
func TestWokenAtMostEveryTenMilliseconds(t *testing.T) {
	const joins, subscribers = 10_000, 1000
	bubble(t, memstore.Options{}, mirror.Limits{}, func(t *testing.T, r *rig) {
		var all sync.WaitGroup
		for range subscribers {
			s := r.subscribe("x")
			require.Equal(t, "snapshot", r.next1(s))
			all.Go(func() {
				wakes, last := 0, time.Time{}
				for range joins {
					if e, err := s.Next(bg); err != nil || e.Kind != mirror.Join {
						t.Error(e.Kind, err)
						return
					}
					now := time.Now()
					if now.Equal(last) {
						continue
					}
					if wakes > 0 && now.Sub(last) < 10*time.Millisecond {
						t.Errorf("woken again after %v", now.Sub(last))
						return
					}
					wakes, last = wakes+1, now
				}
				if wakes < 98 || wakes > 102 {
					t.Errorf("woken %d times in a second", wakes)
				}
			})
		}
		names := users(0, joins)
		for i := 0; i < joins; i += 10 {
			r.add("x", names[i:i+10]...)
			time.Sleep(time.Millisecond)
		}
		all.Wait()
	})
}

// The log was trimmed: the difference arrives as ordinary events.
func TestReset(t *testing.T) {
	bubble(t, memstore.Options{Log: 2}, mirror.Limits{}, func(t *testing.T, r *rig) {
		r.add("x", "stays", "goes", "changes", "back")
		s := r.subscribe("x")
		require.Equal(t, "snapshot back changes goes stays", r.next1(s))
		time.Sleep(time.Millisecond) // who comes back has another Since
		ops := []store.Op{
			{Kind: store.OpRemove, User: "goes", Session: "goes"},
			{Kind: store.OpRemove, User: "back", Session: "back"},
			{Kind: store.OpMeta, User: "changes", Session: "changes", Meta: []byte("1")},
		}
		for _, u := range []string{"d", "c", "b", "back", "a"} {
			ops = append(ops, store.Op{Kind: store.OpAdd, User: u, Session: u, Topics: []string{"x"}})
		}
		r.commit(ops...)
		require.Equal(t, []string{
			"leave goes", "join a", "join b", "update back", "join c", "update changes", "join d",
		}, r.rest(s))
		require.Equal(t, 1, r.at.watches)
	})
}

// What changes while the pages are read is in the snapshot, also when the log
// forgets it meanwhile.
func TestChangesWhileTheMembersAreRead(t *testing.T) {
	for _, log := range []int{2, 4096} {
		t.Run(fmt.Sprint(log), func(t *testing.T) {
			bubble(t, memstore.Options{Log: log}, mirror.Limits{}, func(t *testing.T, r *rig) {
				r.add("x", users(0, 20)...)
				n := 0
				r.at.between = func() {
					if n++; n <= 3 {
						r.remove(store.CauseLost, users(n, n+1)...)
						r.add("x", users(20*n, 20*n+5)...)
					}
				}
				s := r.subscribe("x")
				e, err := s.Next(bg)
				require.NoError(t, err)
				require.Equal(t, text(r.members("x")), text(e.Members))
				require.Empty(t, r.rest(s))
			})
		})
	}
}

// A feed that skipped a part without saying so is treated the same.
func TestGap(t *testing.T) {
	bubble(t, memstore.Options{}, mirror.Limits{}, func(t *testing.T, r *rig) {
		s := r.subscribe("x")
		require.Equal(t, "snapshot", r.next1(s))
		r.at.mu.Lock()
		r.at.skip = true
		r.at.mu.Unlock()
		r.add("x", "lost")
		require.Empty(t, r.rest(s))
		r.add("x", "ann")
		require.Equal(t, []string{"join ann", "join lost"}, r.rest(s))
	})
}

// While the store cannot tell, subscribers see nothing, and newcomers wait.
func TestHoldAndAway(t *testing.T) {
	for _, trouble := range []error{&store.HoldError{For: 30 * time.Second}, errors.Join(store.ErrUnavailable, errors.New("refused"))} {
		t.Run(trouble.Error(), func(t *testing.T) {
			bubble(t, memstore.Options{Log: 1}, mirror.Limits{}, func(t *testing.T, r *rig) {
				r.add("x", "ann", "bob")
				s := r.subscribe("x")
				require.Equal(t, "snapshot ann bob", r.next1(s))
				r.at.fail(trouble)
				// At once: one change of three is in the log when the feed looks.
				r.commit(append(adding("x", "carl", "dora"), removing(store.CauseLost, "ann")...)...)
				require.Empty(t, r.rest(s))

				ctx, cancel := context.WithTimeout(bg, time.Second)
				defer cancel()
				_, err := r.hub.Subscribe(ctx, "x")
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorIs(t, err, trouble)
				_, err = r.hub.Subscribe(ctx, "y")
				require.ErrorIs(t, err, context.DeadlineExceeded)

				var group sync.WaitGroup
				group.Go(func() {
					s := r.subscribe("x")
					require.Equal(t, "snapshot bob carl dora", r.next1(s))
				})
				time.Sleep(10 * time.Second)
				r.at.fail(nil)
				begun := time.Now()
				require.Equal(t, "leave ann", r.next1(s))
				require.LessOrEqual(t, time.Since(begun), time.Second)
				require.Equal(t, []string{"join carl", "join dora"}, r.rest(s))
				group.Wait()
			})
		})
	}
}

func TestTooLarge(t *testing.T) {
	bubble(t, memstore.Options{}, mirror.Limits{SubscriberEvents: 4, SnapshotMembers: 10}, func(t *testing.T, r *rig) {
		r.add("x", users(0, 10)...)
		fast, slow := r.subscribe("x"), r.subscribe("x")
		r.next1(fast)
		r.next1(slow)
		for _, u := range users(10, 20) {
			r.add("x", u)
			require.Equal(t, "join "+u, r.next1(fast)) // growth ends nothing
			time.Sleep(20 * time.Millisecond)
		}
		_, err := r.hub.Subscribe(bg, "x")
		require.ErrorIs(t, err, mirror.ErrTooLarge)
		_, err = slow.Next(bg)
		require.ErrorIs(t, err, mirror.ErrTooLarge)
		_, err = slow.Next(bg)
		require.ErrorIs(t, err, mirror.ErrTooLarge)
		r.remove(store.CauseLost, users(0, 15)...)
		time.Sleep(20 * time.Millisecond)
		require.Equal(t, []string{"snapshot u00015 u00016 u00017 u00018 u00019"}, r.rest(slow))

		// A topic nobody could subscribe to is not kept.
		r.add("big", users(100, 111)...)
		_, err = r.hub.Subscribe(bg, "big")
		require.ErrorIs(t, err, mirror.ErrTooLarge)
		r.add("big", users(1000, 2200)...) // more than are read
		_, err = r.hub.Subscribe(bg, "big")
		require.EqualError(t, err, "mirror: topic too large: 1211 members, at most 10")
		r.remove(store.CauseLost, append(users(1000, 2200), "u00100")...)
		s := r.subscribe("big")
		require.Len(t, r.rest(s), 1)
	})
}

func TestHubClose(t *testing.T) {
	bubble(t, memstore.Options{}, mirror.Limits{}, func(t *testing.T, r *rig) {
		s, waiting := r.subscribe("x"), r.subscribe("y")
		r.next1(waiting)
		done := make(chan error)
		go func() {
			_, err := waiting.Next(bg)
			done <- err
		}()
		synctest.Wait()
		r.hub.Close()
		r.hub.Close()
		require.ErrorIs(t, <-done, mirror.ErrClosed)
		require.Equal(t, "snapshot", r.next1(s)) // what was there already
		_, err := s.Next(bg)
		require.ErrorIs(t, err, mirror.ErrClosed)
		_, err = r.hub.Subscribe(bg, "x")
		require.ErrorIs(t, err, mirror.ErrClosed)
		s.Close()
	})
}

func TestStoreClose(t *testing.T) {
	bubble(t, memstore.Options{}, mirror.Limits{}, func(t *testing.T, r *rig) {
		s := r.subscribe("x")
		r.next1(s)
		require.NoError(t, r.at.Close())
		_, err := s.Next(bg)
		require.ErrorIs(t, err, mirror.ErrClosed)
		require.ErrorIs(t, err, store.ErrClosed)
		_, err = r.hub.Subscribe(bg, "x")
		require.ErrorIs(t, err, mirror.ErrClosed)
		require.ErrorIs(t, err, store.ErrClosed)
	})
}

// Subscribing and closing at the same moment, over and over, ends with no
// goroutine and no mirror.
func TestComeAndGo(t *testing.T) {
	bubble(t, memstore.Options{}, mirror.Limits{}, func(t *testing.T, r *rig) {
		var group sync.WaitGroup
		for i := range 8 {
			group.Go(func() {
				for range 50 {
					s, err := r.hub.Subscribe(bg, fmt.Sprint(i%2))
					require.NoError(t, err)
					_, err = s.Next(bg)
					require.NoError(t, err)
					s.Close()
				}
			})
		}
		group.Wait()
	})
}

// Snapshots that are made from one another stay right and in order.
func TestSnapshotsShareWhatDidNotChange(t *testing.T) {
	bubble(t, memstore.Options{}, mirror.Limits{}, func(t *testing.T, r *rig) {
		r.add("x", users(0, 500)...)
		keep := r.subscribe("x")
		defer keep.Close()
		old, err := keep.Next(bg)
		require.NoError(t, err)
		before := text(old.Members)
		for i := range 40 {
			r.remove(store.CauseLost, users(i*3, i*3+2)...)
			r.add("x", users(500+i*2, 500+i*2+2)...)
			r.meta("u00400")
			time.Sleep(20 * time.Millisecond)
			s := r.subscribe("x")
			e, err := s.Next(bg)
			require.NoError(t, err)
			require.Equal(t, text(r.members("x")), text(e.Members))
			require.True(t, slices.IsSortedFunc(e.Members, func(a, b store.UserRecord) int {
				return slices.Compare([]byte(a.User), []byte(b.User))
			}))
			s.Close()
		}
		require.Equal(t, before, text(old.Members)) // nobody wrote to it
	})
}
