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

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

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

// crowd is users who move and reload all the time, readers who ask for them,
// and subscribers who fold what they are told.
type crowd struct {
	t      testing.TB
	ps     []*process
	users  []string
	follow []*folded

	stop           chan struct{}
	churn, readers sync.WaitGroup

	looks, unknown, failed atomic.Int64
	wrong                  sync.Map
}

// newCrowd waits until the first hold is over. A third of the users stays where
// it is.
func newCrowd(t testing.TB, users int, ps ...*process) *crowd {
	c := &crowd{t: t, ps: ps, stop: make(chan struct{})}
	for i := range users {
		u := fmt.Sprintf("u%02d", i)
		c.users = append(c.users, u)
		ps[i%len(ps)].join(u, u+"-0", "room")
		if i >= users/3 {
			c.churn.Go(func() { c.wander(u, i) })
		}
	}
	eventually(t, 10*time.Second, "the first hold does not end", c.right)
	for _, p := range ps {
		c.follow = append(c.follow, p.follow("room"))
		c.readers.Go(func() { c.read(p) })
	}
	return c
}

func (c *crowd) wander(u string, i int) {
	for at, k := i%len(c.ps), 0; ; k++ {
		select {
		case <-c.stop:
			return
		case <-time.After(time.Duration(50+i) * time.Millisecond):
		}
		old, next := fmt.Sprint(u, "-", k), fmt.Sprint(u, "-", k+1)
		if i%2 == 0 { // moves to another node
			to := (at + 1) % len(c.ps)
			c.ps[to].join(u, next, "room")
			c.ps[at].leave(u, old, 5*time.Second)
			at = to
		} else { // reloads
			c.ps[at].leave(u, old, 5*time.Second)
			c.ps[at].join(u, next, "room")
		}
	}
}

// read asks for all users, over and over.
func (c *crowd) read(p *process) {
	for {
		select {
		case <-c.stop:
			return
		case <-time.After(50 * time.Millisecond): // others wait for real leases meanwhile
		}
		rs, err := p.s.Lookup(ctx, nil, c.users)
		if err != nil {
			c.failed.Add(1)
			continue
		}
		for _, r := range rs {
			c.looks.Add(1)
			switch r.State {
			case store.Offline:
				c.wrong.Store(r.User, r)
			case store.Unknown:
				c.unknown.Add(1)
			}
		}
	}
}

// right says whether every process finds everybody.
func (c *crowd) right() bool {
	for _, p := range c.ps {
		rs, err := p.s.Lookup(ctx, nil, c.users)
		if err != nil || slices.ContainsFunc(rs, func(r store.UserRecord) bool { return r.State < store.Grace }) {
			return false
		}
		if n, err := p.s.Count(ctx, "room"); err != nil || n.Users != len(c.users) || n.MaybeGone != 0 {
			return false
		}
	}
	return true
}

// end lets everybody go and checks what was seen all the while.
func (c *crowd) end() {
	t := c.t
	close(c.stop)
	c.churn.Wait()
	c.readers.Wait()
	t.Logf("%d looks, %d of them unknown; %d calls failed", c.looks.Load(), c.unknown.Load(), c.failed.Load())
	c.wrong.Range(func(u, r any) bool {
		t.Errorf("%s was said to be offline: %+v", u, r)
		return true
	})
	eventually(t, 5*time.Second, "it does not come to rest", c.right)
	for i, f := range c.follow {
		eventually(t, 5*time.Second, "the events do not lead to the membership", func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return len(f.members) == len(c.users)
		})
		f.mu.Lock()
		require.Empty(t, f.left, "subscriber %d saw users leave", i)
		require.Empty(t, f.broken)
		f.mu.Unlock()
	}
	// Nothing is left behind.
	for i, u := range c.users {
		for _, p := range c.ps {
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
		n, err := c.ps[0].s.Count(ctx, "")
		return err == nil && n == store.Counts{}
	})
	for _, f := range c.follow {
		eventually(t, 5*time.Second, "the events leave somebody", func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return len(f.members) == 0
		})
		require.Len(t, f.left, len(c.users))
	}
}
