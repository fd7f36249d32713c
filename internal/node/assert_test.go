package node_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/node"
	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/memstore"
)

// behind commits with the node's own lease, without its knowing: what a store
// looks like that lost, or brought back, a part of the past.
func behind(t *testing.T, at *trouble, ops ...store.Op) {
	t.Helper()
	_, err := at.store().Commit(context.Background(), at.lease, ops)
	require.NoError(t, err)
}

func TestLostSessionIsAssertedAgain(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		r := start(t, at, setup{name: "a"})
		defer r.close()
		r.add("u", "s", "x")
		r.add("v", "t", "x")
		r.flush()
		since := lookup(t, at, "v").Sessions[0].Since
		e := watch(t, at, "x")
		behind(t, at, store.Op{Kind: store.OpRemove, User: "u", Session: "s"})
		require.Equal(t, []string{"left u "}, e.news())
		time.Sleep(4 * time.Second)
		require.Equal(t, []string{"joined u "}, e.news()) // and nothing of v
		require.Equal(t, []string{"s"}, online(t, at, "u"))
		require.Equal(t, since, lookup(t, at, "v").Sessions[0].Since)
		time.Sleep(time.Minute)
		require.Equal(t, uint64(1), r.n.Stats().Reasserts)
		require.Len(t, at.ends, 1)
	})
}

func TestGhostLeaves(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		r := start(t, at, setup{name: "a", grace: 2 * time.Second})
		defer r.close()
		r.add("u", "s")
		r.flush()
		behind(t, at, store.Op{Kind: store.OpAdd, User: "ghost", Session: "g"})
		e := watch(t, at, "")
		time.Sleep(3500 * time.Millisecond)
		require.Equal(t, store.Grace, lookup(t, at, "ghost").State)
		time.Sleep(3 * time.Second)
		require.Equal(t, []string{"updated ghost ", "left ghost lost"}, e.news())
	})
}

func TestWipedStore(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		r := start(t, at, setup{name: "a"})
		defer r.close()
		for i := range 500 {
			r.add(fmt.Sprint("u", i), fmt.Sprint("s", i), "x")
		}
		r.flush()
		at.wipe()
		time.Sleep(4 * time.Second)
		p, err := at.Count(context.Background(), "x")
		require.NoError(t, err)
		require.Equal(t, 500, p.Users)
		require.Equal(t, 500, r.n.Stats().Sessions)
		require.True(t, r.n.Valid(0))
		time.Sleep(time.Minute)
		require.Equal(t, uint64(1), r.n.Stats().Reasserts)
		require.Empty(t, at.ends) // the old lease was lost
	})
}

// A node that was cut off for longer than its lease comes back with those
// sessions that still live, and only those.
func TestCutOffLongerThanTheLease(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		r := start(t, at, setup{name: "a"})
		defer r.close()
		other := at.share()
		b := start(t, other, setup{name: "b"})
		defer b.close()
		r.add("stays", "s")
		r.add("goes", "g")
		r.flush()
		e := watch(t, at, "")
		at.set(away)
		time.Sleep(5 * time.Second)
		require.True(t, r.n.Valid(0))
		time.Sleep(10 * time.Second)
		require.False(t, r.n.Valid(0))
		require.ElementsMatch(t, []string{"left stays node-lost", "left goes node-lost"}, e.news())
		r.remove("goes", "g", 5*time.Second, store.CauseLost, nil)
		r.add("comes", "c")
		r.meta("stays", "s", `"new"`)
		at.set(well)
		r.flush()
		time.Sleep(time.Minute)
		require.ElementsMatch(t, []string{"joined stays ", "joined comes "}, e.news())
		require.Equal(t, `"new"`, string(lookup(t, at, "stays").Sessions[0].Meta))
		require.Equal(t, store.Offline, lookup(t, at, "goes").State)
	})
}

// Those who waited while the lease was lost learn what became of it.
func TestWaitersSurviveALostLease(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		r := start(t, at, setup{name: "a"})
		defer r.close()
		r.add("u", "s")
		r.flush()
		at.set(deaf)
		time.Sleep(time.Second)
		add := store.Op{Kind: store.OpAdd, User: "v", Session: "t"}
		r.mu.Lock()
		r.live["t"] = add
		r.mu.Unlock()
		results := make(chan store.Result, 3)
		for range 2 {
			go func() {
				res, err := r.n.Await(context.Background(), add)
				require.NoError(t, err)
				results <- res
			}()
		}
		synctest.Wait() // in doubt
		go func() {
			res, err := r.n.Await(context.Background(), store.Op{Kind: store.OpMeta, User: "v", Session: "t", Meta: []byte("1")})
			require.NoError(t, err)
			results <- res
		}()
		synctest.Wait()
		at.wipe()
		at.set(well)
		for range 3 {
			require.Equal(t, store.Done, (<-results).Status)
		}
		require.Equal(t, []string{"t"}, online(t, at, "v"))
	})
}

func TestQueueGrowsTooLong(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		r := start(t, at, setup{name: "a", limit: 50})
		defer r.close()
		for i := range 60 {
			r.add(fmt.Sprint("u", i), fmt.Sprint("s", i), "x")
			if i == 30 {
				r.flush()
			}
		}
		r.flush()
		e := watch(t, at, "x")
		time.Sleep(time.Second)
		at.set(away)
		r.add("first", "f", "x")
		synctest.Wait()
		pending, refused := 0, 0
		for i := range 10 {
			done := func(_ store.Result, err error) {
				if err == node.ErrPending {
					pending++
				} else {
					refused++
				}
			}
			r.remove(fmt.Sprint("u", i), fmt.Sprint("s", i), 0, store.CauseKicked, done)
			r.remove(fmt.Sprint("u", i+10), fmt.Sprint("s", i+10), 2*time.Second, store.CauseSilent, done)
		}
		for i := range 100 {
			r.add(fmt.Sprint("n", i), fmt.Sprint("m", i), "x")
		}
		r.remove("u20", "s20", 0, store.CauseIdle, nil) // after the queue was dropped
		r.remove("n99", "m99", 0, store.CauseIdle, nil)
		synctest.Wait()
		require.Equal(t, uint64(1), r.n.Stats().Dropped)
		require.Zero(t, r.n.Stats().Queued)
		require.Equal(t, []int{20, 0}, []int{pending, refused})
		require.Empty(t, e.news())

		at.set(well)
		time.Sleep(2 * time.Second)
		r.flush()
		time.Sleep(5 * time.Second)
		var want []string
		for i := range 10 {
			want = append(want, fmt.Sprintf("left u%d kicked", i))
			want = append(want, fmt.Sprintf("updated u%d ", i+10), fmt.Sprintf("left u%d silent", i+10))
		}
		want = append(want, "left u20 idle", "joined first ")
		for i := range 99 {
			want = append(want, fmt.Sprintf("joined n%d ", i))
		}
		require.ElementsMatch(t, want, e.news())
		require.Equal(t, 60-21+100, r.n.Stats().Sessions)
		time.Sleep(time.Minute)
		require.Equal(t, uint64(1), r.n.Stats().Reasserts)
	})
}

// Removals there is no room for end with the lease.
func TestMoreRemovalsThanCanBeRemembered(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		r := start(t, at, setup{name: "a", limit: 5})
		defer r.close()
		for i := range 20 {
			r.add(fmt.Sprint("u", i), fmt.Sprint("s", i))
			if i%4 == 0 {
				r.flush()
			}
		}
		r.flush()
		time.Sleep(time.Second)
		at.set(away)
		for i := range 20 {
			r.remove(fmt.Sprint("u", i), fmt.Sprint("s", i), time.Second, store.CauseSilent, nil)
		}
		for i := range 30 {
			r.add("v", fmt.Sprint("t", i))
		}
		for i := range 30 {
			r.remove("v", fmt.Sprint("t", i), time.Second, store.CauseSilent, nil)
		}
		at.set(well)
		time.Sleep(5 * time.Second)
		c, err := at.Count(context.Background(), "")
		require.NoError(t, err)
		require.Zero(t, c.Users)
		require.Equal(t, store.CauseSilent, at.ends[0].cause)
	})
}

// Who ends while all are asked for leaves with its own cause.
func TestRemovedWhileHeldIsAsked(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		r := start(t, at, setup{name: "a"})
		defer r.close()
		r.add("u", "s")
		r.add("v", "t")
		r.flush()
		e := watch(t, at, "")
		behind(t, at, store.Op{Kind: store.OpAdd, User: "ghost", Session: "g"})
		r.mu.Lock()
		r.asked = func() { r.remove("u", "s", 0, store.CauseKicked, nil) }
		r.mu.Unlock()
		time.Sleep(5 * time.Second)
		require.Equal(t, []string{"joined ghost ", "left u kicked", "left ghost lost"}, e.news())
	})
}

// An order that went to the lease that is being left is carried out.
func TestOrderToAFormerLease(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		r := start(t, at, setup{name: "a"})
		defer r.close()
		r.add("u", "s")
		r.add("v", "t")
		r.flush()
		behind(t, at, store.Op{Kind: store.OpAdd, User: "ghost", Session: "g"})
		var once sync.Once
		at.mu.Lock()
		at.before = func(string, []store.Op) {
			once.Do(func() { // the session is about to move
				told, err := at.Disconnect(context.Background(), "u", "", 4403, "")
				require.NoError(t, err)
				require.Equal(t, 1, told)
			})
		}
		at.mu.Unlock()
		time.Sleep(5 * time.Second)
		require.Len(t, r.ordered(), 1)
		require.Empty(t, online(t, at, "u"))
		require.Equal(t, []string{"t"}, online(t, at, "v"))
	})
}

// A hold ends as soon as the last node has asserted.
func TestHoldEndsWithTheAssertion(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		r := start(t, at, setup{name: "a"})
		defer r.close()
		r.add("u", "s")
		r.add("v", "t")
		r.flush()
		at.set(away)
		time.Sleep(7 * time.Second)
		at.set(well)
		behind(t, at, store.Op{Kind: store.OpRemove, User: "u", Session: "s"}) // the hold begins
		_, err := at.Count(context.Background(), "")
		require.ErrorIs(t, err, store.ErrUnknown)
		time.Sleep(1500 * time.Millisecond)
		c, err := at.Count(context.Background(), "")
		require.NoError(t, err)
		require.Equal(t, 2, c.Users)
	})
}

// While many sessions are asserted nobody is seen to be gone, newcomers need
// not wait for the end, and what changes meanwhile is not overwritten.
func TestLongAssertion(t *testing.T) {
	bubble(t, memstore.Options{Lease: 240 * time.Millisecond}, func(t *testing.T, at *trouble) {
		const n = 12_000 // 0.6 s, more than two leases
		r := start(t, at, setup{name: "a", limit: n})
		defer r.close()
		for i := range n {
			r.add(fmt.Sprint("u", i%(n-1000)), fmt.Sprint("s", i))
		}
		r.flush()
		behind(t, at, store.Op{Kind: store.OpRemove, User: "u9000", Session: "s9000"})
		e := watch(t, at, "")
		for r.n.Stats().Reasserts == 0 {
			time.Sleep(10 * time.Millisecond)
		}
		at.mu.Lock()
		at.sums = nil
		at.mu.Unlock()
		begun := time.Now()
		res, err := r.n.Await(context.Background(), store.Op{Kind: store.OpAdd, User: "new", Session: "new"})
		require.NoError(t, err)
		require.Equal(t, store.Done, res.Status)
		require.LessOrEqual(t, time.Since(begun), 20*time.Millisecond)
		r.mu.Lock()
		r.live["new"] = store.Op{Kind: store.OpAdd, User: "new", Session: "new"}
		r.mu.Unlock()

		took := 0
		for i := range 200 {
			if r.n.Stats().Sessions < n-10 {
				took = i
			}
			require.NotEqual(t, store.Offline, lookup(t, at, fmt.Sprint("u", i*7%9000)).State)
			require.Equal(t, store.Online, lookup(t, at, "u8999").State)
			r.meta("u8998", "s8998", fmt.Sprint(i))
			if i == 20 {
				r.remove("u8997", "s8997", 0, store.CauseIdle, nil)
			}
			if i == 30 {
				told, err := at.Disconnect(context.Background(), "u8996", "", 4403, "")
				require.NoError(t, err)
				require.Equal(t, 1, told)
			}
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		r.flush()
		require.InDelta(t, 60, took, 10)
		partly := 0
		for _, sum := range at.sums {
			if sum.Sessions > 1 && sum.Sessions < n-10 {
				require.False(t, sum.Complete)
				partly++
			}
		}
		require.Greater(t, partly, 3)
		require.Equal(t, string(r.live["s8998"].Meta), string(lookup(t, at, "u8998").Sessions[0].Meta))
		require.Empty(t, online(t, at, "u8997"))
		require.Empty(t, online(t, at, "u8996"))
		require.Equal(t, uint64(1), r.n.Stats().Reasserts)
		require.Equal(t, len(r.held(0)), r.n.Stats().Sessions)
		joined := 0
		for _, line := range e.news() {
			if line[:6] == "joined" {
				joined++
			}
		}
		require.LessOrEqual(t, joined, 2) // who was lost, and who is new
	})
}

// Asserting is broken off again and again, and still gets there.
func TestAssertionIsInterrupted(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		r := start(t, at, setup{name: "a"})
		defer r.close()
		for i := range 3000 {
			r.add(fmt.Sprint("u", i), fmt.Sprint("s", i))
		}
		r.flush()
		var commits atomic.Int32
		at.mu.Lock()
		at.before = func(string, []store.Op) {
			if commits.Add(1)%5 == 0 {
				at.wipe()
			}
		}
		at.mu.Unlock()
		at.wipe()
		time.Sleep(20 * time.Second)
		at.mu.Lock()
		at.before = nil
		at.mu.Unlock()
		time.Sleep(10 * time.Second)
		c, err := at.Count(context.Background(), "")
		require.NoError(t, err)
		require.Equal(t, 3000, c.Users)
		require.Equal(t, 3000, r.n.Stats().Sessions)
	})
}

// A change between the request for all sessions and the answer counts.
func TestChangeWhileHeldIsAsked(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		live := store.Op{Kind: store.OpAdd, User: "u", Session: "s", Meta: json.RawMessage("1")}
		var n *node.Node
		n = node.Start(node.Config{
			Store: at, Node: store.Node{ID: "a"}, Logger: quiet(),
			Held: func(int) []store.Op {
				ops := []store.Op{live}
				n.Do(store.Op{Kind: store.OpMeta, User: "u", Session: "s", Meta: json.RawMessage("2")}, nil)
				return ops
			},
		})
		_, err := n.Await(context.Background(), live)
		require.NoError(t, err)
		// What is queued when the lease is lost, for the other to fold into.
		time.Sleep(time.Second)
		at.wipe()
		var once sync.Once
		at.mu.Lock()
		at.before = func(string, []store.Op) {
			once.Do(func() {
				n.Do(store.Op{Kind: store.OpMeta, User: "u", Session: "s", Meta: json.RawMessage("0")}, nil)
			})
		}
		at.mu.Unlock()
		n.Do(store.Op{Kind: store.OpAdd, User: "d", Session: "d"}, nil)
		synctest.Wait()
		require.NoError(t, n.Flush(context.Background()))
		require.Equal(t, "2", string(lookup(t, at, "u").Sessions[0].Meta))
		require.NoError(t, n.Close(context.Background(), 0))
	})
}
