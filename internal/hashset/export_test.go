package hashset

// Room is how many slots there are.
func (s *Set[T]) Room() int { return len(s.table.Load().groups) * groupSlots }
