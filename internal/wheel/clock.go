package wheel

import (
	"sync"
	"sync/atomic"
	"time"
)

// clock is the coarse clock of a wheel, and its memory of when ticks came.
type clock struct {
	coarse atomic.Int64 // end of the current tick
	awake  atomic.Int64
	start  time.Time

	mu       sync.Mutex
	last     Time  // of the tick before
	lastWall int64 // the same on the wall clock, Unix nanoseconds
}

// Now returns the end of the current tick: one atomic load. While the wheel is
// ticking on time it is never earlier than the true time, and never more than
// one tick later. So what is stamped with it never looks older than it is, and
// may be up to one tick later than the time that a look is told.
//
// Where the goroutines of the wheel get no CPU it goes stale, and what is
// stamped with it looks older than it is: who is about to act on an age must
// verify first. It also stands still while the wheel has no items, but is right
// again before the next Add returns.
func (w *Wheel) Now() Time { return Time(w.coarse.Load()) }

// Exact returns the true time. It costs a reading of the system's clock.
func (w *Wheel) Exact() Time { return w.since(time.Now()) }

// Awake returns since when ticks have come without a gap. A gap is seen when a
// tick comes later than Gap after the one before it, because the process was
// stopped or got no CPU, or when the wall clock has run ahead of the monotonic
// one by more than Gap, because the machine slept: on Linux and others the
// monotonic clock stands still then. (A wall clock that is set forward looks the
// same.) Whoever is told the time after a gap, by the wheel or a look, finds the
// gap here. Without items there are no ticks, which counts as a gap if it lasts.
func (w *Wheel) Awake() Time { return Time(w.awake.Load()) }

func (w *Wheel) since(t time.Time) Time { return max(Time(t.Sub(w.start)), 1) }

// begin starts the clock.
func (w *Wheel) begin() {
	w.start = time.Now()
	w.last, w.lastWall = 1, w.start.UnixNano()
	w.awake.Store(1)
	w.coarse.Store(int64(w.tick))
}

// refresh reads the system's clock, brings the coarse clock up to it, and
// returns it.
func (w *Wheel) refresh() Time {
	t := time.Now()
	now := w.since(t)
	if now < w.Now() {
		return now // the tick is the same, and somebody has seen to it
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if now < w.Now() {
		return now
	}
	gap := Time(w.Gap)
	if gap <= 0 {
		gap = Time(DefaultGap)
	}
	wall := t.UnixNano()
	if gapBetween(now-w.last, Time(wall-w.lastWall), gap) {
		// Before the coarse clock moves: whoever sees the new time must see
		// the gap too.
		w.awake.Store(int64(now))
	}
	w.last, w.lastWall = now, wall
	w.coarse.Store(int64((now/w.tick + 1) * w.tick))
	return now
}

// gapBetween decides by what two clocks say has passed between two ticks.
func gapBetween(monotonic, wall, gap Time) bool {
	return monotonic > gap || wall-monotonic > gap
}
