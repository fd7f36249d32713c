package presence

import (
	"time"

	"github.com/a4cafe1a/presence/internal/link"
	"github.com/a4cafe1a/presence/internal/wheel"
	"github.com/a4cafe1a/presence/store"
)

// owner is how a session hears what its connection finds, and when to look at
// it. It is a type of its own so that Session shows none of this to the app.
type owner Session

var (
	_ link.Owner = (*owner)(nil)
	_ wheel.Item = (*owner)(nil)
)

// Warm touches what a look needs.
func (o *owner) Warm() {
	o.ended.Load()
	o.touched.Load()
	o.marks.Load()
	if o.conn != nil {
		o.conn.Warm()
	}
}

// Upgraded verifies a client whose library wrote the 101 itself.
func (o *owner) Upgraded() error { return (*Session)(o).verify() }

// Refused: no WebSocket after all.
func (o *owner) Refused() { (*Session)(o).discard() }

// ClosedBy notes that the client wants to go. The library answers; if it does
// not, we do, after CloseTimeout.
func (o *owner) ClosedBy(code int, reason string) {
	(*Session)(o).sayGoodbye(End{Cause: CauseClientClosed, Code: code, Text: reason})
}

// Closing notes that the library wants to go. Some codes say that it is because
// of what the client sent (RFC 6455 section 7.4.1).
func (o *owner) Closing(code int) {
	cause := CauseAppClosed
	switch code {
	case codeProtocolError, codeText, codeTooLarge:
		cause = CauseProtocolError
	}
	(*Session)(o).sayGoodbye(End{Cause: cause, Code: code})
}

// Lost: the client has gone, with or without a goodbye.
func (o *owner) Lost(error) { (*Session)(o).endGoodbye(CauseLost) }

// LibraryClosed: the app is done, or follows the client's goodbye.
func (o *owner) LibraryClosed() { (*Session)(o).endGoodbye(CauseAppClosed) }

// Violated notes that the client broke the protocol (RFC 6455 section 7.1.7).
// What it sent before is the app's, which has CloseTimeout to read it.
func (o *owner) Violated(err error) {
	(*Session)(o).sayGoodbye(End{Cause: CauseProtocolError, Code: codeProtocolError, Text: cutText(err.Error())})
}

// Flooded: too many control frames.
func (o *owner) Flooded() {
	(*Session)(o).end(End{Cause: CauseLimit, Code: codeLimit, Text: "too many control frames"})
}

// Roused: the client sent a message after it was away.
func (o *owner) Roused() {
	s := (*Session)(o)
	s.setAway(false)
	s.hasten(s.p.wheel.Exact() + wheel.Time(s.set.rhythm.away))
}

// Gone: the socket is closed.
func (o *owner) Gone() {
	s := (*Session)(o)
	s.release()
	s.depart()
}

// goodbye is how a closing handshake says that the session will have ended.
type goodbye struct {
	End
	by wheel.Time // how long it may take
}

// sayGoodbye notes how the session will have ended, and bounds how long the
// closing handshake may take.
func (s *Session) sayGoodbye(e End) {
	at := s.p.wheel.Exact() + wheel.Time(max(s.p.opts.CloseTimeout, s.p.tick))
	if s.goodbye.CompareAndSwap(nil, &goodbye{e, at}) {
		s.hasten(at)
	}
}

// closing says that a closing handshake has begun.
func (s *Session) closing() bool { return s.goodbye.Load() != nil }

// endGoodbye ends the session as its closing handshake said, or else with
// this cause.
func (s *Session) endGoodbye(otherwise Cause) {
	e := End{Cause: otherwise}
	if g := s.goodbye.Load(); g != nil {
		e = g.End
	}
	s.end(e)
}

// setAway tells others that the client has fallen quiet, or is back.
func (s *Session) setAway(away bool) {
	s.mu.Lock()
	changed := s.marks.has(markAway) != away && s.ended.Load() == nil
	switch {
	case changed && away:
		s.marks.set(markAway)
	case changed:
		s.marks.unset(markAway)
	}
	listed := s.listed
	s.mu.Unlock()
	if !changed {
		return
	}
	if away {
		before := s.conn.LastMessage()
		s.conn.Rouse()
		if s.conn.LastMessage() != before { // it came while we decided
			defer s.setAway(false)
		}
	}
	if listed {
		s.p.member.Do(store.Op{Kind: store.OpAway, User: s.user, Session: s.ID(), Away: away}, nil)
	}
}

// grain is how exactly the kernel knows when bytes arrived.
const grain = 10 * time.Millisecond

// arrived is lastByte for the looks: when the last byte came, not when it was
// read.
func (s *Session) arrived() wheel.Time {
	if s.conn == nil {
		return s.lastByte()
	}
	return s.conn.Arrived(wheel.Time(2*s.p.tick + grain))
}

// peek reads what has arrived while the app is not reading, and wakes whoever
// is to process it.
func (s *Session) peek() link.View {
	look := s.conn.Peek
	if s.marks.has(markParked) {
		look = s.conn.Kept // the poller has read what there is
	}
	view := look()
	if view == link.Found || view == link.Full {
		s.mu.Lock()
		peer := s.peer
		s.mu.Unlock()
		if peer != nil {
			peer.wake()
		}
	}
	return view
}
