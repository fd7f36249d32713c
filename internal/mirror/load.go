package mirror

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/a4cafe1a/presence/store"
)

// page is how many members are read at once.
const page = 1000

// errTrimmed: the log went past the snapshot while it was read.
var errTrimmed = errors.New("mirror: the log was trimmed meanwhile")

// load reads the members, and publishes how they differ from what was known.
// Until it succeeds nobody gets a first snapshot, and those who have one see
// nothing: what was known stays the best that can be said.
func (t *topic) load() error {
	t.mu.Lock()
	select {
	case <-t.ready:
		t.ready = make(chan struct{})
	default: // still the first
	}
	t.mu.Unlock()

	pause := wakeEvery
	for {
		now, spans, asOf, err := t.read()
		if err == nil {
			return t.adopt(now, spans, asOf)
		}
		if t.over(err) || errors.Is(err, ErrTooLarge) {
			return err
		}
		t.wait(err)
		var hold *store.HoldError
		switch {
		case errors.As(err, &hold):
			pause = min(max(hold.For, 2*wakeEvery), retryEvery)
		case errors.Is(err, errTrimmed):
			pause = min(2*pause, retryEvery)
		default:
			pause = retryEvery
		}
		if err := t.sleep(pause); err != nil {
			return err
		}
	}
}

// read takes a snapshot as store.Feed says: all pages, then what the feed has
// to say about the time they took.
func (t *topic) read() (now map[string]store.UserRecord, spans []store.Span, asOf time.Time, err error) {
	now = map[string]store.UserRecord{}
	for after, more := "", true; more; {
		p, err := t.hub.store.Members(t.ctx, t.name, after, page)
		if err != nil {
			return nil, nil, asOf, err
		}
		for _, m := range p.Members {
			now[m.User] = m
		}
		if p.AsOf.After(asOf) {
			asOf = p.AsOf
		}
		if !t.live && len(now) > t.hub.limits.SnapshotMembers {
			// Nobody could get the snapshot, so nobody needs the mirror.
			n := len(now) // or more: the rest was not read
			if c, err := t.hub.store.Count(t.ctx, t.name); err == nil {
				n = max(n, c.Users)
			}
			return nil, nil, asOf, t.hub.tooLarge(n)
		}
		after, more = p.Next, p.More
	}
	b, err := t.feed.Poll(t.ctx)
	if err != nil {
		return nil, nil, asOf, err
	}
	if b.Reset {
		return nil, nil, asOf, errTrimmed
	}
	for i := range b.Changes {
		if c := &b.Changes[i]; c.Kind == store.Left {
			delete(now, c.Member.User)
		} else {
			now[c.Member.User] = c.Member
		}
	}
	return now, b.Spans, asOf, nil
}

// adopt makes now the membership. The first is silent; a later one reaches
// subscribers as events.
func (t *topic) adopt(now map[string]store.UserRecord, spans []store.Span, asOf time.Time) error {
	t.note(spans)
	if !t.live {
		t.live = true
		t.mu.Lock()
		t.members.of = now
		t.asOf = asOf
		t.mu.Unlock()
	} else if err := t.publish(t.members.difference(now, asOf), joined(t.version)); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting = nil
	t.open()
	return nil
}

// difference returns the changes that lead from what is known to now: who
// left, then who joined or changed, in order. Why somebody left was in the
// part of the log that is gone.
func (m *members) difference(now map[string]store.UserRecord, asOf time.Time) []store.Change {
	var left, other []store.Change
	for user := range m.of {
		if _, ok := now[user]; !ok {
			left = append(left, store.Change{
				Kind: store.Left, At: asOf,
				Member: store.UserRecord{User: user, State: store.Offline, AsOf: asOf},
			})
		}
	}
	for user, r := range now {
		old, known := m.of[user]
		switch {
		case !known:
			other = append(other, store.Change{Kind: store.Joined, At: asOf, Member: r})
		case !same(&old, &r):
			other = append(other, store.Change{Kind: store.Updated, At: asOf, Member: r})
		}
	}
	for _, list := range [][]store.Change{left, other} {
		slices.SortFunc(list, func(a, b store.Change) int { return m.compare(a.Member.User, b.Member.User) })
	}
	return append(left, other...)
}

// same says whether two records differ in nothing that would be logged.
func same(a, b *store.UserRecord) bool {
	return a.State == b.State && a.Away == b.Away && a.Since.Equal(b.Since) &&
		slices.EqualFunc(a.Sessions, b.Sessions, func(x, y store.SessionRecord) bool {
			return x.ID == y.ID && x.Node == y.Node && x.Away == y.Away && x.Since.Equal(y.Since) &&
				string(x.Meta) == string(y.Meta) && slices.Equal(x.Topics, y.Topics)
		})
}

func (m *members) compare(a, b string) int {
	if m.store.Shards() > 1 {
		if d := m.store.ShardOf(a) - m.store.ShardOf(b); d != 0 {
			return d
		}
	}
	return strings.Compare(a, b)
}
