package node_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/node"
	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/memstore"
)

// tb is what both testing and rapid have.
type tb interface {
	require.TestingT
	Helper()
}

// rig is a node with a registry of its own, as the root package has one.
type rig struct {
	t    tb
	name string
	at   *trouble
	n    *node.Node

	mu     sync.Mutex
	live   map[string]store.Op
	since  map[string]time.Time
	orders []store.Order
	added  []string
	asked  func() // when the node asks for all sessions
}

type setup struct {
	name  string
	limit int
	grace time.Duration
}

func start(t tb, at *trouble, o setup) *rig {
	r := &rig{t: t, name: o.name, at: at, live: map[string]store.Op{}, since: map[string]time.Time{}}
	r.n = node.Start(node.Config{
		Store:  at,
		Node:   store.Node{ID: "node-" + o.name, Name: o.name, LeaveGrace: o.grace},
		Logger: slog.New(slog.DiscardHandler),
		Held:   r.held,
		Order:  r.order,
		Added:  r.hear,
		Limit:  o.limit,
	})
	return r
}

func (r *rig) held(int) (ops []store.Op) {
	r.mu.Lock()
	asked := r.asked
	r.mu.Unlock()
	if asked != nil {
		asked()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, op := range r.live {
		op.Since = r.since[id]
		ops = append(ops, op)
	}
	return ops
}

func (r *rig) order(o store.Order) {
	r.mu.Lock()
	r.orders = append(r.orders, o)
	_, ok := r.live[o.Session]
	if o.Kind == store.Replaced {
		delete(r.live, o.Session)
	}
	r.mu.Unlock()
	if ok && o.Kind == store.Kick {
		r.remove(o.User, o.Session, 0, store.CauseKicked, nil)
	}
}

func (r *rig) hear(session string, res store.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.added = append(r.added, fmt.Sprint(session, " ", res.Status))
	r.decide(session, res)
}

func (r *rig) decide(session string, res store.Result) {
	switch res.Status {
	case store.Done, store.TooLarge:
		r.since[session] = res.Since
	case store.Full, store.Outdated, store.Stale:
		delete(r.live, session)
	}
}

// add opens a session.
func (r *rig) add(user, session string, topics ...string) {
	r.addOp(store.Op{Kind: store.OpAdd, User: user, Session: session, Topics: topics})
}

func (r *rig) addOp(op store.Op) {
	r.mu.Lock()
	r.live[op.Session] = op
	r.mu.Unlock()
	r.n.Do(op, func(res store.Result, err error) {
		if err != nil {
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.decide(op.Session, res)
	})
}

func (r *rig) remove(user, session string, grace time.Duration, cause store.Cause, done func(store.Result, error)) {
	r.mu.Lock()
	delete(r.live, session)
	r.mu.Unlock()
	r.n.Do(store.Op{Kind: store.OpRemove, User: user, Session: session, Grace: grace, Cause: cause}, done)
}

func (r *rig) meta(user, session, meta string) {
	r.change(store.Op{Kind: store.OpMeta, User: user, Session: session, Meta: json.RawMessage(meta)})
}

// change changes a session that is there.
func (r *rig) change(op store.Op) {
	r.mu.Lock()
	is, ok := r.live[op.Session]
	if !ok {
		r.mu.Unlock()
		return
	}
	switch op.Kind {
	case store.OpMeta:
		is.Meta = op.Meta
	case store.OpAway:
		is.Away = op.Away
	case store.OpJoin:
		for _, topic := range op.Topics {
			if !slices.Contains(is.Topics, topic) {
				is.Topics = append(slices.Clone(is.Topics), topic)
			}
		}
	case store.OpLeave:
		is.Topics = slices.DeleteFunc(slices.Clone(is.Topics), func(s string) bool { return slices.Contains(op.Topics, s) })
	}
	r.live[op.Session] = is
	r.mu.Unlock()
	r.n.Do(op, nil)
}

func (r *rig) flush() {
	r.t.Helper()
	require.NoError(r.t, r.n.Flush(context.Background()))
}

func (r *rig) close() {
	r.t.Helper()
	require.NoError(r.t, r.n.Close(context.Background(), 0))
}

func (r *rig) heard() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.added)
}

func (r *rig) ordered() []store.Order {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.orders)
}

// bubble runs a test in fake time. Every goroutine must have ended after it,
// and no two calls with one lease may have overlapped.
func bubble(t *testing.T, o memstore.Options, f func(t *testing.T, at *trouble)) {
	synctest.Test(t, func(t *testing.T) {
		at := newTrouble(o)
		f(t, at)
		require.Empty(t, at.overlap)
	})
}

func lookup(t tb, at *trouble, user string) store.UserRecord {
	t.Helper()
	rs, err := at.Lookup(context.Background(), nil, []string{user})
	require.NoError(t, err)
	return rs[0]
}

// online returns the ids of the user's sessions.
func online(t tb, at *trouble, user string) (ids []string) {
	t.Helper()
	for _, s := range lookup(t, at, user).Sessions {
		ids = append(ids, s.ID)
	}
	slices.Sort(ids)
	return ids
}

// say writes ops short: a for add, r for remove and so on.
func say(ops []store.Op) (s []string) {
	names := map[store.OpKind]string{
		store.OpAdd: "add", store.OpRemove: "remove", store.OpJoin: "join", store.OpLeave: "leave",
		store.OpMeta: "meta", store.OpAway: "away", store.OpEndGrace: "endgrace",
	}
	for _, op := range ops {
		line := names[op.Kind] + " " + op.User + "/" + op.Session
		for _, t := range op.Topics {
			line += " #" + t
		}
		if op.Meta != nil {
			line += " " + string(op.Meta)
		}
		if op.Kind == store.OpAway {
			line += fmt.Sprint(" ", op.Away)
		}
		s = append(s, line)
	}
	return s
}

// events follows a topic and returns its changes as text.
type events struct {
	t    tb
	feed store.Feed
}

func watch(t tb, at *trouble, topic string) *events {
	f, err := at.Watch(context.Background(), topic)
	require.NoError(t, err)
	return &events{t, f}
}

func (e *events) news() (lines []string) {
	b, err := e.feed.Poll(context.Background())
	require.NoError(e.t, err)
	require.False(e.t, b.Reset)
	for _, c := range b.Changes {
		lines = append(lines, fmt.Sprint(c.Kind, " ", c.Member.User, " ", c.Cause))
	}
	return lines
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// wrongShard refuses commits, as a store does that is asked for the wrong shard.
type wrongShard struct {
	*trouble
	wrong error
}

func (w *wrongShard) Commit(ctx context.Context, l store.Lease, ops []store.Op) ([]store.Result, error) {
	if w.wrong == nil {
		return nil, fmt.Errorf("commit: %w", store.ErrShard)
	}
	return w.trouble.Commit(ctx, l, ops)
}
