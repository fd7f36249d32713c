// Package hashset is a hash table of pointers to values that know their own
// key, which is read without a lock. A map keeps the key beside the pointer once
// more, in three times as much memory, and its readers need a lock.
package hashset

import (
	"iter"
	"math/bits"
	"sync/atomic"
)

// Set is a hash table in groups of seven slots, probed one group after the
// other. A group is one cache line, and one wait for memory. The zero Set is
// empty.
//
// Get, Spot and All may be called at any time. The other methods are for one
// caller at a time. A reader finds what is in from before it begins until it is
// done. Hashes are the caller's: always the same for the same value, and as good
// as any in their 64 bits.
type Set[T any] struct {
	table atomic.Pointer[table[T]]
	len   int
}

// A table has a power of two of groups, and is at most six sevenths full. What
// is in stays where it is, until it is deleted or another table takes the place
// of this one: so a reader does not miss it.
type table[T any] struct{ groups []group[T] }

// A group counts the values that went past it because it was full, as F14 does:
// where none did a search ends, and nothing has to move when a value is deleted.
type group[T any] struct {
	// tags has a byte for each slot: 0 where it is free, else some bits of the
	// hash. The highest byte is how many went past; 255 stands for that and more,
	// and stays.
	tags  atomic.Uint64
	slots [groupSlots]atomic.Pointer[T]
}

const (
	groupSlots = 7
	onePast    = 1 << 56
	tagBits    = onePast - 1
	lowBits    = 0x01010101010101 // of every tag
	highBits   = 0x80808080808080
)

// place is the group where a value belongs, and its tag.
func (t *table[T]) place(hash uint64) (i int, tag uint64) {
	// Callers spread over many sets by the same bits.
	hash ^= hash >> 32
	hash *= 0x9e3779b97f4a7c15
	return int(hash>>32) & (len(t.groups) - 1), hash>>25&0x7f | 0x80
}

func (t *table[T]) after(i int) int { return (i + 1) & (len(t.groups) - 1) }

// with returns the highest bit of each slot that has a tag. Behind such a slot
// it may be wrong about others.
func with(tags, tag uint64) uint64 {
	x := tags&tagBits ^ tag*lowBits
	return (x - lowBits) & ^x & highBits
}

// slotOf is the first slot whose bit is set.
func slotOf(highest uint64) int { return bits.TrailingZeros64(highest) / 8 }

func past(tags uint64) uint64 { return tags >> 56 }

// Len returns how many values are in.
func (s *Set[T]) Len() int { return s.len }

// Get returns the value that matches, or nil.
func (s *Set[T]) Get(hash uint64, match func(*T) bool) *T {
	if t := s.table.Load(); t != nil {
		e, _ := t.find(hash, match)
		return e
	}
	return nil
}

// Spot is where a value with a hash belongs. Who looks for many takes the spots
// of all, touches all, then guesses all: so the processor waits for the memory of
// many at once. It is for use at once: values that come later may be missed.
type Spot[T any] struct {
	table *table[T] // nil: the set was empty
	group *group[T]
	tag   uint64
}

// Spot does not load what it names.
func (s *Set[T]) Spot(hash uint64) Spot[T] {
	t := s.table.Load()
	if t == nil {
		return Spot[T]{}
	}
	i, tag := t.place(hash)
	return Spot[T]{t, &t.groups[i], tag}
}

// Touch loads what Guess needs.
func (p *Spot[T]) Touch() {
	if p.group != nil {
		p.group.tags.Load()
	}
}

// Guess returns a value that is likely the one with the hash, without looking at
// it, or nil where it sees none: then only Get can tell.
func (p *Spot[T]) Guess(hash uint64) *T {
	if p.group == nil {
		return nil
	}
	tags := p.group.tags.Load()
	if found := with(tags, p.tag); found != 0 {
		return p.group.slots[slotOf(found)].Load()
	}
	if past(tags) == 0 {
		return nil
	}
	e, _ := p.table.find(hash, func(*T) bool { return true })
	return e
}

// Add puts in a value that is not there yet. hash is also asked for the others
// when the table grows.
func (s *Set[T]) Add(e *T, hash func(*T) uint64) {
	t := s.table.Load()
	switch {
	case t == nil:
		t = s.resize(1, hash)
	case s.len == len(t.groups)*(groupSlots-1):
		t = s.resize(2*len(t.groups), hash)
	}
	t.put(e, hash(e))
	s.len++
}

func (t *table[T]) put(e *T, hash uint64) {
	i, tag := t.place(hash)
	for {
		g := &t.groups[i]
		tags := g.tags.Load()
		if free := ^tags & highBits; free != 0 {
			slot := slotOf(free)
			g.slots[slot].Store(e) // first, for readers
			g.tags.Store(tags | tag<<(8*slot))
			return
		}
		if past(tags) < 255 {
			g.tags.Store(tags + onePast)
		}
		i = t.after(i)
	}
}

func (s *Set[T]) resize(size int, hash func(*T) uint64) *table[T] {
	t := &table[T]{make([]group[T], size)}
	for e := range s.All() {
		t.put(e, hash(e))
	}
	s.table.Store(t)
	return t
}

// Replace puts a value into the place of another with the same hash, which is in.
func (s *Set[T]) Replace(hash uint64, old, e *T) {
	_, at := s.table.Load().find(hash, same(old))
	at.group.slots[at.slot].Store(e)
}

// Delete takes a value out, and says whether it was in. hash is asked for the
// others when the table shrinks.
func (s *Set[T]) Delete(e *T, hash func(*T) uint64) bool {
	t := s.table.Load()
	if t == nil {
		return false
	}
	h := hash(e)
	found, at := t.find(h, same(e))
	if found == nil {
		return false
	}
	at.group.tags.And(^uint64(0xff << (8 * at.slot)))
	at.group.slots[at.slot].Store(nil)
	i, _ := t.place(h)
	for range at.before {
		if g := &t.groups[i]; past(g.tags.Load()) < 255 {
			g.tags.Add(^uint64(onePast - 1))
		}
		i = t.after(i)
	}
	s.len--
	if size := len(t.groups) / 2; size > 0 && s.len < 2*size { // less than a seventh is used
		s.resize(size, hash)
	}
	return true
}

// A position is where a value is, and how many groups it went past.
type position[T any] struct {
	group        *group[T]
	slot, before int
}

// find returns the value that matches and where it is, or nil.
func (t *table[T]) find(hash uint64, match func(*T) bool) (*T, position[T]) {
	i, tag := t.place(hash)
	for before := range len(t.groups) {
		g := &t.groups[i]
		tags := g.tags.Load()
		for found := with(tags, tag); found != 0; found &= found - 1 {
			slot := slotOf(found)
			// It may have been deleted since the tags were read.
			if e := g.slots[slot].Load(); e != nil && match(e) {
				return e, position[T]{g, slot, before}
			}
		}
		if past(tags) == 0 {
			break
		}
		i = t.after(i)
	}
	return nil, position[T]{}
}

// same matches one value alone.
func same[T any](e *T) func(*T) bool { return func(other *T) bool { return other == e } }

// All yields every value. One that comes or goes meanwhile may be yielded or
// not.
func (s *Set[T]) All() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		t := s.table.Load()
		if t == nil {
			return
		}
		for i := range t.groups {
			for slot := range groupSlots {
				if e := t.groups[i].slots[slot].Load(); e != nil && !yield(e) {
					return
				}
			}
		}
	}
}
