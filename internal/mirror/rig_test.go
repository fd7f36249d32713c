package mirror_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/mirror"
	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/memstore"
)

// tb is what both testing and rapid have.
type tb interface {
	require.TestingT
	Helper()
}

var bg = context.Background()

// rig is a store, a node that writes to it, and a hub.
type rig struct {
	t     tb
	at    *troubled
	lease store.Lease
	hub   *mirror.Hub
	next  int
}

func newRig(t tb, o memstore.Options, l mirror.Limits) *rig {
	if o.Lease == 0 {
		o.Lease = 1000 * time.Hour // nobody renews it
	}
	r := &rig{t: t, at: &troubled{Store: memstore.New(o)}}
	r.register()
	r.hub = mirror.New(r.at, l, nil)
	return r
}

func (r *rig) register() {
	lease, err := r.at.Register(bg, 0, store.Node{ID: "n"})
	require.NoError(r.t, err)
	r.lease = lease
}

func (r *rig) commit(ops ...store.Op) {
	r.t.Helper()
	_, err := r.at.Commit(bg, r.lease, ops)
	require.NoError(r.t, err)
}

// add opens a session of each user, called as the user is.
func (r *rig) add(topic string, users ...string) {
	r.t.Helper()
	r.commit(adding(topic, users...)...)
}

func adding(topic string, users ...string) (ops []store.Op) {
	for _, u := range users {
		ops = append(ops, store.Op{Kind: store.OpAdd, User: u, Session: u, Topics: []string{topic}})
	}
	return ops
}

func (r *rig) remove(cause store.Cause, users ...string) {
	r.t.Helper()
	r.commit(removing(cause, users...)...)
}

func removing(cause store.Cause, users ...string) (ops []store.Op) {
	for _, u := range users {
		ops = append(ops, store.Op{Kind: store.OpRemove, User: u, Session: u, Cause: cause})
	}
	return ops
}

func (r *rig) meta(user string) {
	r.t.Helper()
	r.next++
	r.commit(store.Op{Kind: store.OpMeta, User: user, Session: user, Meta: json.RawMessage(fmt.Sprint(r.next))})
}

func (r *rig) subscribe(topic string) *mirror.Subscription {
	r.t.Helper()
	s, err := r.hub.Subscribe(bg, topic)
	require.NoError(r.t, err)
	return s
}

// next returns an event as text.
func (r *rig) next1(s *mirror.Subscription) string {
	r.t.Helper()
	e, err := s.Next(bg)
	require.NoError(r.t, err)
	return say(e)
}

func say(e mirror.Event) string {
	if e.Kind == mirror.Snapshot {
		line := "snapshot"
		for _, m := range e.Members {
			line += " " + m.User
		}
		return line
	}
	line := e.Kind.String() + " " + e.Member.User
	if e.Cause != "" {
		line += " " + string(e.Cause)
	}
	return line
}

// rest returns the events there are without waiting for others.
func (r *rig) rest(s *mirror.Subscription) (lines []string) {
	r.t.Helper()
	for {
		ctx, cancel := context.WithTimeout(bg, time.Second)
		e, err := s.Next(ctx)
		cancel()
		if err != nil {
			require.ErrorIs(r.t, err, context.DeadlineExceeded)
			return lines
		}
		lines = append(lines, say(e))
	}
}

// folded is what a subscriber knows.
type folded struct {
	members map[string]store.UserRecord
	events  int
	snaps   int
	wrong   []string
}

// fold takes in an event, and notes when it contradicts what is known.
func (f *folded) fold(e mirror.Event) {
	f.events++
	_, known := f.members[e.Member.User]
	switch e.Kind {
	case mirror.Snapshot:
		f.snaps++
		f.members = map[string]store.UserRecord{}
		for i, m := range e.Members {
			if i > 0 && e.Members[i-1].User >= m.User {
				f.wrong = append(f.wrong, "order of a snapshot")
			}
			f.members[m.User] = m
		}
		return
	case mirror.Join:
		if known {
			f.wrong = append(f.wrong, "second "+say(e))
		}
	case mirror.Update, mirror.Leave:
		if !known {
			f.wrong = append(f.wrong, say(e)+", who is not there")
		}
	}
	if e.Kind == mirror.Leave {
		delete(f.members, e.Member.User)
	} else if f.members != nil {
		f.members[e.Member.User] = e.Member
	} else {
		f.wrong = append(f.wrong, say(e)+" before any snapshot")
	}
}

// text is the membership in a form to compare.
func text(members []store.UserRecord) (lines []string) {
	for _, m := range members {
		line := fmt.Sprint(m.User, " ", m.State, " ", m.Away, " ", m.Since.UnixNano())
		for _, s := range m.Sessions {
			line += fmt.Sprint(" ", s.ID, " ", string(s.Meta), " ", s.Topics, " ", s.Node)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return lines
}

func (f *folded) text() []string { return text(slices.Collect(maps.Values(f.members))) }

// members is the truth.
func (r *rig) members(topic string) (all []store.UserRecord) {
	r.t.Helper()
	for after, more := "", true; more; {
		p, err := r.at.Store.Members(bg, topic, after, 0)
		require.NoError(r.t, err)
		all = append(all, p.Members...)
		after, more = p.Next, p.More
	}
	return all
}

// troubled is a store whose reading can fail.
type troubled struct {
	store.Store
	mu      sync.Mutex
	err     error // of Watch and Members
	skip    bool  // the next batch is lost
	watches int
	closes  int
	between func() // after each page of Members
}

func (s *troubled) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *troubled) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *troubled) Watch(ctx context.Context, topic string) (store.Feed, error) {
	s.mu.Lock()
	s.watches++
	s.mu.Unlock()
	if err := s.failure(); err != nil {
		return nil, err
	}
	f, err := s.Store.Watch(ctx, topic)
	return &troubledFeed{f, s}, err
}

func (s *troubled) Members(ctx context.Context, topic, after string, max int) (store.Page, error) {
	if err := s.failure(); err != nil {
		return store.Page{}, err
	}
	p, err := s.Store.Members(ctx, topic, after, max)
	s.mu.Lock()
	between := s.between
	s.mu.Unlock()
	if between != nil {
		between()
	}
	return p, err
}

type troubledFeed struct {
	store.Feed
	s *troubled
}

func (f *troubledFeed) Close() error {
	f.s.mu.Lock()
	f.s.closes++
	f.s.mu.Unlock()
	return f.Feed.Close()
}

func (f *troubledFeed) Next(ctx context.Context) (store.Batch, error) {
	for {
		b, err := f.Feed.Next(ctx)
		f.s.mu.Lock()
		skip := f.s.skip
		f.s.skip = false
		f.s.mu.Unlock()
		if !skip {
			return b, err
		}
	}
}

func timeout(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(bg, d)
}
