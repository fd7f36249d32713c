package redisstore

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/a4cafe1a/presence/store"
)

// large is a user with many sessions as it is now, which may be later than the
// change that it is shown with: then a change that brings it there follows.
type large struct {
	view          view
	packed, metas string
}

// readLarge adds users to known.
func (t *tail) readLarge(ctx context.Context, users []string, known map[string]large) error {
	if len(users) == 0 {
		return nil
	}
	names := make([]any, len(users)+2)
	for i, u := range users {
		names[i+2] = u
	}
	for {
		withMetas := t.p.metas.Load()
		got, err := t.s.fetch(ctx, t.p, names, withMetas)
		if err != nil {
			return err
		}
		v := newView(got.view)
		v.logged = true
		packed, metas := replies{s: got.users}, replies{s: got.metas}
		packed.array()
		metas.array()
		missed := false
		for _, u := range users {
			x := large{view: v}
			x.packed, _ = packed.next()
			if withMetas {
				x.metas, _ = metas.next()
			}
			// Records live longer than the answer, and must not keep it.
			x.packed, x.metas = strings.Clone(x.packed), strings.Clone(x.metas)
			if x.packed != "" && !withMetas {
				_, described := v.record(&store.UserRecord{User: u}, "", x.packed, "")
				missed = missed || described
			}
			known[u] = x
		}
		if packed.bad || metas.bad {
			return fmt.Errorf("%w: %w", store.ErrUnavailable, errPacked)
		}
		if !missed {
			return nil
		}
		t.p.metas.Store(true)
	}
}

// record fills in a change of the user at that time, after which it was a
// member of the topic. Where it is none any more, its Left follows.
func (x large) record(r *store.UserRecord, topic string, at time.Time) {
	r.State = store.Grace
	if x.packed != "" {
		x.view.record(r, topic, x.packed, x.metas)
	}
	if r.Since.IsZero() {
		r.Since = at
	}
}
