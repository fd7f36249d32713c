package node

import "github.com/a4cafe1a/presence/store"

// assertion is all sessions of the node on their way to a new lease. What is
// queued for a user brings the user's sessions along first, so that nothing
// old is ever sent after something new. It is guarded by shard.mu.
type assertion struct {
	ops     []store.Op
	sent    []bool
	left    int // not sent
	next    int // all before it are sent
	first   map[string]int32
	chain   []int32 // the user's next session, or -1
	waiters map[int][]waiter
}

func newAssertion(ops []store.Op) *assertion {
	a := &assertion{
		ops: ops, sent: make([]bool, len(ops)), left: len(ops),
		first: make(map[string]int32, len(ops)), chain: make([]int32, len(ops)),
		waiters: map[int][]waiter{},
	}
	for i := len(ops) - 1; i >= 0; i-- {
		ops[i].Kind = store.OpAdd
		a.chain[i] = -1
		if next, ok := a.first[ops[i].User]; ok {
			a.chain[i] = next
		}
		a.first[ops[i].User] = int32(i)
	}
	return a
}

// find returns where a session is, or -1.
func (a *assertion) find(user, session string) int {
	i, ok := a.first[user]
	if !ok {
		return -1
	}
	for i >= 0 && a.ops[i].Session != session {
		i = a.chain[i]
	}
	return int(i)
}

// user puts what is left of a user into the batch, and says whether it fitted.
func (a *assertion) user(b *batch, user string) bool {
	i, ok := a.first[user]
	if !ok {
		return true
	}
	for ; i >= 0; i = a.chain[i] {
		if !a.sent[i] && !a.send(b, int(i)) {
			return false
		}
	}
	return true
}

// fill puts as much as fits into the batch.
func (a *assertion) fill(b *batch) {
	for ; a.next < len(a.ops); a.next++ {
		if !a.sent[a.next] && !a.send(b, a.next) {
			return
		}
	}
}

func (a *assertion) send(b *batch, i int) bool {
	op := &a.ops[i]
	var c *change
	if ws := a.waiters[i]; ws != nil {
		c = &change{kind: store.OpAdd, user: op.User, session: op.Session, op: *op, waiters: ws, asserted: true}
	}
	if !b.addAsserted(op, c) {
		return false
	}
	delete(a.waiters, i)
	a.sent[i] = true
	a.left--
	return true
}

// waiting returns who waits for sessions that were not acknowledged.
func (a *assertion) waiting(b *batch) map[string][]waiter {
	m := map[string][]waiter{}
	for i, ws := range a.waiters {
		m[a.ops[i].Session] = ws
	}
	for _, c := range b.changes() {
		if c.asserted {
			m[c.session] = c.waiters
		}
	}
	return m
}

// abandon returns answers for all whose session was not sent.
func (a *assertion) abandon(err error) (owed []reply) {
	for i, ws := range a.waiters {
		for _, w := range ws {
			owed = append(owed, reply{waiter: w, answer: answer{err: err}, session: a.ops[i].Session})
		}
	}
	return owed
}

// beginAssertion asks for all sessions. What was queued for them before is
// part of what they are now.
func (s *shard) beginAssertion() {
	s.n.stats.reasserts.Add(1)
	a := newAssertion(s.n.cfg.Held(s.id))
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.former.leases) == 0 {
		s.former = former{} // nothing holds what was to be removed
	}
	for _, c := range s.queue.items {
		if c.gone || c.touched > s.cutoff || c.kind != store.OpAdd && c.kind != 0 {
			continue
		}
		if i := a.find(c.user, c.session); i >= 0 {
			s.queue.remove(c)
			if len(c.waiters) > 0 {
				a.waiters[i] = append(a.waiters[i], c.waiters...)
			}
		}
	}
	if len(s.orphans) > 0 {
		for i := range a.ops {
			if ws := s.orphans[a.ops[i].Session]; len(ws) > 0 {
				a.waiters[i] = append(a.waiters[i], ws...)
				delete(s.orphans, a.ops[i].Session)
			}
		}
		for session, ws := range s.orphans {
			for _, w := range ws {
				s.owe(w, session, store.Result{Status: store.Missing}, nil)
			}
		}
		s.orphans = nil
	}
	s.assert = a // even an empty one is settled, and then complete
}
