package presence

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/a4cafe1a/presence/internal/frame"
	"github.com/a4cafe1a/presence/internal/message"
	"github.com/a4cafe1a/presence/internal/park"
	"github.com/coder/websocket"
)

// Callbacks say what to do with a connection. They are called one at a time
// per session, on a goroutine of presence. Both may be nil.
type Callbacks struct {
	// Message is called for each message of the client. ctx is the session's
	// and carries no values of the request. b is valid until Message returns.
	// Text is UTF-8: with any other the session ends as protocol-error (1007).
	// An error ends the session as one of serve does, see Presence.Handler. A
	// panic ends it as app-error, and is logged with its stack.
	Message func(ctx context.Context, t websocket.MessageType, b []byte) error
	// Closed is called once after the last Message, if the connection had
	// been verified. A panic is logged.
	Closed func(End)
}

// Peer is the client of a Callback connection. While the client is quiet it
// holds neither a goroutine nor a buffer; on systems other than Linux it has
// one goroutine.
type Peer struct {
	*Session
	calls   Callbacks
	decoder *message.Decoder // nil between messages
	state   atomic.Int32

	mu      sync.Mutex // of what goes out
	ref     park.Ref
	open    bool    // the upgrade is done
	writing bool    // a goroutine writes what is queued
	waiting *outbox // nil: nothing is queued
	leaving *End    // how Close wants it to end when that is written
}

var decoders = sync.Pool{New: func() any { return new(message.Decoder) }}

// What the reading side of a Peer is doing.
const (
	asleep int32 = iota // nothing, until something arrives
	awake               // a goroutine reads and calls back
	again               // the same, and something has happened since
	gone                // it is over
)

// Callback is Presence.Callback with the settings of the mount.
func (m *Mount) Callback(setup func(*http.Request, *Peer) (Callbacks, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, owned := m.prepare(w, r)
		if u == nil {
			return
		}
		if owned {
			defer u.finish()
		}
		peer := &Peer{Session: u.s}
		if setup != nil {
			var err error
			if peer.calls, err = setup(u.request(r), peer); err != nil {
				m.p.refuse(w, r, err)
				return
			}
		}
		if m.upgrade(u, u.writer(w, owned), r) {
			peer.start()
		} else {
			peer.unread()
		}
		u.returned = true
	})
}

// start begins to read, and sends what was queued.
func (c *Peer) start() {
	p := c.p
	if !p.begin() {
		c.closed(c.end(p.shutdownEnd()))
		return
	}
	// An end that comes before the reading has begun is for the reading to find.
	c.state.Store(awake)
	c.Session.mu.Lock()
	c.peer = c
	over := c.forgetRequest()
	c.Session.mu.Unlock()
	if over != nil {
		over(context.Canceled)
	}
	c.mu.Lock()
	c.open = true
	c.flush()
	c.mu.Unlock()
	switch {
	case !c.park():
		go c.read()
	case c.conn.Direct() && !c.conn.Waits() && c.state.CompareAndSwap(awake, asleep):
		if c.ended.Load() != nil {
			c.wake()
		}
	default:
		go c.process() // what came with the handshake
	}
}

// unread tells the end of a session that was opened, and ended in OnConnect.
func (c *Peer) unread() {
	c.Session.mu.Lock()
	opened := c.hooks == hookDone
	c.Session.mu.Unlock()
	if e := c.ended.Load(); opened && e != nil {
		c.closed(e)
	}
}

func (c *Peer) closed(e *End) {
	if c.calls.Closed != nil {
		defer c.recovered("Callbacks.Closed")
		c.calls.Closed(*e)
	}
}

// forgetRequest returns what ends the context of the request, which is over and
// must not be held any longer. s.mu is held.
func (s *Session) forgetRequest() (over context.CancelCauseFunc) {
	c := s.contexts
	if c == nil {
		return nil
	}
	over, c.upgraded = c.upgraded, nil
	if c.ctx == nil {
		s.contexts = nil
	}
	return over
}

// park says whether the session needs no goroutine of its own.
func (c *Peer) park() bool {
	raw := c.conn.Raw()
	if raw == nil {
		return false
	}
	lot := c.p.parking() // only now: it waits in the kernel
	if lot == nil {
		return false
	}
	ref, ok := lot.Add(raw, (*parked)(c))
	c.mu.Lock()
	c.ref = ref
	c.mu.Unlock()
	if ok && c.conn.Direct() {
		c.marks.set(markParked)
	}
	return ok
}

// parked is how the poller sees a Peer.
type parked Peer

// Warm touches what Readable needs.
func (c *parked) Warm() {
	c.state.Load()
	c.conn.Warm()
}

// Readable is for the poller, which serves many: heartbeats are taken care of
// here, messages elsewhere.
func (c *parked) Readable(hungUp bool) {
	if !c.conn.Direct() || c.conn.Arrive(hungUp) {
		(*Peer)(c).wake()
	}
}

// wake sees to it that somebody processes what has arrived, or the end.
func (c *Peer) wake() {
	for {
		switch c.state.Load() {
		case asleep:
			if c.state.CompareAndSwap(asleep, awake) {
				go c.process()
				return
			}
		case awake:
			if c.state.CompareAndSwap(awake, again) {
				return
			}
		default:
			return
		}
	}
}

// process calls back with what has arrived, and goes back to sleep.
func (c *Peer) process() {
	for {
		c.state.Store(awake)
		for c.conn.Drain() {
			if b := c.conn.Take(); b == nil || !c.feed(b) {
				break
			}
		}
		if c.ended.Load() != nil {
			c.finish()
			return
		}
		if c.state.CompareAndSwap(awake, asleep) {
			return
		}
	}
}

// read is process where there is no poller.
func (c *Peer) read() {
	buf := make([]byte, 1<<10)
	for {
		n, err := c.conn.Read(buf)
		if n > 0 && !c.feed(buf[:n]) || err != nil {
			break
		}
	}
	c.endGoodbye(CauseLost) // if it has not ended
	c.finish()
}

// finish is the last thing the reading side does.
func (c *Peer) finish() {
	defer c.p.running.Done()
	c.state.Store(gone)
	c.mu.Lock()
	ref := c.ref
	c.waiting = nil
	c.mu.Unlock()
	if lot := c.p.lot.Load(); lot != nil {
		lot.Remove(ref)
	}
	c.closed(c.ended.Load())
}

// feed calls back with b and says whether to go on.
func (c *Peer) feed(b []byte) bool {
	defer c.recovered("Callbacks.Message")
	if c.decoder == nil {
		c.decoder = decoders.Get().(*message.Decoder)
	}
	err := c.decoder.Feed(b, c.set.ReadLimit, (*calling)(c))
	if err == nil && c.decoder.Idle() {
		*c.decoder = message.Decoder{}
		decoders.Put(c.decoder)
		c.decoder = nil
	}
	switch {
	case err == nil:
		return true
	case errors.Is(err, message.ErrTooLarge):
		c.violated(codeTooLarge, err)
	case errors.Is(err, message.ErrText):
		c.violated(codeText, err)
	case errors.Is(err, message.ErrReserved), errors.Is(err, message.ErrSequence):
		c.violated(codeProtocolError, err)
	default:
		c.returned("Callbacks.Message", err)
	}
	return false
}

func (c *Peer) violated(code int, err error) {
	c.end(End{Cause: CauseProtocolError, Code: code, Text: err.Error()})
}

// calling is how the decoder sees a Peer.
type calling Peer

func (c *calling) Message(op frame.Op, b []byte) error {
	if c.calls.Message == nil {
		return nil
	}
	return c.calls.Message(c.Context(), websocket.MessageType(op), b)
}

func (c *calling) Ping(payload []byte) { c.conn.Pong(payload) }

func (c *calling) Close() { c.endGoodbye(CauseClientClosed) }
