package storetest

import (
	"errors"
	"fmt"
	"time"

	"github.com/a4cafe1a/presence/store"
)

// dead lets a node's lease run out while the others live, without a sweep.
func (c *cluster) dead(n *node) {
	c.Helper()
	n.crash()
	c.passOnly(c.Lease + c.Lease/5)
	c.settle()
}

var leaseRules = []rule{
	{"DeadAtOnce", "the sessions of a dead node are left out by readers at once, and counted as MaybeGone until swept", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		n.do(add("u", "s1", "room"))
		n.do(add("v", "s2", "room"))
		m.do(add("v", "s3", "room"))
		c.dead(n)
		c.state("u", store.Offline)
		c.state("v", store.Online)
		c.check(len(c.lookup("v").Sessions) == 1, "v has %s", brief(c.lookup("v")))
		list := c.members("room")
		c.check(len(list) == 1 && list[0].User == "v" && len(list[0].Sessions) == 1, "the room shows %d members", len(list))
		k := c.count("room")
		c.check(k.MaybeGone >= 1 && k.Users-k.MaybeGone <= 1 && k.Sessions-k.MaybeGone <= 1 && k.MaybeGone <= k.Sessions, "the counts are %+v", k)
		c.sweep()
		c.expect("room", 1, 1)
	}},
	{"NodeLost", "sweeping a dead node writes each Left once, cause node-lost, whoever sweeps", func(c *cluster) {
		n, m, o := c.node("a"), c.node("b"), c.node("c")
		for i := range 50 {
			n.do(add(fmt.Sprint("u", i), fmt.Sprint("s", i), "room"))
		}
		m.do(add("u0", "t0", "room"))
		room := c.watch("room")
		room.updates = false
		n.crash()
		c.passOnly(c.Lease + c.Lease/5)
		c.settle()
		work := m.renew()
		c.check(work.Work, "a node is dead, and no work is reported: %+v", work)
		done := make(chan error, 2)
		for _, by := range []*node{m, o} {
			go func() {
				for _, l := range by.leases {
					for more := true; more; {
						r, err := c.Store.Sweep(ctx, l, 7)
						if err != nil {
							done <- err
							return
						}
						more = r.More
					}
				}
				done <- nil
			}()
		}
		c.must("Sweep", <-done)
		c.must("Sweep", <-done)
		var want []string
		left := map[string]int{}
		room.poll()
		for _, ch := range room.log {
			if ch.Kind == store.Left {
				left[ch.Member.User]++
				c.check(ch.Cause == store.CauseNodeLost, "%s left with cause %s", ch.Member.User, ch.Cause)
			}
		}
		for u, times := range left {
			c.check(times == 1 && u != "u0", "%s left %d times", u, times)
		}
		c.check(len(left) == 49, "%d users left", len(left))
		room.log = nil
		room.saw(want...)
		c.expect("room", 1, 1)
	}},
	{"SweepIsBounded", "one Sweep does at most max things and says that there is more", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		for i := range 30 {
			n.do(add(fmt.Sprint("u", i), fmt.Sprint("s", i)))
		}
		c.dead(n)
		total := 0
		for _, l := range m.leases {
			for {
				r, err := c.Store.Sweep(ctx, l, 4)
				c.must("Sweep", err)
				c.check(r.Done <= 4, "a Sweep of 4 did %d things", r.Done)
				c.check(r.Done > 0 || !r.More, "a Sweep did nothing and says that there is more")
				total += r.Done
				if !r.More {
					break
				}
			}
		}
		c.check(total >= 30, "%d things were done for 30 sessions", total)
		c.expect("", 0, 0)
	}},
	{"LeaveGraceOfTheDead", "a dead node's users are in grace for what its LeaveGrace leaves after its last renewal", func(c *cluster) {
		n, m := c.node("a", func(n *store.Node) { n.LeaveGrace = 3 * c.Lease }), c.node("b")
		n.do(add("u", "s1", "room"))
		n.do(add("v", "s2", "room"))
		room := c.watch("room")
		c.dead(n)
		c.state("u", store.Grace)
		c.check(len(c.members("room")) == 2, "the room shows %d members", len(c.members("room")))
		c.sweep()
		c.state("u", store.Grace)
		room.updates = false
		m.do(add("v", "s3", "room"))
		room.saw()
		c.pass(3 * c.Lease)
		c.state("u", store.Offline)
		room.saw("left u node-lost")
	}},
	{"LongestGraceOfTheDead", "of a user's sessions on several dead nodes the one with the longest grace counts, whichever is swept first", func(c *cluster) {
		for i := range 6 {
			user := fmt.Sprint("u", i)
			long, short, last := c.node("long"), c.node("short"), c.node("last")
			if i%2 == 1 {
				long, short = short, long
			}
			room := c.watch("room")
			room.updates = false
			long.do(add(user, "s1", "room"))
			short.do(add(user, "s2", "room"))
			for _, l := range long.leases {
				c.must("End", c.Store.End(ctx, l, 3*c.Lease, store.CauseShutdown))
			}
			for _, l := range short.leases {
				c.must("End", c.Store.End(ctx, l, 0, store.CauseNodeLost))
			}
			long.crash()
			short.crash()
			c.sweep()
			c.state(user, store.Grace)
			room.saw("joined " + user)
			last.do(store.Op{Kind: store.OpEndGrace, User: user})
			room.saw("left " + user + " shutdown")
		}
	}},
	{"LeaseLost", "a lease that ended is refused by every call, which does nothing, and never comes back", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		n.do(add("u", "s"))
		m.do(add("w", "x"))
		c.dead(n)
		all := c.watch("")
		for i, l := range n.leases {
			_, err := c.Store.Renew(ctx, l, n.summary(i))
			c.check(errors.Is(err, store.ErrLeaseLost), "Renew returned %v", err)
			_, err = c.Store.Sweep(ctx, l, 0)
			c.check(errors.Is(err, store.ErrLeaseLost), "Sweep returned %v", err)
			_, err = c.Store.Bell(ctx, l)
			c.check(errors.Is(err, store.ErrLeaseLost), "Bell returned %v", err)
			c.must("End of a lost lease", c.Store.End(ctx, l, c.Lease, store.CauseShutdown))
		}
		for _, op := range []store.Op{add("v", "s2"), add("u", "s"), remove("u", "s", 0, store.CauseKicked)} {
			_, err := n.try(op)
			c.check(errors.Is(err, store.ErrLeaseLost), "Commit returned %v", err)
		}
		all.saw()
		c.state("v", store.Offline)
		c.state("u", store.Offline)
		l := n.leases[0]
		l.Token += "0"
		_, err := c.Store.Commit(ctx, l, nil)
		c.check(errors.Is(err, store.ErrLeaseLost), "Commit with a lease nobody gave returned %v", err)
	}},
	{"LeasesAreNew", "Register never gives the same lease twice", func(c *cluster) {
		seen := map[store.Lease]bool{}
		for range 20 {
			for _, l := range c.node("a").leases {
				c.check(!seen[l], "%+v was given twice", l)
				seen[l] = true
			}
		}
	}},
	{"EndWithGrace", "End takes the sessions out for readers at once, and leaves their users in grace with the given cause", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		m.do(add("w", "x"))
		n.do(add("u", "s1", "room"))
		n.do(add("v", "s2", "room"))
		room := c.watch("room")
		room.updates = false
		for _, l := range n.leases {
			c.must("End", c.Store.End(ctx, l, 2*c.Lease, store.CauseShutdown))
			c.must("End again", c.Store.End(ctx, l, 0, store.CauseKicked))
		}
		n.crash()
		c.state("u", store.Grace)
		c.check(len(c.lookup("u").Sessions) == 0, "an ended lease still shows %s", brief(c.lookup("u")))
		m.do(add("v", "s3", "room"))
		c.pass(c.Lease)
		c.state("u", store.Grace)
		room.saw()
		c.pass(2 * c.Lease)
		room.saw("left u shutdown")
		c.state("v", store.Online)
		_, err := n.try(add("z", "s9"))
		c.check(errors.Is(err, store.ErrLeaseLost), "Commit after End returned %v", err)
	}},
	{"Reassert", "a new incarnation that asserts the same sessions makes no change in the log, and what it does not assert ends with the old one", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		m.do(add("w", "x"))
		op := add("u", "s1", "room")
		op.Meta = []byte(`1`)
		since := n.do(op)[0].Since
		n.do(add("v", "s2", "room"))
		all, room := c.watch(""), c.watch("room")
		old := *n
		n.register()
		op.Since = since
		n.do(op)
		all.saw()
		room.saw()
		for _, l := range old.leases {
			c.must("End", c.Store.End(ctx, l, 0, store.CauseNodeLost))
		}
		c.pass(c.Lease / 5)
		room.saw("left v node-lost")
		all.saw("left v node-lost")
		c.state("u", store.Online)
		c.check(c.lookup("u").Sessions[0].Since.Equal(since), "since moved")
		c.check(!n.renew().Reassert, "the digest of the new lease is wrong")
		c.expect("", 2, 2)
		n.do(remove("u", "s1", 0, store.CauseLost))
		room.saw("left u lost")
	}},
	{"FrozenNode", "a node that was frozen past its lease is refused; its users left once, and join once when it asserts them again", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		m.do(add("w", "x"))
		op := add("u", "s1")
		op.Since = n.do(op)[0].Since
		all := c.watch("")
		c.dead(n)
		c.sweep()
		all.saw("left u node-lost")
		_, err := n.try(op)
		c.check(errors.Is(err, store.ErrLeaseLost), "Commit with the old lease returned %v", err)
		n.register()
		n.resume()
		n.do(op)
		all.saw("joined u")
		c.pass(2 * c.Lease)
		all.saw()
	}},
	{"BackBeforeTheSweep", "a user whose node died and who is back before the sweep never left", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		n.do(add("u", "s1", "room"))
		all, room := c.watch(""), c.watch("room")
		all.updates, room.updates = false, false
		c.dead(n)
		m.do(add("u", "s2", "room"))
		c.sweep()
		c.pass(2 * c.Lease)
		all.saw()
		room.saw()
		c.expect("room", 1, 1)
	}},
	{"BackFromTheDead", "a session asserted again after its lease ended is Updated, because what was logged meanwhile left it out", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		op := add("u", "s1", "room")
		op.Since = n.do(op)[0].Since
		m.do(add("u", "s2", "room"))
		room := c.watch("room")
		c.dead(n)
		m.do(store.Op{Kind: store.OpMeta, User: "u", Session: "s2", Meta: []byte(`1`)})
		room.saw("updated u")
		n.register()
		n.resume()
		n.do(op)
		room.saw("updated u")
		c.sweep()
		room.saw()
		c.expect("room", 1, 2)
	}},
	{"GraceBesideTheDead", "a grace counts although an unswept session of a dead node was left", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		n.do(add("u", "s1", "room"))
		m.do(add("u", "s2", "room"))
		all, room := c.watch(""), c.watch("room")
		all.updates, room.updates = false, false
		c.dead(n)
		m.do(remove("u", "s2", 2*c.Lease, store.CauseClientClosed))
		c.sweep()
		c.state("u", store.Grace)
		all.saw()
		room.saw()
		c.pass(3 * c.Lease)
		all.saw("left u client-closed")
		room.saw("left u client-closed")
	}},
	{"Stale", "an old lease takes no session back from a newer one, and cannot remove it", func(c *cluster) {
		n := c.node("a")
		n.do(add("u", "s"))
		old := *n
		n.register()
		n.do(add("u", "s"))
		all := c.watch("")
		r := old.status(add("u", "s", "room"))
		c.check(r.Status == store.Stale, "a late add returned %+v", r)
		r = old.status(remove("u", "s", 0, store.CauseKicked))
		c.check(r.Status == store.Missing, "a late removal returned %+v", r)
		for _, l := range old.leases {
			c.must("End", c.Store.End(ctx, l, 0, store.CauseNodeLost))
		}
		c.sweep()
		all.saw()
		c.state("u", store.Online)
	}},
	{"AwayOfTheDead", "when a dead node's session is swept, away is what the living ones say, and it is logged", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		n.do(add("u", "s1"))
		op := add("u", "s2", "room")
		op.Away = true
		m.do(op)
		all, room := c.watch(""), c.watch("room")
		c.check(!c.lookup("u").Away, "u is away beside an active session")
		c.dead(n)
		c.check(c.lookup("u").Away, "u is not away, but its only live session is")
		c.sweep()
		all.saw("updated u")
		room.saw("updated u")
	}},
	{"RenewKeepsAlive", "a lease that is renewed keeps its sessions, however long", func(c *cluster) {
		n := c.node("a")
		n.do(add("u", "s"))
		c.node("b")
		all := c.watch("")
		c.pass(4 * c.Lease)
		c.state("u", store.Online)
		all.saw()
	}},
	{"NextTellsWhenALeaseEnds", "Renew tells when another node's lease may end", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		n.do(add("u", "s"))
		m.do(add("v", "t"))
		c.settle()
		for i, l := range m.leases {
			if i != c.Store.ShardOf("u") {
				continue
			}
			o, err := c.Store.Renew(ctx, l, m.summary(i))
			c.must("Renew", err)
			c.check(o.Next > 0 && o.Next <= c.Lease+time.Millisecond, "next is %v, a lease lasts %v", o.Next, c.Lease)
		}
	}},
	{"Digest", "Renew notices that the store holds other sessions than the node", func(c *cluster) {
		n := c.node("a")
		n.do(add("u", "s1"))
		n.do(add("u", "s2"))
		c.check(!n.renew().Reassert, "Reassert without a difference")
		shard := c.Store.ShardOf("u")
		for name, wrong := range map[string]store.Summary{
			"one too many": {Sessions: 3, Digest: store.Digest("s1") ^ store.Digest("s2") ^ store.Digest("s3"), Complete: true},
			"one missing":  {Sessions: 1, Digest: store.Digest("s1"), Complete: true},
			"another one":  {Sessions: 2, Digest: store.Digest("s1") ^ store.Digest("s3"), Complete: true},
			"none":         {Complete: true},
		} {
			o, err := c.Store.Renew(ctx, n.leases[shard], wrong)
			c.must("Renew", err)
			c.check(o.Reassert, "a summary with %s is accepted", name)
		}
		n.do(remove("u", "s1", 0, store.CauseLost))
		c.check(!n.renew().Reassert, "Reassert after a removal")
	}},
}
