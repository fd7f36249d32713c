package memstore

import (
	"context"
	"slices"
	"sync"

	"github.com/a4cafe1a/presence/store"
)

// topicLog keeps the changes of a watched topic that a feed has not read.
// Writers hold Store.mu; readers share Store.mu, and take mu.
type topicLog struct {
	mu       sync.Mutex
	changes  []store.Change
	sessions int    // in changes
	usual    int    // how many were read at once lately, where that was many
	base     uint64 // number of the first of them
	feeds    []*feed
	behind   bool // every feed has lost some: nobody will read what is added
}

// feed implements store.Feed.
type feed struct {
	s      *Store
	t      *topic
	wake   chan struct{}
	done   chan struct{}
	at     uint64 // number of the next change to read; under topicLog.mu
	last   store.Version
	closed bool // under Store.mu
}

// log writes one change of a member.
func (s *Store) log(v *view, c *touch) {
	s.sequence++
	t := c.member.topic
	if t.log == nil || t.log.behind {
		return
	}
	ch := store.Change{Kind: c.kind, Version: s.version(), At: wallTime(v.wall), Cause: c.cause}
	if c.kind == store.Left {
		u := c.member.user
		ch.Member = store.UserRecord{User: u.name, State: store.Offline, AsOf: ch.At}
		if !u.anonymous {
			ch.Member.LastSeen = wallTime(u.seen)
		}
	} else {
		v.record(&ch.Member, c.member, nil)
	}
	t.log.append(ch, s.maxLog)
}

func (g *topicLog) append(c store.Change, limit int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.changes) >= limit || g.sessions > 16*limit {
		// Half at once, so that moving the rest costs little per change.
		// Whoever has not read that half gets a Reset. When that is
		// everybody, nothing needs to be kept until somebody reads.
		g.drop((len(g.changes) + 1) / 2)
		g.behind = true
		for _, f := range g.feeds {
			g.behind = g.behind && f.at < g.base
		}
		if g.behind {
			g.drop(len(g.changes))
			return
		}
	}
	if n := len(g.changes); n == cap(g.changes) {
		// A few changes, or as many as lately: growing in steps would be half
		// of the garbage of a storm.
		more := min(16, max(1, g.usual))
		if n > 0 {
			more = max(n, g.usual-n)
		}
		g.changes = slices.Grow(g.changes, more)
	}
	g.changes = append(g.changes, c)
	g.sessions += len(c.Member.Sessions)
	for _, f := range g.feeds {
		select {
		case f.wake <- struct{}{}:
		default: // awake already
		}
	}
}

// drop forgets the first n changes.
func (g *topicLog) drop(n int) {
	for i := range g.changes[:n] {
		g.sessions -= len(g.changes[i].Member.Sessions)
	}
	left := copy(g.changes, g.changes[n:])
	clear(g.changes[left:])
	g.changes = g.changes[:left]
	if left == 0 && cap(g.changes) > 256 {
		g.changes = nil
	}
	g.base += uint64(n)
}

// read returns what a feed has not read.
func (g *topicLog) read(f *feed) (changes []store.Change, reset bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	end := g.base + uint64(len(g.changes))
	switch {
	case f.at < g.base:
		reset = true
	case f.at < end && len(g.feeds) == 1:
		// Nobody else reads: hand them over.
		changes = g.changes[f.at-g.base:]
		g.changes, g.sessions, g.base = nil, 0, end
	case f.at < end:
		changes = append(changes, g.changes[f.at-g.base:]...)
	}
	g.usual = max(len(changes), g.usual-(g.usual+3)/4)
	f.at, g.behind = end, false
	slowest := end
	for _, other := range g.feeds {
		slowest = min(slowest, max(other.at, g.base))
	}
	g.drop(int(slowest - g.base))
	return changes, reset
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, name string) (store.Feed, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.topic(name)
	if t.log == nil {
		t.log = &topicLog{}
	}
	f := &feed{
		s:    s,
		t:    t,
		wake: make(chan struct{}, 1),
		done: make(chan struct{}),
		at:   t.log.base + uint64(len(t.log.changes)),
		last: s.version(),
	}
	t.log.feeds = append(t.log.feeds, f)
	t.log.behind = false // this one is not
	return f, nil
}

// Poll implements store.Feed.
func (f *feed) Poll(ctx context.Context) (store.Batch, error) {
	if err := f.s.ready(ctx); err != nil {
		return store.Batch{}, err
	}
	f.s.mu.RLock()
	defer f.s.mu.RUnlock()
	if f.closed {
		return store.Batch{}, store.ErrClosed
	}
	var b store.Batch
	b.Changes, b.Reset = f.t.log.read(f)
	to := f.s.version()
	b.Spans = []store.Span{{From: f.last, To: to}}
	f.last = to
	return b, nil
}

// Next implements store.Feed.
func (f *feed) Next(ctx context.Context) (store.Batch, error) {
	for {
		b, err := f.Poll(ctx)
		if err != nil || b.Reset || len(b.Changes) > 0 {
			return b, err
		}
		// What the empty Poll covered is part of the next batch.
		f.last = b.Spans[0].From
		select {
		case <-f.wake:
		case <-f.done:
			return store.Batch{}, store.ErrClosed
		case <-f.s.done:
			return store.Batch{}, store.ErrClosed
		case <-ctx.Done():
			return store.Batch{}, ctx.Err()
		}
	}
}

// Close implements store.Feed.
func (f *feed) Close() error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	close(f.done)
	g := f.t.log
	for i, other := range g.feeds {
		if other == f {
			g.feeds = append(g.feeds[:i], g.feeds[i+1:]...)
			break
		}
	}
	if len(g.feeds) == 0 {
		f.t.log = nil
		f.s.release(f.t)
	}
	return nil
}
