package memstore

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/a4cafe1a/presence/store"
)

// user is somebody with a session, or in grace.
type user struct {
	// What a lookup needs comes first, in two or three lines of the cache.
	name      string
	first     *session // oldest first
	own       session  // one of them, while its user is set: most users have one
	all       member   // of everyone
	members   *member  // of other topics, linked by next
	count     int32    // of members
	meta      int32    // bytes of all metadata
	seen      int64    // on the wall: when a session last ended
	anonymous bool
	keep      bool // remember seen, said the node of the session that ended last
	away      bool // as last logged
}

// session is one connection, as its node told.
type session struct {
	user  *user
	id    string
	lease *lease
	next  *session
	extra *extra // nil: no topics, no metadata. Replaced, never changed
	since int64  // on the wall
	slot  int32  // in lease.sessions
	away  bool
}

type extra struct {
	topics []string // without ""
	meta   json.RawMessage
}

// member is one user in one topic, from Joined to Left.
type member struct {
	topic    *topic
	grace    *grace // not nil: no sessions, waiting for the end of it
	since    int64  // on the wall
	user     *user
	next     *member
	sessions int32  // those of dead leases included
	mark     uint32 // the operation that last touched it
}

// topic is a set of members.
type topic struct {
	name     string
	index    index
	sessions int
	log      *topicLog // nil: nobody watches
}

func (x *session) topics() []string {
	if x.extra == nil {
		return nil
	}
	return x.extra.topics
}

func (x *session) meta() json.RawMessage {
	if x.extra == nil {
		return nil
	}
	return x.extra.meta
}

func (x *session) set(topics []string, meta json.RawMessage) {
	x.user.meta += int32(len(meta) - len(x.meta()))
	if len(topics) == 0 && meta == nil {
		x.extra = nil
		return
	}
	x.extra = &extra{topics, meta}
}

func (x *session) in(t string) bool { return t == "" || slices.Contains(x.topics(), t) }

func (x *session) ref() store.SessionRef {
	return store.SessionRef{ID: x.id, Node: x.lease.node.ID, NodeName: x.lease.node.Name}
}

func (u *user) session(id string) *session {
	for x := u.first; x != nil; x = x.next {
		if x.id == id {
			return x
		}
	}
	return nil
}

// newSession returns an empty session for a user to fill.
func (u *user) newSession() *session {
	if u.own.user == nil {
		return &u.own
	}
	return new(session)
}

// link puts a session into its place by age.
func (u *user) link(x *session) {
	at := &u.first
	for *at != nil && (*at).since <= x.since {
		at = &(*at).next
	}
	x.next, *at = *at, x
}

func (u *user) unlink(x *session) {
	at := &u.first
	for *at != x {
		at = &(*at).next
	}
	*at, x.next = x.next, nil
}

// member returns the user's membership in a topic, or nil.
func (u *user) member(t *topic) *member {
	if t.name == "" {
		return &u.all
	}
	if u.count > 32 {
		return t.index.get(u.name)
	}
	for m := u.members; m != nil; m = m.next {
		if m.topic == t {
			return m
		}
	}
	return nil
}

func (u *user) isAway(v *view) bool {
	any := false
	for x := u.first; x != nil; x = x.next {
		if v.alive(x.lease) {
			if !x.away {
				return false
			}
			any = true
		}
	}
	return any
}

// record fills in what a reader sees of a member, and appends its sessions to
// list, which may be shared with other records.
func (v *view) record(r *store.UserRecord, m *member, list []store.SessionRecord) []store.SessionRecord {
	u, from := m.user, len(list)
	r.User, r.AsOf = u.name, wallTime(v.wall)
	live, away, seen, dead, grace := false, true, int64(0), int64(0), int64(0)
	for x := u.first; x != nil; x = x.next {
		l := x.lease
		if !v.alive(l) {
			dead = max(dead, l.renewed.Load())
			if x.in(m.topic.name) {
				grace = max(grace, l.grace.Load())
			}
			continue
		}
		live, seen = true, max(seen, l.renewed.Load())
		away = away && x.away
		if !x.in(m.topic.name) {
			continue
		}
		// In place, which takes half as long as an append of the whole.
		if len(list) == cap(list) {
			list = slices.Grow(list, 1)
		}
		list = list[:len(list)+1]
		at := &list[len(list)-1]
		at.ID, at.User, at.Node, at.NodeName = x.id, u.name, l.node.ID, l.node.Name
		at.Topics, at.Meta = x.topics(), x.meta()
		at.Away, at.Since = x.away, time.Unix(0, x.since).UTC()
	}
	if !live {
		seen = max(u.seen, dead)
	}
	r.Sessions = list[from:len(list):len(list)]
	r.Away = live && away
	if live || !u.anonymous {
		r.LastSeen = wallTime(seen)
	}
	switch {
	case len(r.Sessions) > 0:
		r.State = store.Online
	case m.grace != nil || grace > v.now:
		r.State = store.Grace
	case v.hold != 0:
		r.State = store.Unknown
	default:
		r.State = store.Offline
	}
	if r.State >= store.Grace {
		r.Since = wallTime(m.since)
	}
	return list
}
