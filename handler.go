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
// github.com/coder/websocket's business; heartbeats never show.
type Conn struct {
	*websocket.Conn
	*Session
	r *http.Request
}

// Read is that of websocket.Conn. When the session has ended, errors.As finds
// its *End in the error.
func (c *Conn) Read(ctx context.Context) (websocket.MessageType, []byte, error) {
	t, b, err := c.Conn.Read(ctx)
	return t, b, c.why(err)
}

// Reader is that of websocket.Conn, with the errors of Read.
func (c *Conn) Reader(ctx context.Context) (websocket.MessageType, io.Reader, error) {
	t, r, err := c.Conn.Reader(ctx)
	return t, r, c.why(err)
}

// Write is that of websocket.Conn, with the errors of Read.
func (c *Conn) Write(ctx context.Context, t websocket.MessageType, b []byte) error {
	return c.why(c.Conn.Write(ctx, t, b))
}

// why adds how the session ended: the library may have seen only that its
// context did.
func (c *Conn) why(err error) error {
	e := c.ended.Load()
	if err == nil || e == nil || errors.Is(err, ErrEnded) {
		return err
	}
	return fmt.Errorf("%w: %w", e, err)
}

// Request is the upgrade request. Use it only until serve returns.
func (c *Conn) Request() *http.Request { return c.r }

// Handler is Presence.Handler with the settings of the mount.
func (m *Mount) Handler(serve func(context.Context, *Conn) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, owned, r := m.prepare(w, r)
		if u == nil {
			return
		}
		if owned {
			defer u.finish()
			w = u
		}
		s := u.s
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
			Subprotocols: m.set.Subprotocols, InsecureSkipVerify: true, // the origin was checked
		})
		if err != nil {
			s.p.log.Debug("presence: not accepted", "path", r.URL.Path, "error", err)
			return
		}
		ws.SetReadLimit(m.set.ReadLimit)
		if !s.p.begin() {
			s.end(s.p.shutdownEnd())
			return
		}
		defer s.p.running.Done()
		defer func() {
			if !u.returned { // a panic
				s.end(End{Cause: CauseAppError, Code: codeAppError})
			}
			ws.CloseNow()
		}()
		err = serve(r.Context(), &Conn{Conn: ws, Session: s, r: r})
		u.returned = true
		s.returned("serve", err)
	})
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
	default:
		s.logAppError(where, err)
		s.end(End{Cause: CauseAppError, Code: codeAppError})
	}
}
