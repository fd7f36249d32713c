// Package hashset is a hash table of values that know their own key. A map
// keeps the key beside the value once more: for a pointer to something that has
// a name, three times as much memory.
package hashset

import "iter"

// Set is an open-addressed table with linear probing. The zero Set is empty.
// It is not safe for concurrent changes. Hashes are the caller's: always the
// same for the same value, and as good as any in their 64 bits.
type Set[E any] struct {
	tags  []uint8 // of the slots: 0 where it is free, else some bits of the hash
	slots []E
	len   int
}

// A table is between an eighth and three quarters full.
const least = 8

// Len returns how many values are in.
func (s *Set[E]) Len() int { return s.len }

// place is where a value belongs, and its tag.
func (s *Set[E]) place(hash uint64) (i int, tag uint8) {
	// Callers spread over many sets by the same bits.
	hash ^= hash >> 32
	hash *= 0x9e3779b97f4a7c15
	return int(hash>>32) & (len(s.slots) - 1), uint8(hash>>25) | 0x80
}

// At returns where the value is that matches, to be read or replaced by one of
// the same hash before the next change, or nil.
func (s *Set[E]) At(hash uint64, match func(E) bool) *E {
	if i := s.find(hash, match); i >= 0 {
		return &s.slots[i]
	}
	return nil
}

// Guess returns a value that is likely the one with the hash, without looking at
// it. ok is false when there is none.
func (s *Set[E]) Guess(hash uint64) (e E, ok bool) {
	if s.len == 0 {
		return e, false
	}
	i, tag := s.place(hash)
	for s.tags[i] != 0 {
		if s.tags[i] == tag {
			return s.slots[i], true
		}
		i = (i + 1) & (len(s.slots) - 1)
	}
	return e, false
}

func (s *Set[E]) find(hash uint64, match func(E) bool) int {
	if s.len == 0 {
		return -1
	}
	i, tag := s.place(hash)
	for s.tags[i] != 0 {
		if s.tags[i] == tag && match(s.slots[i]) {
			return i
		}
		i = (i + 1) & (len(s.slots) - 1)
	}
	return -1
}

// Add puts in a value that is not there yet. hash is also asked for the others
// when the table grows.
func (s *Set[E]) Add(e E, hash func(E) uint64) {
	if (s.len+1)*4 > len(s.slots)*3 {
		s.resize(max(least, 2*len(s.slots)), hash)
	}
	s.put(e, hash(e))
	s.len++
}

func (s *Set[E]) put(e E, hash uint64) {
	i, tag := s.place(hash)
	for s.tags[i] != 0 {
		i = (i + 1) & (len(s.slots) - 1)
	}
	s.tags[i], s.slots[i] = tag, e
}

func (s *Set[E]) resize(size int, hash func(E) uint64) {
	old := *s
	s.tags, s.slots = make([]uint8, size), make([]E, size)
	for e := range old.All() {
		s.put(e, hash(e))
	}
}

// Delete takes out the value that matches, and says whether there was one.
func (s *Set[E]) Delete(h uint64, match func(E) bool, hash func(E) uint64) bool {
	free := s.find(h, match)
	if free < 0 {
		return false
	}
	// What was moved on from here moves back, so that no search ends too soon
	// (Knuth, The Art of Computer Programming, volume 3, section 6.4, R).
	mask := len(s.slots) - 1
	for i := (free + 1) & mask; s.tags[i] != 0; i = (i + 1) & mask {
		if at, _ := s.place(hash(s.slots[i])); (i-at)&mask >= (i-free)&mask {
			s.tags[free], s.slots[free] = s.tags[i], s.slots[i]
			free = i
		}
	}
	var none E
	s.tags[free], s.slots[free] = 0, none
	s.len--
	if s.len*8 < len(s.slots) && len(s.slots) > least {
		s.resize(len(s.slots)/2, hash)
	}
	return true
}

// All yields every value. The set must not be changed meanwhile.
func (s *Set[E]) All() iter.Seq[E] {
	return func(yield func(E) bool) {
		for i, tag := range s.tags {
			if tag != 0 && !yield(s.slots[i]) {
				return
			}
		}
	}
}
