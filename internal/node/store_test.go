package node_test

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/memstore"
)

// trouble is a store that can be made to fail, to hang and to forget.
type trouble struct {
	mu      sync.Mutex
	inner   *memstore.Store
	mode    mode
	when    func(call string) mode // overrides mode
	commits [][]store.Op           // that were asked for, also in vain
	calls   map[string]int
	busy    map[store.Lease]string // to see that calls come one at a time
	overlap string
	ends    []ended
	lease   store.Lease // the newest
	before  func(call string, ops []store.Op)
	repeat  bool            // orders come again although they are acknowledged
	mail    []store.Order   // that was returned
	sums    []store.Summary // of renewals
}

type ended struct {
	lease store.Lease
	grace time.Duration
	cause store.Cause
}

type mode int

const (
	well   mode = iota
	away        // fails, does nothing
	deaf        // does it, and the answer is lost
	silent      // hangs until the context ends
)

func newTrouble(o memstore.Options) *trouble {
	return &trouble{inner: memstore.New(o), calls: map[string]int{}, busy: map[store.Lease]string{}}
}

func (t *trouble) set(m mode) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mode = m
}

func (t *trouble) whenCalled(f func(call string) mode) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.when = f
}

// share returns another way to the same store, with troubles of its own.
func (t *trouble) share() *trouble {
	return &trouble{inner: t.store(), calls: map[string]int{}, busy: map[store.Lease]string{}}
}

// wipe forgets everything, as a store that was restarted.
func (t *trouble) wipe() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inner = memstore.New(memstore.Options{})
}

func (t *trouble) store() *memstore.Store {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.inner
}

func (t *trouble) count(call string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.calls[call]
}

// sent returns the ops of all commits, in order.
func (t *trouble) sent() (ops []store.Op) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.commits {
		ops = append(ops, c...)
	}
	return ops
}

var errDown = errors.New("connection refused")

func (t *trouble) do(ctx context.Context, call string, lease store.Lease, f func(*memstore.Store) error) error {
	t.mu.Lock()
	t.calls[call]++
	m := t.mode
	if t.when != nil {
		m = t.when(call)
	}
	if other := t.busy[lease]; other != "" && lease.Token != "" {
		t.overlap = call + " during " + other
	}
	t.busy[lease] = call
	inner := t.inner
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.busy, lease)
	}()
	switch m {
	case away:
		return errors.Join(store.ErrUnavailable, errDown)
	case silent:
		<-ctx.Done()
		return errors.Join(store.ErrUnavailable, ctx.Err())
	case deaf:
		_ = f(inner)
		return errors.Join(store.ErrUnavailable, errDown)
	}
	return f(inner)
}

func (t *trouble) Shards() int          { return 1 }
func (t *trouble) ShardOf(u string) int { return 0 }
func (t *trouble) Close() error         { return t.store().Close() }

func (t *trouble) Register(ctx context.Context, shard int, n store.Node) (l store.Lease, err error) {
	err = t.do(ctx, "register", store.Lease{}, func(s *memstore.Store) (err error) { l, err = s.Register(ctx, shard, n); return })
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lease = l
	return l, err
}

func (t *trouble) Renew(ctx context.Context, l store.Lease, sum store.Summary) (o store.Orders, err error) {
	err = t.do(ctx, "renew", l, func(s *memstore.Store) (err error) { o, err = s.Renew(ctx, l, sum); return })
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sums = append(t.sums, sum)
	if t.repeat {
		t.mail = append(t.mail, o.Mail...)
		o.Mail = append([]store.Order(nil), t.mail...)
	}
	return o, err
}

func (t *trouble) Bell(ctx context.Context, l store.Lease) (c <-chan struct{}, err error) {
	err = t.do(ctx, "bell", l, func(s *memstore.Store) (err error) { c, err = s.Bell(ctx, l); return })
	return c, err
}

func (t *trouble) Commit(ctx context.Context, l store.Lease, ops []store.Op) (r []store.Result, err error) {
	t.mu.Lock()
	t.commits = append(t.commits, append([]store.Op(nil), ops...))
	before := t.before
	t.mu.Unlock()
	if before != nil {
		before("commit", ops)
	}
	err = t.do(ctx, "commit", l, func(s *memstore.Store) (err error) { r, err = s.Commit(ctx, l, ops); return })
	return r, err
}

func (t *trouble) End(ctx context.Context, l store.Lease, grace time.Duration, cause store.Cause) error {
	t.mu.Lock()
	t.ends = append(t.ends, ended{l, grace, cause})
	t.mu.Unlock()
	return t.do(ctx, "end", l, func(s *memstore.Store) error { return s.End(ctx, l, grace, cause) })
}

func (t *trouble) Sweep(ctx context.Context, l store.Lease, max int) (r store.SweepResult, err error) {
	err = t.do(ctx, "sweep", l, func(s *memstore.Store) (err error) { r, err = s.Sweep(ctx, l, max); return })
	return r, err
}

func (t *trouble) Lookup(ctx context.Context, dst []store.UserRecord, users []string) ([]store.UserRecord, error) {
	return t.store().Lookup(ctx, dst, users)
}

func (t *trouble) Count(ctx context.Context, topic string) (store.Counts, error) {
	return t.store().Count(ctx, topic)
}

func (t *trouble) Members(ctx context.Context, topic, after string, max int) (store.Page, error) {
	return t.store().Members(ctx, topic, after, max)
}

func (t *trouble) Position(ctx context.Context, shard int) (store.Version, error) {
	return t.store().Position(ctx, shard)
}

func (t *trouble) Watch(ctx context.Context, topic string) (store.Feed, error) {
	return t.store().Watch(ctx, topic)
}

func (t *trouble) Disconnect(ctx context.Context, user, session string, code int, text string) (int, error) {
	return t.store().Disconnect(ctx, user, session, code, text)
}
