package storetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/a4cafe1a/presence/store"
)

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
