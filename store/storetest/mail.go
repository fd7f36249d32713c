package storetest

import (
	"time"

	"github.com/a4cafe1a/presence/store"
)

var mailRules = []rule{
	{"DisconnectUser", "Disconnect orders every node that holds a session of the user, and nobody else, and returns how many sessions were told", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		n.do(add("u", "s1"), add("u", "s2"))
		m.do(add("u", "s3"))
		m.do(add("v", "s4"))
		told, err := c.Store.Disconnect(ctx, "u", "", 4403, "go away")
		c.must("Disconnect", err)
		c.check(told == 3, "told %d", told)
		for by, want := range map[*node]int{n: 2, m: 1} {
			o := by.renew()
			c.check(len(o.Mail) == want, "%s has the orders %+v", by.info.Name, o.Mail)
			for _, x := range o.Mail {
				c.check(x.Kind == store.Kick && x.User == "u" && x.Code == 4403 && x.Text == "go away" && x.Session != "s4" && x.Number > 0, "the order is %+v", x)
			}
			c.check(!o.Reassert, "a kick looks like a loss")
		}
		c.state("u", store.Online) // told, not closed
		told, err = c.Store.Disconnect(ctx, "nobody", "", 4403, "")
		c.check(told == 0 && err == nil, "disconnecting nobody returned %d, %v", told, err)
	}},
	{"DisconnectSession", "Disconnect of one session orders only its node", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		n.do(add("u", "s1"), add("u", "s2"))
		m.do(add("u", "s3"))
		told, err := c.Store.Disconnect(ctx, "u", "s2", 4400, "")
		c.must("Disconnect", err)
		c.check(told == 1, "told %d", told)
		o := n.renew()
		c.check(len(o.Mail) == 1 && o.Mail[0].Session == "s2", "the orders are %+v", o.Mail)
		c.check(len(m.renew().Mail) == 0, "another node was told")
		told, err = c.Store.Disconnect(ctx, "u", "s9", 4400, "")
		c.check(told == 0 && err == nil, "disconnecting a missing session returned %d, %v", told, err)
	}},
	{"DisconnectEndsGrace", "Disconnect ends at once every grace the user is in, with the cause it would have had", func(c *cluster) {
		n := c.node("a")
		n.do(add("u", "s1", "room"))
		n.do(remove("u", "s1", 5*c.Lease, store.CauseSilent))
		n.do(add("v", "s2", "room"), add("v", "s3"))
		n.do(remove("v", "s2", 5*c.Lease, store.CauseLost))
		all, room := c.watch(""), c.watch("room")
		_, err := c.Store.Disconnect(ctx, "u", "", 4403, "")
		c.must("Disconnect", err)
		_, err = c.Store.Disconnect(ctx, "v", "s3", 4403, "")
		c.must("Disconnect", err)
		all.saw("left u silent")
		room.saw("left u silent", "left v lost")
		c.state("v", store.Online)
	}},
	{"OrdersUntilAcknowledged", "an order is repeated until it is acknowledged, and not after", func(c *cluster) {
		n := c.node("a")
		n.do(add("u", "s1"), add("u", "s2"))
		shard := c.Store.ShardOf("u")
		get := func(ack uint64) []store.Order {
			c.Helper()
			s := n.summary(shard)
			s.Ack = ack
			o, err := c.Store.Renew(ctx, n.leases[shard], s)
			c.must("Renew", err)
			return o.Mail
		}
		for _, id := range []string{"s1", "s2"} {
			_, err := c.Store.Disconnect(ctx, "u", id, 4403, "")
			c.must("Disconnect", err)
		}
		first := get(0)
		c.check(len(first) == 2 && first[0].Session == "s1" && first[1].Session == "s2" && first[1].Number > first[0].Number, "the orders are %+v", first)
		again := get(0)
		c.check(len(again) == 2 && again[0] == first[0], "unacknowledged orders are gone: %+v", again)
		rest := get(first[0].Number)
		c.check(len(rest) == 1 && rest[0] == first[1], "after acknowledging one of two: %+v", rest)
		c.check(len(get(first[1].Number)) == 0, "acknowledged orders are repeated")
		_, err := c.Store.Disconnect(ctx, "u", "s1", 4403, "")
		c.must("Disconnect", err)
		last := get(first[1].Number)
		c.check(len(last) == 1 && last[0].Number > first[1].Number, "the next order is %+v", last)
	}},
	{"Bell", "the bell rings when an order comes, and at once when there is one already", func(c *cluster) {
		n := c.node("a")
		n.do(add("u", "s1"))
		lease := n.leases[c.Store.ShardOf("u")]
		rings := func(bell <-chan struct{}) bool {
			for range 100 {
				select {
				case <-bell:
					return true
				default:
					c.Advance(c.Lease / 100)
					time.Sleep(time.Millisecond)
					n.renew()
				}
			}
			return false
		}
		bell, err := c.Store.Bell(ctx, lease)
		c.must("Bell", err)
		_, err = c.Store.Disconnect(ctx, "u", "", 4403, "")
		c.must("Disconnect", err)
		c.check(rings(bell), "it did not ring")
		n.ack[c.Store.ShardOf("u")] = 0
		_, err = c.Store.Disconnect(ctx, "u", "", 4403, "")
		c.must("Disconnect", err)
		bell, err = c.Store.Bell(ctx, lease)
		c.must("Bell", err)
		c.check(rings(bell), "it did not ring for an order that was there")
	}},
	{"Challenge", "a refusal that asks for it orders the oldest session's node to challenge it", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		n.do(add("u", "s1"))
		m.do(add("u", "s2"))
		op := add("u", "s3")
		op.Limit, op.Challenge = 2, true
		r := m.status(op)
		c.check(r.Status == store.Full && r.Oldest != nil && r.Oldest.ID == "s1", "the result is %+v", r)
		o := n.renew()
		c.check(len(o.Mail) == 1 && o.Mail[0].Kind == store.Challenge && o.Mail[0].Session == "s1", "the orders are %+v", o.Mail)
		c.check(len(m.renew().Mail) == 0, "another node was told")
		n.do(remove("u", "s1", c.Lease, store.CauseSilent))
		m.do(op)
	}},
	{"OrdersExplain", "a session that an order took away explains a difference of the digest until the order is acknowledged", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		n.do(add("u", "s1"))
		op := add("u", "s2")
		op.Limit, op.WhenFull = 1, store.ReplaceOldest
		m.do(op)
		shard := c.Store.ShardOf("u")
		for range 2 {
			o, err := c.Store.Renew(ctx, n.leases[shard], n.summary(shard))
			c.must("Renew", err)
			c.check(!o.Reassert && len(o.Mail) == 1, "before it is acknowledged: %+v", o)
		}
		s := n.summary(shard)
		s.Ack = 1 << 40
		o, err := c.Store.Renew(ctx, n.leases[shard], s)
		c.must("Renew", err)
		c.check(o.Reassert, "after it is acknowledged nothing explains the difference: %+v", o)
	}},
}
