package wheel_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/wheel"
)

const tick = wheel.DefaultTick

// item is a look as a function.
type item func(now wheel.Time) wheel.Time

func (f item) Look(now wheel.Time) wheel.Time { return f(now) }

func (f item) Warm() {}

// at is a time of the wheel.
func at(d time.Duration) wheel.Time { return wheel.Time(d) }

// own is the Ref of an item for use in its look, which may begin before Add has
// returned to whoever stores the Ref.
type own struct{ p atomic.Pointer[wheel.Ref] }

func (o *own) set(r wheel.Ref) wheel.Ref { o.p.Store(&r); return r }
func (o *own) get() wheel.Ref            { return *o.p.Load() }

// journal is what was looked at, and when. Safe for concurrent use.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) note(name string, now wheel.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf("%s %v", name, time.Duration(now)))
}

func (j *journal) read() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]string{}, j.lines...)
}

// item notes its looks and answers what next says, and 0 at the end.
func (j *journal) item(name string, next ...wheel.Time) item {
	return func(now wheel.Time) wheel.Time {
		j.note(name, now)
		if len(next) == 0 {
			return 0
		}
		n := next[0]
		next = next[1:]
		return n
	}
}

// bubble runs a test on fake time, with a wheel that is stopped at its end. The
// bubble fails if a goroutine of the wheel outlives Stop.
func bubble(t *testing.T, shards int, f func(t *testing.T, w *wheel.Wheel)) {
	synctest.Test(t, func(t *testing.T) {
		w := wheel.New(0)
		if shards > 0 {
			w.Stop()
			w = wheel.NewShards(shards)
		}
		defer w.Stop()
		f(t, w)
	})
}

// until lets time pass to an instant of the wheel, and all looks of it end.
func until(w *wheel.Wheel, d time.Duration) {
	now := time.Duration(w.Exact())
	if now == 1 {
		now = 0 // the clock says so because 0 is never
	}
	time.Sleep(d - now)
	synctest.Wait()
}

func TestLookComesAtTheFirstTickNotBefore(t *testing.T) {
	horizon := wheel.Slots * tick
	for _, tc := range []struct{ at, want time.Duration }{
		{-time.Hour, tick},
		{1, tick},
		{tick - 1, tick},
		{tick, tick},
		{tick + 1, 2 * tick},
		{25 * time.Second, 25 * time.Second},
		{horizon - tick, horizon - tick},
		{horizon, horizon},
		{horizon + 1, horizon + tick},
		{10*time.Minute + 1, 10*time.Minute + tick},
	} {
		t.Run(tc.at.String(), func(t *testing.T) {
			bubble(t, 0, func(t *testing.T, w *wheel.Wheel) {
				var j journal
				w.Add(item(func(now wheel.Time) wheel.Time {
					require.Equal(t, w.Exact(), now)
					j.note("look", now)
					return 0
				}), at(tc.at))
				require.Equal(t, 1, w.Len())
				until(w, tc.want-1)
				require.Empty(t, j.read())
				until(w, tc.want)
				require.Equal(t, []string{fmt.Sprintf("look %v", tc.want)}, j.read())
				require.Zero(t, w.Len())
				until(w, tc.want+2*horizon)
				require.Len(t, j.read(), 1)
			})
		})
	}
}

func TestTickIsWhatNewWasTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := wheel.New(time.Millisecond)
		defer w.Stop()
		var j journal
		w.Add(j.item("a"), at(2500*time.Microsecond))
		until(w, time.Second)
		require.Equal(t, []string{"a 3ms"}, j.read())
	})
}

func TestAnswersOfLook(t *testing.T) {
	bubble(t, 0, func(t *testing.T, w *wheel.Wheel) {
		var j journal
		w.Add(j.item("a",
			at(time.Second),    // later
			at(time.Second),    // the tick that is now: the next
			1,                  // past: the next
			-1,                 // past: the next
			at(10*time.Minute), // beyond the far end
		), at(tick))
		until(w, time.Hour)
		require.Equal(t, []string{"a 50ms", "a 1s", "a 1.05s", "a 1.1s", "a 1.15s", "a 10m0s"}, j.read())
		require.Zero(t, w.Len())
	})
}

func TestHasten(t *testing.T) {
	bubble(t, 0, func(t *testing.T, w *wheel.Wheel) {
		var j journal
		r := w.Add(j.item("a", at(time.Minute), at(time.Hour)), at(10*time.Second))
		w.Hasten(r, at(20*time.Second)) // later
		w.Hasten(r, 0)                  // never
		w.Hasten(wheel.Ref{}, 1)        // nothing
		until(w, time.Second)
		require.Empty(t, j.read())
		w.Hasten(r, at(3*time.Second))
		w.Hasten(r, at(2*time.Second))
		w.Hasten(r, at(4*time.Second))
		until(w, 50*time.Second)
		require.Equal(t, []string{"a 2s"}, j.read(), "the old instants are no looks")
		w.Hasten(r, 1)
		until(w, 30*time.Minute)
		require.Equal(t, []string{"a 2s", "a 50.05s"}, j.read())
		w.Hasten(r, at(40*time.Minute))
		until(w, 2*time.Hour)
		require.Equal(t, []string{"a 2s", "a 50.05s", "a 40m0s"}, j.read())
	})
}

func TestWithoutALookUntilHastened(t *testing.T) {
	bubble(t, 0, func(t *testing.T, w *wheel.Wheel) {
		var j journal
		r := w.Add(j.item("a"), 0)
		until(w, time.Hour)
		require.Empty(t, j.read())
		require.Equal(t, 1, w.Len())
		w.Hasten(r, at(time.Hour+time.Second))
		until(w, 2*time.Hour)
		require.Equal(t, []string{"a 1h0m1s"}, j.read())
	})
}

// While a look runs, the earlier of its answer and of Hasten counts.
func TestHastenDuringLook(t *testing.T) {
	for _, tc := range []struct {
		name           string
		answer, hasten time.Duration
		want           []string
	}{
		{"earlier", 20 * time.Second, 10 * time.Second, []string{"a 1s", "a 10s"}},
		{"later", 10 * time.Second, 20 * time.Second, []string{"a 1s", "a 10s"}},
		{"past", 10 * time.Second, time.Millisecond, []string{"a 1s", "a 1.05s"}},
		{"out anyway", 0, 10 * time.Second, []string{"a 1s"}},
	} {
		t.Run(tc.name+" from inside", func(t *testing.T) {
			bubble(t, 0, func(t *testing.T, w *wheel.Wheel) {
				var j journal
				var r own
				next := at(tc.answer)
				r.set(w.Add(item(func(now wheel.Time) (answer wheel.Time) {
					j.note("a", now)
					answer, next = next, 0
					w.Hasten(r.get(), at(tc.hasten))
					return answer
				}), at(time.Second)))
				until(w, time.Minute)
				require.Equal(t, tc.want, j.read())
				require.Zero(t, w.Len())
			})
		})
		t.Run(tc.name+" from outside", func(t *testing.T) {
			bubble(t, 0, func(t *testing.T, w *wheel.Wheel) {
				var j journal
				next := at(tc.answer)
				r := w.Add(item(func(now wheel.Time) (answer wheel.Time) {
					j.note("a", now)
					answer, next = next, 0
					time.Sleep(10 * time.Millisecond)
					return answer
				}), at(time.Second))
				until(w, time.Second+5*time.Millisecond)
				w.Hasten(r, at(tc.hasten))
				until(w, time.Minute)
				require.Equal(t, tc.want, j.read())
			})
		})
	}
}

func TestHastenAnotherFromALook(t *testing.T) {
	bubble(t, 1, func(t *testing.T, w *wheel.Wheel) {
		var j journal
		b := w.Add(j.item("b"), at(time.Minute))
		w.Add(item(func(now wheel.Time) wheel.Time {
			j.note("a", now)
			w.Hasten(b, now)
			return 0
		}), at(time.Second))
		until(w, time.Hour)
		require.Equal(t, []string{"a 1s", "b 1.05s"}, j.read())
	})
}

func TestRemove(t *testing.T) {
	bubble(t, 0, func(t *testing.T, w *wheel.Wheel) {
		var j journal
		a := w.Add(j.item("a"), at(time.Second))
		w.Add(j.item("b"), at(time.Second))
		w.Remove(a)
		w.Remove(a)
		w.Remove(wheel.Ref{})
		require.Equal(t, 1, w.Len())
		until(w, time.Minute)
		require.Equal(t, []string{"b 1s"}, j.read())
	})
}

func TestRemoveDuringLook(t *testing.T) {
	bubble(t, 1, func(t *testing.T, w *wheel.Wheel) {
		var j journal
		var a, b, c own
		a.set(w.Add(item(func(now wheel.Time) wheel.Time {
			j.note("a", now)
			w.Remove(a.get())
			w.Remove(b.get()) // due in the same tick, after this one
			c.set(w.Add(j.item("c"), at(5*time.Second)))
			return at(3 * time.Second) // a is out, and c, in its place, is not a
		}), at(time.Second)))
		b.set(w.Add(j.item("b"), at(time.Second)))
		until(w, 2*time.Second)
		require.Equal(t, 1, w.Len())
		w.Remove(a.get())
		w.Hasten(a.get(), 1)
		until(w, time.Minute)
		require.Equal(t, []string{"a 1s", "c 5s"}, j.read())
		require.NotEqual(t, a.get(), c.get())
	})
}

func TestOldRefsHitNothing(t *testing.T) {
	bubble(t, 0, func(t *testing.T, w *wheel.Wheel) {
		var j journal
		seen := map[wheel.Ref]bool{}
		for range 3000 {
			r := w.Add(j.item("old"), at(time.Second))
			require.False(t, seen[r])
			seen[r] = true
			w.Remove(r)
		}
		for range 500 {
			w.Add(j.item("new"), at(time.Minute))
		}
		for r := range seen {
			w.Hasten(r, at(2*time.Second))
			w.Remove(r)
		}
		require.Equal(t, 500, w.Len())
		until(w, 59*time.Second)
		require.Empty(t, j.read())
		until(w, time.Minute)
		require.Len(t, j.read(), 500)

		// Sleeping shards forget what they held, but not which Refs they gave.
		until(w, 2*time.Minute)
		for range 100 {
			w.Add(j.item("last"), at(4*time.Minute))
		}
		for r := range seen {
			w.Remove(r)
		}
		require.Equal(t, 100, w.Len())
	})
}

func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := wheel.New(0)
		w.Add(item(func(wheel.Time) wheel.Time { panic("stopped") }), at(time.Minute))
		until(w, time.Second+time.Millisecond)
		w.Stop()
		w.Stop()
		require.Equal(t, at(time.Second+time.Millisecond), w.Exact(), "Stop does not wait for a tick")
		require.Zero(t, w.Len())
		r := w.Add(item(func(wheel.Time) wheel.Time { panic("stopped") }), 1)
		require.Zero(t, r)
		w.Hasten(r, 1)
		w.Remove(r)
		require.Zero(t, w.Len())
		time.Sleep(time.Hour)
	})
}

func TestStopWaitsForTheLookThatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := wheel.NewShards(1)
		var j journal
		for _, name := range []string{"a", "b"} {
			w.Add(item(func(now wheel.Time) wheel.Time {
				time.Sleep(time.Second)
				j.note(name, w.Exact())
				return now
			}), at(time.Second))
		}
		until(w, 1500*time.Millisecond)
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() {
				w.Stop()
				require.Equal(t, at(2*time.Second), w.Exact())
			})
		}
		both.Wait()
		require.Equal(t, []string{"a 2s"}, j.read(), "no look begins after Stop")
		require.Zero(t, w.Len())
	})
}

func TestPanicOfALookIsNotBuried(t *testing.T) {
	w := wheel.NewDriven(1)
	w.Add(item(func(wheel.Time) wheel.Time { panic("boom") }), 1)
	require.PanicsWithValue(t, "boom", func() { w.Advance(at(time.Second)) })
}

// Everything at once, for the race detector.
func TestConcurrentUse(t *testing.T) {
	w := wheel.New(time.Millisecond)
	defer w.Stop()
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			var refs []wheel.Ref
			for i := range 3000 {
				running := new(sync.Mutex)
				refs = append(refs, w.Add(item(func(now wheel.Time) wheel.Time {
					if !running.TryLock() {
						t.Error("two looks at one item")
						return 0
					}
					defer running.Unlock()
					return now + at(time.Duration(i%7)*time.Millisecond)
				}), w.Now()))
				w.Hasten(refs[i/2], w.Now())
				if i%3 == g%3 {
					w.Remove(refs[i/3])
				}
				_, _ = w.Awake(), w.Len()
			}
			for _, r := range refs {
				w.Remove(r)
			}
		})
	}
	all.Wait()
	require.Zero(t, w.Len())
}
