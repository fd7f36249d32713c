package node

import (
	"encoding/json"
	"slices"

	"github.com/a4cafe1a/presence/store"
)

// change is what is to be sent for one session, at one place in the order of
// its user.
type change struct {
	kind    store.OpKind // OpAdd, OpRemove, OpEndGrace; 0 for anything else
	user    string
	session string
	op      store.Op // OpAdd, OpRemove, OpEndGrace

	// kind 0: topics to join and to leave, none in both, and what else is new
	join, leave      []string
	setMeta, setAway bool
	meta             json.RawMessage
	away             bool

	waiters []waiter
	number  uint64  // of when it was queued
	touched uint64  // of when something was last folded into it
	before  *change // the user's change queued before this one
	gone    bool    // sent, or not to be sent

	asserted bool // made of a session that is asserted again
}

// queue holds changes in order. It is not safe for concurrent use.
type queue struct {
	items  []*change // in order, with some that are gone
	length int       // without those
	last   map[string]*change
	number uint64 // of the last change or fold
}

// depth is how far back a change looks for an earlier one to fold into. A
// user with many sessions must not make every change slow.
const depth = 8

// append queues a change.
func (q *queue) append(c *change) {
	if q.last == nil {
		q.last = map[string]*change{}
	}
	q.number++
	c.number, c.touched = q.number, q.number
	c.before = q.last[c.user]
	q.last[c.user] = c
	q.items = append(q.items, c)
	q.length++
}

// tail returns the user's last change if it is of the session: what comes
// next may be folded into it without passing any other session.
func (q *queue) tail(user, session string) *change {
	if c := q.last[user]; c != nil && !c.gone && c.session == session {
		return c
	}
	return nil
}

// find returns the last change of the session, wherever it is.
func (q *queue) find(user, session string) *change {
	c := q.last[user]
	for range depth {
		if c == nil || c.gone {
			return nil
		}
		if c.session == session {
			return c
		}
		c = c.before
	}
	return nil
}

// remove takes a change out. It stays in items until it comes to the front.
func (q *queue) remove(c *change) {
	if c.gone {
		return
	}
	c.gone = true
	q.length--
	if q.last[c.user] == c {
		if c.before != nil && !c.before.gone {
			q.last[c.user] = c.before
		} else {
			delete(q.last, c.user)
		}
	}
	c.before = nil
}

// front returns the first change, or nil.
func (q *queue) front() *change {
	for len(q.items) > 0 && q.items[0].gone {
		q.items[0] = nil
		q.items = q.items[1:]
	}
	if len(q.items) == 0 {
		q.items = nil // a burst must not keep its memory
		return nil
	}
	return q.items[0]
}

// returned puts changes back to the front, in order. They were sent, and
// nothing says that they arrived.
func (q *queue) returned(cs []*change) {
	for _, c := range cs {
		c.gone = false
		c.before = nil
		q.length++
		// Nothing folds into them: what is queued for their users goes
		// behind, as it would have.
	}
	q.items = append(cs, q.items...)
}

// drain empties the queue.
func (q *queue) drain() []*change {
	items := slices.DeleteFunc(q.items, func(c *change) bool { return c.gone })
	q.items, q.last, q.length = nil, nil, 0
	return items
}

// fold puts op into c, which is an OpAdd or of kind 0, and says whether it
// could. The caller has made sure of the order.
func (q *queue) fold(c *change, op *store.Op) bool {
	if c.kind != store.OpAdd && c.kind != 0 {
		return false
	}
	switch op.Kind {
	case store.OpAdd:
		if c.kind != store.OpAdd {
			return false
		}
		c.op = *op
	case store.OpMeta:
		if c.kind == store.OpAdd {
			c.op.Meta = op.Meta
		} else {
			c.setMeta, c.meta = true, op.Meta
		}
	case store.OpAway:
		if c.kind == store.OpAdd {
			c.op.Away = op.Away
		} else {
			c.setAway, c.away = true, op.Away
		}
	case store.OpJoin:
		if c.kind == store.OpAdd {
			c.op.Topics = with(c.op.Topics, op.Topics)
		} else {
			c.join, c.leave = with(c.join, op.Topics), without(c.leave, op.Topics)
		}
	case store.OpLeave:
		if c.kind == store.OpAdd {
			c.op.Topics = without(c.op.Topics, op.Topics)
		} else {
			c.join, c.leave = without(c.join, op.Topics), with(c.leave, op.Topics)
		}
	default:
		return false
	}
	q.number++
	c.touched = q.number
	return true
}

// with returns the union, in a slice of its own.
func with(list, more []string) []string {
	list = slices.Clip(list)
	for _, t := range more {
		if t != "" && !slices.Contains(list, t) {
			list = append(list, t)
		}
	}
	return list
}

// without returns what is in list and not in less, in a slice of its own.
func without(list, less []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(t string) bool { return slices.Contains(less, t) })
}

// ops appends what the change is made of.
func (c *change) ops(dst []store.Op) []store.Op {
	if c.kind != 0 {
		return append(dst, c.op)
	}
	op := store.Op{User: c.user, Session: c.session}
	if len(c.leave) > 0 {
		op.Kind, op.Topics = store.OpLeave, c.leave
		dst = append(dst, op)
	}
	if len(c.join) > 0 {
		op.Kind, op.Topics = store.OpJoin, c.join
		dst = append(dst, op)
	}
	op.Topics = nil
	if c.setMeta {
		op.Kind, op.Meta = store.OpMeta, c.meta
		dst = append(dst, op)
		op.Meta = nil
	}
	if c.setAway {
		op.Kind, op.Away = store.OpAway, c.away
		dst = append(dst, op)
	}
	return dst
}

// entries is the number of topic entries the change touches at most.
func (c *change) entries() int { return max(1, len(c.op.Topics)+1, len(c.join)+len(c.leave)) }

// outcome is what the store said of the ops of one change.
type outcome struct {
	main, meta store.Result
}

// replies appends the answers of all who wait for the change. An OpAdd that
// nobody waits for gets one too, for Config.Added.
func (c *change) replies(dst []reply, o outcome, err error) []reply {
	heard := false
	for _, w := range c.waiters {
		r := reply{waiter: w, session: c.session}
		r.err = err
		if err == nil {
			r.result = c.result(w.kind, o)
		}
		heard = heard || w.kind == store.OpAdd
		dst = append(dst, r)
	}
	if c.kind == store.OpAdd && !heard && err == nil {
		dst = append(dst, reply{waiter: waiter{kind: store.OpAdd}, answer: answer{result: o.main}, session: c.session})
	}
	return dst
}

// result is what a waiter for one kind learns from the outcome of the change
// it was folded into.
func (c *change) result(kind store.OpKind, o outcome) store.Result {
	switch {
	case kind == c.kind:
		return o.main
	case c.kind == store.OpRemove:
		return store.Result{Status: store.Missing} // it was gone before
	case c.kind == store.OpAdd:
		switch o.main.Status {
		case store.Done:
			return store.Result{}
		case store.TooLarge:
			if kind == store.OpMeta {
				return store.Result{Status: store.TooLarge}
			}
			return store.Result{}
		default:
			return store.Result{Status: store.Missing}
		}
	case kind == store.OpMeta:
		return o.meta
	default:
		return o.main
	}
}
