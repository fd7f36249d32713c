package storetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/a4cafe1a/presence/store"
)

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
			first, again := s.ShardOf(u), s.ShardOf(u)
			c.check(first >= 0 && first < s.Shards() && first == again, "%s lives in %d and %d", u, first, again)
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
