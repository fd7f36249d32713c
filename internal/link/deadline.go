package link

import "time"

// SetDeadline sets both deadlines, as net.Conn says.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline is as net.Conn says.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aside != nil || !t.IsZero() {
		c.beside().readAt = t
		c.tidyAside()
	}
	if c.readOurs {
		return nil
	}
	return c.nc.SetReadDeadline(t)
}

// SetWriteDeadline is as net.Conn says.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aside != nil || !t.IsZero() {
		c.beside().writeAt = t
		c.tidyAside()
	}
	if c.writeOurs {
		return nil
	}
	return c.nc.SetWriteDeadline(t)
}

func (c *Conn) takeRead(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over.Load() == nil {
		c.readOurs = true
		_ = c.nc.SetReadDeadline(t)
	}
}

func (c *Conn) giveRead() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over.Load() == nil {
		c.readOurs = false
		at, _ := c.theirs()
		_ = c.nc.SetReadDeadline(at)
	}
}

func (c *Conn) takeWrite(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over.Load() == nil {
		c.writeOurs = true
		_ = c.nc.SetWriteDeadline(t)
	}
}

func (c *Conn) giveWrite() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over.Load() == nil {
		c.writeOurs = false
		_, at := c.theirs()
		_ = c.nc.SetWriteDeadline(at)
	}
}

// seize takes both deadlines for good: what reads fails at once, what writes
// may go on until then.
func (c *Conn) seize(writeUntil time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readOurs, c.writeOurs = true, true
	_ = c.nc.SetReadDeadline(time.Unix(1, 0))
	_ = c.nc.SetWriteDeadline(writeUntil)
}
