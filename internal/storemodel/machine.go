package storemodel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/a4cafe1a/presence/store"
)

var (
	ctx    = context.Background()
	users  = []string{"ann", "bob"} // few, so that much happens to each
	topics = []string{"", "hall", "room"}
)

// Time moves by whole seconds here, and everything lasts some seconds and a
// half, so the little real time that passes in a run decides nothing.
const (
	half  = 500 * time.Millisecond
	lease = 10*time.Second + half
)

// Store is a store with one shard and a clock that Advance moves. Beside that
// it should stand still.
type Store interface {
	store.Store
	Advance(time.Duration)
}

// Options are what Run wants of a store.
type Options struct {
	Lease time.Duration
	Log   int // changes of a topic
}

// machine drives a store and the model together.
type machine struct {
	s     Store
	m     *model
	nodes []*machineNode
	feeds []*machineFeed
	ids   int
}

// machineNode is a node as package presence is one.
type machineNode struct {
	id     string
	lease  store.Lease
	held   map[string]store.Op // as it would assert them
	ack    uint64
	paused bool
}

// machineFeed folds a feed over the snapshot it began with.
type machineFeed struct {
	topic  string
	slow   bool
	feed   store.Feed
	fold   map[string]store.UserRecord
	events []string
	resets int
}

func newMachine(t *rapid.T, s Store) *machine {
	x := &machine{s: s, m: newModel(lease)}
	for i := range 3 {
		n := &machineNode{held: map[string]store.Op{}}
		x.nodes = append(x.nodes, n)
		n.id = fmt.Sprint("node", i)
		x.register(t, n)
	}
	for _, topic := range topics {
		for _, slow := range []bool{false, true} {
			f, err := x.s.Watch(ctx, topic)
			require.NoError(t, err)
			x.feeds = append(x.feeds, &machineFeed{topic: topic, slow: slow, feed: f, fold: map[string]store.UserRecord{}})
		}
	}
	return x
}

// register begins an incarnation and asserts what the node holds.
func (x *machine) register(t *rapid.T, n *machineNode) {
	grace := time.Duration(0)
	if strings.HasSuffix(n.id, "1") {
		grace = 15*time.Second + half // longer than a lease
	}
	old := n.lease
	l, err := x.s.Register(ctx, 0, store.Node{ID: n.id, LeaveGrace: grace})
	require.NoError(t, err)
	x.m.register(l.Token, n.id, grace)
	n.lease, n.ack = l, 0
	var ops []store.Op
	for _, id := range slices.Sorted(maps.Keys(n.held)) {
		ops = append(ops, n.held[id])
	}
	clear(n.held)
	x.commit(t, n, ops...)
	if old.Token != "" {
		require.NoError(t, x.s.End(ctx, old, 0, store.CauseNodeLost))
		x.m.end(old.Token, 0, store.CauseNodeLost)
	}
}

// commit sends a batch and compares what came of it.
func (x *machine) commit(t *rapid.T, n *machineNode, ops ...store.Op) {
	results, err := x.s.Commit(ctx, n.lease, ops)
	if !x.m.contact(n.lease.Token) {
		require.ErrorIs(t, err, store.ErrLeaseLost)
		return
	}
	require.NoError(t, err)
	require.Len(t, results, len(ops))
	for i, op := range ops {
		r := results[i]
		require.Equal(t, x.m.apply(n.lease.Token, op), r.Status, "status of %+v", op)
		if r.Status != store.Done {
			continue
		}
		h := n.held[op.Session]
		switch op.Kind {
		case store.OpAdd:
			ms := x.m.sessions[op.Session]
			if ms.since.IsZero() {
				ms.since = r.Since
				for _, y := range x.m.of(op.User, func(y *modelSession) bool { return y != ms }) {
					require.True(t, !op.Since.IsZero() || r.Since.After(y.since), "a new session is not the youngest")
				}
			}
			require.Equal(t, ms.since, r.Since)
			h = op
			h.Since = r.Since
		case store.OpRemove:
			delete(n.held, op.Session)
			continue
		case store.OpJoin:
			h.Topics = append(slices.Clone(h.Topics), op.Topics...)
		case store.OpLeave:
			h.Topics = slices.DeleteFunc(slices.Clone(h.Topics), func(s string) bool { return slices.Contains(op.Topics, s) })
		case store.OpMeta:
			h.Meta = op.Meta
		case store.OpAway:
			h.Away = op.Away
		case store.OpEndGrace:
			continue
		}
		n.held[op.Session] = h
	}
}

// renew does what a node does at a third of its lease.
func (x *machine) renew(t *rapid.T, n *machineNode, complete bool) {
	sum := store.Summary{Sessions: len(n.held), Complete: complete, Ack: n.ack}
	for id := range n.held {
		sum.Digest ^= store.Digest(id)
	}
	o, err := x.s.Renew(ctx, n.lease, sum)
	// Whether the digest agrees decides about the hold, and only the store
	// knows which orders are on their way.
	agrees := true
	for id := range n.held {
		s := x.m.sessions[id]
		agrees = agrees && s != nil && s.lease == n.lease.Token
	}
	ok := x.m.contact(n.lease.Token)
	if ok && complete && !agrees {
		l := x.m.leases[n.lease.Token]
		was := l.asserted
		l.end, l.grace = x.m.now+lease, x.m.now+l.leaveGrace
		l.asserted = was
	} else if ok {
		x.m.renew(n.lease.Token, complete)
	}
	if !ok {
		require.ErrorIs(t, err, store.ErrLeaseLost)
		x.register(t, n)
		return
	}
	require.NoError(t, err)
	require.False(t, o.Reassert, "nothing was lost, and a Reassert came")
	require.Equal(t, x.m.hold > x.m.now, o.Hold > 0, "hold")
	var kicked []store.Op
	for _, order := range o.Mail {
		require.Greater(t, order.Number, n.ack)
		n.ack = order.Number
		switch order.Kind {
		case store.Replaced:
			delete(n.held, order.Session)
		case store.Kick:
			if _, ok := n.held[order.Session]; ok {
				kicked = append(kicked, store.Op{Kind: store.OpRemove, User: order.User, Session: order.Session, Cause: store.CauseKicked})
			}
		}
	}
	if len(kicked) > 0 {
		x.commit(t, n, kicked...)
	}
}

func (x *machine) sweep(t *rapid.T, n *machineNode) {
	for {
		r, err := x.s.Sweep(ctx, n.lease, 1000)
		if err != nil {
			require.ErrorIs(t, err, store.ErrLeaseLost)
			require.False(t, x.m.sweep(n.lease.Token))
			return
		}
		if !r.More {
			break
		}
	}
	require.True(t, x.m.sweep(n.lease.Token))
}

// advance lets time pass while the nodes that are not paused renew.
func (x *machine) advance(t *rapid.T, seconds int) {
	for i := range seconds {
		x.s.Advance(time.Second)
		x.m.now += time.Second
		if i%3 == 2 {
			for _, n := range x.nodes {
				if !n.paused {
					x.renew(t, n, true)
				}
			}
		}
	}
}

// read takes what a feed has and folds it.
func (x *machine) read(t *rapid.T, f *machineFeed) {
	b, err := f.feed.Poll(ctx)
	require.NoError(t, err)
	if b.Reset {
		require.Empty(t, b.Changes)
		require.True(t, f.slow, "a feed that keeps up was reset")
		f.resets++
		f.fold = nil
	}
	if f.fold == nil { // a snapshot is still to be taken
		p, err := x.s.Members(ctx, f.topic, "", 1000)
		if errors.Is(err, store.ErrUnknown) {
			return
		}
		require.NoError(t, err)
		f.fold = map[string]store.UserRecord{}
		for _, r := range p.Members {
			f.fold[r.User] = r
		}
		b.Changes = nil
	}
	for _, c := range b.Changes {
		u := c.Member.User
		_, was := f.fold[u]
		if f.resets == 0 {
			require.Equal(t, was, c.Kind != store.Joined, "topic %q: %s of %s", f.topic, c.Kind, u)
		}
		event := fmt.Sprintf("%s: %s %s", f.topic, c.Kind, u)
		if c.Kind == store.Left {
			delete(f.fold, u)
			event += " " + string(c.Cause)
		} else {
			f.fold[u] = c.Member
		}
		if c.Kind != store.Updated {
			f.events = append(f.events, event)
		}
	}
}

// op draws an operation for a node.
func (x *machine) op(t *rapid.T, n *machineNode) store.Op {
	op := store.Op{
		Kind:   store.OpKind(rapid.IntRange(1, 7).Draw(t, "kind")),
		User:   rapid.SampledFrom(users).Draw(t, "user"),
		Topics: rapid.SliceOfNDistinct(rapid.SampledFrom(topics), 0, 2, rapid.ID[string]).Draw(t, "topics"),
		Away:   rapid.Bool().Draw(t, "away"),
		Grace:  rapid.SampledFrom([]time.Duration{0, 3*time.Second + half, 20*time.Second + half}).Draw(t, "grace"),
		Cause:  rapid.SampledFrom([]store.Cause{store.CauseLost, store.CauseSilent, store.CauseKicked}).Draw(t, "cause"),
	}
	if m := rapid.IntRange(0, 2).Draw(t, "meta"); m > 0 {
		op.Meta = []byte(strconv.Itoa(m))
	}
	known := slices.Sorted(maps.Keys(x.m.sessions)) // of any node
	if op.Kind == store.OpAdd && (len(known) == 0 || rapid.IntRange(0, 3).Draw(t, "new") > 0) {
		x.ids++
		op.Session = fmt.Sprintf("s%03d", x.ids)
		op.Limit = rapid.IntRange(0, 3).Draw(t, "limit")
		op.WhenFull = store.UserLimit(rapid.IntRange(0, 1).Draw(t, "full"))
		return op
	}
	if len(n.held) > 0 && rapid.IntRange(0, 9).Draw(t, "other") > 0 {
		known = slices.Sorted(maps.Keys(n.held))
	}
	if len(known) == 0 {
		op.Session = "none"
		return op
	}
	op.Session = rapid.SampledFrom(known).Draw(t, "session")
	if s := x.m.sessions[op.Session]; s != nil {
		op.User = s.user
		if op.Kind == store.OpAdd && x.m.leases[s.lease].node != n.id {
			op.Kind = store.OpRemove // ids are random: nobody adds another node's
		}
	} else {
		// Replaced, and the order is still on its way.
		op.Session = "none"
		if op.Kind == store.OpAdd {
			op.Kind = store.OpRemove
		}
	}
	return op
}

// Run runs random operations of three nodes that crash, freeze, come back and
// shut down, and compares every answer of the store with the model. open makes
// an empty store, out of any hold; Run closes it.
func Run(t *testing.T, open func(Options) Store) {
	rapid.Check(t, func(t *rapid.T) {
		s := open(Options{Lease: lease, Log: 40})
		defer s.Close()
		x := newMachine(t, s)
		node := func(t *rapid.T) *machineNode { return x.nodes[rapid.IntRange(0, 2).Draw(t, "node")] }
		commit := func(t *rapid.T) {
			n := node(t)
			var ops []store.Op
			for range rapid.IntRange(1, 3).Draw(t, "batch") {
				op := x.op(t, n)
				ops = append(ops, op)
				if op.Kind == store.OpAdd && op.Limit > 0 && op.WhenFull == store.ReplaceOldest {
					// What it replaces, nobody adds again: a node removes it
					// when the order comes.
					break
				}
			}
			x.commit(t, n, ops...)
			if rapid.IntRange(0, 9).Draw(t, "again") == 0 && len(ops) == 1 && ops[0].Limit == 0 {
				x.commit(t, n, ops...)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"":        x.check,
			"commit":  commit,
			"commit2": commit,
			"commit3": commit,
			"advance": func(t *rapid.T) { x.advance(t, rapid.IntRange(1, 15).Draw(t, "seconds")) },
			"silence": func(t *rapid.T) {
				d := time.Duration(rapid.IntRange(1, 25).Draw(t, "seconds")) * time.Second
				x.s.Advance(d)
				x.m.now += d
			},
			"sweep":  func(t *rapid.T) { x.sweep(t, node(t)) },
			"renew":  func(t *rapid.T) { x.renew(t, node(t), rapid.IntRange(0, 4).Draw(t, "complete") > 0) },
			"pause":  func(t *rapid.T) { node(t).paused = true },
			"resume": func(t *rapid.T) { node(t).paused = false },
			"crash": func(t *rapid.T) {
				// The lease runs out by itself; a new process takes the place.
				n := node(t)
				*n = machineNode{id: fmt.Sprintf("%s.%d", n.id, x.m.started%2), held: map[string]store.Op{}}
				x.register(t, n)
			},
			"incarnation": func(t *rapid.T) { x.register(t, node(t)) },
			"shutdown": func(t *rapid.T) {
				n := node(t)
				grace := rapid.SampledFrom([]time.Duration{0, 15*time.Second + half}).Draw(t, "grace")
				require.NoError(t, x.s.End(ctx, n.lease, grace, store.CauseShutdown))
				x.m.end(n.lease.Token, grace, store.CauseShutdown)
				*n = machineNode{id: n.id, held: map[string]store.Op{}}
				x.register(t, n)
			},
			"disconnect": func(t *rapid.T) {
				u := rapid.SampledFrom(users).Draw(t, "user")
				told, err := x.s.Disconnect(ctx, u, "", 4403, "")
				live := len(x.m.of(u, x.m.live))
				require.Equal(t, live, told)
				require.Equal(t, live == 0 && x.m.inHold(), errors.Is(err, store.ErrUnknown))
				x.m.endGraces(u)
			},
			"slow": func(t *rapid.T) {
				for _, f := range x.feeds {
					if f.slow {
						x.read(t, f)
					}
				}
			},
		})
		// Let everything come to rest: nobody is paused, all is swept.
		for _, n := range x.nodes {
			n.paused = false
			x.renew(t, n, true)
		}
		x.advance(t, 30)
		x.sweep(t, x.nodes[0])
		x.check(t)
		for _, f := range x.feeds {
			x.read(t, f)
			x.checkFold(t, f)
			if f.resets == 0 {
				x.checkEvents(t, f)
			}
		}
	})
}
