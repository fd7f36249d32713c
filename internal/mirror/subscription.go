package mirror

import (
	"context"
	"sync/atomic"
)

// Subscription is one subscriber of a topic. Next has one caller at a time;
// Close may be called by anybody.
type Subscription struct {
	topic  *topic
	closed atomic.Bool
	done   chan struct{} // closed after closed is set

	// of the caller of Next
	snapshot *Event // not returned yet
	at       *chunk
	read     int // news of at that were returned
}

// Next returns the next event, and waits for it. A context that ends loses
// nothing. ErrClosed: the subscription, the hub or the store was closed.
// ErrTooLarge: the subscriber was too slow and the topic is too large for a
// Snapshot; the next call tries again.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		switch {
		case s.closed.Load():
			return Event{}, ErrClosed
		case s.snapshot != nil && !s.at.cut.Load():
			e := *s.snapshot
			s.snapshot = nil
			return e, nil
		case s.snapshot == nil && s.read < len(s.at.news):
			s.read++
			return s.at.news[s.read-1].event(s.topic.name), nil
		case s.at.cut.Load():
			// A Snapshot that was never fetched is out of date too.
			if err := s.restart(false); err != nil {
				return Event{}, err
			}
			continue
		}
		select {
		case <-s.at.more:
			if next := s.at.next.Load(); next != nil {
				s.at, s.read = next, 0
			} else if !s.at.cut.Load() {
				return Event{}, s.topic.why() // there will be no next
			}
		case <-s.done:
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}

// restart goes to the end of the topic's events, with a Snapshot of what was
// before.
func (s *Subscription) restart(exact bool) error {
	e, at, err := s.topic.snapshot(exact)
	if err != nil {
		return err
	}
	s.snapshot, s.at, s.read = e, at, len(at.news)
	return nil
}

// Close ends the subscription. Closing again does nothing.
func (s *Subscription) Close() {
	if s.closed.CompareAndSwap(false, true) {
		close(s.done)
		s.topic.hub.leave(s.topic)
	}
}
