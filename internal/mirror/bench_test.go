//go:build unix

package mirror_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/a4cafe1a/presence/internal/mirror"
	"github.com/a4cafe1a/presence/internal/proctest"
	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/memstore"
)

// A join and a leave, from the commit to one subscriber that sees every event.
// Commits have 100 operations, as in a storm. The events come every 10 ms, so
// that CPU time is what says something: at most 3,000 ns for both, store
// included.
func BenchmarkJoinLeave(b *testing.B) {
	r := newRig(b, memstore.Options{}, mirror.Limits{SubscriberEvents: 100_000})
	defer r.hub.Close()
	s := r.subscribe("x")
	seen := make(chan int)
	go func() {
		n := 0
		for {
			e, err := s.Next(bg)
			if err != nil {
				return
			}
			if e.Kind == mirror.Snapshot {
				continue
			}
			if n++; n == 4000 {
				seen <- n
				n = 0
			}
		}
	}()
	adds, removes := batches("u", 100)
	b.ReportAllocs()
	cpu, pairs := proctest.CPUTime(), 0
	for b.Loop() {
		for range 20 {
			r.commit(adds...)
			r.commit(removes...)
		}
		<-seen
		pairs += 2000
	}
	b.ReportMetric(float64(proctest.CPUTime()-cpu)/float64(pairs), "cpu-ns/pair")
}

func batches(prefix string, n int) (adds, removes []store.Op) {
	for i := range n {
		u := fmt.Sprint(prefix, i)
		adds = append(adds, store.Op{Kind: store.OpAdd, User: u, Session: u, Topics: []string{"x"}})
		removes = append(removes, store.Op{Kind: store.OpRemove, User: u, Session: u, Cause: store.CauseLost})
	}
	return adds, removes
}

// A storm into a topic with 1,000 subscribers: 50 members join
// and leave every 20 ms. The cost per join, all subscribers having read everything, must
// grow less than twofold from 100 to 10,000 members. It is CPU time, since the
// pace is given.
func BenchmarkStorm(b *testing.B) {
	for _, members := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprint(members), func(b *testing.B) {
			r := newRig(b, memstore.Options{}, mirror.Limits{SnapshotMembers: 20_000})
			defer r.hub.Close()
			for i := 0; i < members; i += 100 {
				adds, _ := batches(fmt.Sprint("m", i, "."), 100)
				r.commit(adds...)
			}
			var readers sync.WaitGroup
			var events, snapshots atomic.Int64
			subs := make([]*mirror.Subscription, 1000)
			for i := range subs {
				subs[i] = r.subscribe("x")
				readers.Go(func() {
					n, again := int64(0), int64(0)
					for {
						e, err := subs[i].Next(bg)
						if err != nil {
							break
						}
						n++
						if e.Kind == mirror.Snapshot {
							again++
						}
					}
					events.Add(n)
					snapshots.Add(again)
				})
			}
			adds, removes := batches("u", 50)
			b.ReportAllocs()
			cpu, changes := proctest.CPUTime(), 0
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for b.Loop() {
				<-tick.C
				r.commit(adds...)
				<-tick.C
				r.commit(removes...)
				changes += 100
			}
			time.Sleep(50 * time.Millisecond)
			b.ReportMetric(float64(proctest.CPUTime()-cpu)/float64(changes), "cpu-ns/change")
			for _, s := range subs {
				s.Close()
			}
			readers.Wait()
			b.ReportMetric(float64(events.Load())/float64(changes), "events/change")
			b.ReportMetric(float64(snapshots.Load()-1000), "overflows")
		})
	}
}

// What a snapshot of a busy topic costs, most of it unchanged since the last.
func BenchmarkSnapshot(b *testing.B) {
	for _, members := range []int{100, 10_000} {
		b.Run(fmt.Sprint(members), func(b *testing.B) {
			r := newRig(b, memstore.Options{}, mirror.Limits{SnapshotMembers: 20_000})
			defer r.hub.Close()
			for i := 0; i < members; i += 100 {
				adds, _ := batches(fmt.Sprint("m", i, "."), 100)
				r.commit(adds...)
			}
			keep := r.subscribe("x")
			defer keep.Close()
			b.ReportAllocs()
			for b.Loop() {
				r.meta("m0.7")
				for {
					e, err := keep.Next(bg)
					if err != nil {
						b.Fatal(err)
					}
					if e.Kind == mirror.Update {
						break
					}
				}
				s := r.subscribe("x")
				if e, _ := s.Next(bg); len(e.Members) != members {
					b.Fatal(len(e.Members))
				}
				s.Close()
			}
		})
	}
}
