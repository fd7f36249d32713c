package node_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/node"
	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/memstore"
)

func TestFirstChangeGoesAtOnce(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		r := start(t, at, setup{name: "a"})
		defer r.close()
		time.Sleep(time.Second)
		begun := time.Now()
		res, err := r.n.Await(context.Background(), store.Op{Kind: store.OpAdd, User: "u", Session: "s"})
		require.NoError(t, err)
		require.Equal(t, store.Done, res.Status)
		require.False(t, res.Since.IsZero())
		require.Zero(t, time.Since(begun))
		require.Equal(t, []string{"s"}, online(t, at, "u"))
	})
}

func TestGroupCommit(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		r := start(t, at, setup{name: "a"})
		defer r.close()
		time.Sleep(time.Second)
		begun := time.Now()
		for i := range 1000 {
			r.add(fmt.Sprint("u", i), fmt.Sprint("s", i), "x", "y", "z")
		}
		r.flush()
		// 600 topic entries are 150 sessions with three topics and everyone.
		require.LessOrEqual(t, at.count("commit"), 8)
		require.LessOrEqual(t, time.Since(begun), 80*time.Millisecond)
		at.mu.Lock()
		for _, c := range at.commits {
			require.LessOrEqual(t, len(c), 150)
		}
		at.mu.Unlock()

		// One change a millisecond: one commit in ten milliseconds.
		before := at.count("commit")
		for i := range 1000 {
			r.remove(fmt.Sprint("u", i), fmt.Sprint("s", i), 0, store.CauseLost, nil)
			time.Sleep(time.Millisecond)
		}
		r.flush()
		require.InDelta(t, 100, at.count("commit")-before, 3)
	})
}

func TestIdleCostsRenewalsOnly(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		r := start(t, at, setup{name: "a"})
		defer r.close()
		for i := range 100 {
			r.add(fmt.Sprint("u", i), fmt.Sprint("s", i))
		}
		r.flush()
		commits, renewals := at.count("commit"), at.count("renew")
		require.Equal(t, 1, renewals) // at once: is there a hold, is there work
		time.Sleep(5 * time.Minute)
		require.Equal(t, commits, at.count("commit"))
		require.InDelta(t, 90, at.count("renew")-renewals, 1) // 300 s, every third of 10 s
		require.Zero(t, at.count("sweep"))
		require.True(t, r.n.Valid(0))
		require.Len(t, online(t, at, "u7"), 1)
	})
}

func TestMetadataAtMostFourTimesASecond(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		r := start(t, at, setup{name: "a"})
		defer r.close()
		r.add("u", "s")
		r.flush()
		time.Sleep(time.Second)
		before := len(at.sent())
		for i := range 100 {
			r.meta("u", "s", fmt.Sprint(i))
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(time.Second)
		require.InDelta(t, 8, len(at.sent())-before, 1) // 2 s
		require.Equal(t, "99", string(lookup(t, at, "u").Sessions[0].Meta))

		// The first after a pause goes at once, and a removal drops the rest.
		r.meta("u", "s", "100")
		synctest.Wait()
		require.Equal(t, "100", string(lookup(t, at, "u").Sessions[0].Meta))
		var status []store.Status
		r.n.Do(store.Op{Kind: store.OpMeta, User: "u", Session: "s", Meta: []byte("101")}, func(res store.Result, err error) {
			require.NoError(t, err)
			status = append(status, res.Status)
		})
		r.remove("u", "s", 0, store.CauseLost, nil)
		r.flush()
		require.Equal(t, []store.Status{store.Missing}, status)
		time.Sleep(time.Second)
		require.NotContains(t, say(at.sent()), "meta u/s 101")
		require.Equal(t, store.Offline, lookup(t, at, "u").State)
	})
}

// What is queued while the store is away shows what is folded.
func TestFolding(t *testing.T) {
	type do = func(r *rig)
	add := func(u, s string, topics ...string) do { return func(r *rig) { r.add(u, s, topics...) } }
	remove := func(u, s string) do { return func(r *rig) { r.remove(u, s, 0, store.CauseLost, nil) } }
	op := func(k store.OpKind, u, s string, topics ...string) do {
		return func(r *rig) { r.change(store.Op{Kind: k, User: u, Session: s, Topics: topics}) }
	}
	meta := func(u, s, m string) do { return func(r *rig) { r.meta(u, s, m) } }
	isAway := func(u, s string, on bool) do {
		return func(r *rig) { r.change(store.Op{Kind: store.OpAway, User: u, Session: s, Away: on}) }
	}
	join, leave := store.OpJoin, store.OpLeave
	for _, tt := range []struct {
		name string
		do   []do
		want []string
	}{
		{"metadata, the last wins", []do{meta("u", "s", "1"), meta("u", "s", "2"), meta("u", "s", "3")}, []string{"meta u/s 3"}},
		{"metadata across another session", []do{meta("u", "s", "1"), meta("u", "t", "2"), meta("u", "s", "3")}, []string{"meta u/s 3", "meta u/t 2"}},
		{"away, the last wins", []do{isAway("u", "s", true), isAway("u", "s", false)}, []string{"away u/s false"}},
		{"everything of one session", []do{meta("u", "s", "1"), op(join, "u", "s", "a"), isAway("u", "s", true)}, []string{"join u/s #a", "meta u/s 1", "away u/s true"}},
		{"into the add", []do{add("u", "n", "a"), op(join, "u", "n", "b"), op(leave, "u", "n", "a"), meta("u", "n", "1")}, []string{"add u/n #b 1"}},
		{"add and remove", []do{add("u", "n"), op(join, "u", "n", "b"), remove("u", "n")}, nil},
		{"add and remove, another between", []do{add("u", "n"), add("u", "m"), remove("u", "n")}, []string{"add u/n", "add u/m", "remove u/n"}},
		{"add again and remove what the store has", []do{add("u", "s"), remove("u", "s")}, []string{"remove u/s"}},
		{"remove what the store has", []do{meta("u", "s", "1"), op(join, "u", "s", "b"), remove("u", "s")}, []string{"remove u/s"}},
		{"joined and left", []do{op(join, "u", "s", "a", "b"), op(leave, "u", "s", "a")}, []string{"leave u/s #a", "join u/s #b"}},
		{"left and joined", []do{op(leave, "u", "s", "a"), op(join, "u", "s", "a", "")}, []string{"join u/s #a"}},
		{"a leave does not pass a join", []do{op(leave, "u", "t", "x"), op(join, "u", "s", "a"), op(leave, "u", "t", "a")}, []string{"leave u/t #x", "join u/s #a", "leave u/t #a"}},
		{"a remove does not pass an add", []do{meta("u", "s", "1"), add("u", "n"), remove("u", "s")}, []string{"meta u/s 1", "add u/n", "remove u/s"}},
		{"users do not matter to each other", []do{add("u", "n"), add("v", "m"), op(join, "u", "n", "a")}, []string{"add u/n #a", "add v/m"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
				r := start(t, at, setup{name: "a"})
				defer r.close()
				r.add("u", "s", "z")
				r.add("u", "t", "z")
				r.flush()
				// A commit that waits lets the queue fill.
				time.Sleep(time.Second)
				r.add("w", "w")
				synctest.Wait()
				before := len(at.sent())
				for _, do := range tt.do {
					do(r)
				}
				r.flush()
				require.Equal(t, tt.want, say(at.sent()[before:]))
			})
		})
	}
}

func TestAwaitGivesUpAndTheResultComesLate(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		r := start(t, at, setup{name: "a"})
		defer r.close()
		r.add("u", "first")
		r.flush()
		at.set(away)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := r.n.Await(ctx, store.Op{Kind: store.OpAdd, User: "u", Session: "second", Limit: 1})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.True(t, r.n.Away())
		require.Empty(t, r.heard())
		at.set(well)
		r.flush()
		require.Equal(t, []string{"second " + fmt.Sprint(store.Full)}, r.heard())
	})
}

func TestAwayIsRetriedEverySecond(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		r := start(t, at, setup{name: "a"})
		defer r.close()
		r.add("u", "s")
		r.flush()
		time.Sleep(time.Second)
		at.set(away)
		r.add("v", "t")
		synctest.Wait()
		require.True(t, r.n.Away())
		failures := r.n.Stats().Failures
		time.Sleep(time.Minute)
		// The batch each second, and a renewal beside it once it is due.
		tries := r.n.Stats().Failures - failures
		require.GreaterOrEqual(t, tries, uint64(58))
		require.LessOrEqual(t, tries, uint64(120))
		require.False(t, r.n.Valid(0))
		at.set(well)
		time.Sleep(time.Second)
		synctest.Wait()
		require.False(t, r.n.Away())
		require.Equal(t, []string{"s"}, online(t, at, "u"))
		require.Equal(t, []string{"t"}, online(t, at, "v"))
	})
}

func TestAwayAtStart(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		at.set(away)
		r := start(t, at, setup{name: "a"})
		defer r.close()
		r.add("u", "s")
		time.Sleep(10 * time.Second)
		require.True(t, r.n.Away())
		require.False(t, r.n.Valid(0))
		require.InDelta(t, 11, at.count("register"), 1)
		at.set(well)
		time.Sleep(1100 * time.Millisecond)
		require.Equal(t, []string{"s"}, online(t, at, "u"))
		require.Zero(t, r.n.Stats().Reasserts)
	})
}

func TestHangingStoreIsAway(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		r := start(t, at, setup{name: "a"})
		defer r.close()
		synctest.Wait()
		at.set(silent)
		r.add("u", "s")
		time.Sleep(900 * time.Millisecond)
		require.False(t, r.n.Away())
		time.Sleep(200 * time.Millisecond)
		require.True(t, r.n.Away()) // before the call has timed out
		at.set(well)
		r.flush()
		require.False(t, r.n.Away())
	})
}

// A batch whose fate is unknown comes again before anything else, unchanged.
func TestDoubtfulBatchIsRepeatedFirst(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		r := start(t, at, setup{name: "a"})
		defer r.close()
		time.Sleep(time.Second)
		e := watch(t, at, "")
		at.set(deaf)
		r.add("u", "s")
		synctest.Wait()
		r.remove("u", "s", 0, store.CauseLost, nil)
		r.add("u", "t")
		time.Sleep(10 * time.Second) // a renewal is due; it must not see a wrong summary
		at.set(well)
		time.Sleep(10 * time.Second)
		sent := say(at.sent())
		require.Equal(t, []string{"remove u/s", "add u/t"}, sent[len(sent)-2:])
		for _, op := range sent[:len(sent)-2] {
			require.Equal(t, "add u/s", op)
		}
		require.Equal(t, []string{"joined u ", "left u lost", "joined u "}, e.news())
		require.Zero(t, r.n.Stats().Reasserts)
		require.Equal(t, 1, r.n.Stats().Sessions)
	})
}

func TestGraceIsSwept(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		r := start(t, at, setup{name: "a"})
		defer r.close()
		r.add("u", "s")
		r.flush()
		e := watch(t, at, "")
		// Before the next renewal could say that it is due.
		r.remove("u", "s", time.Second, store.CauseSilent, nil)
		r.flush()
		require.Equal(t, []string{"updated u "}, e.news())
		time.Sleep(990 * time.Millisecond)
		require.Empty(t, e.news())
		time.Sleep(20 * time.Millisecond)
		require.Equal(t, []string{"left u silent"}, e.news())
	})
}

// The dead are swept by who saw their lease end coming.
func TestDeadNodeIsSwept(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		ctx := context.Background()
		dead, err := at.store().Register(ctx, 0, store.Node{ID: "dead"})
		require.NoError(t, err)
		var ops []store.Op
		for i := range 2000 {
			ops = append(ops, store.Op{Kind: store.OpAdd, User: fmt.Sprint("u", i), Session: fmt.Sprint("d", i)})
		}
		_, err = at.store().Commit(ctx, dead, ops)
		require.NoError(t, err)
		r := start(t, at, setup{name: "a"})
		defer r.close()
		synctest.Wait()
		time.Sleep(10*time.Second + 200*time.Millisecond)
		c, err := at.Count(ctx, "")
		require.NoError(t, err)
		require.Zero(t, c.Users)
		require.LessOrEqual(t, at.count("sweep"), 15)
	})
}

func TestOrdersAreCarriedOutOnce(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		r := start(t, at, setup{name: "a"})
		defer r.close()
		r.add("u", "s")
		r.add("u", "t")
		r.flush()
		at.mu.Lock()
		at.repeat = true
		at.mu.Unlock()
		at.whenCalled(func(call string) mode {
			if call == "renew" && at.calls[call]%2 == 0 {
				return deaf // every second answer is lost
			}
			return well
		})
		begun := time.Now()
		told, err := at.Disconnect(context.Background(), "u", "", 4403, "out")
		require.NoError(t, err)
		require.Equal(t, 2, told)
		time.Sleep(20 * time.Second)
		require.Less(t, time.Since(begun), time.Minute)
		require.Len(t, r.ordered(), 2)
		require.Equal(t, store.Offline, lookup(t, at, "u").State)
		require.Zero(t, r.n.Stats().Reasserts)
	})
}

func TestBellIsAnsweredAtOnce(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		r := start(t, at, setup{name: "a"})
		defer r.close()
		r.add("u", "s")
		r.flush()
		time.Sleep(time.Second)
		_, err := at.Disconnect(context.Background(), "u", "", 4403, "out")
		require.NoError(t, err)
		time.Sleep(time.Millisecond)
		require.Equal(t, store.Offline, lookup(t, at, "u").State)
	})
}

func TestReplaced(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		a, b := start(t, at, setup{name: "a"}), start(t, at, setup{name: "b"})
		defer a.close()
		defer b.close()
		a.addOp(store.Op{Kind: store.OpAdd, User: "u", Session: "old", Limit: 1, WhenFull: store.ReplaceOldest})
		a.flush()
		b.addOp(store.Op{Kind: store.OpAdd, User: "u", Session: "new", Limit: 1, WhenFull: store.ReplaceOldest})
		b.flush()
		time.Sleep(30 * time.Second)
		require.Equal(t, []string{"new"}, online(t, at, "u"))
		require.Len(t, a.ordered(), 1)
		require.Equal(t, store.Replaced, a.ordered()[0].Kind)
		require.Zero(t, a.n.Stats().Reasserts)
	})
}

// A session that was replaced while a batch with it was in doubt must not
// come back with the repetition.
func TestReplacedInDoubt(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		a := start(t, at, setup{name: "a"})
		defer a.close()
		other := at.share()
		b := start(t, other, setup{name: "b"})
		defer b.close()
		time.Sleep(time.Second)
		at.whenCalled(func(call string) mode {
			if call == "commit" {
				return deaf // renewals go on, and bring the order
			}
			return well
		})
		limited := store.Op{Kind: store.OpAdd, User: "u", Limit: 1, WhenFull: store.ReplaceOldest}
		limited.Session = "old"
		a.addOp(limited)
		synctest.Wait()
		limited.Session = "new"
		b.addOp(limited)
		b.flush()
		require.Equal(t, []string{"new"}, online(t, at, "u"))
		time.Sleep(10 * time.Second)
		require.Len(t, a.ordered(), 1)
		b.remove("u", "new", 0, store.CauseLost, nil) // makes room for the repetition
		b.flush()
		time.Sleep(3 * time.Second)
		at.whenCalled(nil)
		time.Sleep(30 * time.Second)
		require.Empty(t, online(t, at, "u"))
		require.Equal(t, store.Offline, lookup(t, at, "u").State)
		require.Empty(t, a.held(0))
		require.Zero(t, a.n.Stats().Reasserts) // what is in doubt explains the difference
	})
}

func TestClose(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		r := start(t, at, setup{name: "a"})
		r.add("u", "s")
		r.add("v", "t")
		r.flush()
		r.meta("u", "s", "1")
		r.meta("u", "s", "2") // still kept back
		r.remove("v", "t", 7*time.Second, store.CauseShutdown, nil)
		require.NoError(t, r.n.Close(context.Background(), 15*time.Second))
		require.NoError(t, r.n.Close(context.Background(), time.Hour))
		require.Len(t, at.ends, 1)
		require.Equal(t, 15*time.Second, at.ends[0].grace)
		require.Equal(t, store.CauseShutdown, at.ends[0].cause)
		require.Contains(t, say(at.sent()), "meta u/s 2")
		require.Empty(t, online(t, at, "u"))
		require.Equal(t, store.Grace, lookup(t, at, "u").State)
		require.Equal(t, store.Grace, lookup(t, at, "v").State)
		require.False(t, r.n.Valid(0))

		_, err := r.n.Await(context.Background(), store.Op{Kind: store.OpAdd, User: "u", Session: "late"})
		require.ErrorIs(t, err, node.ErrClosed)
		require.ErrorIs(t, r.n.Flush(context.Background()), node.ErrClosed)
	})
}

func TestCloseWhileAway(t *testing.T) {
	for _, m := range []mode{away, silent} {
		t.Run(fmt.Sprint(m), func(t *testing.T) {
			bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
				r := start(t, at, setup{name: "a"})
				r.add("u", "s")
				r.flush()
				at.set(m)
				var got error
				r.remove("u", "s", 0, store.CauseLost, func(_ store.Result, err error) { got = err })
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				defer cancel()
				begun := time.Now()
				require.Error(t, r.n.Close(ctx, time.Second))
				require.Equal(t, 5*time.Second, time.Since(begun))
				require.ErrorIs(t, got, node.ErrClosed)
			})
		})
	}
}

func TestCloseWhenStoreClosed(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		r := start(t, at, setup{name: "a"})
		r.flush()
		require.NoError(t, at.Close())
		r.add("u", "s")
		synctest.Wait()
		begun := time.Now()
		require.ErrorIs(t, r.n.Close(context.Background(), 0), store.ErrClosed)
		require.Zero(t, time.Since(begun))
	})
}

func TestCloseBeforeRegistered(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		at.set(away)
		r := start(t, at, setup{name: "a"})
		synctest.Wait()
		require.NoError(t, r.n.Close(context.Background(), 0))
	})
}

func TestShardOfAnotherStore(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		r := start(t, at, setup{name: "a"})
		defer r.close()
		synctest.Wait()
		s := &wrongShard{trouble: at}
		n := node.Start(node.Config{Store: s, Node: store.Node{ID: "b"}, Logger: quiet()})
		_, err := n.Await(context.Background(), store.Op{Kind: store.OpAdd, User: "u", Session: "s"})
		require.ErrorIs(t, err, store.ErrShard)
		s.wrong = errors.New("no more")
		require.NoError(t, n.Close(context.Background(), 0))
	})
}
