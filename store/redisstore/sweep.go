package redisstore

import (
	"context"

	"github.com/a4cafe1a/presence/store"
)

// maxSweep keeps a sweep below the 10 ms that everybody may be made to wait.
const maxSweep = 250

// Sweep implements store.Store.
func (s *Store) Sweep(ctx context.Context, lease store.Lease, limit int) (store.SweepResult, error) {
	p, number, nonce, err := s.holder(lease)
	if err != nil {
		return store.SweepResult{}, err
	}
	if limit <= 0 {
		limit = 200
	}
	a, err := s.eval(ctx, s.scripts.sweep, p, number, nonce, min(limit, maxSweep), p.clock.least())
	if err != nil {
		return store.SweepResult{}, err
	}
	return store.SweepResult{Done: int(a.int(3)), More: a.int(4) == 1, Next: micros(a.int(5))}, nil
}

// Disconnect implements store.Store.
func (s *Store) Disconnect(ctx context.Context, user, session string, code int, text string) (told int, err error) {
	p := s.shards[s.ShardOf(user)]
	a, err := s.eval(ctx, s.scripts.disconnect, p, user, session, code, text)
	if err != nil {
		return 0, err
	}
	told = int(a.int(3))
	if hold := a.int(4); told == 0 && hold > 0 {
		return 0, &store.HoldError{For: micros(hold)}
	}
	return told, nil
}
