package redisstore

import (
	"context"
	"fmt"
	"sync"

	"github.com/a4cafe1a/presence/store"
)

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, lease store.Lease, ops []store.Op) ([]store.Result, error) {
	p, number, nonce, err := s.holder(lease)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(s.shards) > 1 {
		for i := range ops {
			if s.ShardOf(ops[i].User) != lease.Shard {
				return nil, fmt.Errorf("%w: user %q", store.ErrShard, ops[i].User)
			}
		}
	}
	call, over := p.calls.begin()
	defer p.calls.end(call)
	a, err := s.eval(ctx, s.scripts.commit, p, number, nonce, call, over, packOps(ops))
	if err != nil {
		return nil, err
	}
	return unpackResults(a.string(3), len(ops))
}

// flight numbers the commits of one partition, and knows which are out. One
// that was given up, or repeated by the client, may still be on its way: Redis
// is told up to which number all are over, and refuses those.
type flight struct {
	mu   sync.Mutex
	last int64
	out  map[int64]struct{}
}

func (f *flight) begin() (number, over int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	over = f.last
	for n := range f.out {
		over = min(over, n-1)
	}
	f.last++
	if f.out == nil {
		f.out = map[int64]struct{}{}
	}
	f.out[f.last] = struct{}{}
	return f.last, over
}

func (f *flight) end(number int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.out, number)
}

func packOps(ops []store.Op) []byte {
	b := packArray(make([]byte, 0, 64*len(ops)+8), len(ops))
	for i := range ops {
		op := &ops[i]
		b = packArray(b, 13)
		b = packInt(b, int64(op.Kind))
		b = packString(b, op.User)
		b = packString(b, op.Session)
		b = packArray(b, len(op.Topics))
		for _, t := range op.Topics {
			b = packString(b, t)
		}
		b = packString(b, op.Meta)
		b = packBool(b, op.Away)
		since := int64(0)
		if !op.Since.IsZero() {
			since = op.Since.UnixMicro()
		}
		b = packInt(b, since)
		b = packBool(b, op.Anonymous)
		b = packInt(b, int64(op.Limit))
		b = packInt(b, int64(op.WhenFull))
		b = packBool(b, op.Challenge)
		b = packInt(b, max(0, op.Grace.Microseconds()))
		b = packString(b, op.Cause)
	}
	return b
}

func unpackResults(packed string, n int) ([]store.Result, error) {
	r := reader{s: packed}
	if r.array() != n {
		return nil, fmt.Errorf("%w: %w", store.ErrUnavailable, errPacked)
	}
	results := make([]store.Result, n)
	for i := range results {
		res := &results[i]
		r.array()
		res.Status = store.Status(r.int())
		res.Since = fromMicros(r.int())
		var refs []store.SessionRef
		for range r.array() / 3 {
			refs = append(refs, store.SessionRef{ID: r.string(), Node: r.string(), NodeName: r.string()})
		}
		if res.Status == store.Full && len(refs) > 0 {
			res.Oldest = &refs[0]
		} else {
			res.Replaced = refs
		}
	}
	if r.bad {
		return nil, fmt.Errorf("%w: %w", store.ErrUnavailable, errPacked)
	}
	return results, nil
}
