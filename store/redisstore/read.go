package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unsafe"

	"github.com/redis/go-redis/v9"

	"github.com/a4cafe1a/presence/store"
)

// look returns the view of a partition, and where its log ends.
func (s *Store) look(ctx context.Context, p *shard) (view, store.Version, error) {
	a, err := s.eval(ctx, s.scripts.look, p)
	if err != nil {
		return view{}, store.Version{}, err
	}
	return newView(a), p.version(a), nil
}

func (p *shard) version(a answer) store.Version {
	return store.Version{Shard: p.id, Generation: a.string(1), Sequence: uint64(a.int(2))}
}

// Position implements store.Store.
func (s *Store) Position(ctx context.Context, shard int) (store.Version, error) {
	if s.closed() {
		return store.Version{}, store.ErrClosed
	}
	p, err := s.shard(shard)
	if err != nil {
		return store.Version{}, err
	}
	_, v, err := s.look(ctx, p)
	return v, err
}

// each calls f for every partition at once, and returns the first error.
func (s *Store) each(f func(p *shard) error) error {
	if len(s.shards) == 1 {
		return f(s.shards[0])
	}
	errs := make(chan error, len(s.shards))
	for _, p := range s.shards {
		go func() { errs <- f(p) }()
	}
	var first error
	for range s.shards {
		if err := <-errs; err != nil && (first == nil || errors.Is(first, store.ErrUnknown)) {
			first = err
		}
	}
	return first
}

// Count implements store.Store.
func (s *Store) Count(ctx context.Context, topic string) (store.Counts, error) {
	parts := make([]store.Counts, len(s.shards))
	err := s.each(func(p *shard) error {
		a, err := s.eval(ctx, s.scripts.count, p, topic)
		if err != nil {
			return err
		}
		if hold := a.int(3); hold > 0 {
			return &store.HoldError{For: micros(hold)}
		}
		parts[p.id] = store.Counts{Users: int(a.int(4)), Sessions: int(a.int(5)), MaybeGone: int(a.int(6))}
		return nil
	})
	if err != nil {
		return store.Counts{}, err
	}
	var c store.Counts
	for _, part := range parts {
		c.Users += part.Users
		c.Sessions += part.Sessions
		c.MaybeGone += part.MaybeGone
	}
	return c, nil
}

// Lookup implements store.Store. Of each partition it reads the leases, the
// users, when they were last seen and their metadata in one transaction.
func (s *Store) Lookup(ctx context.Context, dst []store.UserRecord, users []string) ([]store.UserRecord, error) {
	if s.closed() {
		return dst, store.ErrClosed
	}
	if err := ctx.Err(); err != nil || len(users) == 0 {
		return dst, err
	}
	from := len(dst)
	out := dst
	for _, name := range users {
		out = more(out, name)
	}
	out, err := out, error(nil)
	if len(s.shards) == 1 {
		err = s.lookup(ctx, s.shards[0], out[from:], nil)
	} else {
		of := make([][]int, len(s.shards))
		for i, name := range users {
			p := s.ShardOf(name)
			of[p] = append(of[p], i)
		}
		err = s.each(func(p *shard) error {
			if len(of[p.id]) == 0 {
				return nil
			}
			return s.lookup(ctx, p, out[from:], of[p.id])
		})
	}
	if err != nil {
		return dst, err
	}
	return out, nil
}

// more appends an empty record, and keeps what memory is there for it.
func more(dst []store.UserRecord, name string) []store.UserRecord {
	if len(dst) == cap(dst) {
		dst = append(dst, store.UserRecord{})
	} else {
		dst = dst[:len(dst)+1]
	}
	r := &dst[len(dst)-1]
	*r = store.UserRecord{User: name, Sessions: r.Sessions[:0]}
	return dst
}

// lookup fills in the records whose positions are in at; all, if at is nil.
func (s *Store) lookup(ctx context.Context, p *shard, records []store.UserRecord, at []int) error {
	n := len(at)
	if at == nil {
		n = len(records)
	}
	record := func(i int) *store.UserRecord {
		if at == nil {
			return &records[i]
		}
		return &records[at[i]]
	}
	names := make([]any, n+2)
	for i := range n {
		names[i+2] = record(i).User
	}
	for try := 0; ; try++ {
		withMetas := p.metas.Load()
		got, err := s.fetch(ctx, p, names, withMetas)
		if err != nil {
			return err
		}
		v := newView(got.view)
		users, seen, metas := replies{s: got.users}, replies{s: got.seen}, replies{s: got.metas}
		users.array()
		seen.array()
		metas.array()
		missed := false
		for i := range n {
			r := record(i)
			r.Sessions = r.Sessions[:0]
			packed, there := users.next()
			last, _ := seen.next()
			meta := ""
			if withMetas {
				meta, _ = metas.next()
			}
			if there {
				_, described := v.record(r, "", packed, meta)
				missed = missed || described && !withMetas
				continue
			}
			r.AsOf, r.State = v.asOf, store.Offline
			if v.hold != 0 {
				r.State = store.Unknown
			}
			if last != "" {
				us, _ := strconv.ParseFloat(last, 64)
				r.LastSeen = fromMicros(int64(us))
			}
		}
		if users.bad || seen.bad || metas.bad {
			return fmt.Errorf("%w: %w", store.ErrUnavailable, errPacked)
		}
		if !missed {
			return nil
		}
		// The first metadata that is seen here costs another round trip.
		p.metas.Store(true)
	}
}

// fetched is what lookup reads, as it came.
type fetched struct {
	view               answer
	users, seen, metas string
}

func (s *Store) fetch(ctx context.Context, p *shard, names []any, metas bool) (fetched, error) {
	args := s.args()
	got, err := call(ctx, s, func(ctx context.Context) (fetched, error) {
		query := func(ctx context.Context, look func(redis.Pipeliner) *redis.Cmd) (fetched, error) {
			var f fetched
			pipe := s.client.TxPipeline()
			view := look(pipe)
			raw := func(command, key string) *redis.RawCmd {
				a := append([]any{command, p.tag + key}, names[2:]...)
				c := redis.NewRawCmd(ctx, a...)
				_ = pipe.Process(ctx, c)
				return c
			}
			users, seen := raw("hmget", "u"), raw("zmscore", "l")
			var described *redis.RawCmd
			if metas {
				described = raw("hmget", "x")
			}
			if _, err := pipe.Exec(ctx); err != nil {
				return f, err
			}
			list, _ := view.Val().([]any)
			f.view, f.users, f.seen = answer{list}, text(users.Val()), text(seen.Val())
			if metas {
				f.metas = text(described.Val())
			}
			return f, nil
		}
		f, err := query(ctx, func(c redis.Pipeliner) *redis.Cmd {
			return s.scripts.look.EvalSha(ctx, c, p.keys, args...)
		})
		if err != nil && strings.HasPrefix(err.Error(), "NOSCRIPT") {
			f, err = query(ctx, func(c redis.Pipeliner) *redis.Cmd {
				return s.scripts.look.Eval(ctx, c, p.keys, args...)
			})
		}
		if full(err) {
			return s.readFull(ctx, p, names[2:])
		}
		return f, err
	})
	if err == nil {
		p.clock.heard(got.view.int(0))
	}
	return got, err
}

// text returns bytes that nobody writes to any more as a string.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// replies takes an array of strings apart as it came over the wire. What it
// returns are parts of it.
type replies struct {
	s   string
	bad bool
}

func (r *replies) line() string {
	line, rest, ok := strings.Cut(r.s, "\r\n")
	if !ok {
		r.s, r.bad = "", true
	}
	r.s = rest
	return line
}

func (r *replies) array() int {
	if r.s == "" {
		return 0
	}
	line := r.line()
	if len(line) < 2 || line[0] != '*' {
		r.bad = true
		return 0
	}
	n, err := strconv.Atoi(line[1:])
	r.bad = r.bad || err != nil
	return n
}

// next returns one string, or false for nil.
func (r *replies) next() (string, bool) {
	line := r.line()
	if len(line) == 0 {
		r.bad = true
		return "", false
	}
	switch line[0] {
	case '$':
		n, err := strconv.Atoi(line[1:])
		if n < 0 {
			return "", false
		}
		if err != nil || len(r.s) < n+2 {
			r.s, r.bad = "", true
			return "", false
		}
		v := r.s[:n]
		r.s = r.s[n+2:]
		return v, true
	case ',', ':', '+': // a number, in RESP3
		return line[1:], true
	case '_':
		return "", false
	}
	r.bad = true
	return "", false
}
