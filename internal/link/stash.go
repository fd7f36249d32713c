package link

// held is the beginning of an undecided frame, to be read behind. c.rmu is held.
func (c *Conn) held() []byte {
	if c.stash == nil {
		return nil
	}
	return c.stash.held
}

// hold replaces what is held.
func (c *Conn) hold(b []byte) {
	if c.stash == nil {
		if len(b) == 0 {
			return
		}
		c.stash = new(stash)
	}
	c.stash.held = append(c.stash.held[:0], b...)
	c.tidy()
}

// keep puts b aside for the library.
func (c *Conn) keep(b []byte) {
	if len(b) == 0 {
		return
	}
	if c.stash == nil {
		c.stash = new(stash)
	}
	c.stash.kept = append(c.stash.kept, b...)
}

func (c *Conn) keptLen() int {
	if c.stash == nil {
		return 0
	}
	return len(c.stash.kept) - c.stash.off
}

// takeKept gives the library what was kept. The buffer stays while it is small:
// a library that reads in small pieces does so again.
func (c *Conn) takeKept(p []byte) int {
	if c.keptLen() == 0 {
		return 0
	}
	s := c.stash
	n := copy(p, s.kept[s.off:])
	if s.off += n; s.off == len(s.kept) {
		s.off, s.kept = 0, s.kept[:0]
		c.tidy()
	}
	return n
}

// takeAll gives all that was kept away.
func (c *Conn) takeAll() []byte {
	if c.keptLen() == 0 {
		return nil
	}
	s := c.stash
	b := s.kept[s.off:]
	s.off, s.kept = 0, nil
	c.tidy()
	return b
}

// tidy forgets what is empty, but for a small buffer.
func (c *Conn) tidy() {
	s := c.stash
	if len(s.kept) == 0 && cap(s.kept) > 2*minRead {
		s.kept = nil
	}
	if cap(s.kept) == 0 && len(s.held) == 0 {
		c.stash = nil
	}
}
