package node

import (
	"context"
	"errors"
	"time"

	"github.com/a4cafe1a/presence/store"
)

// former is what is left of leases that were given up before they ended. They
// are renewed until all sessions have moved to the new one: else a long
// assertion would show those that wait as gone. Then the sessions that ended
// meanwhile are removed under them, each with its own grace and cause, and
// they are ended. It is guarded by shard.mu.
type former struct {
	leases   []formerLease // oldest first
	removals []store.Op
	grace    time.Duration // of removals there was no room for
	cause    store.Cause
}

type formerLease struct {
	lease   store.Lease
	sum     store.Summary // what it held in the end
	ack     uint64
	renewed time.Time
	removed int  // of removals
	last    bool // its mailbox was looked into once more
}

// maxFormer bounds the leases. Beyond it the oldest is left to run out.
const maxFormer = 4

func (f *former) add(l formerLease) {
	if len(f.leases) == maxFormer {
		f.leases = f.leases[1:]
	}
	f.leases = append(f.leases, l)
}

// remember notes a removal.
func (f *former) remember(op *store.Op, limit int) {
	if len(f.removals) >= limit {
		f.grace, f.cause = max(f.grace, op.Grace), op.Cause
		return
	}
	f.removals = append(f.removals, *op)
}

// ending is how the sessions end that nobody remembers.
func (f *former) ending(leaveGrace time.Duration) (time.Duration, store.Cause) {
	if f.cause == "" {
		return leaveGrace, store.CauseLost
	}
	return f.grace, f.cause
}

// renewFormer renews a former lease that is due, and says whether one was.
func (s *shard) renewFormer(now time.Time) bool {
	for i := range s.former.leases {
		if f := &s.former.leases[i]; !now.Before(f.renewed.Add(f.lease.TTL / 3)) {
			s.renewFormerLease(i)
			return true
		}
	}
	return false
}

// renewFormerLease renews one, and carries out its orders.
func (s *shard) renewFormerLease(i int) {
	// Only this goroutine changes leases, so that reading needs no lock.
	f := &s.former.leases[i]
	begun := time.Now()
	sum := f.sum
	sum.Ack = f.ack
	sum.Complete = s.assert == nil // else a hold waits for this lease too
	var o store.Orders
	err := s.call("renew", func(ctx context.Context) (err error) {
		o, err = s.n.cfg.Store.Renew(ctx, f.lease, sum)
		return err
	})
	switch {
	case errors.Is(err, store.ErrLeaseLost):
		s.forgetFormer(i)
	case err == nil:
		f.renewed, f.last = begun, true
		s.deliver(o.Mail, &f.ack, false)
	}
}

func (s *shard) forgetFormer(i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.former.leases = append(s.former.leases[:i], s.former.leases[i+1:]...)
	if len(s.former.leases) == 0 {
		s.former = former{}
		s.renewAt = time.Now() // a hold that waited for it may end
	}
}

// finishFormer makes one step in ending the oldest former lease. All sessions
// have moved.
func (s *shard) finishFormer() {
	f := &s.former.leases[0]
	s.mu.Lock()
	from := min(f.removed, len(s.former.removals))
	ops := s.former.removals[from:min(from+batchOps, len(s.former.removals))]
	grace, cause := s.former.ending(s.n.cfg.Node.LeaveGrace)
	s.mu.Unlock()
	switch {
	case len(ops) > 0:
		s.commitAt = time.Now().Add(commitEvery)
		err := s.call("commit", func(ctx context.Context) error {
			_, err := s.n.cfg.Store.Commit(ctx, f.lease, ops)
			return err
		})
		if errors.Is(err, store.ErrLeaseLost) {
			s.forgetFormer(0)
		} else if err == nil {
			f.removed, f.last = from+len(ops), false
			now := time.Now()
			for i := range ops {
				if ops[i].Grace > 0 {
					s.sweepAt = earlier(s.sweepAt, due(now, ops[i].Grace))
				}
			}
		}
	case !f.last:
		s.renewFormerLease(0)
	default:
		s.endFormer(grace, cause)
	}
}

// endFormer ends the oldest former lease.
func (s *shard) endFormer(grace time.Duration, cause store.Cause) {
	lease := s.former.leases[0].lease
	err := s.call("end", func(ctx context.Context) error {
		return s.n.cfg.Store.End(ctx, lease, grace, cause)
	})
	if err == nil || errors.Is(err, store.ErrLeaseLost) {
		s.forgetFormer(0)
		s.sweepAt = time.Now()
	}
}
