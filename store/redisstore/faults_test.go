package redisstore_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis/go-redis/v9"

	"github.com/a4cafe1a/presence/internal/mirror"
	"github.com/a4cafe1a/presence/internal/node"
	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/redisstore"
)

// process is what one process has: a store, a node and a registry.
type process struct {
	t    testing.TB
	s    *redisstore.Store
	n    *node.Node
	hub  *mirror.Hub
	mu   sync.Mutex
	held map[string]store.Op
}

func newProcess(t testing.TB, client redis.UniversalClient, id string, o redisstore.Options) *process {
	s, err := redisstore.New(client, o)
	require.NoError(t, err)
	p := &process{t: t, s: s, held: map[string]store.Op{}, hub: mirror.New(s, mirror.Limits{}, nil)}
	p.n = node.Start(node.Config{
		Store: s, Node: store.Node{ID: id, Name: id, LeaveGrace: time.Second}, Logger: slog.New(slog.DiscardHandler),
		Held: func(shard int) (ops []store.Op) {
			p.mu.Lock()
			defer p.mu.Unlock()
			for _, op := range p.held {
				if s.ShardOf(op.User) == shard {
					ops = append(ops, op)
				}
			}
			return ops
		},
		Added: p.added,
	})
	t.Cleanup(p.stop)
	return p
}

func (p *process) stop() {
	p.hub.Close()
	within, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_ = p.n.Close(within, 0)
	_ = p.s.Close()
}

func (p *process) added(session string, r store.Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if op, ok := p.held[session]; ok && (r.Status == store.Done || r.Status == store.TooLarge) {
		op.Since = r.Since
		p.held[session] = op
	}
}

// join begins a session and returns when the store has it, or does not answer.
func (p *process) join(user, session string, topics ...string) {
	op := add(user, session, topics...)
	p.mu.Lock()
	p.held[session] = op
	p.mu.Unlock()
	within, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if r, err := p.n.Await(within, op); err == nil {
		p.added(session, r)
	}
}

func (p *process) leave(user, session string, grace time.Duration) {
	p.mu.Lock()
	delete(p.held, session)
	p.mu.Unlock()
	p.n.Do(store.Op{Kind: store.OpRemove, User: user, Session: session, Grace: grace, Cause: store.CauseClientClosed}, nil)
}

// folded follows a topic and keeps its members.
type folded struct {
	mu      sync.Mutex
	members map[string]bool
	left    []string
	broken  []string
}

func (p *process) follow(topic string) *folded {
	f := &folded{}
	sub, err := p.hub.Subscribe(ctx, topic)
	require.NoError(p.t, err)
	go func() {
		for {
			e, err := sub.Next(ctx)
			if err != nil {
				return
			}
			f.mu.Lock()
			switch u := e.Member.User; e.Kind {
			case mirror.Snapshot:
				f.members = map[string]bool{}
				for _, m := range e.Members {
					f.members[m.User] = true
				}
			case mirror.Join:
				if f.members[u] {
					f.broken = append(f.broken, u+" joined twice")
				}
				f.members[u] = true
			case mirror.Leave:
				if !f.members[u] {
					f.broken = append(f.broken, u+" left twice")
				}
				f.left = append(f.left, u)
				delete(f.members, u)
			}
			f.mu.Unlock()
		}
	}()
	return f
}

// TestFaults lets users move and reload all the time while Redis fails in one
// way after the other. No reader may say that one of them is offline, no
// subscriber may see one leave, and afterwards everything is right.
func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for real leases")
	}
	t.Parallel()
	const lease = 900 * time.Millisecond
	server := newServer(t)
	admin := server.client(t)
	var ps []*process
	for i := range 3 {
		ps = append(ps, newProcess(t, server.client(t), fmt.Sprint("n", i), redisstore.Options{Lease: lease}))
	}
	var users []string
	var churn sync.WaitGroup
	stop, pause := make(chan struct{}), &sync.RWMutex{}
	for i := range 60 {
		u := fmt.Sprintf("u%02d", i)
		users = append(users, u)
		ps[i%3].join(u, u+"-0", "room")
		if i < 20 {
			continue // stays where it is
		}
		churn.Go(func() {
			for at, k := i%3, 0; ; k++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(50+i) * time.Millisecond):
				}
				pause.RLock()
				old, next := fmt.Sprint(u, "-", k), fmt.Sprint(u, "-", k+1)
				if i%2 == 0 { // moves to another node
					to := (at + 1) % 3
					ps[to].join(u, next, "room")
					ps[at].leave(u, old, 5*time.Second)
					at = to
				} else { // reloads
					ps[at].leave(u, old, 5*time.Second)
					ps[at].join(u, next, "room")
				}
				pause.RUnlock()
			}
		})
	}
	right := func() bool {
		for _, p := range ps {
			rs, err := p.s.Lookup(ctx, nil, users)
			if err != nil || slices.ContainsFunc(rs, func(r store.UserRecord) bool { return r.State < store.Grace }) {
				return false
			}
			if c, err := p.s.Count(ctx, "room"); err != nil || c.Users != len(users) || c.MaybeGone != 0 {
				return false
			}
		}
		return true
	}
	eventually(t, 10*time.Second, "the first hold does not end", right)
	var follow []*folded
	for _, p := range ps {
		follow = append(follow, p.follow("room"))
	}

	var looks, unknown, failed atomic.Int64
	var wrong sync.Map
	var sampling sync.WaitGroup
	for _, p := range ps {
		sampling.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(15 * time.Millisecond):
				}
				rs, err := p.s.Lookup(ctx, nil, users)
				if err != nil {
					failed.Add(1)
					continue
				}
				for _, r := range rs {
					looks.Add(1)
					switch r.State {
					case store.Offline:
						wrong.Store(r.User, r)
					case store.Unknown:
						unknown.Add(1)
					}
				}
			}
		})
	}

	for _, fault := range []struct {
		name string
		do   func()
	}{
		{"killed connections", func() {
			for range 5 {
				_ = admin.Do(ctx, "client", "kill", "type", "normal").Err()
				_ = admin.Do(ctx, "client", "kill", "type", "pubsub").Err()
				time.Sleep(50 * time.Millisecond)
			}
		}},
		{"forgotten scripts", func() { _ = admin.ScriptFlush(ctx).Err() }},
		{"wiped", func() { _ = admin.FlushAll(ctx).Err() }},
		{"paused for half a lease", func() { server.pause(t); time.Sleep(lease * 6 / 10); server.resume(t) }},
		{"paused for two leases", func() { server.pause(t); time.Sleep(2 * lease); server.resume(t) }},
		{"restarted empty", func() { server.kill(); time.Sleep(lease / 2); server.start(t) }},
	} {
		fault.do()
		begun := time.Now()
		eventually(t, lease+4*time.Second, "after being "+fault.name+" it is not right", right)
		t.Logf("%s: right after %v", fault.name, time.Since(begun).Round(time.Millisecond))
		time.Sleep(lease / 2)
	}
	close(stop)
	churn.Wait()
	sampling.Wait()
	t.Logf("%d looks, %d of them unknown; %d calls failed", looks.Load(), unknown.Load(), failed.Load())
	wrong.Range(func(u, r any) bool {
		t.Errorf("%s was said to be offline: %+v", u, r)
		return true
	})
	eventually(t, 5*time.Second, "it does not come to rest", right)
	for i, f := range follow {
		eventually(t, 5*time.Second, "the events do not lead to the membership", func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return len(f.members) == len(users)
		})
		f.mu.Lock()
		require.Empty(t, f.left, "subscriber %d saw users leave", i)
		require.Empty(t, f.broken)
		f.mu.Unlock()
	}
	// Nothing is left behind.
	for i, u := range users {
		for _, p := range ps {
			p.mu.Lock()
			ids := []string{}
			for id, op := range p.held {
				if op.User == u {
					ids = append(ids, id)
				}
			}
			p.mu.Unlock()
			for _, id := range ids {
				p.leave(u, id, time.Duration(i%3)*100*time.Millisecond)
			}
		}
	}
	// The graces of moves still end by their own time, but the last counts.
	eventually(t, 10*time.Second, "somebody is left", func() bool {
		c, err := ps[0].s.Count(ctx, "")
		return err == nil && c == store.Counts{}
	})
	for _, f := range follow {
		eventually(t, 5*time.Second, "the events leave somebody", func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return len(f.members) == 0
		})
		require.Len(t, f.left, len(users))
	}
}
