package hashset

// Room is how many slots there are.
func (s *Set[E]) Room() int { return len(s.slots) }
