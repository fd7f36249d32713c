package presence

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"sync"

	"github.com/coder/websocket"
)

// Callbacks say what to do with a connection. They are called one at a time
// per session, on a goroutine of presence. Both may be nil.
type Callbacks struct {
	// Message is called for each message of the client. ctx is the session's
	// and carries no values of the request. b is valid until Message returns.
	// An error ends the session as one of serve does, see Presence.Handler; a
	// panic ends it as app-error and goes on, which ends the process.
	Message func(ctx context.Context, t websocket.MessageType, b []byte) error
	// Closed is called once after the last Message, if the connection had
	// been verified.
	Closed func(End)
}

// Peer is the client of a Callback connection.
type Peer struct {
	*Session
	mu      sync.Mutex
	ws      *websocket.Conn // nil until the upgrade
	queue   []outgoing
	bytes   int
	writing bool
}

type outgoing struct {
	t websocket.MessageType
	b []byte
}

const (
	queueMessages = 64
	queueBytes    = 256 << 10
)

// Send queues a message and never blocks. b may be used again at once. When 64
// messages or 256 KiB are waiting it returns ErrSlow, and the session ends
// (1013); a single larger message is allowed. Messages sent before the upgrade
// follow it. ErrEnded: the session has ended.
func (c *Peer) Send(t websocket.MessageType, b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended.Load() != nil {
		return ErrEnded
	}
	if len(c.queue) >= queueMessages || c.bytes > 0 && c.bytes+len(b) > queueBytes {
		c.end(End{Cause: CauseSlow, Code: codeSlow, Text: "too slow"})
		return ErrSlow
	}
	c.queue = append(c.queue, outgoing{t, slices.Clone(b)})
	c.bytes += len(b)
	c.flush()
	return nil
}

// flush starts to write what is queued. c.mu is held.
func (c *Peer) flush() {
	if c.ws == nil || c.writing || len(c.queue) == 0 {
		return
	}
	if !c.p.begin() {
		return // shutting down: the session ends
	}
	c.writing = true
	go c.write()
}

func (c *Peer) write() {
	defer c.p.running.Done()
	ctx := c.Context()
	for {
		c.mu.Lock()
		if len(c.queue) == 0 || c.ended.Load() != nil {
			c.queue, c.bytes, c.writing = nil, 0, false
			c.mu.Unlock()
			return
		}
		m := c.queue[0]
		c.mu.Unlock()
		err := c.ws.Write(ctx, m.t, m.b)
		c.mu.Lock()
		// Only now: what is being written still counts as queued.
		c.queue[0].b = nil
		c.queue, c.bytes = c.queue[1:], c.bytes-len(m.b)
		if err != nil {
			c.queue, c.bytes, c.writing = nil, 0, false
			c.mu.Unlock()
			c.returned("Peer.Send", err)
			return
		}
		c.mu.Unlock()
	}
}

// Close ends the session with a close code of the app: 1000, or 3000-4999.
// Anything else becomes 1000. It returns at once.
func (c *Peer) Close(code int, reason string) {
	if code < 3000 || code > 4999 {
		code = codeNormal
	}
	c.end(End{Cause: CauseAppClosed, Code: code, Text: cutText(reason)})
}

// Callback is Presence.Callback with the settings of the mount.
func (m *Mount) Callback(setup func(*http.Request, *Peer) (Callbacks, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer := &Peer{}
		var calls Callbacks
		u, ws, _ := m.accept(w, r, func(r *http.Request, s *Session) (err error) {
			peer.Session = s
			if setup != nil {
				calls, err = setup(r, peer)
			}
			return err
		})
		if u == nil {
			return
		}
		u.returned = true
		if !m.p.begin() {
			peer.end(m.p.shutdownEnd())
			return
		}
		go peer.serve(ws, calls)
	})
}

// serve reads until the session ends.
func (c *Peer) serve(ws *websocket.Conn, calls Callbacks) {
	defer c.p.running.Done()
	defer ws.CloseNow()
	c.mu.Lock()
	c.ws = ws
	c.flush()
	c.mu.Unlock()
	panicked := true
	defer func() {
		if panicked {
			c.end(End{Cause: CauseAppError, Code: codeAppError})
		}
	}()
	err := c.read(ws, calls.Message)
	c.returned("Callbacks.Message", err)
	if e := c.ended.Load(); e != nil && calls.Closed != nil {
		calls.Closed(*e)
	}
	panicked = false
}

func (c *Peer) read(ws *websocket.Conn, message func(context.Context, websocket.MessageType, []byte) error) error {
	ctx := c.Context()
	var buf bytes.Buffer
	for {
		t, r, err := ws.Reader(ctx)
		if err != nil {
			return err
		}
		buf.Reset()
		if buf.Cap() > 4<<10 {
			buf = bytes.Buffer{} // one large message must not keep its memory
		}
		if _, err := buf.ReadFrom(r); err != nil {
			return err
		}
		if message == nil {
			continue
		}
		if err := message(ctx, t, buf.Bytes()); err != nil {
			return err
		}
	}
}
