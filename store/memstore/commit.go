package memstore

import (
	"context"
	"slices"
	"time"

	"github.com/a4cafe1a/presence/store"
)

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, lease store.Lease, ops []store.Op) ([]store.Result, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l, v, err := s.caller(lease)
	if err != nil {
		return nil, err
	}
	results := make([]store.Result, len(ops))
	for i := range ops {
		op := &ops[i]
		st := s.stripe(op.User)
		st.mu.Lock()
		results[i] = s.apply(v, st, l, op)
		st.mu.Unlock()
	}
	return results, nil
}

// apply carries out one operation. The stripe is the user's, and locked.
func (s *Store) apply(v view, st *stripe, l *lease, op *store.Op) store.Result {
	u := st.user(s.hash(op.User), op.User)
	if op.Kind == store.OpAdd {
		return s.add(v, st, l, op, u)
	}
	if u == nil {
		if op.Kind == store.OpEndGrace {
			return store.Result{}
		}
		return store.Result{Status: store.Missing}
	}
	s.begin(v, st, u)
	defer s.finish()
	if op.Kind == store.OpEndGrace {
		s.endGraces(u)
		return store.Result{}
	}
	x := u.session(op.Session)
	if x == nil || x.lease != l {
		return store.Result{Status: store.Missing}
	}
	switch op.Kind {
	case store.OpRemove:
		s.reap(u)
		s.remove(x, v.now+int64(max(0, op.Grace)), op.Cause)
	case store.OpJoin:
		s.setTopics(x, append(slices.Clone(x.topics()), op.Topics...))
	case store.OpLeave:
		s.reap(u)
		s.setTopics(x, slices.DeleteFunc(slices.Clone(x.topics()), func(t string) bool {
			return slices.Contains(op.Topics, t)
		}))
	case store.OpMeta:
		if !s.setMeta(x, op) {
			return store.Result{Status: store.TooLarge}
		}
	case store.OpAway:
		if x.away != op.Away {
			x.away = op.Away
			s.touchAll(x)
		}
	}
	return store.Result{}
}

// add carries out OpAdd. u is nil for a user nobody knows.
func (s *Store) add(v view, st *stripe, l *lease, op *store.Op, u *user) store.Result {
	var x *session
	if u != nil {
		x = u.session(op.Session)
	}
	if x != nil && x.lease.number > l.number {
		return store.Result{Status: store.Stale}
	}
	var victims []*session
	if x == nil && u != nil && op.Limit > 0 {
		var r store.Result
		if victims, r = s.limit(v, op, u); r.Status != store.Done {
			return r
		}
	}
	if u == nil {
		u = &user{name: op.User, anonymous: op.Anonymous}
		u.all.user, u.all.topic = u, s.all
		st.users.Add(u, s.hashOf)
		s.forget(st, u.name)
	}

	s.begin(v, st, u)
	defer s.finish()
	if x == nil {
		x = u.newSession()
		*x = session{id: op.Session, user: u, since: v.wall, away: op.Away}
		if !op.Since.IsZero() {
			x.since = op.Since.UnixNano()
			s.op.since = x.since
		} else {
			for y := u.first; y != nil; y = y.next {
				x.since = max(x.since, y.since+1)
			}
		}
		l.take(x)
		u.link(x)
		s.enter(s.all, u)
	} else {
		if x.lease != l {
			// From a dead lease it comes back: records logged meanwhile do
			// not show it.
			moved := !v.alive(x.lease) || x.lease.node.ID != l.node.ID || x.lease.node.Name != l.node.Name
			x.lease.drop(x)
			l.take(x)
			if moved {
				s.touchAll(x)
			}
		}
		if x.away != op.Away {
			x.away = op.Away
			s.touchAll(x)
		}
	}
	r := store.Result{Since: time.Unix(0, x.since).UTC()}
	if !s.setMeta(x, op) {
		none := store.Op{}
		s.setMeta(x, &none)
		r.Status = store.TooLarge
	}
	s.setTopics(x, op.Topics)
	for _, y := range victims {
		r.Replaced = append(r.Replaced, y.ref())
		y.lease.post(store.Order{Kind: store.Replaced, User: u.name, Session: y.id})
		s.remove(y, v.now+int64(max(0, op.Grace)), store.CauseReplaced)
	}
	// Only now: a user who comes back before the sweep never left.
	s.reap(u)
	return r
}

// limit decides whether one more session fits, and which ones must make room.
func (s *Store) limit(v view, op *store.Op, u *user) ([]*session, store.Result) {
	var live []*session
	for x := u.first; x != nil; x = x.next {
		if v.alive(x.lease) {
			live = append(live, x)
		}
	}
	excess := len(live) + 1 - op.Limit
	if excess <= 0 {
		return nil, store.Result{}
	}
	oldest := live[0]
	if op.WhenFull == store.ReplaceOldest {
		if !op.Since.IsZero() && op.Since.UnixNano() < oldest.since {
			return nil, store.Result{Status: store.Outdated}
		}
		if at, ok := s.replaced[u.name]; !ok || v.now-at >= int64(store.ReplaceInterval) {
			s.noteReplaced(v, u.name)
			return live[:min(excess, len(live))], store.Result{}
		}
	}
	if op.Challenge {
		oldest.lease.post(store.Order{Kind: store.Challenge, User: u.name, Session: oldest.id})
	}
	ref := oldest.ref()
	return nil, store.Result{Status: store.Full, Oldest: &ref}
}

// noteReplaced remembers a replacement for as long as it matters. A few old
// ones go with each new one, so the map stays as small as its use.
func (s *Store) noteReplaced(v view, name string) {
	n := 0
	for other, at := range s.replaced {
		if v.now-at >= int64(store.ReplaceInterval) {
			delete(s.replaced, other)
		}
		if n++; n == 4 {
			break
		}
	}
	s.replaced[name] = v.now
}

// setMeta replaces a session's metadata and says whether it fitted.
func (s *Store) setMeta(x *session, op *store.Op) bool {
	old := x.meta()
	if len(op.Meta) == 0 && len(old) == 0 || string(op.Meta) == string(old) {
		return true
	}
	if int(x.user.meta)-len(old)+len(op.Meta) > store.MaxUserMeta {
		return false
	}
	meta := op.Meta
	if len(meta) == 0 {
		meta = nil
	}
	x.set(x.topics(), meta)
	s.touchAll(x)
	return true
}

// setTopics makes a session be in these topics.
func (s *Store) setTopics(x *session, names []string) {
	old := x.topics()
	if len(names) == 0 && len(old) == 0 {
		return
	}
	now := make([]string, 0, len(names))
	for _, name := range names {
		if name != "" && !slices.Contains(now, name) {
			now = append(now, name)
		}
	}
	x.set(now, x.meta()) // first, so that records show it
	changed := false
	for _, name := range now {
		if !slices.Contains(old, name) {
			s.enter(s.topic(name), x.user)
			changed = true
		}
	}
	for _, name := range old {
		if !slices.Contains(now, name) {
			s.exit(x.user.member(s.topics[name]), s.op.v.now, store.CauseLeft)
			changed = true
		}
	}
	if changed {
		s.touchAll(x) // its list of topics is in every record
	}
}

func (s *Store) topic(name string) *topic {
	t := s.topics[name]
	if t == nil {
		t = &topic{name: name}
		s.topics[name] = t
	}
	return t
}

// release forgets a topic that nobody is in or watches.
func (s *Store) release(t *topic) {
	if t.index.size == 0 && t.log == nil && t.name != "" {
		delete(s.topics, t.name)
	}
}
