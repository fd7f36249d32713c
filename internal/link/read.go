package link

import (
	"errors"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"time"

	"github.com/a4cafe1a/presence/internal/frame"
	"github.com/a4cafe1a/presence/internal/wheel"
)

// buffers are what short-lived reading and composing uses; waiting is what a
// read holds while it waits for a library that reads in small pieces.
var (
	buffers = sync.Pool{New: func() any { b := make([]byte, keepMax); return &b }}
	waiting = sync.Pool{New: func() any { b := make([]byte, 2*minRead); return &b }}
)

// Read gives the library what the client sent, without our heartbeats.
//
// In most connections it waits in nc.Read nearly always. Its frame and those
// above decide how large the stack of a quiet connection is, so all else is
// done in functions that have returned by then.
func (c *Conn) Read(p []byte) (n int, err error) {
	c.rmu.Lock()
	for {
		if n, err = c.ready(p); n == 0 && err == nil && len(p) > 0 {
			asked := c.cfg.Clock.Now()
			buf, own := c.room(p)
			n, err = c.nc.Read(buf)
			n, err = c.received(p, own, asked, n, err)
		}
		if n > 0 || err != nil || len(p) == 0 {
			break
		}
	}
	c.rmu.Unlock()
	if c.due.Load() != 0 {
		c.flush()
	}
	return n, err
}

// ready returns what is there without waiting: kept bytes, or the end.
func (c *Conn) ready(p []byte) (int, error) {
	if c.dismissed() == nil {
		if n := c.takeKept(p); n > 0 || len(p) == 0 {
			return n, nil
		}
	}
	c.breach()
	e := c.over.Load()
	switch {
	case e != nil:
		return 0, e.err
	case c.rerr != nil:
		return 0, c.rerr.error
	case c.proof != nil && len(c.proof.early) > 0 && c.stage.Load() != frames:
		n := copy(p, c.proof.early)
		c.proof.early = c.proof.early[n:]
		return n, nil
	}
	if c.due.Load() != 0 {
		c.flush()
	}
	return 0, nil
}

// dismissed is the end that this side decided, or nil: what a client sent
// before it said goodbye or was lost is still the app's. c.rmu is held.
func (c *Conn) dismissed() *ending {
	if c.rerr != nil && !c.rerr.violation || c.bye {
		return nil
	}
	return c.over.Load()
}

// breach ends the connection of a client that broke the protocol, once nothing
// is left of what it sent before. c.rmu is held.
func (c *Conn) breach() {
	if c.rerr != nil && c.rerr.violation && c.over.Load() == nil {
		c.owner.Lost(c.rerr.error)
	}
}

// room is where to read to: behind the held bytes, into p if it is large
// enough, else into a buffer of our own, which received takes back.
func (c *Conn) room(p []byte) (buf []byte, own *[]byte) {
	buf = p
	held := c.held()
	if c.stage.Load() == frames && len(p) < len(held)+minRead {
		own = waiting.Get().(*[]byte)
		if len(*own) < len(held)+minRead {
			*own = make([]byte, len(held)+keepMax)
		}
		buf = *own
	}
	return buf[copy(buf, held):], own
}

// received takes what nc.Read returned, asked at that time. It returns (0, nil)
// when all of it was ours, or went to the kept bytes.
func (c *Conn) received(p []byte, own *[]byte, asked wheel.Time, n int, err error) (int, error) {
	buf := p
	if own != nil {
		buf = *own
		defer waiting.Put(own)
	}
	if e := c.dismissed(); e != nil {
		// What arrives just then may overtake the deadline that ends a read.
		return 0, e.err
	}
	if n <= 0 {
		if err != nil {
			err = c.readFailed(err)
		}
		return 0, err
	}
	n += len(c.held())
	c.heard()
	if last := c.last.Load(); int64(asked) != last {
		c.vouched.Store(last) // the library was waiting: it has just come
	}
	if c.stage.Load() == frames {
		n = c.scan(buf[:n])
	} else {
		c.message()
	}
	if own != nil {
		c.keep(buf[:n])
		n = 0
	}
	if err != nil && !timeout(err) {
		_ = c.readFailed(err) // the library is told after these bytes
	}
	return n, nil
}

// scan follows b, keeps what is undecided and returns how much is the library's.
func (c *Conn) scan(b []byte) int {
	n, held, err := c.in.Scan(b, (*receiver)(c))
	c.hold(b[n : n+held])
	if err != nil && c.rerr == nil && c.over.Load() == nil {
		c.rerr = &fault{error: err, violation: true}
		c.owner.Violated(err)
		if n == 0 && c.keptLen() == 0 {
			c.breach()
		}
	}
	return n
}

// readFailed tells the owner of an end and gives the library the error that
// it should see.
func (c *Conn) readFailed(err error) error {
	if e := c.over.Load(); e != nil {
		return e.err
	}
	if timeout(err) {
		return err // the library's own deadline
	}
	c.rerr = &fault{error: err}
	c.owner.Lost(err)
	if e := c.over.Load(); e != nil && !errors.Is(err, io.EOF) {
		return e.err
	}
	return err
}

func timeout(err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// receiver is how the scanner of what comes in sees the Conn.
type receiver Conn

func (r *receiver) Data() { (*Conn)(r).message() }

func (c *Conn) message() {
	stamp(&c.lastData, c.cfg.Clock.Now())
	if c.flags.Load()&flagRouse != 0 && c.flags.And(^flagRouse)&flagRouse != 0 {
		c.owner.Roused()
	}
}

func (r *receiver) Control(frame.Op) { (*Conn)(r).count() }

// count notices more control frames and heartbeat messages than allowed.
func (c *Conn) count() {
	if now := uint32(c.cfg.Clock.Now() / 1e6); now-c.since >= 1000 {
		c.since, c.control = now, 0
	}
	if c.control++; int(c.control) > c.cfg.ControlFrames && c.over.Load() == nil {
		c.owner.Flooded()
	}
}

// Pong takes out answers to our own pings. In doubt the library sees a pong.
func (r *receiver) Pong(payload []byte) bool {
	if p := r.proof; p != nil && p.tokened && string(payload) == string(p.token[:]) {
		p.given = true
		r.proof = nil
		r.answered()
		return true
	}
	libPings := r.libPings.Load()
	if len(payload) == 0 && r.pings.Load() > 0 && libPings == r.libPongs {
		r.pings.Add(-1)
		r.answered()
		return true
	}
	if len(payload) == 0 {
		r.libPongs = libPings
	}
	return false
}

func (r *receiver) answered() {
	if at := r.pinged.Swap(0); at != 0 {
		took := time.Duration(int64(r.cfg.Clock.Exact()) - at)
		r.rtt.Store(uint32(min(max(1, took.Microseconds()), math.MaxUint32)))
	}
}

func (r *receiver) Close(code int, reason []byte) {
	r.bye = true
	r.owner.ClosedBy(code, string(reason))
}

// Message takes out heartbeat messages and queues their answers.
func (r *receiver) Message(payload []byte) bool {
	c := (*Conn)(r)
	words := scratches.Get().(*scratch)
	defer scratches.Put(words)
	for i, d := range c.cfg.dialects {
		if len(payload) > d.MaxLen() {
			continue
		}
		answer, ok := d.Answer(words.answer[:0], payload)
		if !ok {
			continue
		}
		bit := uint32(1) << i
		c.heardBy.Or(bit)
		c.count()
		if c.beatBy.Load()&bit != 0 {
			c.beatBy.And(^bit)
			// An answer to our own beat must not be answered, or two
			// peers that both echo would never stop.
			if own, ok := d.Beat(words.beat[:0], true); ok && answer != nil && string(own) == string(answer) {
				return true
			}
		}
		if answer != nil {
			c.reply(frame.AppendText, answer)
		}
		return true
	}
	return false
}
