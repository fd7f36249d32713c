package link

import (
	"net"
)

// Write sends what the library writes. A heartbeat that became due meanwhile
// follows it.
func (c *Conn) Write(p []byte) (int, error) {
	c.wmu.Lock()
	n, upgraded, err := c.write(p)
	if err == nil && !upgraded && !c.direct && c.due.Load() != 0 {
		c.sendDue() // a task would come too late when the library goes on writing
	}
	c.wmu.Unlock()
	if upgraded && err == nil {
		if told := c.proof.told; told != nil {
			told(p)
		}
		if err := c.owner.Upgraded(); err != nil {
			return n, err
		}
	}
	if c.due.Load() != 0 {
		c.flush()
	}
	return n, err
}

func (c *Conn) write(p []byte) (n int, upgraded bool, err error) {
	c.settled = false
	if e := c.over.Load(); e != nil {
		return 0, false, e.err
	}
	switch c.stage.Load() {
	case handshake:
		return c.writeAnswer(p)
	case plain:
		n, err = c.nc.Write(p)
		return n, false, c.writeFailed(err)
	}
	n, err = c.writeFrames(p)
	return n, false, err
}

// writeAnswer sends a part of the library's answer to the handshake.
func (c *Conn) writeAnswer(p []byte) (n int, upgraded bool, err error) {
	if len(p) == 0 {
		return 0, false, nil
	}
	answer := &c.proof.answer
	k, done := answer.Scan(p)
	if done && answer.Status() != 101 {
		c.stage.Store(plain)
		c.owner.Refused()
	}
	if n, err = c.nc.Write(p); err != nil {
		return n, false, c.writeFailed(err)
	}
	if !done || answer.Status() != 101 {
		return n, false, nil
	}
	c.startFrames()
	c.out.Scan(p[k:])
	c.notice()
	return n, true, nil
}

func (c *Conn) writeFrames(p []byte) (int, error) {
	if err := c.writeRest(); err != nil {
		return 0, err
	}
	c.out.Scan(p)
	c.notice()
	// A frame's head alone is of no use to the client. Held back, it leaves
	// in one packet with the payload that the library writes next.
	if k := c.out.HeadOnly(); k > 0 && k == len(c.head())+len(p) && k <= headMax {
		c.holdHead(p)
		return len(p), nil
	}
	if len(c.head()) == 0 {
		n, err := c.nc.Write(p)
		if err != nil {
			c.out.SetOpaque()
		}
		return n, c.writeFailed(err)
	}
	head := c.head()
	bufs := net.Buffers{head, p}
	sent, err := bufs.WriteTo(c.nc)
	n := max(0, int(sent)-len(head))
	c.unsent.head = head[:0] // one that writes like this does so again
	if err != nil {
		c.out.SetOpaque()
	}
	return n, c.writeFailed(err)
}

// writeRest completes a heartbeat that went out in part.
func (c *Conn) writeRest() error {
	if len(c.rest()) == 0 {
		return nil
	}
	c.settled = false
	n, err := c.nc.Write(c.rest())
	c.leave(c.rest()[n:])
	return c.writeFailed(err)
}

// rest is what is left of a heartbeat that was sent in part. c.wmu is held.
func (c *Conn) rest() []byte {
	if c.unsent == nil {
		return nil
	}
	return c.unsent.rest
}

// leave leaves a copy of b to be sent before all else, or nothing.
func (c *Conn) leave(b []byte) {
	switch {
	case len(b) > 0:
		if c.unsent == nil {
			c.unsent = new(unsent)
		}
		c.unsent.rest = append([]byte(nil), b...)
		c.due.Or(dueRest)
	case c.unsent != nil:
		c.unsent.rest = nil
		c.due.And(^dueRest)
		if cap(c.unsent.head) == 0 {
			c.unsent = nil
		}
	}
}

// head is an incomplete frame head that was held back.
func (c *Conn) head() []byte {
	if c.unsent == nil {
		return nil
	}
	return c.unsent.head
}

func (c *Conn) holdHead(b []byte) {
	if c.unsent == nil {
		c.unsent = new(unsent)
	}
	c.unsent.head = append(c.unsent.head, b...)
}

// notice takes over what the scanner of what goes out has seen.
func (c *Conn) notice() {
	if n := c.out.Messages(); n != c.msgs {
		c.msgs = n
		stamp(&c.lastOut, c.cfg.Clock.Now())
	}
	if n := c.out.Pings(); n != c.libPings.Load() {
		c.libPings.Store(n)
	}
	if !c.closing {
		if code, ok := c.out.CloseSent(); ok {
			c.closing = true
			c.owner.Closing(code)
		}
	}
}

func (c *Conn) writeFailed(err error) error {
	if err == nil {
		return nil
	}
	if e := c.over.Load(); e != nil {
		return e.err
	}
	if !timeout(err) {
		c.owner.Lost(err)
	}
	return err
}
