package presence

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/a4cafe1a/presence/internal/mirror"
	"github.com/a4cafe1a/presence/store"
)

// Kind says what an Event is. As text, and so in JSON, it is the word that String
// returns.
type Kind uint8

const (
	// Snapshot replaces all that was known: Members holds every member.
	Snapshot Kind = iota + 1
	// Join: the user was no member and is one.
	Join
	// Leave: the user was a member and is none. Cause says why.
	Leave
	// Update: a session of a member came or went, its metadata or away
	// changed, or a grace began or ended.
	Update
)

// String returns "snapshot", "join", "leave" or "update".
func (k Kind) String() string {
	switch k {
	case Snapshot:
		return "snapshot"
	case Join:
		return "join"
	case Leave:
		return "leave"
	case Update:
		return "update"
	}
	return fmt.Sprintf("kind %d", k)
}

// MarshalText returns what String does.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText takes one of the words of String. Another one is an error.
func (k *Kind) UnmarshalText(text []byte) error {
	for kind := Snapshot; kind <= Update; kind++ {
		if string(text) == kind.String() {
			*k = kind
			return nil
		}
	}
	return fmt.Errorf("presence: there is no kind of event %q", text)
}

// Event is a change of a topic's membership. Per user Join and Leave
// alternate. Events are absolute: Member is all there is to know of the user
// in the topic from here on. In JSON it has what its Kind has.
type Event struct {
	Kind    Kind      `json:"kind"`
	Topic   string    `json:"topic"`
	Version string    `json:"version"` // of the membership, comparable for equality only
	At      time.Time `json:"at"`
	Member  Member    `json:"member,omitzero"`  // of Join, Leave and Update; of Leave Offline, without sessions and metadata, with the Since of the visit that is over
	Cause   Cause     `json:"cause,omitzero"`   // of Leave
	Members []Member  `json:"members,omitzero"` // of Snapshot; read-only
}

// Subscription is a stream of the events of one topic. Next and All are for
// one goroutine; Close may be called from any.
type Subscription struct{ sub *mirror.Subscription }

// Subscribe follows a topic; "" is everyone. The first event is a Snapshot.
// The node keeps one copy of a topic, however many subscribers it has. A
// subscriber that falls more than Limits.SubscriberEvents behind gets a new
// Snapshot. ErrTooLarge: the topic has more than Limits.SnapshotMembers
// members. While the store is away or in a hold it waits until ctx ends, so give
// that a deadline; the error is then ErrUnknown, too. ctx is for the call only. Call Close when done.
func (p *Presence) Subscribe(ctx context.Context, topic string) (*Subscription, error) {
	if err := p.opts.Limits.checkName("topic", topic); err != nil {
		return nil, failed("subscribe", err)
	}
	sub, err := p.mirrors.Subscribe(ctx, topic)
	if err != nil {
		said := subscribeError(err)
		if errors.Is(err, context.DeadlineExceeded) && !errors.Is(said, ErrUnknown) {
			said = failed("subscribe", ErrUnknown, err) // the store has not said anything yet
		}
		return nil, said
	}
	return &Subscription{sub}, nil
}

// Next waits for the next event. A ctx that ends loses nothing: call again.
// ErrClosed: after Close or Shutdown. ErrTooLarge: a new Snapshot was needed,
// and the topic has become too large; the subscription is over.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	e, err := s.sub.Next(ctx)
	if err != nil {
		return Event{}, subscribeError(err)
	}
	return eventOf(&e), nil
}

// All iterates over the events until one fails, which it yields.
func (s *Subscription) All(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for {
			e, err := s.Next(ctx)
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// Close ends the subscription. Calling it again does nothing.
func (s *Subscription) Close() { s.sub.Close() }

func subscribeError(err error) error {
	switch {
	case errors.Is(err, mirror.ErrTooLarge):
		return failed("subscribe", ErrTooLarge, err)
	case errors.Is(err, mirror.ErrClosed) && !errors.Is(err, store.ErrClosed):
		return failed("subscribe", ErrClosed)
	}
	return storeError("subscribe", err)
}

func eventOf(e *mirror.Event) Event {
	out := Event{Kind: Kind(e.Kind), Topic: e.Topic, Version: e.Version, At: e.At, Cause: e.Cause}
	if e.Kind == mirror.Snapshot {
		out.Members = make([]Member, len(e.Members))
		for i := range e.Members {
			out.Members[i] = memberOf(&e.Members[i])
		}
		return out
	}
	out.Member = memberOf(&e.Member)
	return out
}
