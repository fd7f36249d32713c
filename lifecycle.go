package presence

import (
	"errors"
	"fmt"
	"time"

	"github.com/a4cafe1a/presence/internal/link"
	"github.com/a4cafe1a/presence/internal/wheel"
	"github.com/a4cafe1a/presence/store"
)

type hookState uint8

const (
	hookNone    hookState = iota // OnConnect was not called
	hookRunning                  // OnConnect is running
	hookDone                     // OnConnect has returned
)

// open makes a verified session live: registry, store, OnConnect, in this
// order, on the goroutine of the connection. After an error the session has
// ended.
func (s *Session) open() error {
	p := s.p
	if expired(s.own().expires) {
		return s.end(End{Cause: CauseExpired, Code: codeExpired, Text: "expired"})
	}
	p.gate.RLock()
	if p.draining {
		p.gate.RUnlock()
		return s.end(p.shutdownEnd())
	}
	p.registry.add(s)
	p.gate.RUnlock()
	s.verified()
	p.pending.Delete(s)
	s.mu.Lock()
	if s.ended.Load() == nil {
		if s.conn != nil {
			s.conn.Begin()
		}
		s.ref = p.wheel.Add((*owner)(s), p.wheel.Exact()+wheel.Time(p.tick))
	}
	s.mu.Unlock()
	if e := s.ended.Load(); e != nil { // before it could be found
		p.registry.remove(s)
		return e
	}
	if err := s.list(); err != nil {
		return err
	}
	if err := s.connected(); err != nil {
		return err
	}
	if s.wire != nil {
		s.wire.start()
	}
	return nil
}

// list tells the store of the session and waits for its word, for CommitWait
// at most. What comes later is heard by decided.
func (s *Session) list() error {
	p := s.p
	if p.opts.RequireStore && p.member.Away() {
		return s.end(End{Cause: CauseLimit, Code: codeSlow, Text: "store away"})
	}
	op := s.addOp()
	result, err := s.commitAdd(op)
	if err == nil && result.Status == store.Full && op.Challenge && result.Oldest != nil {
		// The user's oldest session has been asked for a sign of life.
		s.awaitRoom(*result.Oldest)
		if e := s.ended.Load(); e != nil {
			return e
		}
		op.Challenge = false
		result, err = s.commitAdd(op)
	}
	if err != nil {
		if p.opts.RequireStore && p.member.Away() {
			return s.end(End{Cause: CauseLimit, Code: codeSlow, Text: "store away"})
		}
		return s.endedError() // the store decides later
	}
	s.decided(result)
	return s.endedError()
}

func (s *Session) endedError() error {
	if e := s.ended.Load(); e != nil {
		return e
	}
	return nil
}

// errLater says that the store has not answered in time.
var errLater = errors.New("not decided yet")

func (s *Session) commitAdd(op store.Op) (store.Result, error) {
	p := s.p
	defer func() {
		// A session that ended before its OpAdd was queued must not stay.
		if e := s.ended.Load(); e != nil {
			p.member.Do(s.removeOp(e), nil)
		}
	}()
	if p.opts.CommitWait == 0 || p.member.Away() {
		p.member.Do(op, nil)
		return store.Result{}, errLater
	}
	return p.member.AwaitFor(p.opts.CommitWait, op)
}

// addOp is the session as the store should see it, and marks it as told.
func (s *Session) addOp() store.Op {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listed = true
	op := s.opLocked()
	op.Challenge = op.WhenFull == store.RefuseNew
	return op
}

func (s *Session) opLocked() store.Op {
	own := s.own()
	op := store.Op{
		Kind: store.OpAdd, User: s.user, Session: s.ID(),
		Topics: own.topics, Meta: own.meta, Away: s.marks.has(markAway), Anonymous: !s.named,
		Limit: s.p.opts.Limits.PerUser, WhenFull: store.UserLimit(s.p.opts.Limits.WhenUserFull),
	}
	if s.dated {
		op.Since = time.Unix(0, s.since.Load()).UTC()
	}
	return op
}

func (s *Session) heldOp() (store.Op, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.listed || s.ended.Load() != nil {
		return store.Op{}, false
	}
	return s.opLocked(), true
}

// decided takes over what the store said of the session.
func (s *Session) decided(r store.Result) {
	switch r.Status {
	case store.Done, store.TooLarge:
		s.mu.Lock()
		if !r.Since.IsZero() {
			s.since.Store(r.Since.UnixNano())
			s.dated = true
		}
		if r.Status == store.TooLarge {
			own := s.own()
			own.meta = nil
			s.setExtra(own)
		}
		s.mu.Unlock()
	case store.Outdated:
		s.unlist()
		s.end(End{Cause: CauseReplaced, Code: codeReplaced, Text: "replaced"})
	case store.Full, store.Stale:
		s.unlist()
		s.end(End{Cause: CauseLimit, Code: codeLimit, Text: "too many sessions"})
	}
}

// unlist: the store does not hold the session, there is nothing to remove.
func (s *Session) unlist() {
	s.mu.Lock()
	s.listed = false
	s.mu.Unlock()
}

// connected calls OnConnect. OnDisconnect follows exactly once, whatever
// happens meanwhile, also when OnConnect panics.
func (s *Session) connected() error {
	hook := s.p.opts.OnConnect
	s.mu.Lock()
	if e := s.ended.Load(); e != nil {
		s.mu.Unlock()
		return e
	}
	s.hooks = hookRunning
	// Until OnDisconnect has returned. The connection is still counted, since
	// it has not ended, so Shutdown cannot have stopped waiting.
	s.p.running.Add(1)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.hooks = hookDone
		e := s.ended.Load()
		s.mu.Unlock()
		if e != nil {
			s.disconnected(e)
		}
	}()
	if hook != nil {
		panicked := true
		defer func() {
			if panicked {
				s.end(End{Cause: CauseAppError, Code: codeAppError})
			}
		}()
		hook(s)
		panicked = false
	}
	return s.endedError()
}

// verify waits for the client's proof of life and opens the session.
func (s *Session) verify() error {
	begun := s.p.wheel.Exact()
	if err := s.conn.Verify(s.p.opts.VerifyTimeout); err != nil {
		cause := CauseLost
		if errors.Is(err, link.ErrUnproven) {
			cause = CauseSilent
			s.p.unverified.Add(1)
		}
		s.p.log.Debug("presence: not verified", "session", s.ID(), "user", s.user,
			"after", time.Duration(s.p.wheel.Exact()-begun).Round(time.Millisecond), "error", err)
		if e := s.end(End{Cause: cause}); !errors.Is(err, e) {
			err = fmt.Errorf("%w: %w", e, err)
		}
		return err
	}
	return s.open()
}
