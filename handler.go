package presence

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/coder/websocket"
)

// Conn is a live, verified connection and its session. Reading and writing is
// github.com/coder/websocket's business; heartbeats never show. That library
// does not check that text is UTF-8. Close is that library's too and waits for
// the client; Disconnect ends the session at once.
type Conn struct {
	*websocket.Conn
	*Session
	w     http.ResponseWriter // until the upgrade
	r     *http.Request
	u     *upgrade
	owned bool // the upgrade is to be finished here
}

// Read is that of websocket.Conn. When the session has ended, errors.As finds
// its *End in the error.
func (c *Conn) Read(ctx context.Context) (websocket.MessageType, []byte, error) {
	t, b, err := c.Conn.Read(c.watched(ctx))
	return t, b, c.why(err)
}

// Reader is that of websocket.Conn, with the errors of Read.
func (c *Conn) Reader(ctx context.Context) (websocket.MessageType, io.Reader, error) {
	t, r, err := c.Conn.Reader(c.watched(ctx))
	return t, r, c.why(err)
}

// Write is that of websocket.Conn, with the errors of Read.
func (c *Conn) Write(ctx context.Context, t websocket.MessageType, b []byte) error {
	return c.why(c.Conn.Write(c.watched(ctx), t, b))
}

// watched is what the library is to watch while it reads or writes with ctx. That
// costs it a fifth of a short message, and for the context of serve it need not:
// when that ends, so has the connection, and the call fails by itself, once the
// app has read what the client sent before.
func (c *Conn) watched(ctx context.Context) context.Context {
	if ctx == c.r.Context() {
		return context.Background()
	}
	return ctx
}

// why adds how the session ended: the library may have seen only that its
// context did.
func (c *Conn) why(err error) error {
	if err == nil {
		return nil
	}
	if e := c.ended.Load(); e != nil && !errors.Is(err, ErrEnded) {
		return fmt.Errorf("%w: %w", e, err)
	}
	return err
}

// Request is the upgrade request. Use it only until serve returns.
func (c *Conn) Request() *http.Request { return c.r }

// Handler is Presence.Handler with the settings of the mount.
func (m *Mount) Handler(serve func(context.Context, *Conn) error) http.Handler {
	if serve == nil {
		panic("presence: Handler: nil function")
	}
	// What lasts is kept apart from what is done once: the frames that wait
	// with serve decide how large the stack of a quiet connection is.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := m.newConn(w, r)
		if c == nil {
			return
		}
		defer c.leave()
		if m.accept(c) {
			c.served(serve(c.r.Context(), c))
		}
	})
}

// newConn returns nil when the request has been answered.
func (m *Mount) newConn(w http.ResponseWriter, r *http.Request) *Conn {
	u, owned := m.prepare(w, r)
	if u == nil {
		return nil
	}
	r, _ = u.detach(r)
	return &Conn{Session: u.s, w: u.writer(w, owned), r: r, u: u, owned: owned}
}

// accept upgrades, and says whether there is a connection to serve.
func (m *Mount) accept(c *Conn) bool {
	options := m.acceptOptions(c)
	ws, err := websocket.Accept(c.w, c.r, options)
	c.w = nil
	return m.accepted(c, ws, err)
}

func (m *Mount) acceptOptions(c *Conn) *websocket.AcceptOptions {
	return &websocket.AcceptOptions{
		Subprotocols: m.offer(c.u, c.r), InsecureSkipVerify: true, // the origin was checked
	}
}

func (m *Mount) accepted(c *Conn, ws *websocket.Conn, err error) bool {
	if err != nil {
		m.p.log.Debug("presence: not accepted", "path", c.r.URL.Path, "error", err)
		return false
	}
	ws.SetReadLimit(m.set.ReadLimit)
	if !m.p.begin() {
		c.end(m.p.shutdownEnd())
		return false
	}
	c.Conn = ws
	c.u.header = nil // the library has read it
	return true
}

// served ends the session as what serve returned says.
func (c *Conn) served(err error) {
	c.u.returned = true
	c.returned("serve", err)
}

// leave is called when serve has returned or panics, or there was no upgrade.
func (c *Conn) leave() {
	if c.Conn != nil {
		defer c.p.running.Done()
		if !c.u.returned {
			c.end(End{Cause: CauseAppError, Code: codeAppError})
		}
		c.CloseNow()
	}
	if c.owned {
		c.u.finish()
	}
}

// begin counts a goroutine that Shutdown awaits.
func (p *Presence) begin() bool {
	p.gate.RLock()
	defer p.gate.RUnlock()
	if p.draining {
		return false
	}
	p.running.Add(1)
	return true
}

// returned ends the session as what the app returned says.
func (s *Session) returned(where string, err error) {
	if s.ended.Load() != nil {
		return
	}
	var status websocket.CloseError
	switch {
	case err == nil:
		s.end(End{Cause: CauseAppClosed, Code: codeNormal})
	case errors.As(err, &status), errors.Is(err, net.ErrClosed):
		s.endGoodbye(CauseAppClosed) // the closing has begun, whoever began it
	case s.closing():
		s.endGoodbye(CauseAppError) // a close frame says it already, as for a message over the limit
	default:
		s.logAppError(where, err)
		s.end(End{Cause: CauseAppError, Code: codeAppError})
	}
}
