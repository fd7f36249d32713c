package link

import (
	"errors"
	"syscall"
	"time"

	"github.com/a4cafe1a/presence/internal/frame"
	"github.com/a4cafe1a/presence/internal/sock"
)

// View is what a look found.
type View int

const (
	// Reading: the app is waiting for bytes itself.
	Reading View = iota
	// Quiet: there was nothing to read.
	Quiet
	// Found: bytes were read and kept for the library.
	Found
	// Full: no more is kept until the app reads.
	Full
)

// peekMax bounds the reading of one look.
const peekMax = 64

// Peek reads what has arrived when the app is not reading, without blocking
// where the kernel can be asked, and for at most a few milliseconds elsewhere.
// Not concurrently with itself.
func (c *Conn) Peek() View {
	if c.over.Load() != nil || !c.rmu.TryLock() {
		return Reading
	}
	defer c.rmu.Unlock()
	view := c.readAhead()
	for range peekMax { // TLS gives a record at a time
		if view != Found {
			break
		}
		switch c.readAhead() {
		case Quiet:
			return Found
		case Full:
			view = Full
		}
	}
	return view
}

// readAhead reads once, and keeps what is the library's. c.rmu is held.
func (c *Conn) readAhead() View {
	view, _ := c.readOnce()
	return view
}

// readOnce is readAhead, and says whether the read was short.
func (c *Conn) readOnce() (view View, short bool) {
	if c.over.Load() != nil || c.stage.Load() == handshake || c.rerr != nil {
		return Quiet, false
	}
	room := keepMax - c.keptLen() - len(c.held())
	if room <= 0 {
		return Full, false
	}
	pooled := buffers.Get().(*[]byte)
	defer buffers.Put(pooled)
	buf := *pooled
	k := copy(buf, c.held())
	n, err := c.readNow(buf[k : k+room])
	if n > 0 {
		c.heard()
		if c.stage.Load() == frames {
			c.keep(buf[:c.scan(buf[:k+n])])
		} else {
			c.message()
			c.keep(buf[:n])
		}
	}
	if err != nil {
		c.rerr = &fault{error: err}
		c.owner.Lost(err)
	}
	if n > 0 {
		return Found, n < room
	}
	return Quiet, false
}

// Kept is Peek without reading: Full or Quiet, or Reading when somebody is.
func (c *Conn) Kept() View {
	if !c.rmu.TryLock() {
		return Reading
	}
	defer c.rmu.Unlock()
	if c.keptLen()+len(c.held()) >= keepMax {
		return Full
	}
	return Quiet
}

// readNow reads what is there: (0, nil) when there is nothing.
func (c *Conn) readNow(p []byte) (int, error) {
	if c.direct {
		return again(c.sock.Read(p))
	}
	if !c.sock.Known() {
		return c.readUntil(p, time.Now().Add(time.Millisecond))
	}
	// What TLS has decrypted already comes without asking the socket.
	n, err := c.readUntil(p, time.Unix(1, 0))
	if n > 0 || err != nil {
		return n, err
	}
	if waiting, ok := c.sock.Pending(); ok && waiting == 0 && !c.hungUp() {
		return 0, nil
	}
	return c.readUntil(p, time.Now().Add(10*time.Millisecond))
}

// hungUp says that the client has shut its side: then a read finds no bytes
// and still has something to say.
func (c *Conn) hungUp() bool { return c.sock.HungUp() }

func (c *Conn) readUntil(p []byte, t time.Time) (int, error) {
	c.takeRead(t)
	n, err := c.nc.Read(p)
	c.giveRead()
	if err != nil && timeout(err) {
		err = nil
	}
	return n, err
}

// A connection that is not read by a library, but by an owner that is told
// when something has arrived, is read with Drain and Take, and written with
// TryWrite and Flush.

// Arrive is Drain at the moment a poller says that something has arrived. While
// the peer has not hung up, a short read is the last: what comes later is told
// again.
func (c *Conn) Arrive(hungUp bool) bool {
	c.rmu.Lock()
	before := c.last.Load()
	c.readAll(!hungUp)
	if c.last.Load() != before {
		// It has just come: the kernel need not be asked. The coarse clock would
		// let a silent client stay for up to a tick longer.
		now := int64(c.cfg.Clock.Exact())
		c.last.Store(now)
		c.vouched.Store(now)
	}
	return c.haveRead()
}

// Drain reads until nothing is left or as much is kept as may be, and says
// whether there is something to Take.
func (c *Conn) Drain() bool {
	c.rmu.Lock()
	c.readAll(false)
	return c.haveRead()
}

// readAll reads while there is something; shortIsLast: until a read is short.
// c.rmu is held.
func (c *Conn) readAll(shortIsLast bool) {
	for c.over.Load() == nil {
		if view, short := c.readOnce(); view != Found || short && shortIsLast {
			return
		}
	}
}

// haveRead gives c.rmu back, sends what has become due, and says whether there
// is something to Take.
func (c *Conn) haveRead() bool {
	kept := c.keptLen() > 0
	if !kept {
		c.breach()
	}
	c.rmu.Unlock()
	if c.due.Load() != 0 {
		c.flush()
	}
	return kept
}

// Waits says that there is something to Take already, or the end.
func (c *Conn) Waits() bool {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	return c.keptLen() > 0 || c.rerr != nil
}

// Take returns what was kept for the library, which is then the caller's; nil
// when there is nothing, or when the session was ended by this side.
func (c *Conn) Take() []byte {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	b := c.takeAll()
	if len(b) == 0 || c.dismissed() != nil {
		return nil
	}
	return b
}

// Pong queues the answer to a ping of the client.
func (c *Conn) Pong(payload []byte) {
	c.reply(frame.AppendPong, payload)
}

// TryWrite sends whole frames without blocking. sent false: nothing was, since
// somebody else writes or the kernel cannot be used; Write will do. pending:
// a part is left, which Flush sends.
func (c *Conn) TryWrite(p []byte) (sent, pending bool) {
	if !c.direct || c.over.Load() != nil || !c.wmu.TryLock() {
		return false, false
	}
	if len(c.rest()) > 0 {
		c.wmu.Unlock()
		return false, false
	}
	c.out.Scan(p)
	c.notice()
	n, _ := c.put(p)
	if n < len(p) {
		c.leave(p[n:])
		pending = true
	}
	c.wmu.Unlock()
	if !pending && c.due.Load() != 0 {
		c.flush()
	}
	return true, pending
}

// Flush sends what TryWrite left, and blocks meanwhile.
func (c *Conn) Flush() error {
	c.wmu.Lock()
	err := c.writeRest()
	c.wmu.Unlock()
	if c.due.Load() != 0 {
		c.flush()
	}
	return err
}

// Raw is the socket, for a poller; nil where there is none.
func (c *Conn) Raw() syscall.RawConn { return c.sock.Raw() }

// again makes "nothing now" an ordinary answer.
func again(n int, err error) (int, error) {
	if errors.Is(err, sock.ErrAgain) {
		err = nil
	}
	return n, err
}
