package node

import (
	"time"

	"github.com/a4cafe1a/presence/store"
)

// metaEvery is how often the metadata of one session may change in the store.
const metaEvery = 250 * time.Millisecond

// gate keeps back the metadata of a session whose last was just sent.
type gate struct {
	user, session string
	due           time.Time
	meta          *change // the newest, or nil
}

// gates are in order of due, which is the order of sending.
type gates struct {
	of    map[string]*gate // by session
	order []*gate
	held  int // with meta
}

// shut begins the wait after metadata was sent.
func (g *gates) shut(c *change, now time.Time) {
	if g.of == nil {
		g.of = map[string]*gate{}
	}
	if g.of[c.session] != nil {
		return // a Flush was in a hurry
	}
	x := &gate{user: c.user, session: c.session, due: now.Add(metaEvery)}
	g.of[c.session] = x
	g.order = append(g.order, x)
}

// hold takes metadata if the session has to wait, and says whether it did.
func (g *gates) hold(op *store.Op, w waiter) bool {
	x := g.of[op.Session]
	if x == nil {
		return false
	}
	if x.meta == nil {
		x.meta = &change{user: op.User, session: op.Session, setMeta: true}
		g.held++
	}
	x.meta.meta = op.Meta
	if w.waits() {
		x.meta.waiters = append(x.meta.waiters, w)
	}
	return true
}

// take returns what is kept back for a session, and forgets it.
func (g *gates) take(session string) *change {
	x := g.of[session]
	if x == nil || x.meta == nil {
		return nil
	}
	c := x.meta
	x.meta = nil
	g.held--
	return c
}

// open ends the waits that are over, or all of them, and queues what they
// kept back. It returns when the next one is over.
func (g *gates) open(q *queue, now time.Time, all bool) (next time.Time) {
	for len(g.order) > 0 {
		x := g.order[0]
		if !all && x.due.After(now) {
			return x.due
		}
		g.order[0] = nil
		g.order = g.order[1:]
		delete(g.of, x.session)
		if x.meta != nil {
			g.held--
			q.append(x.meta)
		}
	}
	g.order = nil
	return time.Time{}
}
