package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/a4cafe1a/presence/store"
)

// A batch is bounded, because everybody waits while a store applies one.
const (
	commitEvery  = 10 * time.Millisecond
	batchOps     = 200
	batchEntries = 600
)

// batch is one group commit. from names the change that each op came from; nil
// for a session that is asserted again. It is written under shard.mu.
type batch struct {
	ops     []store.Op
	from    []*change
	entries int
}

func (b *batch) reset() {
	clear(b.ops)
	clear(b.from)
	b.ops, b.from, b.entries = b.ops[:0], b.from[:0], 0
}

// add appends a change, if there is room below max ops, and says whether there
// was. One that would never fit goes alone.
func (b *batch) add(c *change, max int) bool {
	n := len(b.ops)
	if n > 0 && (n+4 > max || b.entries+c.entries() > batchEntries) {
		return false
	}
	b.ops = c.ops(b.ops)
	for range len(b.ops) - n {
		b.from = append(b.from, c)
	}
	b.entries += c.entries()
	return true
}

// addAsserted is add for a session asserted again.
func (b *batch) addAsserted(op *store.Op, c *change) bool {
	n := 1 + len(op.Topics)
	if len(b.ops) > 0 && (len(b.ops) >= batchOps || b.entries+n > batchEntries) {
		return false
	}
	b.ops = append(b.ops, *op)
	b.from = append(b.from, c)
	b.entries += n
	return true
}

func (b *batch) has(session string) bool {
	for i := range b.ops {
		if b.ops[i].Session == session {
			return true
		}
	}
	return false
}

// changes returns the changes in the batch, each once.
func (b *batch) changes() []*change {
	var cs []*change
	for i, c := range b.from {
		if c != nil && (i == 0 || b.from[i-1] != c) {
			cs = append(cs, c)
		}
	}
	return cs
}

// build takes the next batch out of the queue and the assertion.
func (s *shard) build(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &s.batch
	b.reset()
	room := batchOps
	if s.assert != nil {
		room /= 2 // newcomers must not starve the rest, nor wait for it
	}
	for c := s.queue.front(); c != nil; c = s.queue.front() {
		// What is queued came after what Held said of the user.
		if s.assert != nil && !s.assert.user(b, c.user) || !b.add(c, room) {
			break
		}
		if c.setMeta {
			s.gates.shut(c, now)
		}
		s.queue.remove(c)
	}
	if s.assert != nil {
		s.assert.fill(b)
	}
}

// commit sends the batch, or sends it again. It returns false when nobody
// knows whether it arrived.
func (s *shard) commit() bool {
	if len(s.batch.ops) == 0 {
		s.settle(nil)
		return true
	}
	s.commitAt = time.Now().Add(commitEvery)
	var results []store.Result
	err := s.call("commit", func(ctx context.Context) (err error) {
		results, err = s.n.cfg.Store.Commit(ctx, s.lease, s.batch.ops)
		if err == nil && len(results) != len(s.batch.ops) {
			err = fmt.Errorf("node: %d results of %d operations", len(results), len(s.batch.ops))
		}
		return err
	})
	switch {
	case err == nil:
		s.doubt = false
		s.n.stats.commits.Add(1)
		s.n.stats.ops.Add(uint64(len(results)))
		s.settle(results)
	case errors.Is(err, store.ErrLeaseLost):
		s.lost()
	case errors.Is(err, store.ErrShard):
		// Not a state of the store but a mistake: repeating it is no use.
		s.doubt = false
		s.refuse(err)
	default:
		s.doubt = true
		return false
	}
	return true
}

// settle notes what the store said of the batch, and answers.
func (s *shard) settle(results []store.Result) {
	owed := make([]reply, 0, len(results))
	var wake time.Time
	now := time.Now()
	s.mu.Lock()
	var o outcome
	for i := range results {
		op, c, r := &s.batch.ops[i], s.batch.from[i], results[i]
		switch op.Kind {
		case store.OpAdd:
			if r.Status == store.Done || r.Status == store.TooLarge {
				s.held.add(op.Session)
			}
		case store.OpRemove:
			s.held.remove(op.Session)
			if r.Status == store.Done && op.Grace > 0 {
				wake = earlier(wake, due(now, op.Grace))
			}
			if r.Status == store.Missing && len(s.former.leases) > 0 {
				s.former.remember(op, s.limit()) // not moved yet, and not to be
			}
		}
		if op.Kind == store.OpMeta {
			o.meta = r
		} else {
			o.main = r
		}
		if c == nil {
			owed = append(owed, reply{waiter: waiter{kind: store.OpAdd}, answer: answer{result: r}, session: op.Session})
		} else if i+1 == len(results) || s.batch.from[i+1] != c {
			owed = c.replies(owed, o, nil)
			o = outcome{}
		}
	}
	s.batch.reset()
	if s.assert != nil && s.assert.left == 0 {
		s.assert = nil
		s.renewAt = now // say that it is complete
	}
	s.mu.Unlock()
	s.sweepAt = earlier(s.sweepAt, wake)
	s.n.give(owed)
}

// refuse gives the batch up.
func (s *shard) refuse(err error) {
	var owed []reply
	s.mu.Lock()
	for _, c := range s.batch.changes() {
		owed = c.replies(owed, outcome{}, err)
	}
	s.batch.reset()
	s.mu.Unlock()
	s.n.give(owed)
}

// due is a moment after which d has passed on the store's clock too.
func due(from time.Time, d time.Duration) time.Time { return from.Add(d + time.Millisecond) }
