package presence

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/a4cafe1a/presence/internal/link"
	"github.com/a4cafe1a/presence/internal/wheel"
)

// rhythm is what the options say about heartbeats; 0 is off.
type rhythm struct {
	interval, timeout, download, idle, away time.Duration
}

// pulse is what the looks at one session remember between them.
type pulse struct {
	interval  wheel.Time // this wait, shortened at random
	dueAt     wheel.Time // the unanswered heartbeat became due; 0: none
	beatAt    wheel.Time // the latest one was asked for
	acked     uint64     // of the data ahead of it, when last seen
	advanceAt wheel.Time // acked last grew
	clearAt   wheel.Time // all data ahead was acknowledged
	fullAt    wheel.Time // unread data has filled the socket since
}

// vitals are the facts that decide whether a session is silent.
type vitals struct {
	now, last, sent wheel.Time // sent: the unanswered heartbeat was written, 0 if not yet
	beatable        bool       // heartbeats can be sent at all
	ahead           bool       // data ahead of the heartbeat is unacknowledged
}

const (
	never    = wheel.Time(math.MaxInt64)
	lookSoon = wheel.Time(250 * time.Millisecond)
)

// silent is the one definition. No byte has arrived for the timeout, and a
// heartbeat has been waiting for timeout - interval. It waits from when it
// was written or, with data of the app ahead of it, from when the last of
// that was acknowledged. While such acknowledgements advance, the session is
// not judged, for at most the download timeout.
func (b *pulse) silent(r *rhythm, v vitals) bool {
	timeout, patience := wheel.Time(r.timeout), wheel.Time(r.timeout-r.interval)
	if timeout == 0 || b.dueAt == 0 || v.now-v.last < timeout {
		return false
	}
	if v.ahead || v.beatable && v.sent == 0 {
		if v.now-b.dueAt < patience {
			return false
		}
		return v.now-max(v.last, b.advanceAt) >= timeout || v.now-b.dueAt >= wheel.Time(r.download)
	}
	waiting := max(b.clearAt, b.dueAt)
	if v.beatable {
		waiting = max(b.clearAt, v.sent)
	}
	return v.now-waiting >= patience
}

// silentAt is the earliest moment at which silent could become true.
func (b *pulse) silentAt(r *rhythm, v vitals) wheel.Time {
	timeout, patience := wheel.Time(r.timeout), wheel.Time(r.timeout-r.interval)
	if timeout == 0 || b.dueAt == 0 {
		return never
	}
	if v.ahead || v.beatable && v.sent == 0 {
		return max(b.dueAt+patience, v.last+timeout)
	}
	waiting := max(b.clearAt, b.dueAt)
	if v.beatable {
		waiting = max(b.clearAt, v.sent)
	}
	return max(v.last+timeout, waiting+patience)
}

// wait starts to wait anew, after a sign of life. Jitter spreads sessions that
// came together; it only ever shortens.
func (b *pulse) wait(r *rhythm) {
	*b = pulse{
		interval: wheel.Time(r.interval) - wheel.Time(rand.Int64N(int64(r.interval/10)+1)),
		fullAt:   b.fullAt,
	}
}

// Look is called by the scheduler, never concurrently for one session.
func (o *owner) Look(now wheel.Time) wheel.Time {
	s := (*Session)(o)
	if s.ended.Load() != nil {
		return 0
	}
	if s.conn == nil || s.conn.Direct() {
		return s.look(now)
	}
	if s.marks.set(markLooking) {
		if s.calm(now) {
			defer s.marks.unset(markLooking)
			return s.look(now)
		}
		// Reading or writing may block for a moment: not on the scheduler.
		s.p.slow.Go(func() {
			next := s.look(s.p.wheel.Exact())
			s.marks.unset(markLooking)
			if s.marks.unset(markAgain) {
				next = min(next, 1) // somebody hastened a look meanwhile
			}
			if next != 0 {
				s.hasten(next)
			}
		})
	} else {
		s.marks.set(markAgain)
	}
	return now + wheel.Time(time.Minute)
}

// calm says that a look will neither read nor write.
func (s *Session) calm(now wheel.Time) bool {
	r := &s.set.rhythm
	return now-s.arrived() < s.pulse.interval && s.trial.Load() == nil && !s.conn.Due() &&
		(r.idle == 0 || now-s.conn.LastMessage() < wheel.Time(r.idle)) &&
		(!s.conn.Watches() || now-s.conn.LastSent() < wheel.Time(r.interval))
}

// look does what is due and says when to look again; 0: never.
func (s *Session) look(now wheel.Time) wheel.Time {
	next := s.lookAtClock(now)
	if next != 0 {
		next = min(next, s.lookAtProof(now))
	}
	if next != 0 && s.set.rhythm.interval > 0 {
		next = min(next, s.lookAtLife(now))
	}
	if s.ended.Load() != nil {
		return 0
	}
	return max(next, now+1)
}

// lookAtClock ends a session whose time is over.
func (s *Session) lookAtClock(now wheel.Time) wheel.Time {
	next := never
	if g := s.goodbye.Load(); g != nil {
		if now >= g.by {
			s.endGoodbye(CauseLost)
			return 0
		}
		next = min(next, g.by)
	}
	if own := s.extra.Load(); own != nil && !own.expires.IsZero() {
		left := time.Until(own.expires)
		if left <= 0 {
			s.end(End{Cause: CauseExpired, Code: codeExpired, Text: "expired"})
			return 0
		}
		next = min(next, now+wheel.Time(left))
	}
	if s.conn == nil {
		return next
	}
	if idle := wheel.Time(s.set.rhythm.idle); idle > 0 {
		at := s.conn.LastMessage() + idle
		if now >= at {
			s.peek() // the message may be waiting while the app is busy
			at = s.conn.LastMessage() + idle
		}
		if now >= at {
			s.end(End{Cause: CauseIdle, Code: codeIdle, Text: "idle"})
			return 0
		}
		next = min(next, at)
	}
	if away := wheel.Time(s.set.rhythm.away); away > 0 {
		at := s.conn.LastMessage() + away
		if now >= at {
			s.setAway(true)
		} else {
			next = min(next, at)
		}
	}
	return next
}

// lookAtLife beats when a heartbeat is due and reaps the silent.
func (s *Session) lookAtLife(now wheel.Time) wheel.Time {
	b, r := &s.pulse, &s.set.rhythm
	if b.interval == 0 {
		b.wait(r)
	}
	v := vitals{now: now, last: s.arrived()}
	view := link.Reading
	if v.now-v.last >= b.interval && s.conn != nil {
		view = s.peek()
		v.last = s.arrived()
	}
	if s.ended.Load() != nil {
		return 0
	}
	if full := s.lookAtRoom(view, now); full != 0 {
		return full
	}
	if b.dueAt != 0 && v.last > b.dueAt {
		s.answered()
	}
	next := s.beat(&v)
	if b.silent(r, v) && !s.heardByKernel(&v) {
		return s.reap(v)
	}
	return min(next, b.silentAt(r, v))
}

// answered forgets a heartbeat after a sign of life.
func (s *Session) answered() {
	if s.conn != nil {
		s.conn.Answered()
	}
	s.pulse.wait(&s.set.rhythm)
}

// beat sends what is due and fills in what is known of it.
func (s *Session) beat(v *vitals) (next wheel.Time) {
	b, r := &s.pulse, &s.set.rhythm
	awake := s.p.wheel.Awake()
	if b.dueAt != 0 && awake > b.dueAt {
		// The process slept. What its kernel held was read just now; the
		// client gets a new heartbeat and all the time to answer it.
		s.answered()
		b.interval = 0
	}
	interval := wheel.Time(r.interval)
	next = v.last + b.interval
	if s.conn == nil {
		if b.dueAt == 0 && v.now >= next {
			b.dueAt = v.now
		}
		if b.dueAt != 0 {
			next = v.now + interval
		}
		return next
	}
	switch {
	case b.dueAt == 0 && v.now >= next:
		b.dueAt, b.beatAt = v.now, v.now
		s.conn.Beat(true)
		_, b.acked, _ = s.conn.Ahead()
	case b.dueAt != 0 && v.now-b.beatAt >= interval && s.conn.Sent() != 0:
		b.beatAt = v.now
		s.conn.Beat(true)
	default:
		s.conn.Retry()
	}
	if b.interval == 0 {
		b.interval = interval
	}
	if s.conn.Watches() {
		sentAt := s.conn.LastSent()
		if v.now-sentAt >= interval {
			s.conn.Beat(false)
			sentAt = v.now
		}
		next = min(next, sentAt+interval)
	}
	v.beatable, v.sent = s.conn.Beatable(), s.conn.Sent()
	if b.dueAt == 0 {
		return next
	}
	next = b.beatAt + interval
	ahead, acked, known := s.conn.Ahead()
	if known && acked > b.acked {
		b.acked, b.advanceAt = acked, v.now
	}
	v.ahead = ahead
	if ahead || v.beatable && v.sent == 0 {
		return min(next, v.now+min(lookSoon, interval/4))
	}
	if b.clearAt == 0 && b.advanceAt > v.sent {
		b.clearAt = v.now
	}
	return next
}

// lookAtRoom ends a session whose app has not read for so long that nothing
// can arrive. While nothing can, the client is not to blame: it is not judged.
func (s *Session) lookAtRoom(view link.View, now wheel.Time) (next wheel.Time) {
	b, timeout := &s.pulse, wheel.Time(s.set.rhythm.timeout)
	if view != link.Full || timeout == 0 || !s.conn.ReceiveFull() {
		b.fullAt = 0
		return 0
	}
	if b.fullAt == 0 {
		b.fullAt = now
	}
	if ago, ok := s.conn.SinceReceived(); ok {
		// It may have had room between two looks.
		b.fullAt = max(b.fullAt, s.p.wheel.Exact()-wheel.Time(ago))
	}
	if now-b.fullAt >= timeout {
		s.end(End{Cause: CauseStalled, Code: codeAppError})
		return 0
	}
	return min(b.fullAt+timeout, now+wheel.Time(s.set.rhythm.interval))
}

// heardByKernel looks once more before the end: bytes may have arrived that
// nobody has read yet, because the app or the whole process was busy.
func (s *Session) heardByKernel(v *vitals) bool {
	if s.conn == nil {
		return false
	}
	ago, ok := s.conn.SinceReceived()
	if !ok {
		return false
	}
	at := s.p.wheel.Exact() - wheel.Time(ago)
	if at <= v.last+wheel.Time(s.p.tick) {
		return false
	}
	s.conn.HeardAt(at)
	v.last = s.conn.LastByte()
	s.answered()
	return true
}

func (s *Session) reap(v vitals) wheel.Time {
	s.end(End{Cause: CauseSilent, Quiet: time.Duration(v.now - v.last)})
	return 0
}
