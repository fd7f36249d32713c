// Package memstore is the default store of package presence: memory, for one
// process. Several Presence values may share one Store and are nodes of one
// cluster then.
//
// It has one shard, starts no goroutine and keeps no timer, so it runs inside
// testing/synctest bubbles. Nothing was there before it, so it begins without
// a hold; one follows only when no node was heard for half a lease, say
// because the process was stopped.
//
// Memory is about 270 bytes for a user with one session and no topic of its
// own, and about 160 more for a topic, 230 in rooms of two. A topic keeps a
// log only while somebody watches it.
package memstore

import (
	"context"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/a4cafe1a/presence/internal/hashset"
	"github.com/a4cafe1a/presence/store"
)

// Options says how long a lease and a log are. Zero means the default.
type Options struct {
	Lease time.Duration // how long a lease is good after a renewal; 10 s

	// Log is how many changes of one watched topic are kept for the slowest
	// of its feeds; 4096. One that falls behind further gets a Reset. The
	// sessions named in these changes are bounded too, by 16 times as many.
	Log int
}

// Store is a store.Store in memory. Make one with New. It is safe for
// concurrent use.
//
// Writers hold mu, and the stripe of the user they change. Readers of many
// users share mu. Looking up one user takes its stripe only, so it never
// waits for a batch of others.
type Store struct {
	ttl        time.Duration
	maxLog     int
	maxSeen    int
	generation string
	seed       maphash.Seed

	base   time.Time
	offset atomic.Int64 // what Advance added
	still  bool         // only Advance moves the clock: for tests

	// What a reader of one user must know of the cluster, without mu. A
	// writer stores leases first, then hold, then heard; a reader loads in
	// the other order, so that it may see a hold too many but never one too
	// few.
	heard   atomic.Int64 // when a node was last heard
	hold    atomic.Int64 // when the hold ends
	running atomic.Int64 // when the last of the leases ends

	closed atomic.Bool
	done   chan struct{}

	mu       sync.RWMutex
	leases   []*lease // oldest first
	number   uint64   // of the newest lease
	topics   map[string]*topic
	all      *topic // topic "", kept for ever
	sequence uint64 // of the log
	graces   graceHeap
	seen     seenList
	replaced map[string]int64 // user -> when its oldest session was replaced
	op       operation        // the one under way

	stripes [256]stripe
}

// stripe holds some of the users.
type stripe struct {
	mu    sync.RWMutex
	users hashset.Set[user]
	seen  map[string]*seen
	_     [24]byte // its own cache line
}

// New makes an empty store.
func New(o Options) *Store {
	if o.Lease <= 0 {
		o.Lease = 10 * time.Second
	}
	if o.Log <= 0 {
		o.Log = 4096
	}
	s := &Store{
		ttl:        o.Lease,
		maxLog:     o.Log,
		maxSeen:    store.MaxLastSeen,
		generation: fmt.Sprintf("%012x", rand.Uint64()>>16),
		seed:       maphash.MakeSeed(),
		base:       time.Now(),
		done:       make(chan struct{}),
		topics:     map[string]*topic{},
		replaced:   map[string]int64{},
	}
	s.all = &topic{}
	s.topics[""] = s.all
	for i := range s.stripes {
		s.stripes[i].seen = map[string]*seen{}
	}
	return s
}

// Advance moves the store's clock forward. It is for tests.
func (s *Store) Advance(d time.Duration) { s.offset.Add(int64(d)) }

// Shards returns 1.
func (s *Store) Shards() int { return 1 }

// ShardOf returns 0.
func (s *Store) ShardOf(string) int { return 0 }

// Close implements store.Store.
func (s *Store) Close() error {
	if s.closed.CompareAndSwap(false, true) {
		close(s.done)
	}
	return nil
}

// ready says whether a call may begin.
func (s *Store) ready(ctx context.Context) error {
	if s.closed.Load() {
		return store.ErrClosed
	}
	return ctx.Err()
}

func (s *Store) hash(user string) uint64 { return maphash.String(s.seed, user) }

func (s *Store) hashOf(u *user) uint64 { return s.hash(u.name) }

func (s *Store) stripe(user string) *stripe { return s.stripeAt(s.hash(user)) }

func (s *Store) stripeAt(hash uint64) *stripe { return &s.stripes[hash%uint64(len(s.stripes))] }

// user returns who has the name, which has the hash, or nil.
func (st *stripe) user(hash uint64, name string) *user {
	return st.users.Get(hash, func(u *user) bool { return u.name == name })
}

// clock reads the time twice: a steady one for what is due, which no one can
// set back, and the one on the wall for people. Both are nanoseconds.
func (s *Store) clock() (now, wall int64) {
	t, o := time.Now(), s.offset.Load()
	if s.still {
		t = s.base
	}
	return int64(t.Sub(s.base)) + o, t.UnixNano() + o
}

// view is the cluster as one call sees it.
type view struct {
	now, wall int64
	cut       int64 // leases that end after it are alive
	hold      int64 // when the hold ends; 0: there is none
}

// look returns the view of a reader.
func (s *Store) look() view {
	var v view
	v.now, v.wall = s.clock()
	v.cut = v.now
	heard, hold := s.heard.Load(), s.hold.Load()
	if s.unheard(v.now, heard) {
		// A contact now would begin a hold and save the leases that ran
		// then. The answer before it must be the same.
		v.cut, v.hold = heard, v.now+int64(s.ttl)
	} else if hold > v.now {
		v.hold = hold
	}
	return v
}

// unheard says whether the store may have been out of reach. Silence after
// the last lease ended means nothing.
func (s *Store) unheard(now, heard int64) bool {
	return now-heard > int64(s.ttl/2) && s.running.Load() > heard
}

func (v *view) alive(l *lease) bool { return l.end.Load() > v.cut }

func (v *view) holdError() error {
	return &store.HoldError{For: time.Duration(v.hold - v.now)}
}

func wallTime(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}
