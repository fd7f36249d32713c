package redisstore

import (
	"context"
	"sync"

	"github.com/a4cafe1a/presence/store"
)

// feed implements store.Feed.
type feed struct {
	s     *Store
	topic string
	parts []*part
	wake  chan struct{}
	once  sync.Once
	done  chan struct{}
}

// part is a feed in one partition. It is guarded by tail.mu.
type part struct {
	feed    *feed
	last    store.Version // where the last batch ended
	changes []store.Change
	reset   bool
}

// give adds a change, if somebody may still read it.
func (x *part) give(c store.Change) {
	if x.reset {
		return
	}
	if len(x.changes) >= x.feed.s.maxLog {
		x.drop()
		return
	}
	x.changes = append(x.changes, c)
	x.feed.rouse()
}

func (x *part) drop() {
	x.changes, x.reset = nil, true
	x.feed.rouse()
}

func (f *feed) rouse() {
	select {
	case f.wake <- struct{}{}:
	default: // awake already
	}
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, topic string) (store.Feed, error) {
	if s.closed() {
		return nil, store.ErrClosed
	}
	f := &feed{s: s, topic: topic, wake: make(chan struct{}, 1), done: make(chan struct{})}
	for range s.shards {
		f.parts = append(f.parts, &part{feed: f})
	}
	if err := s.each(func(p *shard) error { return p.tail.add(ctx, f.parts[p.id]) }); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// Poll implements store.Feed.
func (f *feed) Poll(ctx context.Context) (store.Batch, error) {
	if err := f.ended(); err != nil {
		return store.Batch{}, err
	}
	if err := ctx.Err(); err != nil {
		return store.Batch{}, err
	}
	if err := f.s.each(func(p *shard) error { return p.tail.catchUp(ctx) }); err != nil {
		return store.Batch{}, err
	}
	return f.take(), nil
}

func (f *feed) ended() error {
	select {
	case <-f.done:
		return store.ErrClosed
	case <-f.s.done:
		return store.ErrClosed
	default:
		return nil
	}
}

// take returns what has been read.
func (f *feed) take() store.Batch {
	b := store.Batch{Spans: make([]store.Span, len(f.parts))}
	for i, x := range f.parts {
		t := &f.s.shards[i].tail
		t.mu.Lock()
		b.Spans[i] = store.Span{From: x.last, To: t.at}
		x.last = t.at
		b.Reset = b.Reset || x.reset
		if len(b.Changes) == 0 {
			b.Changes = x.changes
		} else {
			b.Changes = append(b.Changes, x.changes...)
		}
		x.changes, x.reset = nil, false
		t.mu.Unlock()
	}
	if b.Reset {
		b.Changes = nil
	}
	return b
}

// news says whether there is something to take.
func (f *feed) news() bool {
	for i, x := range f.parts {
		t := &f.s.shards[i].tail
		t.mu.Lock()
		news := x.reset || len(x.changes) > 0
		t.mu.Unlock()
		if news {
			return true
		}
	}
	return false
}

// Next implements store.Feed. While Redis is away it waits.
func (f *feed) Next(ctx context.Context) (store.Batch, error) {
	for {
		if err := f.ended(); err != nil {
			return store.Batch{}, err
		}
		if err := ctx.Err(); err != nil {
			return store.Batch{}, err
		}
		if f.news() {
			return f.take(), nil
		}
		select {
		case <-f.wake:
		case <-f.done:
		case <-f.s.done:
		case <-ctx.Done():
		}
	}
}

// Close implements store.Feed.
func (f *feed) Close() error {
	f.once.Do(func() {
		close(f.done)
		for i, x := range f.parts {
			f.s.shards[i].tail.remove(x)
		}
	})
	return nil
}
