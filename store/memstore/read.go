package memstore

import (
	"context"
	"runtime"

	"github.com/a4cafe1a/presence/internal/hashset"
	"github.com/a4cafe1a/presence/store"
)

// Lookup implements store.Store.
func (s *Store) Lookup(ctx context.Context, dst []store.UserRecord, users []string) ([]store.UserRecord, error) {
	if err := s.ready(ctx); err != nil {
		return dst, err
	}
	if len(users) == 1 {
		dst = more(dst, users[0])
		h := s.hash(users[0])
		st := s.stripeAt(h)
		v := s.look()
		st.mu.RLock()
		s.lookup(&v, st, st.user(h, users[0]), &dst[len(dst)-1])
		st.mu.RUnlock()
		return dst, nil
	}
	// Many are read under the one lock, some at a time.
	const some = 128
	var names [some]hashed
	var found [some]*user
	for len(users) > 0 {
		part := users[:min(some, len(users))]
		users = users[len(part):]
		s.mu.RLock()
		v := s.look()
		s.find(found[:], names[:], part)
		for i, name := range part {
			dst = more(dst, name)
			s.lookup(&v, names[i].home, found[i], &dst[len(dst)-1])
		}
		s.mu.RUnlock()
	}
	return dst, nil
}

// hashed is what a name leads to.
type hashed struct {
	hash uint64
	home *stripe
	spot hashset.Spot[user]
}

// find finds users. It goes one step of the way for all before it goes the next:
// so the processor waits for the memory of many at once.
func (s *Store) find(found []*user, to []hashed, names []string) {
	for i, name := range names {
		h := s.hash(name)
		st := s.stripeAt(h)
		to[i] = hashed{h, st, st.users.Spot(h)}
	}
	for i := range names {
		to[i].spot.Touch()
	}
	for i := range names {
		found[i] = to[i].spot.Guess(to[i].hash)
	}
	var touched int64
	for _, u := range found[:len(names)] {
		if u != nil {
			touched += int64(len(u.name)) + u.own.since + u.all.since
		}
	}
	for _, u := range found[:len(names)] {
		if u != nil && u.name != "" {
			touched += int64(u.name[0])
		}
	}
	runtime.KeepAlive(touched)
	for i, name := range names {
		if u := found[i]; u == nil || u.name != name {
			found[i] = to[i].home.user(to[i].hash, name)
		}
	}
}

// more appends an empty record, and keeps what memory is there for it.
func more(dst []store.UserRecord, name string) []store.UserRecord {
	if len(dst) == cap(dst) {
		dst = append(dst, store.UserRecord{})
	} else {
		dst = dst[:len(dst)+1]
	}
	r := &dst[len(dst)-1]
	*r = store.UserRecord{User: name, Sessions: r.Sessions[:0]}
	return dst
}

// lookup fills in the record of a user, or of one who is not there.
func (s *Store) lookup(v *view, st *stripe, u *user, r *store.UserRecord) {
	if u != nil {
		v.record(r, &u.all, r.Sessions)
		return
	}
	r.State, r.AsOf = store.Offline, wallTime(v.wall)
	if v.hold != 0 {
		r.State = store.Unknown
	}
	if e := st.seen[r.User]; e != nil {
		r.LastSeen = wallTime(e.at)
	}
}

// Count implements store.Store.
func (s *Store) Count(ctx context.Context, name string) (store.Counts, error) {
	if err := s.ready(ctx); err != nil {
		return store.Counts{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	v := s.look()
	if v.hold != 0 {
		return store.Counts{}, v.holdError()
	}
	t := s.topics[name]
	if t == nil {
		return store.Counts{}, nil
	}
	c := store.Counts{Users: t.index.size, Sessions: t.sessions}
	for _, l := range s.leases {
		if !v.alive(l) {
			c.MaybeGone += len(l.sessions)
		}
	}
	c.MaybeGone = min(c.MaybeGone, c.Sessions)
	return c, nil
}

// Members implements store.Store.
func (s *Store) Members(ctx context.Context, name, after string, limit int) (store.Page, error) {
	if err := s.ready(ctx); err != nil {
		return store.Page{}, err
	}
	if limit <= 0 {
		limit = 100
	}
	limit = min(limit, 1000)
	members := make([]store.UserRecord, 0, limit)
	sessions := make([]store.SessionRecord, 0, limit+limit/8)

	s.mu.RLock()
	defer s.mu.RUnlock()
	v := s.look()
	if v.hold != 0 {
		return store.Page{}, v.holdError()
	}
	p := store.Page{AsOf: wallTime(v.wall), Next: after}
	t := s.topics[name]
	if t == nil {
		return p, nil
	}
	looked := 0
	t.index.after(after, func(m *member) bool {
		// The dead count too, or a page could hold the lock for long.
		if looked++; looked > limit {
			p.More = true
			return false
		}
		p.Next = m.user.name
		members = append(members, store.UserRecord{})
		r := &members[len(members)-1]
		sessions = v.record(r, m, sessions)
		if r.State == store.Offline {
			members = members[:len(members)-1]
		}
		return true
	})
	p.Members = members
	return p, nil
}

// Position implements store.Store.
func (s *Store) Position(ctx context.Context, shard int) (store.Version, error) {
	if err := s.ready(ctx); err != nil {
		return store.Version{}, err
	}
	if shard != 0 {
		return store.Version{}, store.ErrShard
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.version(), nil
}

func (s *Store) version() store.Version {
	return store.Version{Generation: s.generation, Sequence: s.sequence}
}

var _ store.Store = (*Store)(nil)
