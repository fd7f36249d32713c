package store

import (
	"encoding/json"
	"time"
)

// OpKind says what an operation does.
type OpKind uint8

const (
	// OpAdd makes the session exactly what the operation says, under this
	// lease: a new session, or one that is known already (repeated, or
	// asserted again under a new lease, which is also how it moves). Uses
	// User, Session, Topics, Meta, Away, Since, Anonymous, the limit fields,
	// and Grace: what a replaced session leaves in topics where it was the
	// last, cause CauseReplaced.
	//
	// Of a session that is known, Since and Anonymous stay as they were,
	// limits are not looked at, and topics that are no longer named are left
	// (CauseLeft). A session that a newer lease holds is not touched: Stale.
	OpAdd OpKind = iota + 1

	// OpRemove ends the session if this lease holds it. Where it was the
	// last of its user it leaves a grace of Grace, if that is more than 0,
	// and Cause is the cause of the Left that follows. Uses User, Session,
	// Grace, Cause.
	OpRemove

	// OpJoin adds the session to Topics; those it is in already, and "",
	// are ignored. Uses User, Session, Topics.
	OpJoin

	// OpLeave takes the session out of Topics, without a grace, cause
	// CauseLeft; those it is not in, and "", are ignored. Uses User,
	// Session, Topics.
	OpLeave

	// OpMeta replaces the session's metadata; nil removes it. Uses User,
	// Session, Meta.
	OpMeta

	// OpAway says whether the session is away. Uses User, Session, Away.
	OpAway

	// OpEndGrace ends at once every grace the user is in, each with the
	// cause it would have had. Always Done. Uses User.
	OpEndGrace
)

// UserLimit says what happens when a user has as many sessions as Op.Limit.
type UserLimit uint8

const (
	// RefuseNew refuses the new session: Full.
	RefuseNew UserLimit = iota

	// ReplaceOldest ends the user's oldest session, after the new one is in,
	// so that nobody leaves. It does so once per user and ReplaceInterval:
	// beyond that it refuses, or two clients that reconnect at once would
	// throw each other out for ever.
	ReplaceOldest
)

const (
	// ReplaceInterval is how often a user's oldest session may be replaced.
	ReplaceInterval = 2 * time.Second

	// MaxUserMeta bounds the metadata of all sessions of one user, in bytes.
	MaxUserMeta = 64 << 10

	// MaxLastSeen bounds for how many users of one shard it is remembered
	// when they were last seen. Beyond it those seen longest ago are
	// forgotten first.
	MaxLastSeen = 1_000_000
)

// Op is one change that a node makes. Kind says which fields matter. User
// and Session are never empty where they are used.
type Op struct {
	Kind    OpKind
	User    string
	Session string
	Topics  []string
	Meta    json.RawMessage
	Away    bool

	// Since is zero for a session that is new to the store: it gets the
	// store's time, and at least one unit more than the user's newest
	// session has. For one asserted again it is what Result.Since said the
	// first time, and is kept, so that an old session stays old.
	Since time.Time

	// Anonymous: no name that anyone would ask for. Last seen is not kept.
	Anonymous bool

	// Limit is how many sessions the user may have, this one included, over
	// all live leases; 0 is no limit. WhenFull says what happens beyond.
	// Challenge asks for an order Challenge to the node of the oldest
	// session when this one is refused.
	Limit     int
	WhenFull  UserLimit
	Challenge bool

	Grace time.Duration
	Cause Cause
}

// Status says how an operation went.
type Status uint8

const (
	// Done: it is so now, whether or not it was before.
	Done Status = iota

	// Missing: this lease holds no such session of that user; nothing was
	// changed. After OpRemove that is as good as Done.
	Missing

	// Full: the user has its limit of sessions, and this one was not added.
	// Result.Oldest is the oldest of them.
	Full

	// Outdated: this session is older than all those that fill the user's
	// limit, and ReplaceOldest would replace it: it was not added.
	Outdated

	// Stale: a newer lease holds this session; nothing was changed.
	Stale

	// TooLarge: the user's metadata would exceed MaxUserMeta. OpMeta:
	// nothing was changed. OpAdd: the session was added, or stays, without
	// metadata.
	TooLarge
)

// Result says what became of one operation.
type Result struct {
	Status   Status
	Since    time.Time    // OpAdd, Done or TooLarge: the session's, on the store's clock
	Oldest   *SessionRef  // Full
	Replaced []SessionRef // OpAdd: the sessions this one replaced; their nodes have orders
}

// SessionRef names a session and the node that holds it.
type SessionRef struct {
	ID       string
	Node     string // Node.ID
	NodeName string
}
