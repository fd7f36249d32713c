package wheel

import (
	"math"
	"slices"
	"sync"
	"time"
)

const (
	// slotCount slots are 51 s at the default tick, which most intervals are
	// within. What is further away is put at the far end and moved on from
	// there without a look.
	slotCount = 1024

	// never is a tick that does not come.
	never = math.MaxInt64

	// slack is how many references that no longer count a shard may keep besides
	// one per item.
	slack = 4096

	// refreshEvery is after how many looks the clock is read again: after a gap
	// all items may be overdue, and each look may cost a system call.
	refreshEvery = 16

	// warmAhead is how many items are warmed at once: few enough that they are
	// still in the cache when their look comes.
	warmAhead = 16
)

// A ref is what a slot holds of an item: it counts as long as seq is that of the
// entry.
type ref struct {
	index uint32
	seq   uint32
}

// A shard is a part of the wheel that one goroutine looks after.
type shard struct {
	tick    Time
	refresh func() Time
	wake    chan struct{} // holds one, and is empty while asleep

	mu      sync.Mutex // never held during a look
	items   table
	slots   [slotCount][]ref
	refs    int   // in all slots
	cur     int64 // the tick whose slot is being visited, or was last
	target  int64 // the tick up to which slots are being visited, or were
	seq     uint32
	spare   []ref // the array of a visited slot, for the next slot that needs one
	asleep  bool
	stopped bool
}

func (s *shard) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.items.len
}

func (s *shard) add(it Item, at Time) (index uint32, gen uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return 0, 0
	}
	if s.asleep {
		s.asleep = false
		s.cur = int64(s.refresh() / s.tick)
		s.target = s.cur
		s.wake <- struct{}{}
	}
	e, index := s.items.put(it)
	if e.due = never; at != 0 {
		e.due = s.tickOf(at)
		s.place(e, index)
	}
	return index, e.gen
}

func (s *shard) hasten(index uint32, gen uint64, at Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.items.get(index, gen)
	if e == nil {
		return
	}
	due := s.tickOf(at)
	if due >= e.due {
		return
	}
	e.due = due
	s.place(e, index)
}

func (s *shard) remove(index uint32, gen uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.items.get(index, gen) != nil {
		s.drop(index)
	}
}

func (s *shard) drop(index uint32) {
	s.items.drop(index)
	s.tidy()
}

// clear takes everything out for good.
func (s *shard) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	s.empty()
}

// empty forgets items and references, and their memory. Generations go on.
func (s *shard) empty() {
	s.items = table{gen: s.items.gen}
	clear(s.slots[:])
	s.refs = 0
	s.spare = nil
}

// sleep reports whether there is nothing to look at. The next add then sends on
// wake.
func (s *shard) sleep() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.items.len == 0 && !s.asleep {
		s.asleep = true
		s.empty()
		select { // what woke it before it went to sleep
		case <-s.wake:
		default:
		}
	}
	return s.asleep
}

// untilNext returns how long it is until the next tick, at most 0 if that has
// passed.
func (s *shard) untilNext(now Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Duration(Time(s.target+1)*s.tick - now)
}

// tickOf returns the first tick at or after an instant, but no tick that is
// being visited or was.
func (s *shard) tickOf(at Time) int64 {
	n := int64(at / s.tick)
	if at%s.tick > 0 {
		n++
	}
	return max(n, s.target+1)
}

// place puts a reference to an item into the slot of its tick.
func (s *shard) place(e *entry, index uint32) {
	if s.seq++; s.seq == 0 {
		s.seq = 1
	}
	e.seq = s.seq
	// A whole turn away is the slot of the current tick, which is empty: a visit
	// takes the array out first.
	slot := &s.slots[min(e.due, s.cur+slotCount)%slotCount]
	if *slot == nil {
		*slot, s.spare = s.spare, nil
	}
	*slot = append(*slot, ref{index: index, seq: e.seq})
	s.refs++
	s.tidy()
}

// entry returns the entry that a reference is to, or nil if it counts no more.
// (That seq has come round to the same number would take 2^32 looks in one turn
// of the ring.)
func (s *shard) entry(r ref) *entry {
	if e := s.items.at(r.index); e.counts(r) {
		return e
	}
	return nil
}

// counts says that a reference is to this use of the entry, and the newest one.
func (e *entry) counts(r ref) bool { return e != nil && e.gen != 0 && e.seq == r.seq }

// tidy bounds the references that no longer count. Its work is paid for by the
// at least len+slack calls of place or drop since the last time.
func (s *shard) tidy() {
	if s.refs <= 2*s.items.len+slack {
		return
	}
	s.refs = 0
	for i := range s.slots {
		kept := slices.DeleteFunc(s.slots[i], func(r ref) bool { return s.entry(r) == nil })
		switch {
		case len(kept) == 0:
			kept = nil
		case wasteful(kept):
			kept = slices.Clone(kept)
		}
		s.slots[i] = kept
		s.refs += len(kept)
	}
}

// wasteful reports whether an array is much too large for what it holds.
func wasteful(slot []ref) bool {
	return cap(slot) > 8 && len(slot) < cap(slot)/4
}

// advance looks at everything that is due at now, in the order of ticks. Only
// one call may run at a time.
func (s *shard) advance(now Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	looks := 0
	for s.target = max(s.target, int64(now/s.tick)); s.cur < s.target; {
		s.cur++
		i := s.cur % slotCount
		slot := s.slots[i]
		if len(slot) == 0 {
			continue
		}
		s.slots[i] = nil
		s.refs -= len(slot)
		for n, r := range slot {
			if n%warmAhead == 0 {
				s.warm(slot[n:min(n+warmAhead, len(slot))])
			}
			e := s.entry(r)
			if e == nil {
				continue
			}
			if e.due > s.cur {
				s.place(e, r.index) // it was beyond the far end
				continue
			}
			s.look(e, r.index, now)
			if looks++; looks%refreshEvery == 0 {
				now = max(now, s.refresh())
			}
		}
		if !wasteful(slot) && cap(slot) > cap(s.spare) {
			s.spare = slot[:0]
		}
	}
}

// warm brings the next items closer. Their memory is cold, and the CPU waits for
// many at once as long as for one.
func (s *shard) warm(next []ref) {
	// One step of the way for all, then the next step: so few instructions are
	// between the waits that the CPU has all of them in sight.
	var entries [warmAhead]*entry
	for i, r := range next {
		entries[i] = s.items.at(r.index)
	}
	var items [warmAhead]Item
	n := 0
	for i, r := range next {
		if e := entries[i]; e.counts(r) {
			items[n] = e.item
			n++
		}
	}
	for _, it := range items[:n] {
		it.Warm()
	}
}

// look calls Look, without the lock, and does what it answers.
func (s *shard) look(e *entry, index uint32, now Time) {
	gen := e.gen
	e.due = never
	next := s.unlocked(e.item, now)
	// It may have been removed meanwhile, and the entry used again.
	if e = s.items.get(index, gen); e == nil {
		return
	}
	if next == 0 {
		s.drop(index)
		return
	}
	// Hasten may have lowered due meanwhile.
	e.due = min(e.due, s.tickOf(next))
	s.place(e, index)
}

// unlocked calls Look. The lock is taken again also when it panics, or the
// panic would be buried under one about the lock.
func (s *shard) unlocked(it Item, now Time) Time {
	s.mu.Unlock()
	defer s.mu.Lock()
	return it.Look(now)
}
