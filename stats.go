package presence

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/a4cafe1a/presence/store"
)

// Stats says what this node carries, and what went wrong with its clients and
// its store. Counters begin at New. In JSON it is as small, with the names below.
type Stats struct {
	Sessions    int `json:"sessions"`     // on this node, pending ones included
	MaxSessions int `json:"max_sessions"` // Limits.Sessions, or its default
	Verifying   int `json:"verifying"`    // upgrades under way

	// Refused4xx and Refused5xx count requests that were answered with such a
	// status in place of a WebSocket: because of Identify or setup, another
	// origin, no upgrade, or no room. What a library refuses itself is not
	// among them. The log has each, with its reason, at level debug.
	Refused4xx uint64 `json:"refused_4xx"`
	Refused5xx uint64 `json:"refused_5xx"`
	// NoRoom counts newcomers, those of Attach and Open included, that were
	// refused because Limits.Sessions or Limits.Verifying was reached, or with
	// RequireStore while the store was away. Options.Logger hears of them
	// twice a minute at most.
	NoRoom uint64 `json:"no_room"`

	// Unverified counts upgrades whose client gave no sign of life within
	// Options.VerifyTimeout. A few do so always. Many are a proxy that keeps
	// frames back, or clients that answer only while they read, and do not.
	Unverified uint64 `json:"unverified"`

	// Ended counts the live sessions that have ended, by cause; a cause that
	// never was is not in it. Many that are silent or lost at once are a
	// network, many that are slow or stalled an app or its clients.
	Ended map[Cause]uint64 `json:"ended"`

	// StoreAway: the last call of this node to the store failed, or one has
	// been out for more than a second.
	StoreAway bool `json:"store_away"`
	// StoreFailures counts calls that failed: queries that could not reach
	// the store, and what the node itself asked. Options.Logger hears of them
	// twice a minute at most: this is its failures_total, and its failures are
	// those of one outage.
	StoreFailures uint64 `json:"store_failures"`
	// Hold is how long the store may still be unable to tell who is absent, as
	// it said last: it may have missed something, or has just begun. 0 when it
	// can tell. Of several partitions it is the longest.
	Hold time.Duration `json:"hold_ns"`
	// LeasesLost counts how often the others may have taken this node's users
	// for gone, once per partition; Reasserts, how often it told the store of
	// all its sessions again.
	LeasesLost uint64 `json:"leases_lost"`
	Reasserts  uint64 `json:"reasserts"`
	// Queued is how many changes wait to be told to the store.
	Queued int `json:"queued"`
}

// Stats returns what is now.
func (p *Presence) Stats() Stats {
	n := p.member.Stats()
	ended := map[Cause]uint64{}
	for cause, n := range p.ended {
		if n := n.Load(); n > 0 {
			ended[cause] = n
		}
	}
	return Stats{
		Sessions: int(p.sessions.Load()), MaxSessions: p.opts.Limits.Sessions,
		Verifying:  int(p.verifying.Load()),
		Refused4xx: p.refused4xx.Load(), Refused5xx: p.refused5xx.Load(), NoRoom: p.noRoom.Load(),
		Unverified: p.unverified.Load(), Ended: ended,
		StoreAway: p.member.Away(), StoreFailures: n.Failures, Hold: p.member.Hold(),
		LeasesLost: n.Lost, Reasserts: n.Reasserts, Queued: n.Queued,
	}
}

// awayWait is how long a question to a store that is known to be away may
// take. It is not 0: the store may just be back, or refuse only to be written.
const awayWait = 50 * time.Millisecond

// ask asks the store. While that is known to be away, and for a moment after a
// question that was not answered, nobody waits for it for long, so that what
// this node knows is told at once.
func (p *Presence) ask(ctx context.Context, op string, f func(context.Context) error) error {
	within := ctx
	if until := p.unanswered.Load(); p.member.Away() || until != 0 && int64(p.wheel.Exact()) < until {
		var cancel context.CancelFunc
		within, cancel = context.WithTimeout(ctx, awayWait)
		defer cancel()
	}
	err := f(within)
	if err != nil && ctx.Err() == nil && within.Err() != nil && !errors.Is(err, store.ErrUnavailable) {
		err = fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	err = storeError(op, err)
	if errors.Is(err, ErrStoreUnavailable) {
		p.member.Failed()
		if within == ctx {
			p.unanswered.Store(int64(p.wheel.Exact()) + int64(time.Second))
		}
	}
	return err
}
