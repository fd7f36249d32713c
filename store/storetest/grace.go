package storetest

import (
	"github.com/a4cafe1a/presence/store"
)

var graceRules = []rule{
	{"GraceThenLeft", "the last session out leaves a grace; when that ends, a sweep writes Left once, with the cause of that session's end", func(c *cluster) {
		n := c.node("a")
		n.do(add("u", "s", "room"))
		all, room := c.watch(""), c.watch("room")
		n.do(remove("u", "s", 2*c.Lease, store.CauseSilent))
		all.saw("updated u")
		room.saw("updated u")
		c.state("u", store.Grace)
		c.expect("room", 1, 0)
		c.check(c.members("room")[0].State == store.Grace, "the room shows %s", brief(c.members("room")[0]))
		c.pass(c.Lease)
		room.saw()
		c.state("u", store.Grace)
		c.passOnly(c.Lease + c.Lease/2)
		c.settle()
		o := n.renew()
		c.check(o.Work, "a grace ended, and no work is reported: %+v", o)
		room.saw() // only a sweep writes
		c.check(c.sweep() > 0, "the sweep did nothing")
		all.saw("left u silent")
		room.saw("left u silent")
		c.state("u", store.Offline)
		c.expect("", 0, 0)
		c.pass(3 * c.Lease)
		all.saw()
		room.saw()
	}},
	{"BackWithinGrace", "a session that comes within the grace ends it: Updated, nothing else, and nothing later", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		n.do(add("u", "s1", "room"))
		since := c.members("room")[0].Since
		all, room := c.watch(""), c.watch("room")
		n.do(remove("u", "s1", 2*c.Lease, store.CauseClientClosed))
		c.pass(c.Lease)
		m.do(add("u", "s2", "room"))
		all.saw("updated u", "updated u")
		room.saw("updated u", "updated u")
		c.pass(3 * c.Lease)
		all.saw()
		room.saw()
		c.state("u", store.Online)
		c.check(c.members("room")[0].Since.Equal(since), "the member's since moved")
	}},
	{"GraceIsPerTopic", "grace is per topic: who is back without the room leaves the room when its grace ends", func(c *cluster) {
		n := c.node("a")
		n.do(add("u", "s1", "room"))
		all, room := c.watch(""), c.watch("room")
		n.do(remove("u", "s1", 2*c.Lease, store.CauseLost))
		n.do(add("u", "s2"))
		all.saw("updated u", "updated u")
		c.pass(3 * c.Lease)
		all.saw()
		room.saw("updated u", "left u lost")
		c.expect("room", 0, 0)
	}},
	{"LastCauseCounts", "grace and cause are those of the session that was the last", func(c *cluster) {
		n := c.node("a")
		n.do(add("u", "s1"), add("u", "s2"))
		all := c.watch("")
		n.do(remove("u", "s1", 5*c.Lease, store.CauseSilent))
		n.do(remove("u", "s2", 2*c.Lease, store.CauseLost))
		c.pass(3 * c.Lease)
		all.saw("updated u", "updated u", "left u lost")
	}},
	{"EndGrace", "OpEndGrace ends every grace of the user at once, each with its own cause, and nothing else", func(c *cluster) {
		n := c.node("a")
		n.do(add("u", "s1", "room"), add("u", "s2"))
		n.do(remove("u", "s1", 5*c.Lease, store.CauseLost))
		all, room := c.watch(""), c.watch("room")
		n.do(store.Op{Kind: store.OpEndGrace, User: "u"})
		room.saw("left u lost")
		all.saw()
		n.do(remove("u", "s2", 5*c.Lease, store.CauseSilent))
		n.do(store.Op{Kind: store.OpEndGrace, User: "u"}, store.Op{Kind: store.OpEndGrace, User: "u"})
		all.saw("updated u", "left u silent")
		n.do(store.Op{Kind: store.OpEndGrace, User: "nobody"})
		c.pass(6 * c.Lease)
		all.saw()
	}},
	{"NextTellsWhenGraceEnds", "Renew tells how long until a grace ends", func(c *cluster) {
		n := c.node("a")
		n.do(add("u", "s"), remove("u", "s", c.Lease/2, store.CauseLost))
		c.settle()
		o := n.renew()
		c.check(o.Work || o.Next > 0 && o.Next <= c.Lease/2, "next is %v for a grace of %v", o.Next, c.Lease/2)
	}},
	{"LastSeen", "it is kept when a named user was last seen, from its last session's end, until KeepLastSeen is over or it comes back", func(c *cluster) {
		n := c.node("a", func(n *store.Node) { n.KeepLastSeen = 6 * c.Lease })
		op := add("anon", "s2")
		op.Anonymous = true
		n.do(add("u", "s1"))
		n.do(op)
		c.check(!c.lookup("u").LastSeen.IsZero(), "last seen of a live user is not known")
		before := c.lookup("u").AsOf
		n.do(remove("u", "s1", c.Lease, store.CauseLost))
		n.do(remove("anon", "s2", c.Lease, store.CauseLost))
		after := c.lookup("u").AsOf
		in := func(r store.UserRecord) bool { return !r.LastSeen.Before(before) && !r.LastSeen.After(after) }
		c.check(in(c.lookup("u")), "last seen in grace is %v, the session ended in %v to %v", c.lookup("u").LastSeen, before, after)
		c.pass(2 * c.Lease)
		c.state("u", store.Offline)
		c.check(in(c.lookup("u")), "last seen is %v, the session ended in %v to %v", c.lookup("u").LastSeen, before, after)
		c.check(c.lookup("anon").LastSeen.IsZero(), "last seen of an anonymous user is kept")
		c.check(c.lookup("nobody").LastSeen.IsZero(), "last seen of nobody is kept")
		c.pass(5 * c.Lease)
		c.check(c.lookup("u").LastSeen.IsZero(), "last seen is kept for ever")
		n.do(add("u", "s3"))
		n.do(remove("u", "s3", 0, store.CauseLost))
		n.do(add("u", "s4"))
		c.state("u", store.Online)
		c.pass(7 * c.Lease)
		c.state("u", store.Online)
	}},
}
