package memstore

import (
	"cmp"
	"slices"

	"github.com/a4cafe1a/presence/store"
)

// operation is what one Op, or one thing swept, does to one user. Changes are
// collected and logged at its end, one per topic.
type operation struct {
	v       view
	stripe  *stripe
	user    *user
	since   int64 // of the memberships it begins
	serial  uint32
	touched []touch
}

type touch struct {
	member *member
	kind   store.ChangeKind
	cause  store.Cause
}

func (s *Store) begin(v view, st *stripe, u *user) {
	s.op.v, s.op.stripe, s.op.user, s.op.since = v, st, u, v.wall
	s.op.serial++
}

// finish logs what the operation touched.
func (s *Store) finish() {
	o := &s.op
	if away := o.user.isAway(&o.v); away != o.user.away {
		o.user.away = away
		s.touch(&o.user.all)
		for m := o.user.members; m != nil; m = m.next {
			s.touch(m)
		}
	}
	for i := range o.touched {
		s.log(&o.v, &o.touched[i])
	}
	clear(o.touched)
	o.touched = o.touched[:0]
	o.user = nil
}

// touch marks a member as changed, and returns its mark.
func (s *Store) touch(m *member) *touch {
	o := &s.op
	if m.mark == o.serial {
		for i := range o.touched {
			if o.touched[i].member == m {
				return &o.touched[i]
			}
		}
	}
	m.mark = o.serial
	o.touched = append(o.touched, touch{member: m, kind: store.Updated})
	return &o.touched[len(o.touched)-1]
}

// touchAll marks the members of all topics a session is in.
func (s *Store) touchAll(x *session) {
	s.touch(&x.user.all)
	for _, name := range x.topics() {
		if m := x.user.member(s.topics[name]); m != nil {
			s.touch(m)
		}
	}
}

// enter counts one more session of a user in a topic.
func (s *Store) enter(t *topic, u *user) {
	m := u.member(t)
	if m == nil {
		m = &member{user: u, topic: t, next: u.members}
		u.members = m
		u.count++
	}
	t.sessions++
	m.sessions++
	mark := s.touch(m)
	switch {
	case m.grace != nil:
		s.graces.remove(m.grace)
		m.grace = nil
	case m.sessions == 1:
		mark.kind = store.Joined
		m.since = s.op.since
		t.index.insert(u.name, m)
	}
}

// exit counts one session less. The last one leaves a grace until due, if
// that is still to come. In a hold nobody leaves at once.
func (s *Store) exit(m *member, due int64, cause store.Cause) {
	m.topic.sessions--
	m.sessions--
	s.touch(m)
	if m.sessions > 0 {
		return
	}
	if due > s.op.v.now || s.op.v.hold != 0 {
		m.grace = &grace{member: m, due: due, cause: cause}
		s.graces.add(m.grace)
		return
	}
	s.leave(m, cause)
}

// leave ends a membership.
func (s *Store) leave(m *member, cause store.Cause) {
	u, t := m.user, m.topic
	mark := s.touch(m)
	mark.kind, mark.cause = store.Left, cause
	if m.grace != nil {
		s.graces.remove(m.grace)
		m.grace = nil
	}
	t.index.remove(u.name)
	if m != &u.all {
		at := &u.members
		for *at != m {
			at = &(*at).next
		}
		*at = m.next
		u.count--
		s.release(t)
		return
	}
	// Who leaves everyone leaves all: no sessions, so only graces are left.
	for u.members != nil {
		s.leave(u.members, u.members.grace.cause)
	}
	s.op.stripe.users.Delete(u, s.hashOf)
	s.remember(s.op.stripe, u)
}

// remove takes a session away.
func (s *Store) remove(x *session, due int64, cause store.Cause) {
	u := x.user
	seen := s.op.v.wall
	if !s.op.v.alive(x.lease) {
		seen = x.lease.renewed.Load()
	}
	u.seen = max(u.seen, seen)
	u.keep = !u.anonymous && x.lease.node.KeepLastSeen > 0
	x.lease.drop(x)
	u.unlink(x)
	topics := x.topics()
	x.set(nil, nil)
	for _, name := range topics {
		s.exit(u.member(s.topics[name]), due, cause)
	}
	s.exit(&u.all, due, cause)
	*x = session{} // it may be the user's own, to be used again
}

// reap ends the user's sessions of dead leases, and returns how many. It is
// done before another session ends, so that its grace counts and not the dead
// one's. Among the dead the one with the longest grace goes last, and counts.
func (s *Store) reap(u *user) int {
	var dead []*session
	for x := u.first; x != nil; x = x.next {
		if !s.op.v.alive(x.lease) {
			dead = append(dead, x)
		}
	}
	if len(dead) > 1 {
		slices.SortFunc(dead, func(a, b *session) int {
			return cmp.Or(
				cmp.Compare(a.lease.grace.Load(), b.lease.grace.Load()),
				cmp.Compare(a.lease.number, b.lease.number),
			)
		})
	}
	for _, x := range dead {
		s.remove(x, x.lease.grace.Load(), x.lease.cause)
	}
	return len(dead)
}

// endGraces ends all graces of a user, in a hold as soon as that is over.
func (s *Store) endGraces(u *user) {
	if s.op.v.hold != 0 {
		hurry := func(m *member) {
			if m.grace != nil && m.grace.due > s.op.v.now {
				s.graces.remove(m.grace)
				m.grace.due = s.op.v.now
				s.graces.add(m.grace)
			}
		}
		hurry(&u.all)
		for m := u.members; m != nil; m = m.next {
			hurry(m)
		}
		return
	}
	for m := u.members; m != nil; {
		next := m.next
		if m.grace != nil {
			s.leave(m, m.grace.cause)
		}
		m = next
	}
	if u.all.grace != nil {
		s.leave(&u.all, u.all.grace.cause)
	}
}
