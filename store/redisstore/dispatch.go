package redisstore

import (
	"context"
	"fmt"
	"strings"

	"github.com/a4cafe1a/presence/store"
)

// event is what one operation did to one user.
type event struct {
	user, packed string
	seen         int64
	changes      reader // topic, kind, cause, ...
	count        int    // of them
	described    bool
}

// ask stands in the log for a user with many sessions; see user.lua.
const ask = "?"

// dispatch gives the changes of one entry to the feeds, and moves at to its
// end. known are users with many sessions that were read since the entry was.
func (t *tail) dispatch(ctx context.Context, e entry, known map[string]large, at *store.Version) error {
	r := reader{s: e.packed}
	r.array()
	v := view{now: r.int(), logged: true}
	v.asOf = fromMicros(v.now)
	for range r.array() {
		r.array()
		l := leaseInfo{number: r.int()}
		l.id, l.name = strings.Clone(r.string()), strings.Clone(r.string())
		l.renewed, l.end = r.int(), r.int()
		v.leases = append(v.leases, l)
	}
	events := make([]event, r.array())
	users := map[string]bool{}
	var many []string
	for i := range events {
		ev := &events[i]
		n := r.array()
		ev.user, ev.seen, ev.packed, ev.count = r.string(), r.int(), r.string(), (n-3)/3
		ev.changes = r
		watched := false
		for range ev.count {
			topic := r.string()
			r.int()
			r.string()
			watched = watched || t.follows(topic)
		}
		if watched {
			// Records live longer than the entry, and must not keep it.
			ev.user, ev.packed = strings.Clone(ev.user), strings.Clone(ev.packed)
			probe := store.UserRecord{User: ev.user}
			switch ev.packed {
			case "":
			case ask:
				if _, ok := known[ev.user]; !ok {
					many = append(many, ev.user)
					known[ev.user] = large{}
				}
			default:
				_, ev.described = v.record(&probe, "", ev.packed, "")
			}
			if ev.described {
				users[ev.user] = true
			}
		}
	}
	if r.bad {
		return fmt.Errorf("%w: %w", store.ErrUnavailable, errPacked)
	}
	if err := t.readLarge(ctx, many, known); err != nil {
		return err
	}
	var metas map[string]string
	if len(users) > 0 {
		var err error
		if metas, err = t.describe(ctx, users); err != nil {
			return err
		}
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	sequence := e.from
	for i := range events {
		ev := &events[i]
		for range ev.count {
			sequence++
			topic, kind, cause := ev.changes.string(), ev.changes.int(), ev.changes.string()
			parts := t.topics[topic]
			if len(parts) == 0 {
				continue
			}
			c := store.Change{
				Kind: store.ChangeKind(kind), At: v.asOf, Cause: store.Cause(strings.Clone(cause)),
				Version: store.Version{Shard: t.p.id, Generation: at.Generation, Sequence: sequence},
				Member:  store.UserRecord{User: ev.user, State: store.Offline, AsOf: v.asOf},
			}
			switch {
			case c.Kind == store.Left:
				c.Member.LastSeen = fromMicros(ev.seen)
			case ev.packed == ask:
				known[ev.user].record(&c.Member, topic, v.asOf)
			default:
				v.record(&c.Member, topic, ev.packed, metas[ev.user])
			}
			for _, x := range parts {
				x.give(c)
			}
		}
	}
	at.Sequence = e.to
	t.at = *at
	return nil
}

func (t *tail) follows(topic string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.topics[topic]) > 0
}

// describe reads the metadata of users. It may be newer than the change that
// it is shown with; then a change that brings it follows.
func (t *tail) describe(ctx context.Context, users map[string]bool) (map[string]string, error) {
	args := make([]string, 0, len(users))
	for u := range users {
		args = append(args, u)
	}
	return call(ctx, t.s, func(ctx context.Context) (map[string]string, error) {
		pipe := t.s.client.TxPipeline()
		list := pipe.HMGet(ctx, t.p.tag+"x", args...)
		metas := make(map[string]string, len(args))
		if _, err := pipe.Exec(ctx); full(err) {
			return metas, t.describeFull(ctx, args, metas)
		} else if err != nil {
			return nil, err
		}
		for i, v := range list.Val() {
			metas[args[i]], _ = v.(string)
		}
		return metas, nil
	})
}
