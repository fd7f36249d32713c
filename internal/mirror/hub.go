package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/a4cafe1a/presence/store"
)

var (
	// ErrTooLarge: the topic has more members than a snapshot may.
	ErrTooLarge = errors.New("mirror: topic too large")

	// ErrClosed: the subscription, the hub or the store was closed; the last
	// is store.ErrClosed, too.
	ErrClosed = errors.New("mirror: closed")
)

// Limits bound what subscribers cost. Zero means the default.
type Limits struct {
	// SubscriberEvents is how many events a subscriber may be behind; 256.
	// Beyond it the subscriber gets a new Snapshot. What arrived in one go is
	// never taken from a subscriber that had read everything before.
	SubscriberEvents int

	// SnapshotMembers is the size of the largest snapshot; 10,000.
	SnapshotMembers int
}

// Hub holds the mirrors of one process. Its methods may be called
// concurrently.
type Hub struct {
	store  store.Store
	limits Limits
	log    *slog.Logger

	ctx    context.Context
	cancel context.CancelFunc
	topics sync.WaitGroup // goroutines

	mu     sync.Mutex
	closed bool
	byName map[string]*topic
}

// New makes a hub. It starts nothing. log may be nil.
func New(s store.Store, limits Limits, log *slog.Logger) *Hub {
	if limits.SubscriberEvents <= 0 {
		limits.SubscriberEvents = 256
	}
	if limits.SnapshotMembers <= 0 {
		limits.SnapshotMembers = 10_000
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	h := &Hub{store: s, limits: limits, log: log, byName: map[string]*topic{}}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h
}

// Subscribe begins to follow a topic. It waits for the members to be read;
// while the store is away or cannot tell, that is until ctx ends, and the
// error then wraps both the context's and the store's. The events begin with
// a Snapshot taken before Subscribe returns. ErrTooLarge: there are too many
// members for one. ErrClosed: the hub or the store was closed.
func (h *Hub) Subscribe(ctx context.Context, name string) (*Subscription, error) {
	t, err := h.enter(name)
	if err != nil {
		return nil, err
	}
	s := &Subscription{topic: t, done: make(chan struct{})}
	select {
	case <-t.loaded():
		err = s.restart(true)
	case <-ctx.Done():
		err = t.waited(ctx.Err())
	}
	if err != nil {
		h.leave(t)
		return nil, err
	}
	return s, nil
}

// enter counts a subscriber in and starts the topic's mirror for the first.
func (h *Hub) enter(name string) (*topic, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, ErrClosed
	}
	t := h.byName[name]
	if t == nil {
		t = newTopic(h, name)
		h.byName[name] = t
		h.topics.Go(t.run)
	}
	t.subscribers++
	return t, nil
}

// leave counts a subscriber out and ends the mirror after the last.
func (h *Hub) leave(t *topic) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t.subscribers--; t.subscribers == 0 {
		h.forget(t)
		t.cancel()
	}
}

// forget lets the next subscriber start a new mirror.
func (h *Hub) forget(t *topic) {
	if h.byName[t.name] == t {
		delete(h.byName, t.name)
	}
}

// Close ends every subscription with ErrClosed, and returns when every
// goroutine has ended. Closing again does nothing.
func (h *Hub) Close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.cancel()
	h.topics.Wait()
}

// tooLarge says how large.
func (h *Hub) tooLarge(members int) error {
	return fmt.Errorf("%w: %d members, at most %d", ErrTooLarge, members, h.limits.SnapshotMembers)
}
