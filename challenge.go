package presence

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/a4cafe1a/presence/internal/wheel"
	"github.com/a4cafe1a/presence/store"
)

// A newcomer is refused because of a session only after that session has
// proved that it is alive: a half-open connection must not lock its owner out.

const (
	proveIn   = 2 * time.Second
	proveLook = 250 * time.Millisecond // how often a session elsewhere is looked for
)

// room refuses a newcomer whose user has its limit of sessions here, but
// challenges the oldest of them first.
func (p *Presence) room(ctx context.Context, user string) error {
	if p.opts.Limits.WhenUserFull != RefuseNew {
		return nil
	}
	oldest, n := p.registry.oldest(user)
	if n < p.opts.Limits.PerUser {
		return nil
	}
	if oldest.gone(ctx) {
		return nil
	}
	return RetryAfter(fmt.Errorf("%w: %d sessions of one user", ErrTooMany, n), retryUser)
}

// trial is a challenge under way.
type trial struct {
	by    wheel.Time // silence until then ends the session
	since wheel.Time
	acked uint64 // what the client had acknowledged then
}

// challenge makes the session prove within proveIn that it is alive. One that
// cannot be asked is taken for alive, and one under way is not prolonged, or
// a client that keeps trying would keep its own dead session.
func (s *Session) challenge() {
	if s.conn == nil || !s.conn.Beatable() {
		return
	}
	now := s.p.wheel.Exact()
	if s.trial.Load() != nil {
		return
	}
	_, acked, _ := s.conn.Ahead()
	if s.trial.CompareAndSwap(nil, &trial{now + wheel.Time(proveIn), now, acked}) {
		s.conn.Beat(true)
		s.hasten(now + wheel.Time(50*time.Millisecond))
	}
}

// gone challenges the session and says whether that ended it.
func (s *Session) gone(ctx context.Context) bool {
	s.challenge()
	ended := s.Context()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		select {
		case <-ended.Done():
			return true
		case <-ctx.Done():
			return false
		case <-poll.C:
			if s.trial.Load() == nil {
				return s.ended.Load() != nil
			}
		}
	}
}

// lookAtProof reaps a challenged session that has not proved itself in time.
func (s *Session) lookAtProof(now wheel.Time) wheel.Time {
	d := s.trial.Load()
	if d == nil {
		return never
	}
	s.peek()
	if s.ended.Load() != nil {
		return 0
	}
	v := vitals{now: now, last: s.arrived()}
	switch {
	case v.last > d.since, s.p.wheel.Awake() > d.since, now >= d.by && s.excused(&v, d):
		s.trial.Store(nil)
		return never
	case now >= d.by:
		return s.reap(v)
	}
	return min(d.by, now+lookSoon/4)
}

// excused says that the proof may be on its way: bytes have arrived that
// nobody could read, or the client is taking data that is ahead of our ping.
func (s *Session) excused(v *vitals, d *trial) bool {
	if s.heardByKernel(v) {
		return true
	}
	waiting, acked, known := s.conn.Ahead()
	return known && waiting && acked > d.acked
}

// awaitRoom waits until the challenged session has gone or proved itself. Of
// one on another node only the first can be seen.
func (s *Session) awaitRoom(oldest store.SessionRef) {
	if o := s.p.registry.byID(parseID(oldest.ID)); o != nil {
		o.gone(s.Context())
		return
	}
	ctx, cancel := context.WithTimeout(s.Context(), proveIn+2*proveLook)
	defer cancel()
	poll := time.NewTicker(proveLook)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		}
		found, err := s.p.store.Lookup(ctx, nil, []string{s.user})
		if err == nil && !slices.ContainsFunc(found[0].Sessions, func(r store.SessionRecord) bool { return r.ID == oldest.ID }) {
			return
		}
	}
}
