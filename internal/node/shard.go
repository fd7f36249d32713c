package node

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/a4cafe1a/presence/store"
)

// shard is the node in one shard of the store. mu guards what Do and the
// goroutine share; the rest belongs to the goroutine. mu is never held during
// a call of the store or of Config.
type shard struct {
	n    *Node
	id   int
	wake chan struct{}

	away       atomic.Bool
	calling    atomic.Int64 // since when a call is out; 0: none is
	validUntil atomic.Int64
	holdUntil  atomic.Int64 // as the last renewal said; 0: there is no hold

	mu       sync.Mutex
	queue    queue
	gates    gates
	held     held
	dropped  bool                // the queue grew too long; assert everything
	former   former              // leases that still hold what was not moved
	owed     []reply             // given by the goroutine
	barriers []barrier           // of Flush
	assert   *assertion          // under way, or nil
	orphans  map[string][]waiter // by session; of an assertion that was broken off
	closing  bool
	closed   bool
	grace    time.Duration // of Close

	lease    store.Lease
	leased   bool
	bell     <-chan struct{}
	unbell   context.CancelFunc
	ack      uint64
	again    bool // assert everything under the next lease
	complete bool
	cutoff   uint64 // number of the last change before the lease
	batch    batch
	doubt    bool // whether batch arrived
	turn     bool // of a former lease, before the queue's

	renewAt, commitAt, sweepAt time.Time // zero sweepAt: nothing in sight
	renewed, registered        time.Time // when the last calls began
	retryAt                    time.Time // the store is away until then

	trouble trouble
	err     error // of Close
}

type barrier struct {
	number uint64
	done   chan error
}

func newShard(n *Node, id int) *shard {
	return &shard{n: n, id: id, wake: make(chan struct{}, 1)}
}

// put queues one change.
func (s *shard) put(op *store.Op, w waiter) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		go w.tell(store.Result{}, ErrClosed)
		return
	}
	changes, owed := s.queue.length, len(s.owed)
	s.enqueue(op, w)
	first := changes == 0 && s.queue.length > 0 || owed == 0 && len(s.owed) > 0
	s.mu.Unlock()
	if first {
		s.rouse()
	}
}

func (s *shard) rouse() {
	select {
	case s.wake <- struct{}{}:
	default: // awake already
	}
}

func (s *shard) barrier() <-chan error {
	done := make(chan error, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		done <- ErrClosed
		return done
	}
	s.gates.open(&s.queue, time.Time{}, true)
	s.barriers = append(s.barriers, barrier{s.queue.number, done})
	s.rouse()
	return done
}

func (s *shard) close(grace time.Duration) {
	s.mu.Lock()
	s.closing, s.grace = true, grace
	s.mu.Unlock()
	s.rouse()
}

func (s *shard) isAway() bool {
	if s.away.Load() {
		return true
	}
	at := s.calling.Load()
	return at != 0 && s.n.since()-at > int64(time.Second)
}

// run is the shard's goroutine.
func (s *shard) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for s.n.ctx.Err() == nil {
		next, done := s.step()
		if done {
			return
		}
		if !next.IsZero() {
			wait := time.Until(next)
			if wait <= 0 {
				continue
			}
			timer.Reset(wait)
		} else {
			timer.Stop()
		}
		select {
		case <-timer.C:
		case <-s.wake:
		case <-s.bell:
			s.renewAt = earlier(s.renewAt, later(time.Now(), s.renewed.Add(commitEvery)))
		case <-s.n.ctx.Done():
		}
	}
	if err := s.trouble.err; err != nil {
		s.finish(err)
	} else {
		s.finish(context.Canceled)
	}
}

// step makes at most one call, and returns when to come again; the zero time
// is when somebody wakes it. done: closed.
func (s *shard) step() (next time.Time, done bool) {
	now := time.Now()
	s.mu.Lock()
	gate := s.gates.open(&s.queue, now, s.closing)
	s.passBarriers()
	owed := s.owed
	s.owed = nil
	busy := s.queue.length > 0 || s.assert != nil
	moved := s.hasMoved()
	dropped, closing := s.dropped, s.closing
	s.mu.Unlock()
	if len(owed) > 0 {
		s.n.give(owed)
		return now, false
	}
	if closing && errors.Is(s.trouble.err, store.ErrClosed) {
		return now, s.finish(s.trouble.err)
	}
	if s.retryAt.After(now) {
		return s.retryAt, false
	}
	switch {
	case s.doubt:
		if !s.commit() && s.leased && !now.Before(s.renewAt) {
			// Whatever the store has against the batch, it may still renew.
			s.renew()
		}
	case closing:
		return now, s.stepClosing(now)
	case dropped && s.leased:
		s.retire()
	case !s.leased:
		if at := s.registered.Add(s.retry()); !s.registered.IsZero() && at.After(now) {
			return at, false
		}
		s.register()
	case !now.Before(s.renewAt):
		s.renew()
	case s.renewFormer(now):
	case moved && (s.turn || !busy) && !now.Before(s.commitAt):
		s.turn = false
		s.finishFormer()
	case busy && !now.Before(s.commitAt):
		s.turn = true
		s.build(now)
		s.commit()
	case !s.sweepAt.IsZero() && !now.Before(s.sweepAt):
		s.sweep()
	default:
		next = earlier(earlier(s.renewAt, gate), s.sweepAt)
		for i := range s.former.leases {
			f := &s.former.leases[i]
			next = earlier(next, f.renewed.Add(f.lease.TTL/3))
		}
		if busy || moved {
			next = earlier(next, s.commitAt)
		}
		return next, false
	}
	return now, false
}

// hasMoved says whether former leases can be ended: all sessions are under the
// new one, and what was queued when it began is committed.
func (s *shard) hasMoved() bool {
	if len(s.former.leases) == 0 || !s.leased || s.assert != nil {
		return false
	}
	c := s.queue.front()
	return c == nil || c.number > s.cutoff
}

// stepClosing commits what is left and ends the leases. What was not asserted
// yet is under the former leases, and ends with them.
func (s *shard) stepClosing(now time.Time) (done bool) {
	s.mu.Lock()
	if s.assert != nil {
		s.owed = append(s.owed, s.assert.abandon(ErrClosed)...)
		s.assert = nil
	}
	busy := s.leased && !s.dropped && s.queue.length > 0
	lost := s.queue.length > 0 && !busy
	grace := s.grace
	s.mu.Unlock()
	switch {
	case busy:
		s.build(now)
		s.commit()
		return false
	case s.leased:
		if err := s.call("end", func(ctx context.Context) error {
			return s.n.cfg.Store.End(ctx, s.lease, grace, store.CauseShutdown)
		}); err != nil && !errors.Is(err, store.ErrLeaseLost) {
			return false
		}
		s.leased = false
		s.validUntil.Store(0)
		return false
	case len(s.former.leases) > 0:
		s.endFormer(grace, store.CauseShutdown)
		return false
	}
	var err error
	if lost {
		err = ErrPending
	}
	return s.finish(err)
}

// finish ends the shard. It returns true.
func (s *shard) finish(err error) bool {
	s.unring()
	s.validUntil.Store(0)
	s.mu.Lock()
	s.closed, s.err = true, err
	s.gates.open(&s.queue, time.Time{}, true)
	owed := s.owed
	for _, c := range s.batch.changes() {
		owed = c.replies(owed, outcome{}, ErrClosed)
	}
	for _, c := range s.queue.drain() {
		owed = c.replies(owed, outcome{}, ErrClosed)
	}
	if s.assert != nil {
		owed = append(owed, s.assert.abandon(ErrClosed)...)
	}
	for session, ws := range s.orphans {
		for _, w := range ws {
			owed = append(owed, reply{waiter: w, answer: answer{err: ErrClosed}, session: session})
		}
	}
	for _, b := range s.barriers {
		b.done <- ErrClosed
	}
	s.owed, s.barriers, s.assert = nil, nil, nil
	s.mu.Unlock()
	s.n.give(owed)
	return true
}

// passBarriers tells each Flush whose changes are committed.
func (s *shard) passBarriers() {
	if len(s.barriers) == 0 || s.dropped || s.again || s.assert != nil || s.doubt {
		return
	}
	c := s.queue.front()
	for len(s.barriers) > 0 && (c == nil || c.number > s.barriers[0].number) {
		s.barriers[0].done <- nil
		s.barriers = s.barriers[1:]
	}
}

// earlier returns the earlier of two times; zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
