package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

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

var feedRules = []rule{
	{"SnapshotAndFold", "a snapshot taken while others change the topic, with the feed folded over it, is the membership", func(c *cluster) {
		n := c.node("a")
		for i := range 200 {
			n.do(add(fmt.Sprint("u", i), fmt.Sprint("s", i), "room"))
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
				u := fmt.Sprint("u", i*31%400)
				op := add(u, "t"+u, "room")
				if i%3 != 0 {
					op = remove(u, "t"+u, 0, store.CauseLost)
				}
				if _, err := c.Store.Commit(ctx, n.leases[c.Store.ShardOf(u)], []store.Op{op}); err != nil {
					done <- err
					return
				}
			}
		}()
		var ws []*watcher
		for range 5 {
			ws = append(ws, c.watch("room"))
			for _, w := range ws {
				w.poll()
			}
		}
		close(stop)
		c.must("Commit", <-done)
		for _, w := range ws {
			w.poll()
			w.agrees()
		}
	}},
	{"OnlyItsTopic", "a feed returns the changes of its topic only, and all of them", func(c *cluster) {
		n := c.node("a")
		room, hall := c.watch("room"), c.watch("hall")
		n.do(add("u", "s1", "room"))
		n.do(add("v", "s2", "hall"))
		n.do(add("w", "s3"))
		room.saw("joined u")
		hall.saw("joined v")
	}},
	{"QuietTopic", "a feed of a quiet topic is not reset, however much happens elsewhere", func(c *cluster) {
		n := c.node("a")
		n.do(add("u", "s", "room"))
		room := c.watch("room")
		for i := 0; i < 2*c.Log; i += 50 {
			ops := make([]store.Op, 50)
			for j := range ops {
				ops[j] = store.Op{Kind: store.OpMeta, User: "v", Session: "t", Meta: []byte(fmt.Sprint(i + j))}
			}
			n.do(append([]store.Op{add("v", "t", "hall")}, ops...)...)
		}
		n.do(remove("u", "s", 0, store.CauseLost))
		room.saw("left u lost")
		c.check(room.resets == 0, "it was reset")
	}},
	{"Reset", "a feed that fell behind the log is reset, once, and then goes on; a new snapshot is right again", func(c *cluster) {
		n := c.node("a")
		n.do(add("u", "s", "room"))
		slow, fast := c.watch("room"), c.watch("room")
		for i := 0; i < 2*c.Log+100; i += 50 {
			ops := make([]store.Op, 50)
			for j := range ops {
				ops[j] = store.Op{Kind: store.OpMeta, User: "u", Session: "s", Meta: []byte(fmt.Sprint(i + j))}
			}
			n.do(ops...)
			fast.poll()
		}
		n.do(add("v", "t", "room"))
		slow.poll()
		c.check(slow.resets == 1, "it was reset %d times", slow.resets)
		slow.agrees()
		c.check(fast.resets == 0, "a feed that kept up was reset")
		fast.poll()
		fast.agrees()
		n.do(remove("v", "t", 0, store.CauseLost))
		slow.saw("left v lost")
		c.check(slow.resets == 1, "it was reset again")
	}},
	{"NewFeedBesideASlowOne", "a new feed misses nothing, although an older one of the topic fell behind the log", func(c *cluster) {
		n := c.node("a")
		n.do(add("u", "s", "room"))
		c.watch("room") // never reads again
		for i := 0; i < 3*c.Log; i += 50 {
			ops := make([]store.Op, 50)
			for j := range ops {
				ops[j] = store.Op{Kind: store.OpMeta, User: "u", Session: "s", Meta: []byte(fmt.Sprint(i + j))}
			}
			n.do(ops...)
		}
		room, err := c.Store.Watch(ctx, "room")
		c.must("Watch", err)
		n.do(add("v", "t", "room"))
		b, err := room.Poll(ctx)
		c.must("Poll", err)
		c.check(!b.Reset && len(b.Changes) == 1 && b.Changes[0].Kind == store.Joined, "its first batch is %+v", b)
		c.must("Close", room.Close())
	}},
	{"Next", "Next waits for a change, returns everything since the last batch, and loses nothing to a context that ends", func(c *cluster) {
		n := c.node("a")
		room := c.watch("room")
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		_, err := room.feed.Next(short)
		c.check(errors.Is(err, context.DeadlineExceeded), "Next of a quiet topic returned %v", err)
		n.do(add("u", "s1", "room"), add("u", "s2", "room"))
		room.next(10 * time.Second)
		room.saw("joined u", "updated u")
		go func() {
			time.Sleep(10 * time.Millisecond)
			lease := n.leases[c.Store.ShardOf("v")]
			_, _ = c.Store.Commit(ctx, lease, []store.Op{add("v", "s3", "room")})
		}()
		room.next(10 * time.Second)
		room.saw("joined v")
	}},
	{"Position", "the position of a shard's log grows with each change, and a change's version lies within", func(c *cluster) {
		n := c.node("a")
		shard := c.Store.ShardOf("u")
		before, err := c.Store.Position(ctx, shard)
		c.must("Position", err)
		all := c.watch("")
		n.do(add("u", "s"))
		after, err := c.Store.Position(ctx, shard)
		c.must("Position", err)
		all.poll()
		v := all.log[0].Version
		c.check(before.Shard == shard && before.Generation == after.Generation && before.Generation != "", "from %v to %v", before, after)
		c.check(before.Sequence < v.Sequence && v.Sequence <= after.Sequence && v.Generation == after.Generation, "change %v from %v to %v", v, before, after)
		c.check(before.String() != after.String(), "two positions have one string form")
	}},
	{"CloseFeed", "a closed feed returns ErrClosed, also to a Next that waits", func(c *cluster) {
		c.node("a")
		f, err := c.Store.Watch(ctx, "room")
		c.must("Watch", err)
		done := make(chan error, 1)
		go func() {
			_, err := f.Next(ctx)
			done <- err
		}()
		time.Sleep(10 * time.Millisecond)
		c.must("Close", f.Close())
		c.must("Close again", f.Close())
		c.check(errors.Is(within(c, done), store.ErrClosed), "a waiting Next did not return ErrClosed")
		_, err = f.Poll(ctx)
		c.check(errors.Is(err, store.ErrClosed), "Poll returned %v", err)
	}},
}

// within waits for an answer that must come.
func within(c *cluster, done <-chan error) error {
	c.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		c.broke("a call did not return")
		return nil
	}
}

var storeRules = []rule{
	{"Shards", "there is at least one shard, and every user lives in one, always the same", func(c *cluster) {
		s := c.Store
		c.check(s.Shards() >= 1, "%d shards", s.Shards())
		for i := range 1000 {
			u := fmt.Sprint("u", i)
			c.check(s.ShardOf(u) >= 0 && s.ShardOf(u) < s.Shards() && s.ShardOf(u) == s.ShardOf(u), "%s lives in %d", u, s.ShardOf(u))
		}
		for _, shard := range []int{-1, s.Shards()} {
			_, err := s.Register(ctx, shard, store.Node{ID: "x"})
			c.check(errors.Is(err, store.ErrShard), "Register in shard %d returned %v", shard, err)
			_, err = s.Position(ctx, shard)
			c.check(errors.Is(err, store.ErrShard), "Position of shard %d returned %v", shard, err)
		}
	}},
	{"Context", "a call whose context has ended fails with the context's error", func(c *cluster) {
		n := c.node("a")
		ended, cancel := context.WithCancel(ctx)
		cancel()
		_, err := c.Store.Lookup(ended, nil, []string{"u"})
		c.check(errors.Is(err, context.Canceled), "Lookup returned %v", err)
		_, err = c.Store.Commit(ended, n.leases[0], []store.Op{add("u", "s")})
		c.check(errors.Is(err, context.Canceled), "Commit returned %v", err)
		_, err = c.Store.Members(ended, "", "", 0)
		c.check(errors.Is(err, context.Canceled), "Members returned %v", err)
	}},
	{"Close", "a closed store returns ErrClosed from every call, and wakes every Next that waits", func(c *cluster) {
		n := c.node("a")
		s, l := c.Store, n.leases[0]
		f, err := s.Watch(ctx, "")
		c.must("Watch", err)
		done := make(chan error, 1)
		go func() {
			_, err := f.Next(ctx)
			done <- err
		}()
		time.Sleep(10 * time.Millisecond)
		c.must("Close", s.Close())
		c.must("Close again", s.Close())
		errs := map[string]error{"Next": within(c, done)}
		_, errs["Register"] = s.Register(ctx, 0, store.Node{ID: "x"})
		_, errs["Renew"] = s.Renew(ctx, l, store.Summary{})
		_, errs["Bell"] = s.Bell(ctx, l)
		_, errs["Commit"] = s.Commit(ctx, l, []store.Op{add("u", "s")})
		errs["End"] = s.End(ctx, l, 0, store.CauseShutdown)
		_, errs["Sweep"] = s.Sweep(ctx, l, 0)
		_, errs["Lookup"] = s.Lookup(ctx, nil, []string{"u"})
		_, errs["Count"] = s.Count(ctx, "")
		_, errs["Members"] = s.Members(ctx, "", "", 0)
		_, errs["Position"] = s.Position(ctx, 0)
		_, errs["Watch"] = s.Watch(ctx, "")
		_, errs["Poll"] = f.Poll(ctx)
		_, errs["Disconnect"] = s.Disconnect(ctx, "u", "", 4403, "")
		for call, err := range errs {
			c.check(errors.Is(err, store.ErrClosed), "%s returned %v", call, err)
		}
	}},
}
