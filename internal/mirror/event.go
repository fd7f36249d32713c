package mirror

import (
	"time"

	"github.com/a4cafe1a/presence/store"
)

// Kind says what an event is.
type Kind uint8

const (
	// Snapshot replaces everything the subscriber knew. It is the first
	// event, and comes again when the subscriber was too slow.
	Snapshot Kind = iota + 1
	Join          // a member that was not there before
	Leave         // is no member any more
	Update        // a member, as before, that changed
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
	default:
		return "kind?"
	}
}

// Event is what a subscription returns. Everything it refers to is shared and
// read-only.
type Event struct {
	Kind  Kind
	Topic string

	// Version is the store's version of the change. For a Snapshot, and for
	// what was found out by reading the members again, it is that of the
	// whole copy: one version per shard, with commas between them.
	Version string
	At      time.Time // on the store's clock

	// Member is who a Join, Leave or Update is of. Of a Leave it has the Since
	// of the membership that is over.
	Member store.UserRecord
	Cause  store.Cause // Leave; empty when the store has forgotten it

	// Members are those of a Snapshot, in order of shard, then user.
	Members []store.UserRecord
}

// news is what all subscribers share of an Event: a quarter of its size. Each
// makes the Event as it reads.
type news struct {
	change  *store.Change
	version string
	since   time.Time // Leave: of the membership that is over
	end     int32     // of version, while the text of all is written
	kind    Kind
}

func (n *news) event(topic string) Event {
	c := n.change
	e := Event{Kind: n.kind, Topic: topic, Version: n.version, At: c.At, Member: c.Member, Cause: c.Cause}
	if n.kind == Leave {
		e.Member.Since = n.since
	}
	return e
}
