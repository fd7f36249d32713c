package link

import (
	"sync"
	"time"
)

// asides are used again: clients that send heartbeats have one for each answer.
var asides = sync.Pool{New: func() any { return new(aside) }}

// aside is what seldom is.
type aside struct {
	// The library's deadlines are kept while ours are in force and come back
	// afterwards. After the end they mean nothing.
	readAt, writeAt time.Time

	replies []byte // answers to heartbeat messages and pings that wait to be sent
}

// theirs are the library's deadlines. c.mu is held, here and below.
func (c *Conn) theirs() (readAt, writeAt time.Time) {
	if c.aside == nil {
		return readAt, writeAt
	}
	return c.aside.readAt, c.aside.writeAt
}

// beside is c.aside, to be changed.
func (c *Conn) beside() *aside {
	if c.aside == nil {
		c.aside = asides.Get().(*aside)
	}
	return c.aside
}

func (c *Conn) tidyAside() {
	if a := c.aside; a.readAt.IsZero() && a.writeAt.IsZero() && len(a.replies) == 0 {
		c.aside = nil
		asides.Put(a)
	}
}

// reply queues an answer. A client that asks and does not read loses answers,
// not memory: they are all alike.
func (c *Conn) reply(frame func(dst, payload []byte) []byte, payload []byte) {
	c.mu.Lock()
	if a := c.beside(); len(a.replies)+len(payload) <= replyMax {
		a.replies = frame(a.replies, payload)
	}
	c.mu.Unlock()
	c.due.Or(dueReplies)
}

func (c *Conn) appendReplies(b []byte) ([]byte, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aside == nil {
		return b, 0
	}
	return append(b, c.aside.replies...), len(c.aside.replies)
}

func (c *Conn) dropReplies(n int) {
	if n == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.aside
	if a.replies = append(a.replies[:0], a.replies[n:]...); len(a.replies) > 0 {
		c.due.Or(dueReplies)
		return
	}
	c.tidyAside()
}
