package link

import "time"

// The library's deadlines are kept while ours are in force and come back
// afterwards. After the end they mean nothing.

// SetDeadline sets both deadlines, as net.Conn says.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline is as net.Conn says.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.dmu.Lock()
	defer c.dmu.Unlock()
	c.readAt = t
	if c.readOurs {
		return nil
	}
	return c.nc.SetReadDeadline(t)
}

// SetWriteDeadline is as net.Conn says.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.dmu.Lock()
	defer c.dmu.Unlock()
	c.writeAt = t
	if c.writeOurs {
		return nil
	}
	return c.nc.SetWriteDeadline(t)
}

func (c *Conn) takeRead(t time.Time) {
	c.dmu.Lock()
	defer c.dmu.Unlock()
	if c.over.Load() == nil {
		c.readOurs = true
		_ = c.nc.SetReadDeadline(t)
	}
}

func (c *Conn) giveRead() {
	c.dmu.Lock()
	defer c.dmu.Unlock()
	if c.over.Load() == nil {
		c.readOurs = false
		_ = c.nc.SetReadDeadline(c.readAt)
	}
}

func (c *Conn) takeWrite(t time.Time) {
	c.dmu.Lock()
	defer c.dmu.Unlock()
	if c.over.Load() == nil {
		c.writeOurs = true
		_ = c.nc.SetWriteDeadline(t)
	}
}

func (c *Conn) giveWrite() {
	c.dmu.Lock()
	defer c.dmu.Unlock()
	if c.over.Load() == nil {
		c.writeOurs = false
		_ = c.nc.SetWriteDeadline(c.writeAt)
	}
}

// seize takes both deadlines for good: what reads fails at once, what writes
// may go on until then.
func (c *Conn) seize(writeUntil time.Time) {
	c.dmu.Lock()
	defer c.dmu.Unlock()
	c.readOurs, c.writeOurs = true, true
	_ = c.nc.SetReadDeadline(time.Unix(1, 0))
	_ = c.nc.SetWriteDeadline(writeUntil)
}
