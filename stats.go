package presence

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/a4cafe1a/presence/store"
)

// Stats says what this node carries, and what went wrong with its clients and
// its store.
// Counters begin at New.
type Stats struct {
	Sessions  int // on this node, pending ones included
	Verifying int // upgrades under way

	// Unverified counts upgrades whose client gave no sign of life within
	// Options.VerifyTimeout. A few do so always. Many are a proxy that keeps
	// frames back, or clients that answer only while they read, and do not.
	Unverified uint64

	// StoreAway: the last call of this node to the store failed, or one has
	// been out for more than a second.
	StoreAway bool
	// StoreFailures counts calls that failed: queries that could not reach
	// the store, and what the node itself asked. Options.Logger hears of them
	// twice a minute at most.
	StoreFailures uint64
	// LeasesLost counts how often the others may have taken this node's users
	// for gone, once per partition; Reasserts, how often it told the store of
	// all its sessions again.
	LeasesLost, Reasserts uint64
	// Queued is how many changes wait to be told to the store.
	Queued int
}

// Stats returns what is now.
func (p *Presence) Stats() Stats {
	n := p.member.Stats()
	return Stats{
		Sessions: int(p.sessions.Load()), Verifying: int(p.verifying.Load()),
		Unverified: p.unverified.Load(),
		StoreAway:  p.member.Away(), StoreFailures: n.Failures + p.queriesFailed.Load(),
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
		p.queriesFailed.Add(1)
		if within == ctx {
			p.unanswered.Store(int64(p.wheel.Exact()) + int64(time.Second))
		}
	}
	return err
}
