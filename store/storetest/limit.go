package storetest

import (
	"fmt"
	"time"

	"github.com/a4cafe1a/presence/store"
)

var limitRules = []rule{
	{"RefuseNew", "a full user is refused a further session, but never one it has; the answer names the oldest", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		all := c.watch("")
		op := func(id string) store.Op {
			o := add("u", id)
			o.Limit = 2
			return o
		}
		n.do(op("s1"))
		n.do(op("s2"))
		r := m.status(op("s3"))
		want := store.SessionRef{ID: "s1", Node: "id-a", NodeName: "a"}
		c.check(r.Status == store.Full && r.Oldest != nil && *r.Oldest == want, "the third of two returned %+v", r)
		n.do(op("s1"))
		n.do(op("s2"))
		all.saw("joined u", "updated u")
		c.expect("", 1, 2)
		c.check(len(n.renew().Mail) == 0, "an order came without being asked for")
		n.do(remove("u", "s1", 0, store.CauseLost))
		m.do(op("s3"))
	}},
	{"ReplaceOldest", "replacing takes out the oldest session after the new one is in: nobody leaves, and its node is told", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		op := func(id string) store.Op {
			o := add("u", id, "room")
			o.Limit, o.WhenFull = 1, store.ReplaceOldest
			return o
		}
		n.do(op("s1"))
		all, room := c.watch(""), c.watch("room")
		r := m.do(op("s2"))[0]
		want := store.SessionRef{ID: "s1", Node: "id-a", NodeName: "a"}
		c.check(len(r.Replaced) == 1 && r.Replaced[0] == want, "the result is %+v", r)
		all.saw("updated u")
		room.saw("updated u")
		s := c.lookup("u").Sessions
		c.check(len(s) == 1 && s[0].ID == "s2", "the sessions are %+v", s)
		o := n.renew()
		c.check(len(o.Mail) == 1 && o.Mail[0].Kind == store.Replaced && o.Mail[0].Session == "s1" && o.Mail[0].User == "u", "the orders are %+v", o)
		c.check(!o.Reassert, "a session taken away by an order looks like a loss")
		c.check(!n.renew().Reassert, "the digest is wrong after a replacement")
		r = n.status(op("s3"))
		c.check(r.Status == store.Full, "replaced twice within ReplaceInterval: %+v", r)
		all.saw()
		c.pass(store.ReplaceInterval + c.Lease/5)
		n.do(op("s3"))
		all.saw("updated u")
	}},
	{"ReplacedLeavesItsTopics", "a topic where the replaced session was the last is left with cause replaced, after the grace of the one that replaced it", func(c *cluster) {
		n := c.node("a")
		n.do(add("u", "s1", "room", "hall"))
		room, hall := c.watch("room"), c.watch("hall")
		op := add("u", "s2", "hall")
		op.Limit, op.WhenFull, op.Grace = 1, store.ReplaceOldest, 2*c.Lease
		n.do(op)
		room.saw("updated u")
		hall.saw("updated u")
		c.pass(3 * c.Lease)
		room.saw("left u replaced")
		hall.saw()
	}},
	{"OldCannotPushOutNew", "a session asserted again keeps its age: it cannot replace a newer one", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		old := n.do(add("u", "s1"))[0].Since
		n.do(remove("u", "s1", 0, store.CauseLost))
		c.pass(time.Millisecond) // two who never met may be of the same age
		m.do(add("u", "s2"))
		all := c.watch("")
		op := add("u", "s1")
		op.Since, op.Limit, op.WhenFull = old, 1, store.ReplaceOldest
		r := n.status(op)
		c.check(r.Status == store.Outdated, "the result is %+v", r)
		all.saw()
		c.expect("", 1, 1)
	}},
	{"LimitCountsTheLiving", "sessions of dead nodes do not count against a limit", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		n.do(add("u", "s1"))
		n.crash()
		c.passOnly(c.Lease + c.Lease/2)
		c.settle()
		op := add("u", "s2")
		op.Limit = 1
		m.do(op)
	}},
	{"LimitUnderRaces", "a hundred simultaneous sessions of one user on two nodes, limit 1: one is left, one Joined", func(c *cluster) {
		for _, when := range []store.UserLimit{store.RefuseNew, store.ReplaceOldest} {
			user := fmt.Sprint("u", when)
			nodes := []*node{c.node(fmt.Sprint("a", when)), c.node(fmt.Sprint("b", when))}
			all := c.watch("")
			all.updates = false
			errs := make(chan error, 100)
			for i := range 100 {
				go func() {
					op := add(user, fmt.Sprint("s", i))
					op.Limit, op.WhenFull = 1, when
					_, err := c.Store.Commit(ctx, nodes[i%2].leases[c.Store.ShardOf(user)], []store.Op{op})
					errs <- err
				}()
			}
			for range 100 {
				c.must("Commit", <-errs)
			}
			all.saw("joined " + user)
			s := c.lookup(user).Sessions
			c.check(len(s) == 1, "%d sessions are left", len(s))
			for _, n := range nodes {
				n.crash()
			}
		}
	}},
}
