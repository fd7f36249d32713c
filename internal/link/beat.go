package link

import (
	"sync"
	"time"

	"github.com/a4cafe1a/presence/internal/frame"
	"github.com/a4cafe1a/presence/internal/wheel"
)

// Beat makes a heartbeat due and sends it as soon as it may go between two
// frames: a ping, and the beats of the dialects the client has used.
func (c *Conn) Beat(ping bool) {
	if !c.Beatable() {
		if ping && c.sent.Load() == 0 {
			// Nothing goes out. Still, only what is on its way now is ahead.
			c.mark(c.ahead(), c.cfg.Clock.Exact())
		}
		return
	}
	bits := dueMessages
	if ping {
		bits |= duePing
	}
	if c.heardBy.Load() == 0 && !c.cfg.eager {
		bits &^= dueMessages
	}
	if bits != 0 {
		c.due.Or(bits)
		c.flush()
	}
}

// Sent is when the earliest unanswered heartbeat was written, or would have
// been where none can be sent, 0 if none was.
func (c *Conn) Sent() wheel.Time { return wheel.Time(c.sent.Load()) }

// Answered forgets the heartbeats written so far.
func (c *Conn) Answered() {
	c.sent.Store(0)
	c.target.Store(0)
}

// Due says that something of ours waits to be sent.
func (c *Conn) Due() bool { return c.due.Load() != 0 }

// Retry sends what is due and could not go before.
func (c *Conn) Retry() {
	if c.due.Load() != 0 {
		c.flush()
	}
}

// Beatable says that a heartbeat can be sent at all.
func (c *Conn) Beatable() bool { return c.stage.Load() == frames }

// flush sends what is due, unless somebody is writing: then the writer does.
func (c *Conn) flush() {
	if c.due.Load()&dueChannel != 0 {
		c.flushChannel()
	}
	if !c.direct {
		if c.flags.Or(flagSlow)&flagSlow == 0 {
			c.cfg.Slow.Go(c.flushSlow)
		}
		return
	}
	for c.due.Load() != 0 && c.wmu.TryLock() {
		sent := c.sendDue()
		c.wmu.Unlock()
		if !sent {
			return // no gap, or no room: data is in flight anyway
		}
	}
}

// flushSlow is flush where writing may block.
func (c *Conn) flushSlow() {
	c.flags.And(^flagSlow) // first: what becomes due from here on gets a task of its own
	for c.due.Load() != 0 && c.wmu.TryLock() {
		sent := c.sendDue()
		c.wmu.Unlock()
		if !sent {
			return
		}
	}
}

// sendDue composes what is due and may go now, and sends it in one piece. It
// says whether anything went out.
func (c *Conn) sendDue() bool {
	if c.over.Load() != nil || c.stage.Load() != frames {
		return false
	}
	pooled := buffers.Get().(*[]byte)
	defer buffers.Put(pooled)
	b := append((*pooled)[:0], c.rest()...)
	bits := c.due.Load()
	done := bits & dueRest
	var replies int
	var beats uint32
	gap := len(c.head()) == 0 && c.out.Gap()
	if gap && c.out.BetweenMessages() {
		b, replies = c.appendReplies(b)
		done |= bits & dueReplies
		if bits&dueMessages != 0 {
			b, beats = c.appendBeats(b)
			done |= dueMessages
		}
	}
	if gap && bits&duePing != 0 {
		b = frame.AppendPing(b, nil)
		done |= duePing
	}
	if len(b) == 0 {
		c.due.And(^done) // what was due turned out to be nothing
		return done != 0
	}
	now := c.cfg.Clock.Exact()
	before := c.beating(done, now)
	settled := c.settled
	c.due.And(^done) // what becomes due while this is written is due anew
	n, ok := c.put(b)
	if n == 0 {
		c.due.Or(done)
		c.settled = settled
		c.unbeat(done, before)
		return false
	}
	c.settled = settled && done == duePing && ok
	c.dropReplies(replies)
	c.beatBy.Or(beats)
	if replies > 0 || beats != 0 {
		c.lastOut.Store(int64(now))
	}
	c.leave(b[n:])
	return ok
}

// scratch is what dialects write to. On the stack it would be moved to the heap
// each time, since nobody knows what a Dialect does with it.
type scratch struct{ answer, beat [256]byte }

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func (c *Conn) appendBeats(b []byte) ([]byte, uint32) {
	var beats uint32
	heard := c.heardBy.Load()
	words := scratches.Get().(*scratch)
	defer scratches.Put(words)
	for i, d := range c.cfg.dialects {
		if msg, ok := d.Beat(words.beat[:0], heard&(1<<i) != 0); ok {
			b = frame.AppendText(b, msg)
			beats |= 1 << i
		}
	}
	return b, beats
}

// ahead is what the kernel must have acknowledged before a heartbeat written
// now can be answered, 0 when nothing is ahead of it.
func (c *Conn) ahead() uint64 {
	if !c.sock.Known() {
		return 0
	}
	if n, ok := c.sock.Unacked(); !ok || n == 0 {
		return 0
	}
	// In this order an acknowledgement in between makes the sum too small,
	// never so large that it takes in the heartbeat itself.
	acked, _ := c.sock.Acked()
	n, _ := c.sock.Unacked()
	if n == 0 {
		return 0
	}
	return acked + uint64(n)
}

// beaten is what a ping that did not go out must put back.
type beaten struct {
	pinged int64
	first  bool
}

// beating notes a ping before it is written: its pong may be read before the
// write has returned. While nothing but pings has gone out since the kernel had
// nothing of ours left, it need not be asked again.
func (c *Conn) beating(done uint32, now wheel.Time) (before beaten) {
	if done&duePing == 0 {
		return before
	}
	before = beaten{pinged: c.pinged.Load(), first: c.sent.Load() == 0}
	if before.first {
		var target uint64
		if !c.settled {
			target = c.ahead()
			c.settled = target == 0
		}
		c.mark(target, now)
	}
	c.pings.Add(1)
	c.pinged.Store(int64(now))
	return before
}

func (c *Conn) unbeat(done uint32, before beaten) {
	if done&duePing == 0 {
		return
	}
	c.pings.Add(-1)
	c.pinged.Store(before.pinged)
	if before.first {
		c.Answered()
	}
}

// mark notes what is ahead of the earliest unanswered heartbeat, and when it
// began to wait.
func (c *Conn) mark(target uint64, now wheel.Time) {
	c.target.Store(target)
	c.sent.Store(int64(now))
}

// roomSpare is what the kernel and TLS may need beside twice the bytes. The
// smallest buffer that Linux allows has more.
const roomSpare = 4 << 10

// put sends b without blocking, or for a moment where the kernel cannot be
// used. It says how much went out and whether more may follow. c.wmu is held.
func (c *Conn) put(b []byte) (n int, ok bool) {
	var err error
	c.settled = false
	if c.direct {
		n, err = again(c.sock.Write(b))
	} else {
		by := time.Now().Add(time.Second)
		if room, known := c.sock.Room(); known {
			if room < 2*len(b)+roomSpare {
				return 0, false
			}
			// It does not wait, so it gets no deadline: a TLS write that comes too
			// late ruins the session, and a busy process may take long to come to it.
			by = time.Time{}
		}
		c.takeWrite(by)
		n, err = c.nc.Write(b)
		c.giveWrite()
	}
	if err != nil && c.over.Load() == nil {
		if !timeout(err) {
			c.owner.Lost(err)
		} else if c.sock.Known() {
			c.out.SetOpaque()
		}
	}
	return n, err == nil && n == len(b)
}

// Ahead says whether data that was written before the heartbeat, or keeps a
// due heartbeat from being written, is still unacknowledged, and how much of
// it has been acknowledged. ok is false where the kernel cannot be asked.
func (c *Conn) Ahead() (waiting bool, acked uint64, ok bool) {
	if !c.sock.Known() {
		return false, 0, false
	}
	sent, target := c.sent.Load() != 0, c.target.Load()
	if sent && target == 0 {
		return false, 0, true // nothing was ahead: the kernel need not be asked
	}
	if !sent {
		if n, ok := c.sock.Unacked(); !ok || n == 0 {
			return false, 0, ok
		}
	}
	if acked, ok = c.sock.Acked(); !ok {
		return false, 0, false
	}
	if sent {
		return acked < target, min(acked, target), true
	}
	return true, acked, true
}

// SinceReceived is how long ago the kernel received data, read or not.
func (c *Conn) SinceReceived() (time.Duration, bool) {
	if !c.sock.Known() {
		return 0, false
	}
	return c.sock.SinceReceived()
}

// ReceiveFull says that unread data fills the socket. Where the kernel cannot
// be asked, what Peek has kept stands for it.
func (c *Conn) ReceiveFull() bool {
	if !c.sock.Known() {
		return true
	}
	full, ok := c.sock.ReceiveFull()
	return full || !ok
}
