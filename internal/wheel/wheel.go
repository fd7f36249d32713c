// Package wheel looks at many things now and then: one goroutine per CPU, no
// timer and no goroutine per item.
//
// Time is cut into ticks. Each shard of the wheel holds a ring of slots, one per
// tick, and each item is in the slot of the tick in which it next needs a look
// (a timing wheel after Varghese and Lauck, scheme 4, with one ring). A look
// answers when the next one is due. So the cost per second is items / interval,
// whatever the tick.
//
// Items are kept in a table and slots refer to them by number. An item that is
// looked at earlier, or taken out, leaves its old reference behind, which is
// recognised and dropped when its slot comes up.
package wheel

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultTick is the tick of a wheel made with New(0).
const DefaultTick = 50 * time.Millisecond

// DefaultGap is the gap of a wheel whose field Gap is 0.
const DefaultGap = time.Second

// Time is nanoseconds since the wheel was made, on the monotonic clock. 0 is
// "never".
type Time int64

// Item needs a look from time to time.
type Item interface {
	// Warm is called shortly before Look, with a lock of the wheel held. It loads
	// what Look will need into the cache, and changes nothing.
	Warm()

	// Look is told the time and answers when it wants the next look; an answer
	// that has passed means the next tick, and 0 takes the item out. It is
	// called without any lock of the wheel, so it may use the wheel, except
	// Stop. It is never called concurrently for one Add. While it runs no other
	// item of its shard is looked at, so it must not wait for anything.
	Look(now Time) (next Time)
}

// Ref names what an Add put in. It is comparable. The zero Ref names nothing,
// and so does a Ref whose item is out: it never comes to name another item.
type Ref struct {
	gen   uint64
	index uint32
	shard uint32
}

// Wheel is a set of items and the goroutines that look at them. Make one with
// New. All methods may be called concurrently.
type Wheel struct {
	// Gap is how long after one tick the next may come before the wheel says
	// that it was not awake between them. Default DefaultGap. It must be set
	// before the first Add.
	Gap time.Duration

	tick   Time
	shards []*shard
	stop   chan struct{}
	once   sync.Once
	ended  sync.WaitGroup
	robin  atomic.Uint32

	_ [64]byte // the clock is read with every byte that arrives: keep writes off its cache line
	clock
}

// New makes a wheel and starts a goroutine per CPU (GOMAXPROCS). tick is the
// resolution: a look comes at most one tick late, plus what the scheduler of Go
// adds. 0 means DefaultTick. The goroutines run until Stop.
func New(tick time.Duration) *Wheel {
	w := newWheel(tick, runtime.GOMAXPROCS(0))
	w.run()
	return w
}

func newWheel(tick time.Duration, shards int) *Wheel {
	if tick <= 0 {
		tick = DefaultTick
	}
	w := &Wheel{tick: Time(tick), stop: make(chan struct{})}
	w.begin()
	for range shards {
		w.shards = append(w.shards, &shard{
			tick:    w.tick,
			refresh: w.refresh,
			asleep:  true,
			wake:    make(chan struct{}, 1),
		})
	}
	return w
}

// Add puts an item in, to be looked at no earlier than at. An instant that has
// passed means the next tick, and 0 means not before a Hasten. The look may
// begin before Add returns. After Stop nothing is put in, and the Ref is zero.
func (w *Wheel) Add(it Item, at Time) Ref {
	n := (w.robin.Add(1) - 1) % uint32(len(w.shards))
	index, gen := w.shards[n].add(it, at)
	if gen == 0 {
		return Ref{}
	}
	return Ref{gen: gen, index: index, shard: n}
}

// Hasten sees to it that the next look comes no later than at, give or take a
// tick. It has no effect if that look is due earlier anyway, if at is 0, or if
// the item is out. While the item is being looked at, the earlier of at and the
// answer counts, except that the answer 0 still takes the item out.
func (w *Wheel) Hasten(r Ref, at Time) {
	if s := w.shard(r); s != nil && at != 0 {
		s.hasten(r.index, r.gen, at)
	}
}

// Remove takes the item out. No look at it begins after Remove has returned, but
// one may still be running. Without an item it has no effect.
func (w *Wheel) Remove(r Ref) {
	if s := w.shard(r); s != nil {
		s.remove(r.index, r.gen)
	}
}

func (w *Wheel) shard(r Ref) *shard {
	if r.gen == 0 || int(r.shard) >= len(w.shards) {
		return nil
	}
	return w.shards[r.shard]
}

// Len returns how many items are in.
func (w *Wheel) Len() int {
	n := 0
	for _, s := range w.shards {
		n += s.len()
	}
	return n
}

// Stop ends the goroutines and returns when they have ended, which is after the
// looks that are running. It must not be called from a look. Calling it again
// has no effect but to wait.
func (w *Wheel) Stop() {
	w.once.Do(func() {
		close(w.stop)
		for _, s := range w.shards {
			s.clear()
		}
	})
	w.ended.Wait()
}

func (w *Wheel) run() {
	for _, s := range w.shards {
		w.ended.Go(func() { w.drive(s) })
	}
}

// drive makes the ticks of one shard. Ticks are at whole multiples of the tick on the wheel's
// clock, also after a sleep, so that every shard's ticks are the same instants.
func (w *Wheel) drive(s *shard) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if s.sleep() {
			select {
			case <-s.wake:
			case <-w.stop:
				return
			}
		}
		timer.Reset(s.untilNext(w.Exact()))
		select {
		case <-timer.C:
		case <-w.stop:
			return
		}
		s.advance(w.refresh())
	}
}
