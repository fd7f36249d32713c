package redisstore

import (
	"context"
	"strconv"
	"strings"

	"github.com/a4cafe1a/presence/store"
)

// full says whether Redis refused a transaction, as it does when its memory is
// full. Scripts that write nothing are let through: they are slower, and take
// the place of transactions then.
func full(err error) bool {
	return err != nil && (strings.HasPrefix(err.Error(), "EXECABORT") || strings.HasPrefix(err.Error(), "OOM "))
}

// readFull is fetch.
func (s *Store) readFull(ctx context.Context, p *shard, names []any) (fetched, error) {
	v, err := s.scripts.read.Run(ctx, s.client, p.keys, s.args(names...)...).Result()
	if err != nil {
		return fetched{}, err
	}
	a := answer{}
	a.list, _ = v.([]any)
	return fetched{view: a, users: wire(a.array(6)), seen: wire(a.array(7)), metas: wire(a.array(8))}, nil
}

// readFull is read.
func (t *tail) readFull(ctx context.Context, at store.Version) (store.Version, []entry, error) {
	now := store.Version{Shard: t.p.id}
	v, err := t.s.scripts.tail.Run(ctx, t.s.client, t.p.keys, t.s.args(at.Sequence, readMax)...).Result()
	if err != nil {
		return now, nil, err
	}
	a := answer{}
	a.list, _ = v.([]any)
	now.Generation, now.Sequence = a.string(1), uint64(a.int(2))
	var entries []entry
	for i := range a.array(3).list {
		x := a.array(3).array(i)
		fields := map[string]any{}
		for j := 0; j+1 < len(x.array(1).list); j += 2 {
			fields[x.array(1).string(j)] = x.array(1).string(j + 1)
		}
		entries = append(entries, newEntry(x.string(0), fields))
	}
	return now, entries, nil
}

// describeFull is describe.
func (t *tail) describeFull(ctx context.Context, users []string, metas map[string]string) error {
	names := make([]any, len(users))
	for i, u := range users {
		names[i] = u
	}
	got, err := t.s.readFull(ctx, t.p, names)
	if err != nil {
		return err
	}
	list := replies{s: got.metas}
	list.array()
	for _, u := range users {
		metas[u], _ = list.next()
	}
	return nil
}

// wire writes strings as Redis sends them, for replies to take apart.
func wire(a answer) string {
	var b strings.Builder
	b.WriteString("*" + strconv.Itoa(len(a.list)) + "\r\n")
	for i := range a.list {
		if x, ok := a.list[i].(string); ok {
			b.WriteString("$" + strconv.Itoa(len(x)) + "\r\n" + x + "\r\n")
		} else {
			b.WriteString("$-1\r\n")
		}
	}
	return b.String()
}
