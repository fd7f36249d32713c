package wheel_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/wheel"
)

// An answer is what an item said in a look.
type answer struct {
	id           int
	now          wheel.Time
	next, hasten wheel.Time
}

// 10,000 items with random answers, hastened, added and removed at random,
// against a map from item to tick.
func TestModel(t *testing.T) {
	bubble(t, 3, func(t *testing.T, w *wheel.Wheel) {
		const (
			items = 10_000
			ticks = 1500 // once and a half round the ring
			seed  = 1
		)
		var (
			mu      sync.Mutex
			answers []answer
			due     = map[int]int64{} // the model
			refs    []*own
			r       = rand.New(rand.NewPCG(seed, 0))
			now     int64
		)
		tickOf := func(at wheel.Time) int64 {
			return max(int64((at+wheel.Time(tick)-1)/wheel.Time(tick)), now+1)
		}
		someTime := func(r *rand.Rand) wheel.Time {
			ms := []int{100, 5000, 30_000, 200_000}[r.IntN(4)]
			return wheel.Time(now)*wheel.Time(tick) + wheel.Time(r.IntN(ms)-50)*wheel.Time(time.Millisecond)
		}
		add := func() {
			id := len(refs)
			r := rand.New(rand.NewPCG(seed, uint64(id+1)))
			self := new(own)
			refs = append(refs, self)
			first := someTime(r)
			if first == 0 {
				first = 1
			}
			self.set(w.Add(item(func(at wheel.Time) wheel.Time {
				a := answer{id: id, now: at}
				if r.IntN(50) > 0 {
					a.next = at + wheel.Time(r.IntN(60_000)-1000)*wheel.Time(time.Millisecond)
				}
				if r.IntN(3) == 0 {
					a.hasten = at + wheel.Time(r.IntN(20_000)-1000)*wheel.Time(time.Millisecond)
					w.Hasten(self.get(), a.hasten)
				}
				mu.Lock()
				defer mu.Unlock()
				answers = append(answers, a)
				return a.next
			}), first))
			due[id] = tickOf(first)
		}
		for range items {
			add()
		}
		looks := 0
		for now = 1; now <= ticks; now++ {
			until(w, time.Duration(now)*tick+tick/2)
			var want, got []int
			for id, at := range due {
				if at == now {
					want = append(want, id)
				}
			}
			for _, a := range answers {
				got = append(got, a.id)
				require.Equal(t, wheel.Time(now)*wheel.Time(tick), a.now)
				switch {
				case a.next == 0:
					delete(due, a.id)
				case a.hasten != 0:
					due[a.id] = min(tickOf(a.next), tickOf(a.hasten))
				default:
					due[a.id] = tickOf(a.next)
				}
			}
			slices.Sort(want)
			slices.Sort(got)
			require.Equal(t, want, got, "tick %d", now)
			looks += len(got)
			answers = answers[:0]

			for range 20 {
				add()
				id := r.IntN(len(refs))
				w.Remove(refs[id].get())
				delete(due, id)
				id = r.IntN(len(refs))
				at := someTime(r)
				w.Hasten(refs[id].get(), at)
				if d, in := due[id]; in && at != 0 {
					due[id] = min(d, tickOf(at))
				}
			}
			require.Equal(t, len(due), w.Len())
		}
		require.Greater(t, looks, 20_000, "the test must look at something")
	})
}
