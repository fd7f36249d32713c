package storetest

import (
	"github.com/a4cafe1a/presence/store"
)

var membershipRules = []rule{
	{"FirstInLastOut", "the first session of a user in a topic is Joined, each further one Updated, and only the last one out is Left", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		all, room := c.watch(""), c.watch("room")
		n.do(add("u", "s1", "room"))
		all.saw("joined u")
		room.saw("joined u")
		m.do(add("u", "s2", "room"))
		all.saw("updated u")
		room.saw("updated u")
		c.expect("room", 1, 2)
		n.do(remove("u", "s1", 0, store.CauseKicked))
		all.saw("updated u")
		room.saw("updated u")
		c.state("u", store.Online)
		m.do(remove("u", "s2", 0, store.CauseIdle))
		all.saw("left u idle")
		room.saw("left u idle")
		c.state("u", store.Offline)
		c.expect("room", 0, 0)
		c.expect("", 0, 0)
	}},
	{"EverySessionIsInEveryone", "every session is in the topic \"\", which nobody names and nobody leaves", func(c *cluster) {
		n := c.node("a")
		all := c.watch("")
		n.do(add("u", "s", "", "room", ""))
		all.saw("joined u")
		n.do(store.Op{Kind: store.OpJoin, User: "u", Session: "s", Topics: []string{""}})
		n.do(store.Op{Kind: store.OpLeave, User: "u", Session: "s", Topics: []string{""}})
		all.saw()
		c.expect("", 1, 1)
		if got := c.lookup("u").Sessions[0].Topics; len(got) != 1 || got[0] != "room" {
			c.broke("the session's topics are %q", got)
		}
	}},
	{"JoinAndLeaveLive", "a session joins and leaves topics while it lives; leaving has no grace, and the cause is left", func(c *cluster) {
		n := c.node("a")
		n.do(add("u", "s1"), add("u", "s2"))
		all, room := c.watch(""), c.watch("room")
		n.do(store.Op{Kind: store.OpJoin, User: "u", Session: "s1", Topics: []string{"room", "room"}})
		room.saw("joined u")
		all.saw("updated u")
		n.do(store.Op{Kind: store.OpJoin, User: "u", Session: "s1", Topics: []string{"room"}})
		room.saw()
		n.do(store.Op{Kind: store.OpJoin, User: "u", Session: "s2", Topics: []string{"room"}})
		room.saw("updated u")
		n.do(store.Op{Kind: store.OpLeave, User: "u", Session: "s1", Topics: []string{"room", "hall"}})
		room.saw("updated u")
		n.do(store.Op{Kind: store.OpLeave, User: "u", Session: "s2", Topics: []string{"room"}, Grace: c.Lease})
		room.saw("left u left")
		c.state("u", store.Online)
		c.expect("room", 0, 0)
		c.expect("", 1, 2)
	}},
	{"MembersAreOfTheTopic", "a member's sessions, state and since are those in that topic", func(c *cluster) {
		n := c.node("a")
		n.do(add("u", "s1", "room"), add("u", "s2", "room"), add("u", "s3"))
		n.do(remove("u", "s1", 0, store.CauseLost))
		c.check(len(c.lookup("u").Sessions) == 2, "everyone shows %s", brief(c.lookup("u")))
		r := c.members("room")[0]
		c.check(len(r.Sessions) == 1 && r.Sessions[0].ID == "s2" && r.State == store.Online, "the room shows %s", brief(r))
		n.do(remove("u", "s2", 2*c.Lease, store.CauseLost))
		r = c.members("room")[0]
		c.check(len(r.Sessions) == 0 && r.State == store.Grace, "the room shows %s", brief(r))
		c.state("u", store.Online)
	}},
	{"WhoLeavesEveryoneLeavesAll", "a user that leaves everyone leaves in the same step every topic where it was in grace", func(c *cluster) {
		n := c.node("a")
		n.do(add("u", "s1", "room"), add("u", "s2"))
		all, room := c.watch(""), c.watch("room")
		n.do(remove("u", "s1", 3*c.Lease, store.CauseSilent))
		room.saw("updated u")
		n.do(remove("u", "s2", 0, store.CauseKicked))
		all.saw("updated u", "left u kicked")
		room.saw("left u silent")
		c.expect("room", 0, 0)
		c.pass(4 * c.Lease)
		room.saw()
		all.saw()
	}},
	{"OneChangePerTopicAndOperation", "an operation logs one change in each topic it changes, however much it changes there", func(c *cluster) {
		n := c.node("a")
		all, room, hall := c.watch(""), c.watch("room"), c.watch("hall")
		n.do(add("u", "s", "room"))
		op := add("u", "s", "hall")
		op.Meta, op.Away = []byte(`{"a":1}`), true
		n.do(op)
		all.saw("joined u", "updated u")
		room.saw("joined u", "left u left")
		hall.saw("joined u")
	}},
	{"Metadata", "metadata belongs to the session; a change is Updated, and the same value again is nothing", func(c *cluster) {
		n := c.node("a")
		op := add("u", "s1", "room")
		op.Meta = []byte(`{"a":1}`)
		n.do(op)
		n.do(add("u", "s2"))
		room := c.watch("room")
		n.do(store.Op{Kind: store.OpMeta, User: "u", Session: "s1", Meta: []byte(`{"a":1}`)})
		room.saw()
		n.do(store.Op{Kind: store.OpMeta, User: "u", Session: "s1", Meta: []byte(`{"a":2}`)})
		room.saw("updated u")
		if got := string(c.members("room")[0].Sessions[0].Meta); got != `{"a":2}` {
			c.broke("the metadata is %q", got)
		}
		n.do(store.Op{Kind: store.OpMeta, User: "u", Session: "s2", Meta: []byte(`2`)})
		room.saw() // s2 is not in the room
		n.do(store.Op{Kind: store.OpMeta, User: "u", Session: "s1"})
		room.saw("updated u")
		if got := c.members("room")[0].Sessions[0].Meta; len(got) != 0 {
			c.broke("removed metadata is %q", got)
		}
	}},
	{"MetadataOfAUserIsBounded", "the metadata of one user is bounded by MaxUserMeta over all its sessions, and nothing else is lost when it is exceeded", func(c *cluster) {
		n := c.node("a")
		half := make([]byte, store.MaxUserMeta/2+1)
		for i := range half {
			half[i] = '1'
		}
		op := add("u", "s1", "room")
		op.Meta = half
		n.do(op)
		op = add("u", "s2", "room")
		op.Meta = half
		if r := n.status(op); r.Status != store.TooLarge || r.Since.IsZero() {
			c.broke("adding too much returned %+v", r)
		}
		c.expect("room", 1, 2)
		if r := n.status(store.Op{Kind: store.OpMeta, User: "u", Session: "s2", Meta: half}); r.Status != store.TooLarge {
			c.broke("setting too much returned %+v", r)
		}
		n.do(store.Op{Kind: store.OpMeta, User: "u", Session: "s2", Meta: half[:100]})
		n.do(remove("u", "s1", 0, store.CauseLost))
		n.do(store.Op{Kind: store.OpMeta, User: "u", Session: "s2", Meta: half})
		c.check(!n.renew().Reassert, "a session added without its metadata is not counted")
	}},
	{"Away", "a user is away when all its sessions are, in whatever topic; a flip is Updated in every topic the user is in", func(c *cluster) {
		n := c.node("a")
		n.do(add("u", "s1", "room"), add("u", "s2", "hall"))
		all, room, hall := c.watch(""), c.watch("room"), c.watch("hall")
		away := func(session string, is bool) {
			c.Helper()
			n.do(store.Op{Kind: store.OpAway, User: "u", Session: session, Away: is})
		}
		is := func(want bool) {
			c.Helper()
			for _, r := range append(c.members("room"), c.members("hall")...) {
				c.check(r.Away == want, "away is %t in %s", r.Away, brief(r))
			}
			c.check(c.lookup("u").Away == want, "away is %t in %s", !want, brief(c.lookup("u")))
		}
		away("s1", true)
		is(false)
		all.saw("updated u")
		room.saw("updated u")
		hall.saw()
		away("s1", true)
		room.saw()
		away("s2", true)
		is(true)
		all.saw("updated u")
		room.saw("updated u")
		hall.saw("updated u")
		n.do(add("u", "s3"))
		is(false)
		room.saw("updated u")
		hall.saw("updated u")
		n.do(remove("u", "s3", 0, store.CauseLost))
		is(true)
		room.saw("updated u")
		hall.saw("updated u")
	}},
}
