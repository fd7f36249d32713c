package presence

import (
	"fmt"
	"runtime/debug"
	"time"

	"github.com/a4cafe1a/presence/internal/link"
	"github.com/a4cafe1a/presence/store"
)

// end ends the session. The first cause wins and is told once. It returns at
// once, with how the session ended, and may be called with anything but the
// session's own lock held.
func (s *Session) end(e End) *End {
	if e.Quiet == 0 {
		e.Quiet = max(0, s.quiet(s.p.wheel.Exact()))
	}
	s.mu.Lock()
	if was := s.ended.Load(); was != nil {
		s.mu.Unlock()
		return was
	}
	s.ended.Store(&e)
	hooks, listed, ref, peer, conn := s.hooks, s.listed, s.ref, s.peer, s.conn
	contexts := s.held()
	s.mu.Unlock()

	p := s.p
	if p.registry.remove(s) {
		p.wheel.Remove(ref)
	}
	if listed {
		p.member.Do(s.removeOp(&e), nil)
	}
	over := func() { contexts.end(&e) }
	if conn != nil {
		f := p.farewell(&e)
		f.Before = over
		conn.Finish(&e, f)
	} else {
		over()
		s.release()
		s.depart()
	}
	if hooks != hookNone {
		p.ended[e.Cause].Add(1)
	}
	if hooks == hookDone {
		s.disconnected(&e)
	}
	if peer != nil {
		peer.wake()
	}
	if s.wire != nil {
		go s.wire.stop() // what it locks may be held right here
	}
	return &e
}

func (s *Session) removeOp(e *End) store.Op {
	return store.Op{
		Kind: store.OpRemove, User: s.user, Session: s.ID(), Cause: e.Cause, Grace: s.p.grace(e.Cause),
	}
}

func (p *Presence) grace(c Cause) time.Duration {
	switch {
	case !graceful(c):
		return 0
	case c == CauseShutdown:
		return p.opts.DrainGrace
	default:
		return p.opts.LeaveGrace
	}
}

// farewell is what an end looks like on the wire.
func (p *Presence) farewell(e *End) link.Farewell {
	switch e.Cause {
	case CauseSilent:
		return link.Farewell{Reset: true}
	case CauseLost:
		return link.Farewell{}
	case CauseClientClosed:
		return link.Farewell{Code: e.Code, Linger: p.opts.CloseTimeout}
	default:
		return link.Farewell{Code: e.Code, Reason: e.Text, Linger: p.opts.CloseTimeout}
	}
}

// disconnected runs OnDisconnect on a goroutine of its own.
func (s *Session) disconnected(e *End) {
	p := s.p
	p.log.Debug("presence: session ended", "session", s.ID(), "user", s.user, "cause", string(e.Cause),
		"code", e.Code, "text", e.Text, "quiet", e.Quiet)
	hook := p.opts.OnDisconnect
	if hook == nil {
		p.running.Done()
		return
	}
	p.hooks.Go(func() {
		defer p.running.Done()
		defer s.recovered("OnDisconnect")
		hook(s, *e)
	})
}

// recovered is deferred around what the app does on a goroutine of ours: a panic
// there is that session's, as net/http sees it, and not the process's.
func (s *Session) recovered(where string) {
	r := recover()
	if r == nil {
		return
	}
	s.p.log.Error("presence: "+where+" panicked", "session", s.ID(), "user", s.user,
		"panic", fmt.Sprint(r), "stack", string(debug.Stack()))
	s.end(End{Cause: CauseAppError, Code: codeAppError})
}

// enter counts the connection among those that Shutdown ends and awaits;
// depart does so no longer. It fails when Shutdown has begun.
func (s *Session) enter() bool {
	p := s.p
	p.gate.RLock()
	defer p.gate.RUnlock()
	if p.draining {
		return false
	}
	p.running.Add(1)
	s.marks.set(markEntered)
	p.pending.Store(s, nil)
	return true
}

func (s *Session) depart() {
	s.p.pending.Delete(s)
	if s.marks.unset(markEntered) {
		s.p.running.Done()
	}
}

// discard forgets a pending session without a trace.
func (s *Session) discard() {
	s.mu.Lock()
	if s.ended.Load() == nil {
		s.ended.Store(&End{Cause: CauseAppClosed})
	}
	e := s.ended.Load()
	contexts := s.held()
	s.mu.Unlock()
	contexts.end(e)
	s.release()
	s.depart()
}
