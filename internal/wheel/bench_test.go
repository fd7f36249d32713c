package wheel_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/a4cafe1a/presence/internal/wheel"
)

// Now is paid with every read of every connection: at most 2 ns.
func BenchmarkNow(b *testing.B) {
	w := wheel.New(0)
	defer w.Stop()
	b.ReportAllocs()
	for b.Loop() {
		_ = w.Now()
	}
}

// Exact is what Now saves.
func BenchmarkExact(b *testing.B) {
	w := wheel.New(0)
	defer w.Stop()
	b.ReportAllocs()
	for b.Loop() {
		_ = w.Exact()
	}
}

// session is as much of a session as a look must touch.
type session struct {
	heard atomic.Int64
	_     [120]byte
}

const interval = 25 * time.Second

func (s *session) Warm() { s.heard.Load() }

func (s *session) Look(now wheel.Time) wheel.Time {
	s.heard.Store(int64(now))
	return now + wheel.Time(interval)
}

// One second of wheel time, which is 20 ticks on each of two shards, with n
// sessions that are each looked at every 25 s. ns/op is the CPU time that the
// wheel costs per second: at most 10 ms for a million sessions. B/session is
// what the wheel holds per session besides the 16 bytes of the Item.
func BenchmarkSecond(b *testing.B) {
	for _, n := range []int{1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("sessions=%d", n), func(b *testing.B) {
			sessions := make([]session, n)
			order := rand.New(rand.NewPCG(1, 1)).Perm(n)
			before := heap()
			w := wheel.NewDriven(2)
			for i, k := range order {
				w.Add(&sessions[k], wheel.Time(int64(i)*int64(interval)/int64(n)))
			}
			now := wheel.Time(0)
			second := func() {
				for range time.Second / wheel.DefaultTick {
					now += wheel.Time(wheel.DefaultTick)
					w.Advance(now)
				}
			}
			for range 60 {
				second()
			}
			held := heap() - before
			b.ReportAllocs()
			for b.Loop() {
				second()
			}
			b.ReportMetric(float64(held)/float64(n)-16, "B/session")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(float64(n)/interval.Seconds()), "ns/look")
			runtime.KeepAlive(sessions)
		})
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// What a connection pays when it comes and goes.
func BenchmarkAddRemove(b *testing.B) {
	w := wheel.NewDriven(2)
	var s session
	b.ReportAllocs()
	for b.Loop() {
		w.Remove(w.Add(&s, wheel.Time(interval)))
	}
}

// What a message costs that needs an earlier look, when there is one already
// (most of the time) and when there is not.
func BenchmarkHasten(b *testing.B) {
	b.Run("AlreadyEarlier", func(b *testing.B) {
		w := wheel.NewDriven(1)
		r := w.Add(new(session), wheel.Time(interval))
		b.ReportAllocs()
		for b.Loop() {
			w.Hasten(r, wheel.Time(2*interval))
		}
	})
	b.Run("Earlier", func(b *testing.B) {
		w := wheel.NewDriven(1)
		r := w.Add(new(session), wheel.Time(1<<62))
		at := wheel.Time(1 << 61)
		b.ReportAllocs()
		for b.Loop() {
			at -= wheel.Time(wheel.DefaultTick)
			w.Hasten(r, at)
		}
	})
}

// Many goroutines hasten, as connections do.
func BenchmarkHastenParallel(b *testing.B) {
	w := wheel.New(0)
	defer w.Stop()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		r := w.Add(new(session), w.Now()+wheel.Time(interval))
		for pb.Next() {
			w.Hasten(r, w.Now()+wheel.Time(2*interval))
		}
	})
}
