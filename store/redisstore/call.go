package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/a4cafe1a/presence/store"
)

// maxStuck is how many calls that were given up may still be out. Beyond it
// Redis is known to be away, and further calls fail at once instead of piling
// up behind the client's own timeouts.
const maxStuck = 256

// call makes a call of the client and returns in time, whatever the client
// does. What f works with must not be used by the caller afterwards, but for
// what f returns.
func call[T any](ctx context.Context, s *Store, f func(context.Context) (T, error)) (T, error) {
	var none T
	if s.closed() {
		return none, store.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return none, err
	}
	if s.stuck.Load() >= maxStuck {
		return none, fmt.Errorf("%w: %d calls have not returned", store.ErrUnavailable, maxStuck)
	}
	within, cancel := context.WithTimeout(ctx, s.timeout)
	type answer struct {
		v   T
		err error
	}
	done := make(chan answer, 1)
	s.stuck.Add(1)
	go func() {
		defer cancel()
		defer s.stuck.Add(-1)
		v, err := f(within)
		done <- answer{v, err}
	}()
	select {
	case a := <-done:
		return a.v, s.wrap(ctx, a.err)
	case <-within.Done():
		select {
		case a := <-done: // it ends within, too
			return a.v, s.wrap(ctx, a.err)
		default:
			return none, s.wrap(ctx, within.Err())
		}
	case <-s.done:
		return none, store.ErrClosed
	}
}

// wrap makes a client's error one of ours.
func (s *Store) wrap(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if s.closed() {
		return store.ErrClosed
	}
	if e := ctx.Err(); e != nil {
		return e
	}
	var said redis.Error
	if errors.As(err, &said) {
		switch text := said.Error(); {
		case strings.HasPrefix(text, "PRESENCE_LEASE"):
			return store.ErrLeaseLost
		case strings.HasPrefix(text, "PRESENCE_CONF"):
			return fmt.Errorf("%w: the namespace has partitions and lease (µs) %q, not %q",
				ErrOptions, strings.TrimPrefix(text, "PRESENCE_CONF "), s.conf)
		}
	}
	return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
}

// args are the arguments that every script begins with.
func (s *Store) args(more ...any) []any {
	return append([]any{s.conf, generation(), 4 * s.maxLog}, more...)
}

// eval runs a script in one partition and returns its answer, of at least
// three values: now, generation, sequence.
func (s *Store) eval(ctx context.Context, script *redis.Script, p *shard, more ...any) (answer, error) {
	args := s.args(more...)
	v, err := call(ctx, s, func(ctx context.Context) (any, error) {
		return script.Run(ctx, s.client, p.keys, args...).Result()
	})
	if err != nil {
		return answer{}, err
	}
	a := answer{}
	a.list, _ = v.([]any)
	p.clock.heard(a.int(0))
	p.tail.heard(a.string(1), a.int(2))
	return a, nil
}

// answer is what a script returned.
type answer struct{ list []any }

func (a answer) int(i int) int64 {
	if i < len(a.list) {
		if v, ok := a.list[i].(int64); ok {
			return v
		}
	}
	return 0
}

func (a answer) string(i int) string {
	if i < len(a.list) {
		if v, ok := a.list[i].(string); ok {
			return v
		}
	}
	return ""
}

func (a answer) array(i int) answer {
	if i < len(a.list) {
		if v, ok := a.list[i].([]any); ok {
			return answer{v}
		}
	}
	return answer{}
}

// skew knows what the store's clock must be at least.
type skew struct {
	mu    sync.Mutex
	at    time.Time // on our clock
	store int64     // µs: the store's time at that moment, at least
}

// skewFor is how long a bound is kept: clocks drift.
const skewFor = 30 * time.Second

// heard notes the store's time in an answer, which was there before the answer
// was here. The answer that was fastest bounds it best.
func (k *skew) heard(now int64) {
	if now == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if d := time.Since(k.at); k.at.IsZero() || d > skewFor || now > k.store+d.Microseconds() {
		k.at, k.store = time.Now(), now
	}
}

// least returns what the store's clock is now at least, in µs; 0: not known.
func (k *skew) least() int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.at.IsZero() {
		return 0
	}
	return k.store + time.Since(k.at).Microseconds()
}

func (k *skew) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.at = time.Time{}
}
