package link

import (
	"crypto/tls"
	"net"
	"time"

	"github.com/a4cafe1a/presence/internal/frame"
	"github.com/a4cafe1a/presence/internal/sock"
)

// Farewell is how a connection ends on the wire.
type Farewell struct {
	Reset  bool          // at once, and what is unsent is dropped
	Code   int           // of the close frame; 0: none is sent
	Reason string        // at most 123 bytes
	Linger time.Duration // how long all of it may take; meanwhile what arrives is discarded

	// Before is called when the end is decided, and before the library's
	// calls fail: who sees them fail finds the reason. nil: nothing.
	Before func()
}

// Finish ends the connection. It returns at once: from here the library's
// calls fail with err, and Gone is called when the socket is closed. Only the
// first call counts.
//
// Closing a socket with unread data resets it, and a reset overtakes the close
// frame. So the writing side is shut first, and what still arrives is
// discarded for a while.
func (c *Conn) Finish(err error, f Farewell) {
	e := &ending{conn: c, err: err}
	if !c.over.CompareAndSwap(nil, e) {
		return
	}
	if f.Before != nil {
		f.Before()
	}
	c.due.Store(0)
	if f.Reset {
		c.sock.Reset()
		c.shut()
		return
	}
	if f.Code == 0 && f.Linger <= 0 {
		c.shut()
		return
	}
	e.until = time.Now().Add(max(f.Linger, time.Millisecond))
	c.seize(e.until)
	g := c.cfg.Goodbyes
	g.add(e)
	if g.poller(c) == nil {
		go c.goodbye(e, f)
		return
	}
	g.workers.Go(func() { c.tryGoodbye(e, f) })
}

// tryGoodbye is goodbye for a worker, who must not wait.
func (c *Conn) tryGoodbye(e *ending, f Farewell) {
	switch err := c.writeClose(f, false); {
	case err == sock.ErrAgain:
	case err != nil || f.Linger <= 0:
		c.shut()
		return
	case c.cfg.Goodbyes.listen(e):
		return
	}
	go c.goodbye(e, f)
}

func (c *Conn) goodbye(e *ending, f Farewell) {
	if c.writeClose(f, true) != nil || f.Linger <= 0 {
		c.shut()
		return
	}
	if c.cfg.Goodbyes.listen(e) {
		return
	}
	defer c.shut()
	// The library's Read has failed by now. The next one fails at once and
	// must not wait for the lock: from here nobody else reads.
	c.rmu.Lock()
	failed := c.rerr != nil && !c.rerr.violation
	c.rmu.Unlock()
	if !failed && c.nc.SetReadDeadline(e.until) == nil {
		c.discard()
	}
}

// discard reads until the end. Most clients only answer the close frame, and
// thousands may be waited for: a buffer is taken when more than that comes.
func (c *Conn) discard() {
	const few = 64
	buf := make([]byte, few)
	for {
		n, err := c.nc.Read(buf)
		if err != nil {
			return
		}
		if n == few && len(buf) == few {
			pooled := buffers.Get().(*[]byte)
			defer buffers.Put(pooled)
			buf = *pooled
		}
	}
}

// writeClose sends the close frame if it may still go out, and shuts the
// writing side. Without waiting it returns sock.ErrAgain when that is not
// possible; any other error says that the connection is broken.
func (c *Conn) writeClose(f Farewell, wait bool) error {
	write := c.nc.Write
	if wait {
		c.wmu.Lock() // a write in flight ends by its deadline
	} else {
		if !c.wmu.TryLock() {
			return sock.ErrAgain
		}
		write = c.writeNow
	}
	defer c.wmu.Unlock()
	b := append([]byte(nil), c.rest()...)
	c.leave(nil)
	// A head held back is not on the wire, so there is a gap.
	gap := c.out.Gap() || len(c.head()) > 0 && !c.out.Opaque()
	if f.Code != 0 && gap && !c.out.Closing() && c.stage.Load() == frames {
		b = frame.AppendClose(b, f.Code, f.Reason)
	}
	c.out.SetOpaque()
	if len(b) > 0 {
		if n, err := write(b); err != nil {
			c.leave(b[n:])
			return err
		}
	}
	return c.shutWriting()
}

// shut closes the socket. The connection below TLS is closed directly, since
// tls.Conn.Close may wait for five seconds to send its alert.
func (c *Conn) shut() {
	_ = c.below().Close()
	if e := c.over.Load(); e.gone.CompareAndSwap(false, true) {
		if !e.until.IsZero() {
			c.cfg.Goodbyes.remove(e)
		}
		c.owner.Gone()
	}
}

// below is the connection below TLS.
func (c *Conn) below() net.Conn {
	if secure, ok := c.nc.(*tls.Conn); ok {
		return secure.NetConn()
	}
	return c.nc
}

// Close is the library's goodbye. It returns at once; a close frame that the
// library has written still reaches the client.
func (c *Conn) Close() error {
	if c.over.Load() == nil {
		c.owner.LibraryClosed()
		c.Finish(net.ErrClosed, Farewell{}) // if the owner did not
	}
	return nil
}
