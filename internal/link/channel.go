package link

import (
	"sync"

	"github.com/a4cafe1a/presence/internal/frame"
)

// A channel carries messages of our own between those of the library: text
// messages that begin with U+0001. What comes is taken out of the stream, what
// goes is put between two messages, from a bounded queue.

const (
	dueChannel uint32 = 1 << 8 // a bit of Conn.due

	channelMax   = 256 << 10 // what may wait, beside one batch
	channelWrite = 32 << 10  // what is written at once
)

type channel struct {
	deliver func(msg []byte)
	partial []byte // of a message that comes in pieces; under rmu

	mu      sync.Mutex
	queue   [][]byte
	bytes   int
	pumping bool // a goroutine writes
}

// OpenChannel sets who gets the messages of the channel. deliver is called on
// the goroutine that reads, must not block, and owns what it is given. Call it
// before the first Read or Verify.
func (c *Conn) OpenChannel(deliver func(msg []byte)) {
	c.in.HasChannel = true
	c.ch = &channel{deliver: deliver}
}

// Channel is called by the scanner.
func (r *receiver) Channel(part []byte, last bool) {
	ch := r.ch
	ch.partial = append(ch.partial, part...)
	if last {
		msg := ch.partial
		ch.partial = nil
		ch.deliver(msg)
	}
}

// Inject queues messages for the client, all or none, and sends what may go at
// once. It never blocks. false: so much is waiting already that they would be
// too many; a batch that finds nothing waiting is always taken. The messages
// are shared and must not be changed afterwards.
func (c *Conn) Inject(batch ...[]byte) bool {
	size := 0
	for _, msg := range batch {
		size += len(msg)
	}
	ch := c.ch
	ch.mu.Lock()
	if ch.bytes > 0 && ch.bytes+size > channelMax {
		ch.mu.Unlock()
		return false
	}
	if c.over.Load() == nil {
		ch.queue = append(ch.queue, batch...)
		ch.bytes += size
		c.due.Or(dueChannel)
	}
	ch.mu.Unlock()
	c.flushChannel()
	if c.direct && c.due.Load()&^dueChannel != 0 {
		c.flush() // heartbeats that became due meanwhile
	}
	return true
}

// flushChannel sends what may go without blocking. What finds no room is left
// to a goroutine, what finds no gap to the next write of the library.
func (c *Conn) flushChannel() {
	if c.direct && c.wmu.TryLock() {
		room := true
		for room && c.channelGap() && len(c.rest()) == 0 {
			b, n := c.composeChannel()
			if n == 0 {
				break
			}
			sent, ok := c.put(b)
			if sent == 0 {
				room = false
				break
			}
			c.sentChannel(n)
			if !ok {
				c.leave(b[sent:])
				room = false
			}
		}
		done := room && len(c.rest()) == 0 || !c.channelGap()
		c.wmu.Unlock()
		if done {
			return
		}
	}
	ch := c.ch
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if len(ch.queue) > 0 && !ch.pumping && c.over.Load() == nil {
		ch.pumping = true
		go c.pumpChannel()
	}
}

// pumpChannel writes until nothing is left or the library is amid a message.
func (c *Conn) pumpChannel() {
	for {
		c.wmu.Lock()
		var b []byte
		n := 0
		if c.channelGap() && c.writeRest() == nil {
			b, n = c.composeChannel()
		}
		if n == 0 {
			c.ch.mu.Lock()
			c.ch.pumping = false
			c.ch.mu.Unlock()
			c.wmu.Unlock()
			break
		}
		c.settled = false
		if _, err := c.nc.Write(b); err != nil {
			c.out.SetOpaque()
			_ = c.writeFailed(err)
		} else {
			c.sentChannel(n)
		}
		c.wmu.Unlock()
	}
	if c.due.Load()&^dueChannel != 0 {
		c.flush() // heartbeats that became due meanwhile
	}
}

// channelGap says that a message may be written now. wmu is held.
func (c *Conn) channelGap() bool {
	return c.over.Load() == nil && c.stage.Load() == frames && len(c.head()) == 0 && c.out.BetweenMessages()
}

// composeChannel makes frames of the first n messages. wmu is held.
func (c *Conn) composeChannel() (b []byte, n int) {
	ch := c.ch
	ch.mu.Lock()
	defer ch.mu.Unlock()
	for _, msg := range ch.queue {
		if n > 0 && len(b)+len(msg) > channelWrite {
			break
		}
		b = frame.AppendText(b, msg)
		n++
	}
	if n == 0 {
		c.due.And(^dueChannel)
	}
	return b, n
}

// sentChannel takes the first n messages off the queue. wmu is held.
func (c *Conn) sentChannel(n int) {
	ch := c.ch
	ch.mu.Lock()
	defer ch.mu.Unlock()
	for i, msg := range ch.queue[:n] {
		ch.bytes -= len(msg)
		ch.queue[i] = nil
	}
	if ch.queue = ch.queue[n:]; len(ch.queue) == 0 {
		ch.queue = nil
		c.due.And(^dueChannel)
	}
	c.lastOut.Store(int64(c.cfg.Clock.Now()))
}
