package redisstore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"github.com/a4cafe1a/presence/store"
)

// generation returns a new name for a generation. Each call that writes brings
// one along, in case that it is the first.
func generation() string { return random(6) }

func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// A token is "<number>.<nonce>". Numbers are small and order leases; the nonce
// makes them unlike those of a memory that was lost.
func token(number int64, nonce string) string {
	return strconv.FormatInt(number, 10) + "." + nonce
}

// holder takes a lease apart and returns its partition.
func (s *Store) holder(l store.Lease) (p *shard, number, nonce string, err error) {
	if s.closed() {
		return nil, "", "", store.ErrClosed
	}
	number, nonce, ok := strings.Cut(l.Token, ".")
	if _, err := strconv.ParseUint(number, 10, 53); !ok || err != nil || l.Shard < 0 || l.Shard >= len(s.shards) {
		return nil, "", "", store.ErrLeaseLost
	}
	return s.shards[l.Shard], number, nonce, nil
}

// Register implements store.Store.
func (s *Store) Register(ctx context.Context, shard int, node store.Node) (store.Lease, error) {
	if s.closed() {
		return store.Lease{}, store.ErrClosed
	}
	p, err := s.shard(shard)
	if err != nil {
		return store.Lease{}, err
	}
	if err := s.check(ctx); err != nil {
		return store.Lease{}, err
	}
	nonce := random(8)
	a, err := s.eval(ctx, s.scripts.register, p, nonce, node.ID, node.Name,
		max(0, node.LeaveGrace.Microseconds()), max(0, node.KeepLastSeen.Microseconds()))
	if err != nil {
		return store.Lease{}, err
	}
	return store.Lease{Shard: shard, Node: node.ID, Token: token(a.int(3), nonce), TTL: s.lease}, nil
}

// Renew implements store.Store.
func (s *Store) Renew(ctx context.Context, lease store.Lease, sum store.Summary) (store.Orders, error) {
	p, number, nonce, err := s.holder(lease)
	if err != nil {
		return store.Orders{}, err
	}
	a, err := s.eval(ctx, s.scripts.renew, p, number, nonce,
		sum.Sessions, uint32(sum.Digest>>32), uint32(sum.Digest), sum.Complete, sum.Ack)
	if err != nil {
		return store.Orders{}, err
	}
	o := store.Orders{
		Now:      fromMicros(a.int(0)),
		Hold:     micros(a.int(3)),
		Reassert: a.int(4) == 1,
		Work:     a.int(5) == 1,
		Next:     micros(a.int(6)),
	}
	for i := range a.array(7).list {
		r := reader{s: a.array(7).string(i)}
		r.array()
		m := store.Order{
			Number: uint64(r.int()), Kind: store.OrderKind(r.int()), User: r.string(), Session: r.string(),
			Code: int(r.int()), Text: r.string(),
		}
		if !r.bad {
			o.Mail = append(o.Mail, m)
		}
	}
	return o, nil
}

// End implements store.Store.
func (s *Store) End(ctx context.Context, lease store.Lease, grace time.Duration, cause store.Cause) error {
	p, number, nonce, err := s.holder(lease)
	if err == store.ErrLeaseLost {
		return ctx.Err() // it never was
	} else if err != nil {
		return err
	}
	_, err = s.eval(ctx, s.scripts.end, p, number, nonce, max(0, grace.Microseconds()), string(cause))
	return err
}
