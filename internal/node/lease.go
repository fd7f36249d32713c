package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/a4cafe1a/presence/store"
)

// trouble is what the log says of a store that is away.
type trouble struct {
	err    error     // the last call's, or nil
	since  time.Time // of the first failure
	logged bool      // since then
}

// timeout bounds one call: two of them must fit between a renewal and the end
// of the lease.
func (s *shard) timeout() time.Duration {
	if s.lease.TTL == 0 {
		return 3 * time.Second
	}
	return min(3*time.Second, max(200*time.Millisecond, s.lease.TTL/3))
}

// retry is how often a store that is away is tried.
func (s *shard) retry() time.Duration {
	if s.lease.TTL == 0 {
		return time.Second
	}
	return min(time.Second, max(50*time.Millisecond, s.lease.TTL/3))
}

// call makes a call of the store, which the log calls what, and notes how it
// went.
func (s *shard) call(what string, f func(context.Context) error) error {
	begun := time.Now()
	s.calling.Store(max(1, s.n.since()))
	ctx, cancel := context.WithTimeout(s.n.ctx, s.timeout())
	err := f(ctx)
	cancel()
	s.calling.Store(0)
	switch {
	case err == nil, errors.Is(err, store.ErrLeaseLost):
		s.back()
	case s.n.ctx.Err() == nil:
		s.failed(begun, what, err)
	}
	return err
}

func (s *shard) back() {
	if t := &s.trouble; t.err != nil && t.logged {
		s.n.cfg.Logger.Info("presence: the store is back",
			append([]any{"shard", s.id, "away", time.Since(t.since).Round(time.Millisecond)}, s.n.failures()...)...)
	}
	s.trouble = trouble{}
	s.retryAt = time.Time{}
	s.away.Store(false)
	s.n.calmed()
}

// calmed begins to count failures anew when no shard is away.
func (n *Node) calmed() {
	if f := n.stats.failures.Load(); f != n.calm.Load() && !n.Away() {
		n.calm.Store(f)
	}
}

// failures is what the log says of them: in this outage, and in all.
func (n *Node) failures() []any {
	f := n.stats.failures.Load()
	return []any{"failures", f - n.calm.Load(), "failures_total", f}
}

func (s *shard) failed(begun time.Time, what string, err error) {
	s.n.stats.failures.Add(1)
	s.away.Store(true)
	s.retryAt = begun.Add(s.retry())
	t := &s.trouble
	if t.err == nil {
		t.since = begun
	}
	t.err = err
	if s.n.saidAway.Now() {
		t.logged = true
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("%w: no answer in %v", store.ErrUnavailable, s.timeout())
		}
		s.n.cfg.Logger.Warn("presence: the store is away",
			append([]any{"shard", s.id, "call", what, "error", err}, s.n.failures()...)...)
	}
}

// register begins a new incarnation.
func (s *shard) register() {
	begun := time.Now()
	s.registered = begun
	var lease store.Lease
	err := s.call("register", func(ctx context.Context) (err error) {
		lease, err = s.n.cfg.Store.Register(ctx, s.id, s.n.cfg.Node)
		return err
	})
	if err != nil {
		return
	}
	s.lease, s.leased, s.ack, s.complete = lease, true, 0, false
	s.renewed = begun
	s.renewAt = begun.Add(lease.TTL / 3)
	s.extend(begun)
	s.mu.Lock()
	s.held = held{}
	again := s.again || s.dropped
	s.dropped = false
	s.cutoff = s.queue.number
	s.mu.Unlock()
	s.again = false
	s.ring()
	if again {
		s.beginAssertion()
	} else {
		s.renewAt = begun // whether there is a hold, and what to sweep
	}
}

// extend notes that the lease is good for a TTL from when a call was sent.
func (s *shard) extend(sent time.Time) {
	s.validUntil.Store(int64(sent.Sub(s.n.base) + s.lease.TTL))
}

// ring asks for the lease's bell. Without one, orders wait for renewals.
func (s *shard) ring() {
	s.unring()
	ctx, cancel := context.WithCancel(s.n.ctx)
	late := time.AfterFunc(s.timeout(), cancel)
	bell, err := s.n.cfg.Store.Bell(ctx, s.lease)
	if !late.Stop() || err != nil {
		cancel()
		return
	}
	s.bell, s.unbell = bell, cancel
}

func (s *shard) unring() {
	if s.unbell != nil {
		s.unbell()
	}
	s.bell, s.unbell = nil, nil
}

// renew proves that the node lives, and carries out what the store asks.
func (s *shard) renew() {
	begun := time.Now()
	s.mu.Lock()
	if !s.complete && s.assert == nil && !s.doubt {
		c := s.queue.front()
		s.complete = c == nil || c.number > s.cutoff
	}
	sum := store.Summary{Sessions: s.held.count(), Digest: s.held.digest, Complete: s.complete, Ack: s.ack}
	s.mu.Unlock()
	var o store.Orders
	err := s.call("renew", func(ctx context.Context) (err error) {
		o, err = s.n.cfg.Store.Renew(ctx, s.lease, sum)
		return err
	})
	if errors.Is(err, store.ErrLeaseLost) {
		s.lost()
		return
	}
	if err != nil {
		s.renewAt = begun // before anything else, when it is tried again
		return
	}
	s.n.stats.renewals.Add(1)
	s.renewed = begun
	s.renewAt = begun.Add(s.lease.TTL / 3)
	s.extend(begun)
	s.noteHold(o.Hold)
	if o.Hold > 0 {
		s.renewAt = earlier(s.renewAt, due(time.Now(), o.Hold)) // to hear that it is over
	}
	if s.bell == nil {
		s.ring()
	}
	s.deliver(o.Mail, &s.ack, true)
	if o.Work {
		s.sweepAt = begun
	} else if o.Next > 0 {
		s.sweepAt = earlier(s.sweepAt, due(time.Now(), o.Next))
	}
	if o.Reassert && !s.doubt {
		// While a batch is in doubt the summary cannot be right.
		if s.n.saidAgain.Now() {
			s.n.cfg.Logger.Info("presence: the store asks for all sessions again, since it misses some", "shard", s.id)
		}
		s.retire()
	}
}

// deliver carries out orders. own: they came with the lease in use.
func (s *shard) deliver(mail []store.Order, ack *uint64, own bool) {
	for _, o := range mail {
		if o.Number <= *ack {
			continue
		}
		if o.Kind == store.Replaced {
			s.mu.Lock()
			if own {
				s.held.remove(o.Session)
			}
			// The store removed it. A change that was under way, or an
			// assertion, may have brought it back since.
			s.enqueue(&store.Op{
				Kind: store.OpRemove, User: o.User, Session: o.Session, Cause: store.CauseReplaced,
			}, waiter{})
			s.mu.Unlock()
		}
		if s.n.cfg.Order != nil {
			s.n.cfg.Order(o)
		}
		*ack = o.Number
	}
}

// lost: the lease has ended, and with it what was under it. Everything goes
// to the next one; the queue stays, since it names absolute states.
func (s *shard) lost() {
	s.n.stats.lost.Add(1)
	if s.n.saidLost.Now() {
		s.n.cfg.Logger.Warn("presence: lease lost; the store is told of all sessions again",
			"shard", s.id, "leases", s.n.stats.lost.Load())
	}
	s.leased = false
	s.validUntil.Store(0)
	s.abandon()
}

// retire gives the lease up, because the store does not hold what it should
// or because the queue was dropped. It goes on until everything has moved.
func (s *shard) retire() {
	s.mu.Lock()
	s.former.add(formerLease{
		lease: s.lease, ack: s.ack, renewed: s.renewed,
		sum: store.Summary{Sessions: s.held.count(), Digest: s.held.digest},
	})
	s.mu.Unlock()
	s.leased = false
	s.abandon()
}

// abandon puts back what was under way.
func (s *shard) abandon() {
	s.unring()
	s.again, s.doubt = true, false
	s.mu.Lock()
	defer s.mu.Unlock()
	var cs []*change
	for _, c := range s.batch.changes() {
		switch {
		case c.asserted: // below
		case !s.dropped:
			cs = append(cs, c)
		default:
			s.discard(c) // what followed it was dropped too
		}
	}
	s.queue.returned(cs)
	if s.assert != nil {
		s.orphans = s.assert.waiting(&s.batch)
		s.assert = nil
	}
	s.batch.reset()
}
