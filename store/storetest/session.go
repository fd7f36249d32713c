package storetest

import (
	"fmt"
	"time"

	"github.com/a4cafe1a/presence/store"
)

var sessionRules = []rule{
	{"Idempotent", "a batch may be repeated: what is so already changes nothing and logs nothing", func(c *cluster) {
		n := c.node("a")
		all, room := c.watch(""), c.watch("room")
		op := add("u", "s1", "room")
		op.Meta = []byte(`1`)
		batch := []store.Op{op, add("u", "s2", "hall"), {Kind: store.OpAway, User: "u", Session: "s2", Away: true}}
		first := n.do(batch...)
		all.saw("joined u", "updated u", "updated u")
		room.saw("joined u")
		batch[1].Away = true
		again := n.do(batch...)
		all.saw()
		room.saw()
		c.check(first[0].Since.Equal(again[0].Since), "since moved from %v to %v", first[0].Since, again[0].Since)
		c.expect("", 1, 2)
		n.do(remove("u", "s1", 0, store.CauseLost))
		if r := n.status(remove("u", "s1", 0, store.CauseKicked)); r.Status != store.Missing && r.Status != store.Done {
			c.broke("a repeated removal returned %+v", r)
		}
		all.saw("updated u")
		room.saw("left u lost")
		c.expect("", 1, 1)
		c.check(!n.renew().Reassert, "repetition spoiled the digest")
	}},
	{"Missing", "an operation on a session that is not there is Missing, changes nothing and is no error", func(c *cluster) {
		n := c.node("a")
		n.do(add("u", "s"))
		all := c.watch("")
		for _, kind := range []store.OpKind{store.OpRemove, store.OpJoin, store.OpLeave, store.OpMeta, store.OpAway} {
			for _, user := range []string{"u", "nobody"} {
				op := store.Op{Kind: kind, User: user, Session: "x", Topics: []string{"room"}, Meta: []byte(`1`), Away: true, Cause: store.CauseLost}
				if r := n.status(op); r.Status != store.Missing {
					c.broke("operation %d on a missing session of %s returned %+v", kind, user, r)
				}
			}
		}
		all.saw()
		c.expect("", 1, 1)
		c.expect("room", 0, 0)
	}},
	{"InOrder", "the operations of a batch take effect in order", func(c *cluster) {
		n := c.node("a")
		all := c.watch("")
		n.do(add("u", "s1"), remove("u", "s1", 0, store.CauseKicked), add("u", "s2"), remove("u", "s2", 0, store.CauseIdle), add("u", "s3"))
		all.saw("joined u", "left u kicked", "joined u", "left u idle", "joined u")
		c.expect("", 1, 1)
	}},
	{"AddIsAbsolute", "adding a known session makes it exactly what the operation says: other topics are left, metadata and away replaced", func(c *cluster) {
		n := c.node("a")
		op := add("u", "s", "room", "hall")
		op.Meta = []byte(`1`)
		n.do(op)
		room, hall, attic := c.watch("room"), c.watch("hall"), c.watch("attic")
		op = add("u", "s", "hall", "attic")
		op.Away = true
		n.do(op)
		room.saw("left u left")
		hall.saw("updated u")
		attic.saw("joined u")
		s := c.lookup("u").Sessions[0]
		c.check(len(s.Meta) == 0 && s.Away && len(s.Topics) == 2, "the session is %+v", s)
	}},
	{"SinceGrows", "a new session is younger than every other of its user", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		var last time.Time
		for i := range 20 {
			by := n
			if i%2 == 1 {
				by = m
			}
			r := by.do(add("u", fmt.Sprint("s", i)))[0]
			c.check(r.Since.After(last), "session %d has since %v, the one before %v", i, r.Since, last)
			last = r.Since
		}
		for _, r := range n.do(add("u", "x1"), add("u", "x2"), add("u", "x3")) {
			c.check(r.Since.After(last), "in one batch a session has since %v, the one before %v", r.Since, last)
			last = r.Since
		}
		s := c.lookup("u").Sessions
		for i := 1; i < len(s); i++ {
			c.check(s[i].Since.After(s[i-1].Since), "sessions are not listed oldest first")
		}
	}},
	{"SinceIsKept", "a session asserted with a since keeps it", func(c *cluster) {
		n := c.node("a")
		since := n.do(add("u", "s1"))[0].Since
		n.do(remove("u", "s1", 0, store.CauseLost))
		op := add("u", "s1")
		op.Since = since
		c.check(n.do(op)[0].Since.Equal(since), "the result has another since")
		c.check(c.lookup("u").Sessions[0].Since.Equal(since), "the record has another since")
	}},
	{"OnlyTheHolder", "only the lease that holds a session can remove or change it", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		n.do(add("u", "s", "room"))
		room := c.watch("room")
		for _, op := range []store.Op{
			remove("u", "s", 0, store.CauseKicked),
			{Kind: store.OpLeave, User: "u", Session: "s", Topics: []string{"room"}},
			{Kind: store.OpMeta, User: "u", Session: "s", Meta: []byte(`1`)},
			{Kind: store.OpAway, User: "u", Session: "s", Away: true},
		} {
			if r := m.status(op); r.Status != store.Missing {
				c.broke("operation %d by another node returned %+v", op.Kind, r)
			}
		}
		room.saw()
		c.state("u", store.Online)
	}},
}
