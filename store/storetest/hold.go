package storetest

import (
	"errors"
	"time"

	"github.com/a4cafe1a/presence/store"
)

var holdRules = []rule{
	{"HoldSaysUnknown", "when nobody was heard for half a lease, readers say unknown for whom they do not find, never offline, and go on showing the others", func(c *cluster) {
		n := c.node("a")
		n.do(add("u", "s", "room"))
		c.state("v", store.Offline)
		for _, d := range []time.Duration{3 * c.Lease / 4, c.Lease} {
			c.Advance(d)
			c.check(c.look("v").State == store.Unknown, "v is %s", c.look("v").State)
			c.check(c.look("u").State == store.Online, "u is %s", c.look("u").State)
			_, err := c.Store.Members(ctx, "room", "", 0)
			var hold *store.HoldError
			c.check(errors.Is(err, store.ErrUnknown) && errors.As(err, &hold) && hold.For > 0, "Members returned %v", err)
			_, err = c.Store.Count(ctx, "room")
			c.check(errors.Is(err, store.ErrUnknown), "Count returned %v", err)
			told, err := c.Store.Disconnect(ctx, "v", "", 4403, "")
			c.check(told == 0 && errors.Is(err, store.ErrUnknown), "Disconnect of nobody returned %d, %v", told, err)
		}
	}},
	{"HoldSavesLeases", "the first contact after a silence saves every lease that ran until then: nobody is swept, and each node can renew", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		n.do(add("u", "s1"))
		m.do(add("v", "s2"))
		all := c.watch("")
		c.Advance(3 * c.Lease)
		shard := c.Store.ShardOf("v")
		o, err := c.Store.Renew(ctx, n.leases[shard], n.summary(shard))
		c.must("Renew after the silence", err)
		c.check(o.Hold > 0 && o.Hold <= c.Lease && !o.Work, "the orders are %+v", o)
		r, err := c.Store.Sweep(ctx, n.leases[shard], 0)
		c.must("Sweep", err)
		c.check(r.Done == 0 && !r.More, "a Sweep in a hold did %+v", r)
		c.check(c.look("v").State == store.Online, "v is %s", c.look("v").State)
		m.renew()
		n.renew()
		c.settle()
		c.sweep()
		all.saw()
		c.expect("", 2, 2)
	}},
	{"HoldEndsEarly", "the hold ends once every node has renewed with all it has, and not before", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		n.do(add("u", "s1"))
		m.do(add("u", "s2"))
		c.Advance(3 * c.Lease / 4)
		c.check(n.renew().Hold > 0, "one of two nodes ended the hold")
		c.check(c.look("v").State == store.Unknown, "v is %s", c.look("v").State)
		m.renew()
		n.renew()
		c.check(c.look("v").State == store.Offline, "every node renewed, and v is %s", c.look("v").State)
		_, err := c.Store.Members(ctx, "", "", 0)
		c.must("Members after the hold", err)
	}},
	{"HoldNeedsTheDigest", "a node whose digest differs does not end the hold", func(c *cluster) {
		n := c.node("a")
		n.do(add("u", "s1"))
		shard := c.Store.ShardOf("u")
		c.Advance(3 * c.Lease / 4)
		o, err := c.Store.Renew(ctx, n.leases[shard], store.Summary{Sessions: 2, Complete: true})
		c.must("Renew", err)
		c.check(o.Reassert && o.Hold > 0, "the orders are %+v", o)
	}},
	{"HoldEndsByItself", "a node that never comes back keeps the hold for one lease, and is dead after it", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		n.do(add("u", "s1"))
		m.do(add("v", "s2"))
		all := c.watch("")
		n.crash()
		c.Advance(3 * c.Lease / 4)
		c.check(m.renew().Hold > 0, "there is no hold")
		c.check(c.look("u").State == store.Online, "u is %s", c.look("u").State)
		c.pass(c.Lease + c.Lease/5)
		all.saw("left u node-lost")
		c.state("u", store.Offline)
	}},
	{"HoldDoesNotRaiseTheDead", "a lease that had ended before the silence stays ended", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		n.do(add("u", "s1"))
		m.do(add("v", "s2"))
		c.dead(n)
		c.Advance(3 * c.Lease / 4)
		c.check(c.look("u").State == store.Unknown, "u is %s", c.look("u").State)
		m.renew()
		_, err := n.try(add("u", "s1"))
		c.check(errors.Is(err, store.ErrLeaseLost), "Commit returned %v", err)
	}},
	{"HoldStopsSweeps", "in a hold no sweep ends a grace, however long it is over", func(c *cluster) {
		n := c.node("a")
		c.node("b").crash() // the hold waits for it
		n.do(add("u", "s1"))
		n.do(remove("u", "s1", c.Lease/2, store.CauseLost))
		all := c.watch("")
		c.Advance(2 * c.Lease)
		shard := c.Store.ShardOf("u")
		_, err := c.Store.Sweep(ctx, n.leases[shard], 0)
		c.must("Sweep", err)
		b, err := all.feed.Poll(ctx)
		c.must("Poll", err)
		c.check(len(b.Changes) == 0, "a sweep in a hold logged %+v", b.Changes)
		all.take(b)
		c.check(c.look("u").State == store.Grace, "u is %s", c.look("u").State)
		c.pass(c.Lease + c.Lease/5)
		all.saw("left u lost")
	}},
	{"HoldKeepsLeftBack", "in a hold nobody is Left: the member is in grace, and goes when the hold is over", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		n.do(add("u", "s1", "room"), add("u", "s2"))
		n.do(add("v", "s3"), remove("v", "s3", c.Lease, store.CauseLost))
		all, room := c.watch(""), c.watch("room")
		m.crash()
		c.Advance(2 * c.Lease)
		n.do(store.Op{Kind: store.OpLeave, User: "u", Session: "s1", Topics: []string{"room"}})
		n.do(remove("u", "s1", 0, store.CauseKicked), remove("u", "s2", 0, store.CauseKicked))
		n.do(store.Op{Kind: store.OpEndGrace, User: "v"})
		c.check(c.look("u").State == store.Grace, "u is %s", c.look("u").State)
		c.check(c.look("v").State == store.Grace, "v is %s", c.look("v").State)
		all.poll()
		room.poll()
		for _, ch := range append(all.log, room.log...) {
			c.check(ch.Kind != store.Left, "%s left in the hold", ch.Member.User)
		}
		all.log, room.log = nil, nil
		all.updates = false
		c.pass(c.Lease + c.Lease/5)
		all.log = slicesSorted(all)
		all.saw("left u kicked", "left v lost")
		room.saw("left u left")
	}},
	{"HoldIsProlonged", "the hold lasts while a node says that it is still asserting", func(c *cluster) {
		n := c.node("a")
		n.do(add("u", "s1"))
		shard := c.Store.ShardOf("u")
		c.Advance(3 * c.Lease / 4)
		for range 12 {
			s := n.summary(shard)
			s.Complete = false
			o, err := c.Store.Renew(ctx, n.leases[shard], s)
			c.must("Renew", err)
			c.check(o.Hold > 0, "the hold ended while a node was asserting")
			c.Advance(c.Lease / 5)
		}
		n.renew()
		c.settle()
		c.state("v", store.Offline)
	}},
	{"NoHoldWhileHeard", "there is no hold while anybody is heard", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		m.do(add("v", "s2"))
		n.do(add("u", "s1"))
		n.crash()
		for range 15 {
			c.Advance(c.Lease / 10)
			o := m.renew()
			if o.Hold > 0 {
				c.Logf("a hold: this machine is too slow for the case")
				return
			}
		}
		c.check(c.look("u").State == store.Offline, "u is %s", c.look("u").State)
	}},
}

// slicesSorted polls and puts the changes in order of user: things due at one
// time have no order.
func slicesSorted(w *watcher) []store.Change {
	w.poll()
	list := w.log
	for i := range list {
		for j := i; j > 0 && list[j].Member.User < list[j-1].Member.User; j-- {
			list[j], list[j-1] = list[j-1], list[j]
		}
	}
	return list
}
