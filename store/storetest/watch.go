package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/a4cafe1a/presence/store"
)

// watcher folds a feed over a snapshot, as a mirror does, and keeps the log.
type watcher struct {
	c       *cluster
	topic   string
	feed    store.Feed
	fold    map[string]store.UserRecord
	log     []store.Change // since the last call of saw
	at      map[int]store.Version
	seen    map[int]store.Version // of the last change
	resets  int
	updates bool // saw shows Updated too
}

// watch takes a snapshot of a topic.
func (c *cluster) watch(topic string) *watcher {
	c.Helper()
	f, err := c.Store.Watch(ctx, topic)
	c.must("Watch", err)
	w := &watcher{c: c, topic: topic, feed: f, updates: true}
	c.Cleanup(func() { _ = f.Close() })
	w.snapshot()
	return w
}

// snapshot reads the members, then what changed meanwhile.
func (w *watcher) snapshot() {
	w.c.Helper()
	for range 10 {
		w.fold, w.at, w.seen = map[string]store.UserRecord{}, map[int]store.Version{}, map[int]store.Version{}
		for _, r := range w.c.members(w.topic) {
			w.fold[r.User] = r
		}
		b, err := w.feed.Poll(ctx)
		w.c.must("Poll", err)
		if b.Reset {
			continue
		}
		w.c.check(len(b.Spans) == w.c.Store.Shards(), "a batch covers %d shards", len(b.Spans))
		for _, s := range b.Spans {
			w.at[s.To.Shard] = s.To
		}
		for _, ch := range b.Changes {
			w.apply(ch)
		}
		return
	}
	w.c.broke("ten snapshots in a row were reset")
}

func (w *watcher) apply(ch store.Change) {
	if ch.Kind == store.Left {
		delete(w.fold, ch.Member.User)
	} else {
		w.fold[ch.Member.User] = ch.Member
	}
}

// poll reads the feed and checks what holds for every change.
func (w *watcher) poll() {
	w.c.Helper()
	b, err := w.feed.Poll(ctx)
	w.c.must("Poll", err)
	w.take(b)
}

func (w *watcher) take(b store.Batch) {
	w.c.Helper()
	c := w.c
	if b.Reset {
		c.check(len(b.Changes) == 0, "a Reset came with %d changes", len(b.Changes))
		w.resets++
		w.snapshot()
		return
	}
	c.check(len(b.Spans) == c.Store.Shards(), "a batch covers %d shards", len(b.Spans))
	for _, s := range b.Spans {
		c.check(s.From == w.at[s.From.Shard], "a batch begins at %v, the one before ended at %v", s.From, w.at[s.From.Shard])
		c.check(s.To.Sequence >= s.From.Sequence, "a batch goes back from %v to %v", s.From, s.To)
		w.at[s.To.Shard] = s.To
	}
	for _, ch := range b.Changes {
		v, u := ch.Version, ch.Member.User
		c.check(v.Sequence > w.seen[v.Shard].Sequence, "change %v comes after %v", v, w.seen[v.Shard])
		c.check(v.Sequence <= w.at[v.Shard].Sequence, "change %v lies outside its batch, which ends at %v", v, w.at[v.Shard])
		c.check(v.Shard == c.Store.ShardOf(u), "a change of %s is in shard %d", u, v.Shard)
		w.seen[v.Shard] = v
		_, was := w.fold[u]
		c.check(was == (ch.Kind != store.Joined), "%s of %s in topic %q, member before: %t", ch.Kind, u, w.topic, was)
		if ch.Kind == store.Left {
			c.check(ch.Cause != "", "Left of %s has no cause", u)
			c.check(ch.Member.State == store.Offline && len(ch.Member.Sessions) == 0, "Left of %s says %s", u, brief(ch.Member))
		} else {
			c.check(ch.Member.State >= store.Grace, "%s of %s says %s", ch.Kind, u, brief(ch.Member))
			c.check(ch.Member.State == store.Online == (len(ch.Member.Sessions) > 0), "%s of %s says %s", ch.Kind, u, brief(ch.Member))
		}
		w.apply(ch)
		w.log = append(w.log, ch)
	}
}

// saw ends the test unless exactly these changes came since the last call:
// "joined u", "updated u", "left u cause".
func (w *watcher) saw(want ...string) {
	w.c.Helper()
	w.poll()
	var got []string
	for _, ch := range w.log {
		if ch.Kind == store.Updated && !w.updates {
			continue
		}
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s", ch.Kind, ch.Member.User, ch.Cause)))
	}
	w.log = nil
	if w.c.Store.Shards() > 1 {
		// There is no order over shards.
		want = slices.Clone(want)
		slices.Sort(want)
		slices.Sort(got)
	}
	if !slices.Equal(got, want) {
		w.c.broke("topic %q saw %q, not %q", w.topic, got, want)
	}
	w.agrees()
}

// agrees ends the test unless what was folded is what Members says.
func (w *watcher) agrees() {
	w.c.Helper()
	members := w.c.members(w.topic)
	for _, r := range members {
		f, ok := w.fold[r.User]
		w.c.check(ok && brief(f) == brief(r), "folding topic %q gives %s, Members says %s", w.topic, brief(f), brief(r))
	}
	w.c.check(len(members) == len(w.fold), "folding topic %q gives %d members, Members says %d", w.topic, len(w.fold), len(members))
}

// next waits for the next batch.
func (w *watcher) next(d time.Duration) {
	w.c.Helper()
	within, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	b, err := w.feed.Next(within)
	if errors.Is(err, context.DeadlineExceeded) {
		w.c.broke("Next did not wake")
	}
	w.c.must("Next", err)
	w.take(b)
}
