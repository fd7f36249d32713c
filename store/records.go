package store

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// State says whether a user is there. As text, and so in JSON, it is the word
// that String returns.
type State uint8

const (
	Unknown State = iota // it cannot be told now
	Offline              // not there
	Grace                // the last session ended less than a grace ago
	Online               // at least one live session
)

// String returns "unknown", "offline", "grace" or "online".
func (s State) String() string {
	switch s {
	case Offline:
		return "offline"
	case Grace:
		return "grace"
	case Online:
		return "online"
	default:
		return "unknown"
	}
}

// MarshalText returns what String does.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText takes one of the words of String. Another one is an error.
func (s *State) UnmarshalText(text []byte) error {
	for state := Unknown; state <= Online; state++ {
		if string(text) == state.String() {
			*s = state
			return nil
		}
	}
	return fmt.Errorf("store: there is no state %q", text)
}

// Cause says why a session ended, or why a user left. Stores keep and return
// whatever string they are given.
type Cause string

const (
	CauseClientClosed  Cause = "client-closed"  // the client said goodbye
	CauseLost          Cause = "lost"           // the connection broke
	CauseSilent        Cause = "silent"         // no sign of life in time
	CauseStalled       Cause = "stalled"        // the app does not read
	CauseSlow          Cause = "slow"           // the peer does not read
	CauseIdle          Cause = "idle"           // alive, but no message of its own
	CauseExpired       Cause = "expired"        // the identity ran out
	CauseKicked        Cause = "kicked"         // disconnected by the app
	CauseLimit         Cause = "limit"          // the user has too many sessions
	CauseReplaced      Cause = "replaced"       // by a newer session of the user
	CauseShutdown      Cause = "shutdown"       // the node was shut down
	CauseProtocolError Cause = "protocol-error" // the peer broke the protocol
	CauseAppClosed     Cause = "app-closed"     // the app was done
	CauseAppError      Cause = "app-error"      // the app failed
	CauseLeft          Cause = "left"           // left the topic on purpose
	CauseNodeLost      Cause = "node-lost"      // the node's lease ran out
)

// SessionRecord is one live session.
type SessionRecord struct {
	ID       string
	User     string
	Node     string // Node.ID
	NodeName string
	Topics   []string // without ""
	Meta     json.RawMessage
	Away     bool
	Since    time.Time
}

// UserRecord is a user as seen in one topic; for Lookup that is everyone.
type UserRecord struct {
	User  string
	State State

	// Away: the user has a session, and all its sessions are away, those in
	// other topics included.
	Away bool

	// Since is when the user joined the topic; zero when it is not in it.
	// After a loss it is the Since of the session that was asserted first.
	Since time.Time

	// LastSeen is, of a user with sessions, the last renewal of a lease that
	// holds one. Otherwise it is when the last session ended; zero when that
	// is not known any more. It moves without a change in the log.
	LastSeen time.Time

	// AsOf is the store's time of this record.
	AsOf time.Time

	// Sessions are the live ones in the topic, oldest first.
	Sessions []SessionRecord
}

// Counts says how many are in a topic.
type Counts struct {
	Users    int `json:"users"` // members, those in grace included
	Sessions int `json:"sessions"`

	// MaybeGone: of Users, and of Sessions, at most so many belong to nodes
	// whose lease ended and who are not swept yet. Zero but for the seconds
	// of a sweep.
	MaybeGone int `json:"maybe_gone,omitzero"`
}

// Page is a part of the members of a topic. It may be short, even empty,
// while there is more.
type Page struct {
	Members []UserRecord // in order of shard, then user
	Next    string       // what to pass as after for the next page
	More    bool         // there may be a next page
	AsOf    time.Time
}

// Version is a position in the log of one shard. Sequence grows by at least
// one with each change and is never used again within a generation. A
// generation is what one memory of the store lived through: another one means
// that the store forgot something.
type Version struct {
	Shard      int
	Generation string
	Sequence   uint64
}

// String returns a form that is unique over shards and generations.
func (v Version) String() string { return string(v.Append(nil)) }

// Append appends what String returns.
func (v Version) Append(dst []byte) []byte {
	dst = append(append(dst, v.Generation...), '.')
	dst = append(strconv.AppendInt(dst, int64(v.Shard), 10), '.')
	return strconv.AppendUint(dst, v.Sequence, 10)
}

// ChangeKind says what happened to a member.
type ChangeKind uint8

const (
	Joined  ChangeKind = iota + 1 // was not a member, is one
	Updated                       // is a member, as before
	Left                          // was a member, is none; Cause says why
)

// String returns "joined", "updated" or "left".
func (k ChangeKind) String() string {
	switch k {
	case Joined:
		return "joined"
	case Updated:
		return "updated"
	case Left:
		return "left"
	default:
		return "change " + strconv.Itoa(int(k))
	}
}

// Change says what one member of a topic is from Version on. It is absolute:
// it holds the whole record, so that only the last change of a user matters.
type Change struct {
	Kind    ChangeKind
	Version Version
	At      time.Time
	Cause   Cause      // Left
	Member  UserRecord // Left: State Offline, no sessions, LastSeen if known to be kept
}

// Span is the part of a shard's log that a Batch covers: what is after From,
// up to To. From is the To of the batch before. Something else means that the
// feed skipped a part: treat it as a Reset.
type Span struct {
	From, To Version
}

// Batch is what a feed returns: changes in order per shard, and the spans of
// the log in which there were no others for this topic.
type Batch struct {
	Changes []Change
	Spans   []Span // one per shard, in order

	// Reset: the log no longer holds what lies between, or the generation is
	// another. There are no changes. Read the members again and Poll, as for
	// the first snapshot; the feed goes on from here.
	Reset bool
}
