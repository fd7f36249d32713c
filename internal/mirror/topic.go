package mirror

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/a4cafe1a/presence/store"
)

const (
	// wakeEvery is how often subscribers are woken at most. The first change
	// after a pause goes at once.
	wakeEvery = 10 * time.Millisecond

	// chunkEvents bounds what is published at once.
	chunkEvents = 1024

	retryEvery = time.Second // while the store is away
)

// topic is the mirror of one topic. Its goroutine reads the feed; mu guards
// what subscribers look at.
type topic struct {
	hub         *Hub
	name        string
	ctx         context.Context
	cancel      context.CancelFunc
	subscribers int // under Hub.mu

	mu      sync.Mutex
	members members
	events  list
	version []store.Version // of members, by shard
	asOf    time.Time       // the newest store time seen
	cached  *Event          // a Snapshot as of cachedAt
	cacheAt *chunk
	ready   chan struct{} // closed while members is to be believed
	waiting error         // why it is not
	ended   bool
	err     error // why it ended

	// of the goroutine
	feed  store.Feed
	live  bool   // the members were read once
	text  []byte // the versions of the chunk that is being made
	timer *time.Timer
}

func newTopic(h *Hub, name string) *topic {
	t := &topic{hub: h, name: name, events: newList(h.limits.SubscriberEvents), ready: make(chan struct{})}
	t.members.store = h.store
	t.ctx, t.cancel = context.WithCancel(h.ctx)
	return t
}

// loaded returns a channel that is closed when a snapshot can be taken.
func (t *topic) loaded() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ready
}

// waited is the error of a subscriber that does not wait any longer.
func (t *topic) waited(err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiting == nil {
		return err
	}
	return fmt.Errorf("%w: %w", t.waiting, err)
}

// why is the error of a subscriber when there will be no next event.
func (t *topic) why() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// run is the topic's goroutine.
func (t *topic) run() {
	err := t.follow()
	if t.feed != nil {
		_ = t.feed.Close()
	}
	t.cancel()
	t.hub.mu.Lock()
	t.hub.forget(t)
	t.hub.mu.Unlock()

	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended, t.err = true, ErrClosed
	switch {
	case errors.Is(err, ErrTooLarge):
		t.err = err
	case errors.Is(err, store.ErrClosed):
		t.err = fmt.Errorf("%w: %w", ErrClosed, err)
	}
	t.open()
	close(t.events.tail.more)
}

// open lets subscribers in. mu is held.
func (t *topic) open() {
	select {
	case <-t.ready:
	default:
		close(t.ready)
	}
}

// follow reads the feed until the topic ends, and returns why it did.
func (t *topic) follow() error {
	t.timer = time.NewTimer(0)
	defer t.timer.Stop()
	if err := t.watch(); err != nil {
		return err
	}
	if err := t.load(); err != nil {
		return err
	}
	for {
		b, err := t.feed.Next(t.ctx)
		switch {
		case err == nil && (b.Reset || t.gap(b.Spans)):
			err = t.load()
		case err == nil:
			err = t.publish(b.Changes, "")
			t.note(b.Spans)
		case t.over(err):
		default:
			t.hub.log.Debug("presence: feed", "topic", t.name, "error", err)
			err = t.sleep(retryEvery)
		}
		if err != nil {
			return err
		}
	}
}

// over says whether nothing can come after this error.
func (t *topic) over(err error) bool {
	return t.ctx.Err() != nil || errors.Is(err, store.ErrClosed)
}

// watch opens the feed.
func (t *topic) watch() error {
	for {
		feed, err := t.hub.store.Watch(t.ctx, t.name)
		if err == nil {
			t.feed = feed
			return nil
		}
		if t.over(err) {
			return err
		}
		t.wait(err)
		if err := t.sleep(retryEvery); err != nil {
			return err
		}
	}
}

// wait notes why there is no snapshot yet.
func (t *topic) wait(err error) {
	t.mu.Lock()
	t.waiting = err
	t.mu.Unlock()
}

// gap says whether the feed skipped a part of the log.
func (t *topic) gap(spans []store.Span) bool {
	for i, s := range spans {
		if i < len(t.version) && s.From != t.version[i] {
			return true
		}
	}
	return false
}

// note moves on to where a batch ends.
func (t *topic) note(spans []store.Span) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, s := range spans {
		if i == len(t.version) {
			t.version = append(t.version, s.To)
		} else {
			t.version[i] = s.To
		}
	}
}

// publish folds changes over the members and tells subscribers, in chunks. It
// returns when it is time for the next. version is that of the events, or
// empty for the changes' own.
func (t *topic) publish(changes []store.Change, version string) error {
	changes = lastUpdates(changes)
	for len(changes) > 0 {
		n := min(len(changes), chunkEvents)
		begun := time.Now()
		t.fold(changes[:n], version)
		changes = changes[n:]
		if err := t.sleep(wakeEvery - time.Since(begun)); err != nil {
			return err
		}
	}
	return nil
}

func (t *topic) fold(changes []store.Change, version string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	told := make([]news, 0, len(changes))
	t.text = t.text[:0]
	for i := range changes {
		c := &changes[i]
		kind, since := t.members.fold(c)
		if kind == 0 {
			continue
		}
		if version == "" {
			t.text = c.Version.Append(t.text)
		}
		told = append(told, news{change: c, kind: kind, since: since, version: version, end: int32(len(t.text))})
		if c.At.After(t.asOf) {
			t.asOf = c.At
		}
	}
	if len(told) == 0 {
		return
	}
	if version == "" {
		text, begin := string(t.text), int32(0)
		for i := range told {
			told[i].version = text[begin:told[i].end]
			begin = told[i].end
		}
	}
	t.events.append(told)
}

// lastUpdates leaves out each Updated that another one of the same user
// follows at once: only the last says something.
func lastUpdates(changes []store.Change) []store.Change {
	updates := 0
	for i := range changes {
		if changes[i].Kind == store.Updated {
			updates++
		}
	}
	if updates < 2 {
		return changes
	}
	later := make(map[string]bool, updates) // an Updated comes next
	kept := make([]store.Change, 0, len(changes))
	for i := len(changes) - 1; i >= 0; i-- {
		c := &changes[i]
		updated := c.Kind == store.Updated
		if updated && later[c.Member.User] {
			continue
		}
		if updated || later[c.Member.User] {
			later[c.Member.User] = updated
		}
		kept = append(kept, *c)
	}
	for i, j := 0, len(kept)-1; i < j; i, j = i+1, j-1 {
		kept[i], kept[j] = kept[j], kept[i]
	}
	return kept
}

// snapshot returns a Snapshot and where the events after it begin. exact: it
// holds everything that is known; else one taken a moment ago will do.
func (t *topic) snapshot(exact bool) (*Event, *chunk, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return nil, nil, t.err
	}
	if t.cached != nil && (t.cacheAt == t.events.tail || !exact && t.events.near(t.cacheAt)) {
		return t.cached, t.cacheAt, nil
	}
	if n := t.members.count(); n > t.hub.limits.SnapshotMembers {
		t.cached, t.cacheAt = nil, nil
		return nil, nil, t.hub.tooLarge(n)
	}
	t.cached = &Event{
		Kind: Snapshot, Topic: t.name, Version: joined(t.version), At: t.asOf, Members: t.members.list(),
	}
	t.cacheAt = t.events.tail
	return t.cached, t.cacheAt, nil
}

func joined(versions []store.Version) string {
	s := ""
	for i, v := range versions {
		if i > 0 {
			s += ","
		}
		s += v.String()
	}
	return s
}

// sleep waits, at least until it is clear that the topic goes on.
func (t *topic) sleep(d time.Duration) error {
	if d > 0 {
		t.timer.Reset(d)
		select {
		case <-t.timer.C:
		case <-t.ctx.Done():
		}
	}
	return t.ctx.Err()
}
