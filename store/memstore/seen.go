package memstore

// seen remembers when a user who left was last there.
type seen struct {
	name       string
	at         int64 // on the wall
	prev, next *seen
}

// seenList holds them in the order in which they left.
type seenList struct {
	first, last *seen
	size        int
}

func (l *seenList) add(e *seen) {
	e.prev = l.last
	if l.last != nil {
		l.last.next = e
	} else {
		l.first = e
	}
	l.last = e
	l.size++
}

func (l *seenList) remove(e *seen) {
	if e.prev != nil {
		e.prev.next = e.next
	} else {
		l.first = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	} else {
		l.last = e.prev
	}
	l.size--
}

// remember notes when a user that just left was last seen. The stripe is
// locked.
func (s *Store) remember(st *stripe, u *user) {
	if !u.keep {
		return
	}
	e := &seen{name: u.name, at: u.seen}
	st.seen[u.name] = e
	s.seen.add(e)
	// One over the bound is left for the next Sweep, which may lock its
	// stripe. This keeps the list at the bound and what one Sweep adds.
}

// forget drops what is remembered of a user. The stripe is locked.
func (s *Store) forget(st *stripe, name string) {
	if e := st.seen[name]; e != nil {
		delete(st.seen, name)
		s.seen.remove(e)
	}
}

func (s *Store) overdueSeen(v view, l *lease) bool {
	if s.seen.size > s.maxSeen {
		return true
	}
	keep := int64(l.node.KeepLastSeen)
	return s.seen.first != nil && keep > 0 && s.seen.first.at+keep <= v.wall
}

// sweepSeen forgets users that were last seen too long ago.
func (s *Store) sweepSeen(v view, l *lease, limit int) (done int) {
	for ; done < limit && s.overdueSeen(v, l); done++ {
		name := s.seen.first.name
		st := s.stripe(name)
		st.mu.Lock()
		s.forget(st, name)
		st.mu.Unlock()
	}
	return done
}
