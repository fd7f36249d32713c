//go:build unix

package presence

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/a4cafe1a/presence/internal/proctest"
	"github.com/a4cafe1a/presence/internal/wheel"
)

// Bounds: 10 ms of CPU a second for 1,000,000 sessions with a heartbeat every
// 25 s. The wheel, the looks and what they decide are real; the sessions have no
// connection, so that nothing is sent. All the process uses is in it. A second
// is 40 short bursts of looks, each after a pause in which the caches have
// forgotten everything; with an interval of 1 s there are 25 times as many looks,
// and ns/look says what one costs without that.
func BenchmarkScheduler(b *testing.B) {
	const n = 1_000_000
	for _, interval := range []time.Duration{25 * time.Second, time.Second} {
		b.Run(fmt.Sprint("every=", interval), func(b *testing.B) {
			p, err := New(Options{HeartbeatInterval: interval, HeartbeatTimeout: -1})
			if err != nil {
				b.Fatal(err)
			}
			for i := range n {
				s := p.newSession(&p.mounts, Identity{User: strconv.Itoa(i)})
				s.ref = p.wheel.Add((*owner)(s), p.wheel.Exact()+wheel.Time(rand.Int64N(int64(interval))))
			}
			runtime.GC()
			time.Sleep(time.Second)
			cpu, begun := proctest.CPUTime(), time.Now()
			for b.Loop() {
				time.Sleep(time.Second)
			}
			perSecond := float64(proctest.CPUTime()-cpu) / time.Since(begun).Seconds()
			b.ReportMetric(perSecond/1e6, "cpu-ms/s")
			// An interval is shortened at random by up to a tenth.
			b.ReportMetric(perSecond/(n/(0.95*interval.Seconds())), "ns/look")
			p.wheel.Stop()
		})
	}
}
