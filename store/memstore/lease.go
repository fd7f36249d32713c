package memstore

import (
	"context"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/a4cafe1a/presence/store"
)

// maxMail is how many orders a mailbox holds.
const maxMail = 10_000

// lease is one incarnation of a node. The atomic fields are written under
// Store.mu and read without it.
type lease struct {
	store.Lease
	node   store.Node
	number uint64 // newer leases have greater ones

	end     atomic.Int64 // dead from here
	renewed atomic.Int64 // on the wall
	grace   atomic.Int64 // until when its users are in grace, should it be dead
	cause   store.Cause  // why its sessions end, should it be dead

	sessions []*session // all that it holds; session.slot is the index
	digest   uint64

	asserted bool // since the hold began it said that all it has is here
	mail     []store.Order
	mailed   uint64 // number of the last order
	bell     chan struct{}
}

func (l *lease) take(x *session) {
	x.lease, x.slot = l, int32(len(l.sessions))
	l.sessions = append(l.sessions, x)
	l.digest ^= store.Digest(x.id)
}

func (l *lease) drop(x *session) {
	last := len(l.sessions) - 1
	l.sessions[x.slot] = l.sessions[last]
	l.sessions[x.slot].slot = x.slot
	l.sessions[last] = nil
	l.sessions = l.sessions[:last]
	l.digest ^= store.Digest(x.id)
}

// post puts an order into the mailbox and rings.
func (l *lease) post(o store.Order) {
	l.mailed++
	o.Number = l.mailed
	if len(l.mail) == maxMail {
		l.mail = append(l.mail[:0], l.mail[1:]...)
	}
	l.mail = append(l.mail, o)
	l.ring()
}

func (l *lease) ring() {
	select {
	case l.bell <- struct{}{}:
	default: // rung already, or nobody asked for a bell
	}
}

// contact notes that a node was heard and begins a hold where that is due.
func (s *Store) contact() view {
	var v view
	v.now, v.wall = s.clock()
	heard := s.heard.Load()
	if s.unheard(v.now, heard) {
		s.holdUntil(v.now+int64(s.ttl), heard)
		for _, l := range s.leases {
			l.asserted = false
		}
	}
	s.heard.Store(v.now)
	v.cut = v.now
	if hold := s.hold.Load(); hold > v.now {
		v.hold = hold
	}
	return v
}

// holdUntil begins or prolongs the hold. Leases that ran at a given time are
// good until its end.
func (s *Store) holdUntil(end, ran int64) {
	for _, l := range s.leases {
		if e := l.end.Load(); e > ran && e < end {
			l.end.Store(end)
		}
	}
	s.running.Store(max(s.running.Load(), end))
	s.hold.Store(end)
}

// caller is contact for a call with a lease.
func (s *Store) caller(token store.Lease) (*lease, view, error) {
	v := s.contact()
	for _, l := range s.leases {
		if l.Lease == token && v.alive(l) {
			return l, v, nil
		}
	}
	return nil, v, store.ErrLeaseLost
}

// Register implements store.Store.
func (s *Store) Register(ctx context.Context, shard int, node store.Node) (store.Lease, error) {
	if err := s.ready(ctx); err != nil {
		return store.Lease{}, err
	}
	if shard != 0 {
		return store.Lease{}, store.ErrShard
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.contact()
	s.bury(v)
	s.number++
	l := &lease{
		Lease: store.Lease{
			Node:  node.ID,
			Token: s.generation + "." + strconv.FormatUint(s.number, 10),
			TTL:   s.ttl,
		},
		node:   node,
		number: s.number,
		cause:  store.CauseNodeLost,
	}
	s.leases = append(s.leases, l)
	s.extend(v, l)
	return l.Lease, nil
}

// extend makes a lease good for a TTL from now.
func (s *Store) extend(v view, l *lease) {
	end := v.now + int64(s.ttl)
	l.end.Store(end)
	l.renewed.Store(v.wall)
	l.grace.Store(v.now + int64(max(0, l.node.LeaveGrace)))
	s.running.Store(max(s.running.Load(), end))
}

// bury forgets dead leases with nothing left under them.
func (s *Store) bury(v view) {
	s.leases = slices.DeleteFunc(s.leases, func(l *lease) bool {
		return !v.alive(l) && len(l.sessions) == 0
	})
}

// Renew implements store.Store.
func (s *Store) Renew(ctx context.Context, lease store.Lease, sum store.Summary) (store.Orders, error) {
	if err := s.ready(ctx); err != nil {
		return store.Orders{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l, v, err := s.caller(lease)
	if err != nil {
		return store.Orders{}, err
	}
	s.extend(v, l)

	for len(l.mail) > 0 && l.mail[0].Number <= sum.Ack {
		l.mail = l.mail[1:]
	}
	agrees := sum.Sessions == len(l.sessions) && sum.Digest == l.digest
	explained := false
	for i := range l.mail {
		explained = explained || l.mail[i].Kind == store.Replaced
	}
	if v.hold != 0 {
		v.hold = s.assess(v, l, agrees, sum.Complete)
	}
	o := store.Orders{
		Reassert: !agrees && !explained,
		Now:      wallTime(v.wall),
	}
	if len(l.mail) > 0 {
		o.Mail = append([]store.Order(nil), l.mail...)
	}
	if v.hold != 0 {
		o.Hold = time.Duration(v.hold - v.now)
	}
	o.Work, o.Next = s.agenda(v, l)
	return o, nil
}

// assess lets a renewal end or prolong the hold, and returns when it ends.
func (s *Store) assess(v view, l *lease, agrees, complete bool) int64 {
	if !complete {
		s.holdUntil(v.now+int64(s.ttl), v.now)
		return v.now + int64(s.ttl)
	}
	l.asserted = l.asserted || agrees
	for _, other := range s.leases {
		if v.alive(other) && !other.asserted {
			return v.hold
		}
	}
	s.hold.Store(0)
	return 0
}

// Bell implements store.Store.
func (s *Store) Bell(ctx context.Context, lease store.Lease) (<-chan struct{}, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l, _, err := s.caller(lease)
	if err != nil {
		return nil, err
	}
	l.bell = make(chan struct{}, 1)
	if len(l.mail) > 0 {
		l.ring()
	}
	return l.bell, nil
}

// End implements store.Store.
func (s *Store) End(ctx context.Context, lease store.Lease, grace time.Duration, cause store.Cause) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l, v, err := s.caller(lease)
	if err != nil {
		return nil // it has ended: what was asked for
	}
	l.cause = cause
	l.grace.Store(v.now + int64(max(0, grace)))
	l.renewed.Store(v.wall)
	l.end.Store(v.now)
	s.bury(v)
	last := int64(0)
	for _, l := range s.leases {
		last = max(last, l.end.Load())
	}
	s.running.Store(last)
	return nil
}
