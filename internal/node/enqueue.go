package node

import (
	"time"

	"github.com/a4cafe1a/presence/store"
)

// enqueue folds op into what is queued for its session, or appends it.
func (s *shard) enqueue(op *store.Op, w waiter) {
	if s.dropped {
		if op.Kind == store.OpRemove {
			s.former.remember(op, s.limit())
		}
		s.owe(w, op.Session, store.Result{}, ErrPending)
		return
	}
	q := &s.queue
	var c *change
	switch op.Kind {
	case store.OpAdd, store.OpJoin, store.OpLeave:
		c = q.tail(op.User, op.Session)
	case store.OpAway:
		c = q.find(op.User, op.Session)
	case store.OpMeta:
		if c = q.find(op.User, op.Session); c != nil && c.kind == 0 && !c.setMeta {
			c = nil // not without passing the gate
		}
		if c == nil && s.gates.hold(op, w) {
			return
		}
		if c == nil {
			c = q.find(op.User, op.Session)
		}
	case store.OpRemove:
		s.enqueueRemove(op, w)
		return
	}
	if c != nil && q.fold(c, op) {
		if w.waits() {
			c.waiters = append(c.waiters, w)
		}
		return
	}
	c = &change{user: op.User, session: op.Session}
	switch op.Kind {
	case store.OpAdd, store.OpEndGrace:
		c.kind, c.op = op.Kind, *op
	case store.OpJoin:
		c.join = with(nil, op.Topics)
	case store.OpLeave:
		c.leave = with(nil, op.Topics)
	default:
		q.fold(c, op)
	}
	s.append(c, w)
}

// enqueueRemove ends a session. What is queued for it needs not be sent any
// more, if nothing of the user came after it.
func (s *shard) enqueueRemove(op *store.Op, w waiter) {
	q := &s.queue
	r := &change{kind: store.OpRemove, user: op.User, session: op.Session, op: *op}
	if c := s.gates.take(op.Session); c != nil {
		r.waiters = c.waiters
	}
	for c := q.tail(op.User, op.Session); c != nil; c = q.tail(op.User, op.Session) {
		if c.kind == store.OpRemove {
			break
		}
		q.remove(c)
		r.waiters = append(r.waiters, c.waiters...)
		if c.kind == store.OpAdd && !s.mayBeThere(op.Session) {
			if w.waits() {
				r.waiters = append(r.waiters, w)
			}
			for _, w := range r.waiters {
				s.owe(w, op.Session, store.Result{Status: store.Missing}, nil)
			}
			return
		}
	}
	s.append(r, w)
}

// mayBeThere says whether the store may know a session under one of our
// leases, although its OpAdd is still queued.
func (s *shard) mayBeThere(session string) bool {
	return s.held.has(session) || s.assert != nil || len(s.former.leases) > 0 || s.batch.has(session)
}

func (s *shard) append(c *change, w waiter) {
	if w.waits() {
		c.waiters = append(c.waiters, w)
	}
	s.queue.append(c)
	if s.queue.length > s.limit() {
		s.drop()
	}
}

// limit is how many changes may be queued. It grows with the sessions, since
// all of them may end.
func (s *shard) limit() int { return max(s.n.cfg.Limit, s.held.count()) }

// drop empties the queue: asserting all sessions is less work by now. Ends of
// sessions are remembered, with their causes.
func (s *shard) drop() {
	s.dropped = true
	s.n.stats.dropped.Add(1)
	s.gates.open(&s.queue, time.Time{}, true)
	for _, c := range s.queue.drain() {
		s.discard(c)
	}
}

// discard leaves a change to the assertion.
func (s *shard) discard(c *change) {
	if c.kind == store.OpRemove {
		s.former.remember(&c.op, s.limit())
	}
	s.owed = c.replies(s.owed, outcome{}, ErrPending)
}

// owe notes an answer for the goroutine to give.
func (s *shard) owe(w waiter, session string, r store.Result, err error) {
	if w.waits() {
		s.owed = append(s.owed, reply{waiter: w, answer: answer{r, err}, session: session})
	}
}
