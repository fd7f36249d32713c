package node

import (
	"context"
	"errors"
	"time"

	"github.com/a4cafe1a/presence/store"
)

const (
	sweepSlice = 200                  // things done in one call
	sweepPause = 5 * time.Millisecond // so that commits go in between
)

// sweep does what is due in the shard, for all nodes.
func (s *shard) sweep() {
	var r store.SweepResult
	err := s.call("sweep", func(ctx context.Context) (err error) {
		r, err = s.n.cfg.Store.Sweep(ctx, s.lease, sweepSlice)
		return err
	})
	switch {
	case errors.Is(err, store.ErrLeaseLost):
		s.lost()
	case err != nil: // sweepAt stays
	default:
		s.n.stats.sweeps.Add(1)
		now := time.Now()
		switch {
		case r.More:
			s.sweepAt = now.Add(sweepPause)
		case r.Next > 0:
			s.sweepAt = due(now, r.Next)
		default:
			s.sweepAt = time.Time{}
		}
	}
}
