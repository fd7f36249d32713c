package presence

import (
	"fmt"
	"slices"
	"time"

	"github.com/a4cafe1a/presence/internal/frame"
	"github.com/a4cafe1a/presence/internal/message"
	"github.com/coder/websocket"
)

// outbox is what waits to be sent.
type outbox struct {
	frames [][]byte
	bytes  int
}

const (
	queueMessages = 64
	queueBytes    = 256 << 10
)

// Send queues a message and never blocks. b may be used again at once. When 64
// messages or 256 KiB are waiting it returns ErrSlow, and the session ends
// (1013); a single larger message is allowed. Messages sent before the upgrade
// follow it. What still waits when the session ends is dropped, unless Close ends
// it. ErrEnded: the session has ended. ErrLimit: t is neither MessageText nor
// MessageBinary.
func (c *Peer) Send(t websocket.MessageType, b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended.Load() != nil || c.leaving != nil {
		return ErrEnded
	}
	if t != websocket.MessageText && t != websocket.MessageBinary {
		return failed("send", fmt.Errorf("%w: message type %d is neither text nor binary", ErrLimit, t))
	}
	f := append(message.AppendHeader(make([]byte, 0, 10+len(b)), frame.Op(t), len(b)), b...)
	if c.open && !c.writing && c.waiting == nil {
		if sent, pending := c.conn.TryWrite(f); sent {
			if pending {
				c.startWriting()
			}
			return nil
		}
	}
	q := c.waiting
	if q == nil {
		q = new(outbox)
	}
	if len(q.frames) >= queueMessages || q.bytes > 0 && q.bytes+len(f) > queueBytes {
		c.end(End{Cause: CauseSlow, Code: codeSlow, Text: "too slow"})
		return ErrSlow
	}
	q.frames = append(q.frames, f)
	q.bytes += len(f)
	c.waiting = q
	c.flush()
	return nil
}

// flush starts to write what is queued. c.mu is held.
func (c *Peer) flush() {
	if c.open && !c.writing && c.waiting != nil {
		c.startWriting()
	}
}

// startWriting writes on a goroutine, which ends when nothing is left.
func (c *Peer) startWriting() {
	if c.p.begin() { // else the session is about to end
		c.writing = true
		go c.write()
	}
}

func (c *Peer) write() {
	defer c.p.running.Done()
	err := c.conn.Flush()
	for {
		c.mu.Lock()
		q := c.waiting
		if err != nil || q == nil || c.ended.Load() != nil {
			c.writing = false
			leaving := c.leaving
			c.mu.Unlock()
			if leaving != nil {
				c.end(*leaving)
			}
			return
		}
		f := q.frames[0]
		c.mu.Unlock()
		_, err = c.conn.Write(f)
		c.mu.Lock()
		// Only now: what is being written still counts as queued.
		q.frames, q.bytes = slices.Delete(q.frames, 0, 1), q.bytes-len(f)
		if len(q.frames) == 0 {
			c.waiting = nil
		}
		c.mu.Unlock()
	}
}

// Close ends the session with a close code of the app: 1000, or 3000-4999.
// Anything else becomes 1000. It returns at once; what Send has queued goes
// first, for at most Options.CloseTimeout.
func (c *Peer) Close(code int, reason string) {
	if code < 3000 || code > 4999 {
		code = codeNormal
	}
	e := End{Cause: CauseAppClosed, Code: code, Text: cutText(reason)}
	c.mu.Lock()
	first := c.leaving == nil
	if first {
		c.leaving = &e
	}
	writing := c.writing
	c.mu.Unlock()
	switch {
	case !first:
	case writing:
		time.AfterFunc(c.p.opts.CloseTimeout, func() { c.end(e) })
	default:
		c.end(e)
	}
}
