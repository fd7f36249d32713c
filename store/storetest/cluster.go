package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/a4cafe1a/presence/store"
)

// cluster is a store under test and the nodes that use it.
type cluster struct {
	*testing.T
	Harness
	rule  string
	nodes []*node // those that live, and renew when time passes
}

var ctx = context.Background()

// broke ends the test and prints the rule.
func (c *cluster) broke(format string, args ...any) {
	c.Helper()
	c.Fatalf("rule: %s\n      broken: %s", c.rule, fmt.Sprintf(format, args...))
}

// must ends the test when a call fails that has to succeed.
func (c *cluster) must(what string, err error) {
	c.Helper()
	if err != nil {
		c.broke("%s: unexpected error: %v", what, err)
	}
}

// check ends the test unless ok.
func (c *cluster) check(ok bool, format string, args ...any) {
	c.Helper()
	if !ok {
		c.broke(format, args...)
	}
}

// node is one process: a lease per shard, and what it holds.
type node struct {
	c      *cluster
	info   store.Node
	leases []store.Lease
	held   []map[string]bool // per shard, by session id
	ack    []uint64          // per shard
}

// node starts a node that lives until crash.
func (c *cluster) node(name string, change ...func(*store.Node)) *node {
	c.Helper()
	n := &node{c: c, info: store.Node{ID: "id-" + name, Name: name, KeepLastSeen: 1000 * c.Lease}}
	for _, f := range change {
		f(&n.info)
	}
	n.register()
	c.nodes = append(c.nodes, n)
	return n
}

// register begins a new incarnation, which holds nothing.
func (n *node) register() {
	n.c.Helper()
	shards := n.c.Store.Shards()
	n.leases = make([]store.Lease, shards)
	n.held = make([]map[string]bool, shards)
	n.ack = make([]uint64, shards)
	for i := range n.leases {
		l, err := n.c.Store.Register(ctx, i, n.info)
		n.c.must("Register", err)
		n.c.check(l.Shard == i && l.Node == n.info.ID && l.TTL > 0, "Register returned %+v", l)
		n.leases[i] = l
		n.held[i] = map[string]bool{}
	}
}

// crash makes the node fall silent.
func (n *node) crash() {
	n.c.nodes = slices.DeleteFunc(n.c.nodes, func(o *node) bool { return o == n })
}

// resume lets it renew again when time passes.
func (n *node) resume() { n.c.nodes = append(n.c.nodes, n) }

func (n *node) summary(shard int) store.Summary {
	s := store.Summary{Complete: true, Ack: n.ack[shard]}
	for id := range n.held[shard] {
		s.Sessions++
		s.Digest ^= store.Digest(id)
	}
	return s
}

// renew renews all leases, carries out what takes sessions away, and returns
// the orders of all shards as one.
func (n *node) renew() store.Orders {
	n.c.Helper()
	var all store.Orders
	for i, l := range n.leases {
		o, err := n.c.Store.Renew(ctx, l, n.summary(i))
		n.c.must("Renew by "+n.info.Name, err)
		for _, m := range o.Mail {
			n.ack[i] = max(n.ack[i], m.Number)
			if m.Kind == store.Replaced {
				delete(n.held[i], m.Session)
			}
		}
		all.Mail = append(all.Mail, o.Mail...)
		all.Reassert = all.Reassert || o.Reassert
		all.Work = all.Work || o.Work
		all.Hold = max(all.Hold, o.Hold)
		if o.Next > 0 && (all.Next == 0 || o.Next < all.Next) {
			all.Next = o.Next
		}
		all.Now = o.Now
	}
	return all
}

// try commits operations for one user.
func (n *node) try(ops ...store.Op) ([]store.Result, error) {
	shard := n.c.Store.ShardOf(ops[0].User)
	results, err := n.c.Store.Commit(ctx, n.leases[shard], ops)
	if err != nil {
		return nil, err
	}
	for i, r := range results {
		switch done := r.Status == store.Done || r.Status == store.TooLarge; {
		case ops[i].Kind == store.OpAdd && done:
			n.held[shard][ops[i].Session] = true
		case ops[i].Kind == store.OpRemove && done:
			delete(n.held[shard], ops[i].Session)
		}
	}
	return results, nil
}

// do commits operations for one user that must be Done.
func (n *node) do(ops ...store.Op) []store.Result {
	n.c.Helper()
	results, err := n.try(ops...)
	n.c.must("Commit by "+n.info.Name, err)
	n.c.check(len(results) == len(ops), "Commit of %d operations returned %d results", len(ops), len(results))
	for i, r := range results {
		n.c.check(r.Status == store.Done, "operation %+v by %s returned status %d", ops[i], n.info.Name, r.Status)
	}
	return results
}

// status commits one operation and returns its result.
func (n *node) status(op store.Op) store.Result {
	n.c.Helper()
	results, err := n.try(op)
	n.c.must("Commit by "+n.info.Name, err)
	n.c.check(len(results) == 1, "Commit of one operation returned %d results", len(results))
	return results[0]
}

func add(user, session string, topics ...string) store.Op {
	return store.Op{Kind: store.OpAdd, User: user, Session: session, Topics: topics}
}

func remove(user, session string, grace time.Duration, cause store.Cause) store.Op {
	return store.Op{Kind: store.OpRemove, User: user, Session: session, Grace: grace, Cause: cause}
}

// pass lets time go by while the living nodes renew and sweep.
func (c *cluster) pass(d time.Duration) {
	c.Helper()
	c.passOnly(d)
	c.sweep()
}

// passOnly lets time go by while the living nodes renew.
func (c *cluster) passOnly(d time.Duration) {
	c.Helper()
	step := c.Lease / 5
	for d > 0 {
		c.Advance(min(d, step))
		d -= step
		for _, n := range c.nodes {
			n.renew()
		}
	}
}

// sweep lets the first living node sweep until nothing is left.
func (c *cluster) sweep() (done int) {
	c.Helper()
	if len(c.nodes) == 0 {
		return 0
	}
	c.settle()
	for _, l := range c.nodes[0].leases {
		for {
			r, err := c.Store.Sweep(ctx, l, 0)
			c.must("Sweep", err)
			done += r.Done
			if !r.More {
				break
			}
		}
	}
	return done
}

// settle ends a hold that the test did not mean: on a slow machine a store
// with a real clock may have heard nobody for half a lease.
func (c *cluster) settle() {
	c.Helper()
	for range 100 {
		hold := time.Duration(0)
		for _, n := range c.nodes {
			hold = max(hold, n.renew().Hold)
		}
		if hold == 0 {
			return
		}
	}
	for range 20 {
		hold := time.Duration(0)
		c.Advance(c.Lease / 5)
		for _, n := range c.nodes {
			hold = max(hold, n.renew().Hold)
		}
		if hold == 0 {
			return
		}
	}
}

// lookup returns the record of one user; it waits for the end of a hold.
func (c *cluster) lookup(user string) store.UserRecord {
	c.Helper()
	for try := 0; ; try++ {
		r := c.look(user)
		if r.State != store.Unknown || try == 3 {
			return r
		}
		c.settle()
	}
}

// look returns the record of one user as it is.
func (c *cluster) look(user string) store.UserRecord {
	c.Helper()
	rs, err := c.Store.Lookup(ctx, nil, []string{user})
	c.must("Lookup", err)
	c.check(len(rs) == 1 && rs[0].User == user, "Lookup of %q returned %+v", user, rs)
	return rs[0]
}

func (c *cluster) state(user string, want store.State) {
	c.Helper()
	if r := c.lookup(user); r.State != want {
		c.broke("Lookup says %s is %s, not %s", user, r.State, want)
	}
}

// members reads all pages of a topic; it waits for the end of a hold.
func (c *cluster) members(topic string) []store.UserRecord {
	c.Helper()
	for try := 0; ; try++ {
		list, err := c.pages(topic, 0)
		if errors.Is(err, store.ErrUnknown) && try < 3 {
			c.settle()
			continue
		}
		c.must("Members", err)
		return list
	}
}

func (c *cluster) pages(topic string, size int) (list []store.UserRecord, err error) {
	for after := ""; ; {
		p, err := c.Store.Members(ctx, topic, after, size)
		if err != nil {
			return nil, err
		}
		list = append(list, p.Members...)
		if !p.More {
			return list, nil
		}
		after = p.Next
	}
}

// count returns the counts of a topic; it waits for the end of a hold.
func (c *cluster) count(topic string) store.Counts {
	c.Helper()
	for try := 0; ; try++ {
		n, err := c.Store.Count(ctx, topic)
		if errors.Is(err, store.ErrUnknown) && try < 3 {
			c.settle()
			continue
		}
		c.must("Count", err)
		return n
	}
}

// expect ends the test unless the counts are these, with nobody MaybeGone.
func (c *cluster) expect(topic string, users, sessions int) {
	c.Helper()
	if n := c.count(topic); n != (store.Counts{Users: users, Sessions: sessions}) {
		c.broke("Count(%q) is %+v, not %d users and %d sessions", topic, n, users, sessions)
	}
}

// brief is a record on one line, without the times that move by themselves.
func brief(r store.UserRecord) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s away=%t since=%d [", r.User, r.State, r.Away, r.Since.UnixNano())
	for _, s := range r.Sessions {
		topics := slices.Clone(s.Topics)
		slices.Sort(topics)
		fmt.Fprintf(&b, "{%s %s %s/%s %q %q away=%t %d}", s.ID, s.User, s.Node, s.NodeName, topics, s.Meta, s.Away, s.Since.UnixNano())
	}
	return b.String() + "]"
}
