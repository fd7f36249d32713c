package presence

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// countEvery is how often a topic that is too large for names is counted.
	countEvery  = time.Second
	followRetry = time.Second
	// selfWait is how long a snapshot may wait for news of the follower itself,
	// which the store has taken.
	selfWait = time.Second
)

// follows are the topics that clients of presence.v1 on this node follow. Each
// is read once, and what its followers are sent is made once for all of them.
type follows struct {
	p      *Presence
	ctx    context.Context
	cancel context.CancelFunc
	active sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	watched bool // watch runs
	topics  map[string]*followed
}

func newFollows(p *Presence) *follows {
	f := &follows{p: p, topics: map[string]*followed{}}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f
}

// close ends all of it, at Shutdown.
func (h *follows) close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.cancel()
	h.active.Wait()
}

// follow sends a client who is in the topic, now and from now on. One that
// follows it already gets a new snapshot.
func (h *follows) follow(w *wire, topic string) {
	for !h.get(topic).add(w) {
		if h.ctx.Err() != nil {
			return
		}
	}
	if w.s.ended.Load() != nil {
		h.unfollow(w, topic) // forget may have come before
	}
}

// get returns the topic, and begins to read it.
func (h *follows) get(topic string) *followed {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.topics[topic]
	if f == nil {
		f = &followed{hub: h, topic: topic, followers: map[*wire]follower{}, members: map[string]shown{}, touched: map[string]touch{}}
		f.ctx, f.cancel = context.WithCancel(h.ctx)
		h.topics[topic] = f
		if h.closed {
			f.cancel()
		} else {
			if !h.watched {
				h.watched = true
				h.active.Go(h.watch)
			}
			h.active.Go(f.run)
		}
	}
	return f
}

// unfollow says whether w was a follower.
func (h *follows) unfollow(w *wire, topic string) bool {
	h.mu.Lock()
	f := h.topics[topic]
	h.mu.Unlock()
	return f != nil && f.drop(w)
}

// forget takes a client out of everything.
func (h *follows) forget(w *wire) {
	h.each(func(f *followed) { f.drop(w) })
}

func (h *follows) each(do func(*followed)) {
	h.mu.Lock()
	all := slices.Collect(maps.Values(h.topics))
	h.mu.Unlock()
	for _, f := range all {
		do(f)
	}
}

// add makes w a follower, unless the topic is over.
func (f *followed) add(w *wire) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.followers == nil {
		return false
	}
	var as follower
	if f.topic == "" || w.s.in(f.topic) {
		as.patience = time.Now().Add(selfWait)
	}
	f.followers[w] = as
	f.soon()
	return true
}

// drop ends the topic with its last follower. It says whether w was one.
func (f *followed) drop(w *wire) bool {
	f.mu.Lock()
	_, was := f.followers[w]
	delete(f.followers, w)
	last := was && len(f.followers) == 0
	f.mu.Unlock()
	if last {
		f.end()
	}
	return was
}

// end ends the topic, unless somebody has come meanwhile.
func (f *followed) end() {
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.followers) > 0 && f.ctx.Err() == nil {
		return
	}
	if f.hub.topics[f.topic] == f {
		delete(f.hub.topics, f.topic)
	}
	f.followers = nil
	if f.timer != nil {
		f.timer.Stop()
	}
	f.cancel()
}

// follower is what a client has of a topic.
type follower struct {
	current  bool      // all that was sent; else it wants a snapshot
	patience time.Time // until when that waits for news of the client's own user
}

// shown is a member as clients see it.
type shown struct {
	text   []byte // JSON
	online bool   // not in its grace
}

// touch is what a member was when its first change since the last delta came.
type touch struct {
	was   bool // a member
	cause Cause
}

// followed is one topic.
type followed struct {
	hub    *follows
	topic  string
	ctx    context.Context
	cancel context.CancelFunc

	mu        sync.Mutex
	followers map[*wire]follower
	known     bool // members or counts are
	counting  bool // only counts are
	doubted   bool // the store is away: what is known may be out of date
	members   map[string]shown
	counts    Counts
	version   uint64
	touched   map[string]touch // since the last delta
	snapshot  [][]byte         // as of version; nil: not made
	sentAt    time.Time
	timer     *time.Timer
}

// run reads the topic until nobody follows it.
func (f *followed) run() {
	defer f.end()
	defer f.cancel() // also where the store was closed
	for f.ctx.Err() == nil {
		counts, err := f.hub.p.Count(f.ctx, f.topic)
		switch {
		case err == nil && counts.Users > f.limit():
			f.count(counts)
			f.sleep(countEvery)
			continue
		case err == nil && f.isCounting() && counts.Users > f.limit()*3/4:
			f.count(counts) // not back and forth
			f.sleep(countEvery)
			continue
		case err == nil:
			err = f.read()
		}
		switch {
		case errors.Is(err, ErrClosed):
			return
		case errors.Is(err, ErrTooLarge):
			f.sleep(coalesce) // the counts may lag behind
		default:
			f.sleep(followRetry)
		}
	}
}

func (f *followed) limit() int { return f.hub.p.opts.Limits.FollowMembers }

func (f *followed) isCounting() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counting
}

func (f *followed) sleep(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-f.ctx.Done():
	}
}

// count takes over how many there are.
func (f *followed) count(c Counts) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known && f.counting && f.counts == c {
		return
	}
	f.known, f.counting, f.counts = true, true, c
	clear(f.members)
	f.renew()
}

// renew: what was sent so far is of no use any more. f.mu is held.
func (f *followed) renew() {
	clear(f.touched)
	f.version++
	f.snapshot = nil
	for w, as := range f.followers {
		as.current = false
		f.followers[w] = as
	}
	f.soon()
}

// read follows the members until they are too many. nil: the topic is to be
// looked at anew.
func (f *followed) read() error {
	sub, err := f.hub.p.Subscribe(f.ctx, f.topic)
	if err != nil {
		return err
	}
	defer sub.Close()
	for {
		e, err := sub.Next(f.ctx)
		if err != nil {
			return err
		}
		if n := f.fold(&e); n > f.limit() {
			return ErrTooLarge
		}
	}
}

// fold takes an event over and says how many members there are.
func (f *followed) fold(e *Event) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e.Kind == Snapshot {
		f.known, f.counting = true, false
		clear(f.members)
		for i := range e.Members {
			f.show(&e.Members[i])
		}
		f.renew()
		return len(e.Members)
	}
	user := e.Member.User
	_, was := f.members[user]
	t, before := f.touched[user]
	if !before {
		t.was = was
	}
	if e.Kind == Leave {
		t.cause = e.Cause
		delete(f.members, user)
	} else {
		f.show(&e.Member)
	}
	f.touched[user] = t
	f.soon()
	return len(f.members)
}

// show takes a member over as it is now, unless its name alone is too long for
// a message. f.mu is held.
func (f *followed) show(m *Member) {
	if text := encodeMember(m); text != nil {
		f.members[m.User] = shown{text, m.State == Online}
	}
}
