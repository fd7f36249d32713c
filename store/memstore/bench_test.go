package memstore_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/memstore"
)

// million is shared by the benchmarks: filling it takes seconds.
var million = sync.OnceValue(func() *filled { return fill(1_000_000) })

type filled struct {
	s     *memstore.Store
	lease store.Lease
	users []string
	bytes uint64 // of heap, for each user
}

func session(i int) string { return fmt.Sprintf("%016x", uint64(i)*0x9E3779B97F4A7C15) }

// fill makes a store with n users, each with one session, no topic of its own
// and no metadata, and lets its lease last.
func fill(n int) *filled {
	f := &filled{s: memstore.New(memstore.Options{Lease: time.Hour}), users: make([]string, n)}
	var err error
	f.lease, err = f.s.Register(ctx, 0, store.Node{ID: "n", Name: "n", KeepLastSeen: time.Hour})
	if err != nil {
		panic(err)
	}
	for i := range f.users {
		f.users[i] = "user-" + strconv.Itoa(i)
	}
	rand.Shuffle(n, func(i, j int) { f.users[i], f.users[j] = f.users[j], f.users[i] })
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	ops := make([]store.Op, 0, 100)
	for i, u := range f.users {
		ops = append(ops, store.Op{Kind: store.OpAdd, User: string([]byte(u)), Session: session(i)})
		if len(ops) == cap(ops) || i == n-1 {
			if _, err := f.s.Commit(ctx, f.lease, ops); err != nil {
				panic(err)
			}
			ops = ops[:0]
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	f.bytes = (after.HeapAlloc - before.HeapAlloc) / uint64(n)
	return f
}

// TestMemory bounds what a user with one session costs: 300 B.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("fills a store")
	}
	f := fill(100_000)
	t.Logf("%d B for each user", f.bytes)
	require.LessOrEqual(t, f.bytes, uint64(300))
	runtime.KeepAlive(f)
}

// Bounds: 200 ns and 0 allocations for one of 1,000,000 users, asked for by 8
// goroutines at once. Of a few that the caches hold, and of all: then the wait
// for memory is most of it, that for the name asked for included.
func BenchmarkLookup1(b *testing.B) {
	f := million()
	for _, size := range []int{1_000, 1_000_000} {
		b.Run(fmt.Sprintf("of=%d", size), func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(max(1, 8/runtime.GOMAXPROCS(0)))
			var seed atomic.Uint64
			b.RunParallel(func(pb *testing.PB) {
				r := rand.New(rand.NewPCG(1, seed.Add(1)))
				dst, users := make([]store.UserRecord, 1), make([]string, 1)
				dst[0].Sessions = make([]store.SessionRecord, 1)
				for pb.Next() {
					users[0] = f.users[r.IntN(size)]
					if dst, _ = f.s.Lookup(ctx, dst[:0], users); dst[0].State != store.Online {
						panic(dst[0].State)
					}
				}
			})
			b.ReportMetric(float64(f.bytes), "B/user")
		})
	}
}

// Bounds: 150 us for 1,000 users of 1,000,000. The same thousand each time,
// and another each time.
func BenchmarkLookup1000(b *testing.B) {
	f := million()
	for _, size := range []int{1_000, 1_000_000} {
		b.Run(fmt.Sprintf("of=%d", size), func(b *testing.B) {
			b.ReportAllocs()
			var dst []store.UserRecord
			i := 0
			for b.Loop() {
				dst, _ = f.s.Lookup(ctx, dst[:0], f.users[i:i+1000])
				i = (i + 1000) % size
			}
		})
	}
}

// Bounds: 100 ns with 1,000,000 members.
func BenchmarkCount(b *testing.B) {
	f := million()
	b.ReportAllocs()
	for b.Loop() {
		if c, _ := f.s.Count(ctx, ""); c.Users != len(f.users) {
			b.Fatal(c)
		}
	}
}

// Bounds: 200 us for the first page of 1,000,000 members.
func BenchmarkMembersPage(b *testing.B) {
	f := million()
	for _, size := range []int{100, 1000} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if p, _ := f.s.Members(ctx, "", "", size); len(p.Members) != size {
					b.Fatal(len(p.Members))
				}
			}
		})
	}
}

// Bounds: 3 us for a join and a leave with one subscriber, and less than twice
// as much at 10,000 members as at 100.
func BenchmarkJoinLeave(b *testing.B) {
	for _, members := range []int{100, 10_000, 1_000_000} {
		for _, watched := range []bool{false, true} {
			b.Run(fmt.Sprintf("members=%d/watched=%t", members, watched), func(b *testing.B) {
				var f *filled // not million when small: the collector would walk it
				if members < 1_000_000 {
					f = fill(members)
				} else {
					f = million()
				}
				if watched {
					feed, err := f.s.Watch(ctx, "")
					require.NoError(b, err)
					resets, stop := 0, make(chan struct{})
					go func() {
						defer close(stop)
						for {
							batch, err := feed.Next(ctx)
							if err != nil {
								return
							}
							if batch.Reset {
								resets++
							}
							time.Sleep(2 * time.Millisecond) // 10 would be a Reset each time
						}
					}()
					defer func() { feed.Close(); <-stop; b.ReportMetric(float64(resets), "resets") }()
				}
				b.ReportAllocs()
				ops := make([]store.Op, 2)
				i := 0
				for b.Loop() {
					i++
					u := "user-x" + strconv.Itoa(i%100_000)
					ops[0] = store.Op{Kind: store.OpAdd, User: u, Session: "0123456789abcdef"}
					ops[1] = store.Op{Kind: store.OpRemove, User: u, Session: "0123456789abcdef", Cause: store.CauseLost}
					if _, err := f.s.Commit(ctx, f.lease, ops); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// Bounds: no lock is held for longer than 1 ms. A batch of 200 operations, a
// Sweep of 200 graces and a page of 1,000 are each one hold of the lock. The
// longest of all is told, too; on a busy machine it says how long others ran.
func BenchmarkLockHold(b *testing.B) {
	f := million()
	n := 0
	var longest time.Duration
	hold := func(f func()) {
		begun := time.Now()
		f()
		longest = max(longest, time.Since(begun))
	}
	tell := func(b *testing.B) {
		b.ReportMetric(float64(longest.Microseconds()), "longest-us")
		longest = 0
	}
	batch := func() []store.Op {
		var ops []store.Op
		for range 100 {
			n++
			u := "user-y" + strconv.Itoa(n)
			ops = append(ops, store.Op{Kind: store.OpAdd, User: u, Session: "y"},
				store.Op{Kind: store.OpRemove, User: u, Session: "y", Cause: store.CauseLost, Grace: time.Nanosecond})
		}
		return ops
	}
	b.Run("commit=200", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			ops := batch()
			b.StartTimer()
			hold(func() { f.s.Commit(ctx, f.lease, ops) })
			b.StopTimer()
			f.s.Sweep(ctx, f.lease, 200)
			b.StartTimer()
		}
		tell(b)
	})
	b.Run("sweep=200", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			f.s.Commit(ctx, f.lease, batch())
			f.s.Commit(ctx, f.lease, batch())
			b.StartTimer()
			hold(func() { f.s.Sweep(ctx, f.lease, 200) })
		}
		tell(b)
	})
	b.Run("page=1000", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			hold(func() { f.s.Members(ctx, "", f.users[i%len(f.users)], 1000) })
		}
		tell(b)
	})
}

// TestMemoryOfTopics logs what a topic costs a user, in rooms of 2 and of 20.
func TestMemoryOfTopics(t *testing.T) {
	if testing.Short() {
		t.Skip("fills a store")
	}
	for _, size := range []int{2, 20, 1000} {
		f := fill(50_000)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i, u := range f.users {
			op := store.Op{Kind: store.OpJoin, User: u, Session: session(i), Topics: []string{"room-" + strconv.Itoa(i/size)}}
			_, err := f.s.Commit(ctx, f.lease, []store.Op{op})
			require.NoError(t, err)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		t.Logf("rooms of %d: %d B for each member", size, (after.HeapAlloc-before.HeapAlloc)/uint64(len(f.users)))
		runtime.KeepAlive(f)
	}
}
