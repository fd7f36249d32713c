package memstore

import (
	"container/heap"
	"context"
	"time"

	"github.com/a4cafe1a/presence/store"
)

// grace is what keeps a member without sessions.
type grace struct {
	member *member
	due    int64
	cause  store.Cause
	index  int // in the heap
}

// graceHeap has the grace that ends first on top.
type graceHeap []*grace

func (h *graceHeap) add(g *grace)    { heap.Push(h, g) }
func (h *graceHeap) remove(g *grace) { heap.Remove(h, g.index) }

func (h graceHeap) Len() int           { return len(h) }
func (h graceHeap) Less(i, j int) bool { return h[i].due < h[j].due }
func (h graceHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is for package heap.
func (h *graceHeap) Push(x any) {
	g := x.(*grace)
	g.index = len(*h)
	*h = append(*h, g)
}

// Pop is for package heap.
func (h *graceHeap) Pop() any {
	last := len(*h) - 1
	g := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return g
}

// Sweep implements store.Store.
func (s *Store) Sweep(ctx context.Context, lease store.Lease, limit int) (store.SweepResult, error) {
	if err := s.ready(ctx); err != nil {
		return store.SweepResult{}, err
	}
	if limit <= 0 {
		limit = 200
	}
	limit = min(limit, 1000)
	s.mu.Lock()
	defer s.mu.Unlock()
	l, v, err := s.caller(lease)
	if err != nil {
		return store.SweepResult{}, err
	}
	var r store.SweepResult
	if v.hold == 0 {
		r.Done = s.sweepDead(v, limit)
		r.Done += s.sweepGraces(v, limit-r.Done)
		r.Done += s.sweepSeen(v, l, limit-r.Done)
		s.bury(v)
	}
	r.More, r.Next = s.agenda(v, l)
	return r, nil
}

// sweepDead ends sessions of dead leases.
func (s *Store) sweepDead(v view, limit int) (done int) {
	for _, l := range s.leases {
		if v.alive(l) {
			continue
		}
		for len(l.sessions) > 0 && done < limit {
			u := l.sessions[len(l.sessions)-1].user
			s.with(v, u, func() { done += s.reap(u) })
		}
	}
	return done
}

// sweepGraces lets members go whose grace has ended.
func (s *Store) sweepGraces(v view, limit int) (done int) {
	for ; len(s.graces) > 0 && s.graces[0].due <= v.now && done < limit; done++ {
		g := s.graces[0]
		s.with(v, g.member.user, func() { s.leave(g.member, g.cause) })
	}
	return done
}

// with makes an operation of f.
func (s *Store) with(v view, u *user, f func()) {
	st := s.stripe(u.name)
	st.mu.Lock()
	defer st.mu.Unlock()
	s.begin(v, st, u)
	f()
	s.finish()
}

// agenda says whether a Sweep would find something, and else how long until
// it may.
func (s *Store) agenda(v view, l *lease) (work bool, next time.Duration) {
	if v.hold != 0 {
		return false, time.Duration(v.hold - v.now)
	}
	at := int64(0)
	soonest := func(t int64) {
		if at == 0 || t < at {
			at = t
		}
	}
	if len(s.graces) > 0 {
		soonest(s.graces[0].due)
	}
	for _, other := range s.leases {
		if other != l && len(other.sessions) > 0 {
			soonest(other.end.Load())
		}
	}
	if at != 0 && at <= v.now || s.overdueSeen(v, l) {
		return true, 0
	}
	if at == 0 {
		return false, 0
	}
	return false, time.Duration(at - v.now)
}

// Disconnect implements store.Store.
func (s *Store) Disconnect(ctx context.Context, name, session string, code int, text string) (told int, err error) {
	if err := s.ready(ctx); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.look()
	h := s.hash(name)
	st := s.stripeAt(h)
	st.mu.Lock()
	defer st.mu.Unlock()
	u := st.user(h, name)
	if u != nil {
		s.begin(v, st, u)
		s.endGraces(u)
		s.finish()
		for x := u.first; x != nil; x = x.next {
			if (session == "" || x.id == session) && v.alive(x.lease) {
				x.lease.post(store.Order{Kind: store.Kick, User: name, Session: x.id, Code: code, Text: text})
				told++
			}
		}
	}
	if told == 0 && v.hold != 0 {
		return 0, v.holdError()
	}
	return told, nil
}
