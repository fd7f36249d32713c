package redisstore

import (
	"strconv"
	"strings"
	"time"

	"github.com/a4cafe1a/presence/store"
)

// leaseInfo is what a reader must know of a lease.
type leaseInfo struct {
	number         int64
	id, name       string
	end            int64
	renewed, grace int64
}

// view is a partition as one call sees it.
type view struct {
	now, cut, hold int64
	asOf           time.Time
	leases         []leaseInfo
	last           int  // the lease found last: most users of a page share few
	logged         bool // of a change in the log: the user is a member
}

// newView reads the answer of look.lua.
func newView(a answer) view {
	v := view{now: a.int(0), hold: a.int(3), cut: a.int(4), asOf: fromMicros(a.int(0))}
	list := a.array(5)
	v.leases = make([]leaseInfo, 0, len(list.list)/2)
	for i := 0; i+1 < len(list.list); i += 2 {
		n, _ := strconv.ParseInt(list.string(i), 10, 64)
		r := reader{s: list.string(i + 1)}
		r.array()
		l := leaseInfo{number: n}
		// Names outlive the answer, and must not keep it.
		l.id, l.name = strings.Clone(r.string()), strings.Clone(r.string())
		l.end, l.renewed, l.grace = r.int(), r.int(), r.int()
		if !r.bad {
			v.leases = append(v.leases, l)
		}
	}
	return v
}

// lease returns a lease, or nil for one that nobody knows: it is dead.
func (v *view) lease(number int64) *leaseInfo {
	if v.last < len(v.leases) && v.leases[v.last].number == number {
		return &v.leases[v.last]
	}
	for i := range v.leases {
		if v.leases[i].number == number {
			v.last = i
			return &v.leases[i]
		}
	}
	return nil
}

// record fills in what a reader sees of a user in a topic. It uses the
// capacity of r.Sessions. packed is the user as user.lua says, metas its
// metadata. It says whether the user is a member of the topic, and whether its
// sessions have metadata.
func (v *view) record(r *store.UserRecord, topic, packed, metas string) (member, described bool) {
	p := reader{s: packed}
	p.array()
	flags, seen := p.int(), p.int()
	since, grace := int64(0), false
	for range p.array() {
		n := p.array()
		name, from := p.string(), p.int()
		if name == topic {
			member, since, grace = true, from, n > 2
		}
		for ; n > 2; n-- {
			p.skip()
		}
	}
	r.AsOf = v.asOf
	live, away, dead := false, true, int64(0)
	for range p.array() {
		n := p.array()
		id, number, began, isAway, bytes := p.string(), p.int(), p.int(), p.int() == 1, p.int()
		topics := p
		in := topic == ""
		for ; n > 5; n-- {
			if p.string() == topic {
				in = true
			}
		}
		l := v.lease(number)
		if l == nil {
			continue
		}
		if l.end <= v.cut {
			seen = max(seen, l.renewed)
			if in {
				dead = max(dead, l.grace)
			}
			continue
		}
		if !live {
			live, seen = true, 0
		}
		seen = max(seen, l.renewed)
		away = away && isAway
		if !in {
			continue
		}
		x := store.SessionRecord{
			ID: id, User: r.User, Node: l.id, NodeName: l.name, Away: isAway, Since: fromMicros(began),
		}
		if topics.s != p.s {
			x.Topics = list(topics, p)
		}
		if bytes > 0 {
			described = true
			x.Meta = metaOf(metas, id)
		}
		r.Sessions = append(r.Sessions, x)
	}
	r.Away = live && away
	if live || flags&1 == 0 {
		r.LastSeen = fromMicros(seen)
	}
	switch {
	case len(r.Sessions) > 0:
		r.State = store.Online
	case grace || dead > v.now || v.logged:
		r.State = store.Grace
	case v.hold != 0:
		r.State = store.Unknown
	default:
		r.State = store.Offline
	}
	if r.State >= store.Grace {
		r.Since = fromMicros(since)
	}
	return member && !p.bad, described
}

// list returns the strings between two positions.
func list(from, to reader) []string {
	n := 0
	for p := from; len(p.s) > len(to.s); n++ {
		p.string()
	}
	l := make([]string, n)
	for i := range l {
		l[i] = from.string()
	}
	return l
}

// metaOf finds a session's metadata: {session, metadata, ...}.
func metaOf(packed, session string) []byte {
	p := reader{s: packed}
	for range p.array() / 2 {
		id, meta := p.string(), p.string()
		if id == session {
			return []byte(meta)
		}
	}
	return nil
}
