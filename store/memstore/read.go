package memstore

import (
	"context"

	"github.com/a4cafe1a/presence/store"
)

// Lookup implements store.Store.
func (s *Store) Lookup(ctx context.Context, dst []store.UserRecord, users []string) ([]store.UserRecord, error) {
	if err := s.ready(ctx); err != nil {
		return dst, err
	}
	v := s.look()
	for _, name := range users {
		if len(dst) < cap(dst) {
			dst = dst[:len(dst)+1]
		} else {
			dst = append(dst, store.UserRecord{})
		}
		r := &dst[len(dst)-1]
		*r = store.UserRecord{User: name, Sessions: r.Sessions[:0]}
		st := s.stripe(name)
		st.mu.RLock()
		if u := st.users[name]; u != nil {
			v.record(r, &u.all, r.Sessions)
		} else {
			s.fill(&v, st, r)
		}
		st.mu.RUnlock()
	}
	return dst, nil
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
