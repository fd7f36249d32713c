//go:build unix

package presence_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/proctest"
	"github.com/a4cafe1a/presence/store/memstore"
)

// A node with 10,000 to 1,000,000 users, each with one session, asked there and
// on another node of the same store, to which they are all somebody else's.
// Each size is filled once, which takes a minute for the largest.
func BenchmarkNode(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("users=%d", n), func(b *testing.B) {
			c := gatherMultitude(n)
			b.Run("Scheduler", benchmarkScheduler)
			for _, f := range []struct {
				name string
				run  func(*testing.B, *presence.Presence, []string)
			}{{"Online", benchmarkOnline}, {"Lookup1000", benchmarkLookup1000}, {"Count", benchmarkCount}, {"MembersPage", benchmarkMembersPage}} {
				b.Run(f.name+"/here", func(b *testing.B) { f.run(b, c.here, c.users) })
				b.Run(f.name+"/elsewhere", func(b *testing.B) { f.run(b, c.elsewhere, c.users) })
			}
			runtime.KeepAlive(c)
		})
	}
}

// multitude is a node with many users, and another without.
type multitude struct {
	here, elsewhere *presence.Presence
	users           []string // in no order, but one behind the other in memory, as names in a request
}

// gatherMultitude opens sessions as fast as group commit lets it, which are 20,000
// a second. They are never silent, so that nobody need touch them.
func gatherMultitude(n int) *multitude {
	m := memstore.New(memstore.Options{})
	c := &multitude{users: make([]string, n)}
	for i, p := range []**presence.Presence{&c.here, &c.elsewhere} {
		var err error
		*p, err = presence.New(presence.Options{
			Store: m, HeartbeatTimeout: -1, NodeName: strconv.Itoa(i), Limits: presence.Limits{Sessions: n},
		})
		if err != nil {
			panic(err)
		}
	}
	for i := range c.users {
		c.users[i] = "user-" + strconv.Itoa(i)
	}
	c.users = shuffled(c.users)
	var next atomic.Int64
	var openers sync.WaitGroup
	for range 400 {
		openers.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if _, err := c.here.Open(context.Background(), presence.Identity{User: c.users[i]}); err != nil {
					panic(err)
				}
			}
		})
	}
	openers.Wait()
	c.users = shuffled(c.users) // or users would be asked for in the order in which they are in memory
	for counts, err := c.here.Count(context.Background(), ""); counts.Users != n; counts, err = c.here.Count(context.Background(), "") {
		if err != nil {
			panic(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	runtime.GC()
	ripen()
	return c
}

// ripen makes the heap as large as it gets between two collections. Memory that
// comes fresh from the system costs more than what is looked for.
func ripen() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	for used := uint64(0); used < m.HeapAlloc; used += 1 << 20 {
		garbage := make([]byte, 1<<20)
		for i := 0; i < len(garbage); i += 4096 {
			garbage[i] = 1
		}
	}
	runtime.GC()
}

func shuffled(names []string) []string {
	rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	return strings.Fields(strings.Join(names, " "))
}

// which are the users asked for: always the same thousand, which the caches
// hold, or all of them, where most of the time is spent waiting for memory.
func which(b *testing.B, users []string, f func(*testing.B, []string)) {
	b.Run("hot", func(b *testing.B) { b.ReportAllocs(); f(b, users[:1000]) })
	b.Run("cold", func(b *testing.B) { b.ReportAllocs(); f(b, users) })
}

// Bounds: 200 ns and 0 allocations for one of 1,000,000 users, on their node,
// asked for by 8 goroutines at once.
func benchmarkOnline(b *testing.B, p *presence.Presence, users []string) {
	which(b, users, func(b *testing.B, users []string) {
		b.SetParallelism(max(1, 8/runtime.GOMAXPROCS(0)))
		var seed atomic.Uint64
		b.RunParallel(func(pb *testing.PB) {
			r := rand.New(rand.NewPCG(1, seed.Add(1)))
			var some []string // of one request, say
			for pb.Next() {
				if len(some) == 0 {
					at := r.IntN(len(users) - 16)
					some = users[at : at+16]
				}
				if ok, err := p.Online(context.Background(), some[0]); !ok || err != nil {
					panic(fmt.Sprint(ok, err))
				}
				some = some[1:]
			}
		})
	})
}

// Bounds: 150 us for 1,000 of 1,000,000 users. The 104 KB of the answer are
// collected while nobody measures: in a loop that does nothing else the
// collector would always run.
func benchmarkLookup1000(b *testing.B, p *presence.Presence, users []string) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	which(b, users, func(b *testing.B, users []string) {
		runtime.GC()
		i, n := 0, 0
		for b.Loop() {
			if n++; n%2000 == 0 {
				b.StopTimer()
				runtime.GC()
				b.StartTimer()
			}
			all, err := p.Lookup(context.Background(), users[i:i+1000]...)
			if err != nil || all[999].State != presence.Online {
				b.Fatal(err, all)
			}
			i = (i + 1000) % len(users)
		}
	})
}

// Bounds: 100 ns with 1,000,000 members.
func benchmarkCount(b *testing.B, p *presence.Presence, users []string) {
	b.ReportAllocs()
	for b.Loop() {
		if c, _ := p.Count(context.Background(), ""); c.Users != len(users) {
			b.Fatal(c)
		}
	}
}

// Bounds: 200 us for the first page, of 100, of 1,000,000 members.
func benchmarkMembersPage(b *testing.B, p *presence.Presence, _ []string) {
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, err := range p.Members(context.Background(), "", "") {
			if err != nil {
				b.Fatal(err)
			}
			if n++; n == 100 {
				break
			}
		}
	}
}

// Bounds: 10 ms of CPU a second for 1,000,000 sessions with a heartbeat every
// 25 s. The wheel, the looks and what they decide are real; the sessions have
// no connection, so that nothing is sent. Whatever else the nodes do is in it.
func benchmarkScheduler(b *testing.B) {
	runtime.GC()
	cpu, begun := proctest.CPUTime(), time.Now()
	for b.Loop() {
		time.Sleep(time.Second)
	}
	b.ReportMetric(1000*(proctest.CPUTime()-cpu).Seconds()/time.Since(begun).Seconds(), "cpu-ms/s")
}
