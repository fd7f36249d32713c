package store

import "time"

// Node is what a node says of itself when it registers.
type Node struct {
	ID   string // random per start of the process; the same over its leases
	Name string // shown to people; need not be unique

	// LeaveGrace is how long after its last renewal the users of this node
	// are kept in grace, if it dies. Shorter than the lease (0 is) it
	// changes nothing: the wait for the lease was the grace.
	LeaveGrace time.Duration

	// KeepLastSeen is how long it is remembered when a user was last seen.
	// 0 or less: not at all. It is used for users that leave from this node,
	// and for what this node sweeps.
	KeepLastSeen time.Duration
}

// Lease is one incarnation of a node in one shard. It is opaque: nodes keep
// it, pass it back, and read Shard and TTL. Leases are comparable.
type Lease struct {
	Shard int
	Node  string        // Node.ID
	Token string        // the store's own; never given twice
	TTL   time.Duration // how long it is good after a renewal
}

// Summary is what a node says with a renewal.
type Summary struct {
	// Sessions is the number of sessions that a Commit under this lease
	// acknowledged with Done or TooLarge, less those it removed and those
	// that an Order up to Ack took away. Digest is the xor of Digest(id) of
	// the same sessions.
	Sessions int
	Digest   uint64

	// Complete says: all I held when I registered has been committed under
	// this lease. What was queued since then does not matter. It is false
	// only while a node asserts its sessions again.
	Complete bool

	// Ack is the Number of the last order that was received and will be
	// carried out. The store forgets the orders up to it and returns later
	// ones again, so that an answer lost on the way loses no order.
	Ack uint64
}

// Digest is a session's share of Summary.Digest. An id of 16 lower-case hex
// digits is its own value, which a store can work out in a script. Any other
// id is hashed (FNV-1a, 64 bits).
func Digest(id string) uint64 {
	if v, ok := hex16(id); ok {
		return v
	}
	h := uint64(14695981039346656037)
	for i := 0; i < len(id); i++ {
		h = (h ^ uint64(id[i])) * 1099511628211
	}
	return h
}

func hex16(id string) (uint64, bool) {
	if len(id) != 16 {
		return 0, false
	}
	var v uint64
	for i := 0; i < len(id); i++ {
		switch c := id[i]; {
		case c >= '0' && c <= '9':
			v = v<<4 | uint64(c-'0')
		case c >= 'a' && c <= 'f':
			v = v<<4 | uint64(c-'a'+10)
		default:
			return 0, false
		}
	}
	return v, true
}

// Orders is the answer to a renewal.
type Orders struct {
	// Mail holds orders to carry out, oldest first. Carry them out before
	// anything else here, and expect repetitions.
	Mail []Order

	// Reassert says that the store does not hold what the Summary describes:
	// register a new lease, add every session again, with its old id and
	// Since, then end this lease. An order that is in Mail, or was there and
	// is not acknowledged, explains a difference and gives no Reassert.
	Reassert bool

	// Work says that a Sweep would find something to do now. Next is how
	// long until it may, from the end of a grace, of another lease or of a
	// hold; 0 when nothing is in sight. A node that removed a session with a
	// grace sweeps when that ends, without waiting to be told.
	Work bool
	Next time.Duration

	// Hold is how long the hold may still last; 0 when there is none.
	Hold time.Duration

	// Now is the store's clock.
	Now time.Time
}

// OrderKind says what an order wants.
type OrderKind uint8

const (
	// Kick: end the session with Code and Text, cause CauseKicked. The
	// store has not removed it; the node does.
	Kick OrderKind = iota + 1

	// Replaced: a newer session of the user took this one's place. The store
	// has removed it; end it, with cause CauseReplaced, and commit nothing.
	Replaced

	// Challenge: somebody is refused because of this session. Make it prove
	// that it is alive, and remove it if it cannot.
	Challenge
)

// Order is one message in a lease's mailbox. A session it names may have
// ended long ago: then it is carried out already. Mailboxes hold 10,000
// orders; beyond that the oldest is dropped.
type Order struct {
	Number  uint64 // increasing within a lease, from 1
	Kind    OrderKind
	User    string
	Session string
	Code    int    // Kick
	Text    string // Kick
}

// SweepResult says what a Sweep did.
type SweepResult struct {
	Done int           // things done: sessions swept, graces ended, last seen forgotten
	More bool          // there is more to do: sweep again
	Next time.Duration // as Orders.Next
}
