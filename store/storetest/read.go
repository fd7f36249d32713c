package storetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/a4cafe1a/presence/store"
)

var readRules = []rule{
	{"LookupInOrder", "Lookup appends one record per user, in the order asked, to what is there; a user nobody knows is offline", func(c *cluster) {
		n := c.node("a")
		n.do(add("u", "s1", "room"))
		n.do(add("v", "s2"))
		n.do(add("w", "s3"), remove("w", "s3", 5*c.Lease, store.CauseLost))
		c.settle()
		dst := []store.UserRecord{{User: "kept"}}
		got, err := c.Store.Lookup(ctx, dst, []string{"v", "nobody", "u", "w", "u"})
		c.must("Lookup", err)
		var is []string
		for _, r := range got {
			is = append(is, r.User+" "+r.State.String())
		}
		want := []string{"kept unknown", "v online", "nobody offline", "u online", "w grace", "u online"}
		c.check(slices.Equal(is, want), "Lookup returned %q", is)
		c.check(brief(got[3]) == brief(got[5]), "the same user is not the same twice")
		c.check(!got[1].AsOf.IsZero() && got[2].Since.IsZero() && !got[3].Since.IsZero(), "times are missing: %+v", got)
		s := got[3].Sessions[0]
		c.check(s.ID == "s1" && s.User == "u" && s.Node == "id-a" && s.NodeName == "a" && slices.Equal(s.Topics, []string{"room"}) && !s.Since.IsZero(), "the session is %+v", s)
		none, err := c.Store.Lookup(ctx, nil, nil)
		c.check(len(none) == 0 && err == nil, "Lookup of nobody returned %v, %v", none, err)
	}},
	{"LookupReuses", "records that are used again show nothing of what was in them", func(c *cluster) {
		n := c.node("a")
		op := add("u", "s1", "room")
		op.Meta, op.Away = []byte(`1`), true
		n.do(op)
		n.do(add("u", "s2"))
		n.do(add("v", "s3"))
		first, err := c.Store.Lookup(ctx, nil, []string{"u", "v", "nobody"})
		c.must("Lookup", err)
		want := []string{brief(first[1]), brief(first[2]), brief(first[0])}
		second, err := c.Store.Lookup(ctx, first[:0], []string{"v", "nobody", "u"})
		c.must("Lookup", err)
		for i, r := range second {
			c.check(brief(r) == want[i], "a reused record is %s, not %s", brief(r), want[i])
		}
	}},
	{"Count", "Count says how many users and sessions are in a topic, users in grace included; a topic nobody is in counts zero", func(c *cluster) {
		n, m := c.node("a"), c.node("b")
		n.do(add("u", "s1", "room"), add("u", "s2", "room"))
		m.do(add("v", "s3", "room"))
		m.do(add("w", "s4"))
		c.expect("room", 2, 3)
		c.expect("", 3, 4)
		c.expect("nowhere", 0, 0)
		m.do(remove("v", "s3", 5*c.Lease, store.CauseLost))
		c.expect("room", 2, 2)
	}},
	{"MembersInOrder", "pages show each member once, in order of shard, then user, whatever their size; the cursor need not be a member", func(c *cluster) {
		n := c.node("a")
		var names []string
		const many = 1000
		for i := range many {
			names = append(names, fmt.Sprintf("user-%03d", (i*197)%many))
			n.do(add(names[i], fmt.Sprint("s", i), "room"))
		}
		names = append(names, "Ä", "z", "a", "a\x00b", "a b", "\U0001F600")
		for i, u := range names[many:] {
			n.do(add(u, fmt.Sprint("t", i), "room"))
		}
		slices.SortFunc(names, func(a, b string) int {
			if d := c.Store.ShardOf(a) - c.Store.ShardOf(b); d != 0 {
				return d
			}
			return strings.Compare(a, b)
		})
		c.settle()
		for _, size := range []int{0, 1, 7, 256, 1000, 5000} {
			list, err := c.pages("room", size)
			c.must("Members", err)
			var got []string
			for _, r := range list {
				got = append(got, r.User)
			}
			c.check(slices.Equal(got, names), "pages of %d show %d members, or in another order", size, len(got))
			p, err := c.Store.Members(ctx, "room", "", size)
			c.must("Members", err)
			c.check(size == 0 || len(p.Members) <= size, "a page of %d has %d", size, len(p.Members))
			c.check(len(p.Members) <= 1000, "a page has %d members", len(p.Members))
		}
		at := names[100]
		n.do(remove(at, c.lookup(at).Sessions[0].ID, 0, store.CauseLost))
		p, err := c.Store.Members(ctx, "room", at, 3)
		c.must("Members", err)
		c.check(len(p.Members) > 0 && p.Members[0].User == names[101], "behind a user who left comes another than before")
		p, err = c.Store.Members(ctx, "nowhere", "x", 3)
		c.check(err == nil && len(p.Members) == 0 && !p.More, "an empty topic returned %+v, %v", p, err)
	}},
	{"MembersWhileChurning", "a user that is a member all the while is seen exactly once, and nobody twice, whatever the others do", func(c *cluster) {
		n := c.node("a")
		for i := range 300 {
			n.do(add(fmt.Sprintf("fix-%03d", i), fmt.Sprint("s", i), "room"))
		}
		stop, done := make(chan struct{}), make(chan error, 1)
		go func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					done <- nil
					return
				default:
				}
				u := fmt.Sprintf("fix-%03d-%d", i*7%300, i%5)
				lease := n.leases[c.Store.ShardOf(u)]
				_, err := c.Store.Commit(ctx, lease, []store.Op{add(u, "x"+u, "room"), remove(u, "x"+u, 0, store.CauseLost)})
				if err != nil {
					done <- err
					return
				}
			}
		}()
		for range 20 {
			seen := map[string]int{}
			list, err := c.pages("room", 11)
			if errors.Is(err, store.ErrUnknown) {
				continue
			}
			c.must("Members", err)
			for _, r := range list {
				seen[r.User]++
				c.check(seen[r.User] == 1, "%s is seen twice", r.User)
			}
			for i := range 300 {
				u := fmt.Sprintf("fix-%03d", i)
				c.check(seen[u] == 1, "%s is missing", u)
			}
		}
		close(stop)
		c.must("Commit", <-done)
	}},
}
