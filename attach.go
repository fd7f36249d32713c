package presence

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/a4cafe1a/presence/internal/link"
)

// Attach keeps a connection of any other protocol under watch: each byte that
// arrives is life, nothing is added to the stream, and a client that is quiet
// for HeartbeatTimeout is reaped. login reads from the connection who it is,
// within VerifyTimeout; what it reads is the proof of life. A login that reads
// nothing, or none at all (an anonymous session), vouches for a client that has
// not said anything yet.
//
// What login reads is gone from the connection. A bufio.Reader in it takes what
// follows the name as well, so read on from that same reader afterwards, or read
// no more than the name, as fmt.Fscanln does.
//
// The returned connection is to be used instead of nc; closing it ends the
// session. ctx is for the call only. After an error nc is closed. The error is
// what login returned, ErrUnavailable, ErrTooMany, ErrLimit, ErrClosed, or the
// session's *End.
func (p *Presence) Attach(ctx context.Context, nc net.Conn, login func(net.Conn) (Identity, error)) (net.Conn, *Session, error) {
	s := p.newSession(&p.mounts, Identity{})
	if err := p.admit(s); err != nil {
		_ = nc.Close()
		return nil, nil, err
	}
	s.conn = link.Plain(nc, &p.links, (*owner)(s))
	if !s.enter() {
		return nil, nil, s.end(p.shutdownEnd())
	}
	stop := context.AfterFunc(ctx, func() { s.end(End{Cause: CauseAppClosed}) })
	panicked := true
	defer func() {
		if panicked {
			stop()
			s.end(End{Cause: CauseAppError})
		}
	}()
	err := s.login(login)
	panicked = false
	if err == nil {
		err = p.room(ctx, s.user)
	}
	if !stop() {
		err = ctx.Err() // whatever else failed because of it
	}
	if err != nil {
		if e := s.ended.Load(); e != nil && ctx.Err() == nil {
			err = e
		}
		s.end(End{Cause: CauseAppClosed})
		return nil, nil, err
	}
	if err := s.open(); err != nil {
		return nil, nil, err
	}
	return s.conn, s, nil
}

func (s *Session) login(login func(net.Conn) (Identity, error)) error {
	if login == nil {
		return nil
	}
	begun := s.p.wheel.Exact()
	view := &loginConn{Conn: s.conn}
	_ = s.conn.SetDeadline(time.Now().Add(s.p.opts.VerifyTimeout))
	id, err := login(view)
	view.done.Store(true)
	if err != nil {
		return err
	}
	if e := s.conn.SetDeadline(time.Time{}); e != nil {
		return fmt.Errorf("presence: attach: %w", e)
	}
	if err := s.p.opts.Limits.checkIdentity(id); err != nil {
		return err
	}
	if expired(id.Expires) {
		return ErrUnauthorized
	}
	s.mu.Lock()
	s.identify(id)
	s.mu.Unlock()
	if s.p.kicks.since(id.User, begun) {
		return s.end(Reason{}.end())
	}
	return s.endedOr(nil)
}

func (s *Session) endedOr(err error) error {
	if e := s.ended.Load(); e != nil {
		return e
	}
	return err
}

// loginConn keeps VerifyTimeout in force while login runs.
type loginConn struct {
	net.Conn
	done atomic.Bool
}

func (c *loginConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *loginConn) SetReadDeadline(t time.Time) error {
	if !c.done.Load() {
		return nil
	}
	return c.Conn.SetReadDeadline(t)
}

func (c *loginConn) SetWriteDeadline(t time.Time) error {
	if !c.done.Load() {
		return nil
	}
	return c.Conn.SetWriteDeadline(t)
}

// Open makes a session without a connection, for transports of the app's own.
// The app vouches for it: it is live at once, ends as silent unless Touch is
// called within every HeartbeatTimeout, and ends with ctx (app-closed). The
// errors are those of Attach.
func (p *Presence) Open(ctx context.Context, id Identity) (*Session, error) {
	if err := p.opts.Limits.checkIdentity(id); err != nil {
		return nil, err
	}
	s := p.newSession(&p.mounts, id)
	if err := p.admit(s); err != nil {
		return nil, err
	}
	if err := p.room(ctx, s.user); err != nil {
		s.release()
		return nil, err
	}
	if !s.enter() {
		return nil, s.end(p.shutdownEnd())
	}
	if err := s.open(); err != nil {
		return nil, err
	}
	if ctx.Done() != nil {
		stop := context.AfterFunc(ctx, func() { s.end(End{Cause: CauseAppClosed}) })
		context.AfterFunc(s.Context(), func() { stop() }) // ctx may live much longer
	}
	return s, nil
}
