// Package storemodel compares a store with a naive model of it, under random
// operations of nodes that crash, freeze, come back and shut down. It is for
// tests.
package storemodel

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/a4cafe1a/presence/store"
)

// model is the cluster written down naively: maps, and a search for each
// question. It shares nothing with the store but the rules.
type model struct {
	ttl         time.Duration
	now         time.Duration
	heard, hold time.Duration
	leases      map[string]*modelLease // by token
	sessions    map[string]*modelSession
	members     map[[2]string]*modelMember // topic, user
	replaced    map[string]time.Duration
	events      []string // "topic: joined user", "topic: left user cause"
	started     int
}

type modelLease struct {
	number     int
	node       string
	leaveGrace time.Duration
	end, grace time.Duration
	cause      store.Cause
	asserted   bool
}

type modelSession struct {
	id, user, lease string
	topics          map[string]bool // with ""
	meta            string
	away            bool
	since           time.Time
}

type modelMember struct {
	grace bool
	due   time.Duration
	cause store.Cause
}

func newModel(ttl time.Duration) *model {
	return &model{
		ttl:      ttl,
		leases:   map[string]*modelLease{},
		sessions: map[string]*modelSession{},
		members:  map[[2]string]*modelMember{},
		replaced: map[string]time.Duration{},
	}
}

func (m *model) unheard() bool {
	for _, l := range m.leases {
		if m.now-m.heard > m.ttl/2 && l.end > m.heard {
			return true
		}
	}
	return false
}

func (m *model) inHold() bool { return m.unheard() || m.hold > m.now }

func (m *model) alive(l *modelLease) bool {
	if m.unheard() {
		return l.end > m.heard
	}
	return l.end > m.now
}

// contact is what any call with a lease does first; it says whether the lease
// is good.
func (m *model) contact(token string) bool {
	if m.unheard() {
		m.hold = m.now + m.ttl
		for _, l := range m.leases {
			l.asserted = false
			if l.end > m.heard {
				l.end = max(l.end, m.hold)
			}
		}
	}
	m.heard = m.now
	l := m.leases[token]
	return l != nil && l.end > m.now
}

func (m *model) register(token, node string, leaveGrace time.Duration) {
	m.contact("")
	m.started++
	m.leases[token] = &modelLease{
		number: m.started, node: node, leaveGrace: leaveGrace,
		end: m.now + m.ttl, grace: m.now + leaveGrace, cause: store.CauseNodeLost,
	}
}

func (m *model) renew(token string, complete bool) bool {
	if !m.contact(token) {
		return false
	}
	l := m.leases[token]
	l.end, l.grace = m.now+m.ttl, m.now+l.leaveGrace
	if m.hold <= m.now {
		return true
	}
	if !complete {
		m.hold = m.now + m.ttl
		for _, o := range m.leases {
			if o.end > m.now {
				o.end = max(o.end, m.hold)
			}
		}
		return true
	}
	l.asserted = true
	for _, o := range m.leases {
		if o.end > m.now && !o.asserted {
			return true
		}
	}
	m.hold = 0
	return true
}

func (m *model) end(token string, grace time.Duration, cause store.Cause) {
	if m.contact(token) {
		l := m.leases[token]
		l.end, l.grace, l.cause = m.now, m.now+grace, cause
	}
}

// of returns the user's sessions that pass, oldest first.
func (m *model) of(user string, pass func(*modelSession) bool) []*modelSession {
	var list []*modelSession
	for _, x := range m.sessions {
		if x.user == user && pass(x) {
			list = append(list, x)
		}
	}
	slices.SortFunc(list, func(a, b *modelSession) int { return a.since.Compare(b.since) })
	return list
}

func (m *model) live(x *modelSession) bool { return m.alive(m.leases[x.lease]) }

func (m *model) enter(x *modelSession, topic string) {
	x.topics[topic] = true
	k := [2]string{topic, x.user}
	if m.members[k] == nil {
		m.events = append(m.events, topic+": joined "+x.user)
	}
	m.members[k] = &modelMember{}
}

func (m *model) exit(x *modelSession, topic string, due time.Duration, cause store.Cause) {
	delete(x.topics, topic)
	if len(m.of(x.user, func(y *modelSession) bool { return y.topics[topic] })) > 0 {
		return
	}
	if due > m.now || m.inHold() {
		m.members[[2]string{topic, x.user}] = &modelMember{true, due, cause}
		return
	}
	m.leave(topic, x.user, cause)
}

func (m *model) leave(topic, user string, cause store.Cause) {
	delete(m.members, [2]string{topic, user})
	m.events = append(m.events, fmt.Sprintf("%s: left %s %s", topic, user, cause))
	if topic == "" {
		for k, o := range m.members {
			if k[1] == user {
				m.leave(k[0], user, o.cause)
			}
		}
	}
}

func (m *model) remove(x *modelSession, due time.Duration, cause store.Cause) {
	delete(m.sessions, x.id)
	for t := range maps.Clone(x.topics) {
		if t != "" {
			m.exit(x, t, due, cause)
		}
	}
	m.exit(x, "", due, cause)
}

func (m *model) reap(user string) {
	dead := m.of(user, func(x *modelSession) bool { return !m.live(x) })
	slices.SortFunc(dead, func(a, b *modelSession) int {
		la, lb := m.leases[a.lease], m.leases[b.lease]
		return cmp.Or(cmp.Compare(la.grace, lb.grace), cmp.Compare(la.number, lb.number))
	})
	for _, x := range dead {
		m.remove(x, m.leases[x.lease].grace, m.leases[x.lease].cause)
	}
}

// apply carries out one operation under a good lease and says how it went.
func (m *model) apply(token string, op store.Op) store.Status {
	x := m.sessions[op.Session]
	if op.Kind == store.OpEndGrace {
		m.endGraces(op.User)
		return store.Done
	}
	if op.Kind == store.OpAdd {
		return m.add(token, op, x)
	}
	if x == nil || x.lease != token {
		return store.Missing
	}
	switch op.Kind {
	case store.OpRemove:
		m.reap(op.User)
		m.remove(x, m.now+op.Grace, op.Cause)
	case store.OpJoin:
		for _, t := range op.Topics {
			m.enter(x, t)
		}
	case store.OpLeave:
		m.reap(op.User)
		for _, t := range op.Topics {
			if t != "" && x.topics[t] {
				m.exit(x, t, m.now, store.CauseLeft)
			}
		}
	case store.OpMeta:
		x.meta = string(op.Meta)
	case store.OpAway:
		x.away = op.Away
	}
	return store.Done
}

func (m *model) add(token string, op store.Op, x *modelSession) store.Status {
	if x != nil && m.leases[x.lease].number > m.leases[token].number {
		return store.Stale
	}
	var victims []*modelSession
	if live := m.of(op.User, m.live); x == nil && op.Limit > 0 && len(live) >= op.Limit {
		if op.WhenFull == store.RefuseNew {
			return store.Full
		}
		if !op.Since.IsZero() && op.Since.Before(live[0].since) {
			return store.Outdated
		}
		if at, ok := m.replaced[op.User]; ok && m.now-at < store.ReplaceInterval {
			return store.Full
		}
		m.replaced[op.User] = m.now
		victims = live[:len(live)+1-op.Limit]
	}
	if x == nil {
		x = &modelSession{id: op.Session, user: op.User, topics: map[string]bool{}}
		m.sessions[x.id] = x
	}
	x.lease, x.meta, x.away = token, string(op.Meta), op.Away
	m.enter(x, "")
	for _, t := range op.Topics {
		m.enter(x, t)
	}
	for t := range maps.Clone(x.topics) {
		if t != "" && !slices.Contains(op.Topics, t) {
			m.exit(x, t, m.now, store.CauseLeft)
		}
	}
	for _, y := range victims {
		m.remove(y, m.now+op.Grace, store.CauseReplaced)
	}
	m.reap(op.User)
	return store.Done
}

func (m *model) endGraces(user string) {
	for k, o := range m.members {
		if k[1] != user || !o.grace {
			continue
		}
		if m.inHold() {
			o.due = min(o.due, m.now)
		} else if m.members[k] != nil { // still there: leaving "" took it along
			m.leave(k[0], user, o.cause)
		}
	}
}

// sweep does all that is due.
func (m *model) sweep(token string) bool {
	if !m.contact(token) {
		return false
	}
	if m.inHold() {
		return true
	}
	for _, x := range maps.Clone(m.sessions) {
		m.reap(x.user)
	}
	for {
		// The earliest first: leaving everyone takes the others along.
		var first *[2]string
		for k, o := range m.members {
			if o.grace && o.due <= m.now && (first == nil || o.due < m.members[*first].due) {
				first = &k
			}
		}
		if first == nil {
			return true
		}
		m.leave(first[0], first[1], m.members[*first].cause)
	}
}

// record is what a reader sees of a user in a topic.
func (m *model) record(user, topic string) string {
	in := m.of(user, func(x *modelSession) bool { return m.live(x) && x.topics[topic] })
	live := m.of(user, m.live)
	away := len(live) > 0
	for _, x := range live {
		away = away && x.away
	}
	state := store.Offline
	if m.inHold() {
		state = store.Unknown
	}
	for _, x := range m.of(user, func(x *modelSession) bool { return x.topics[topic] }) {
		if m.leases[x.lease].grace > m.now {
			state = store.Grace
		}
	}
	if o := m.members[[2]string{topic, user}]; o != nil && o.grace {
		state = store.Grace
	}
	if len(in) > 0 {
		state = store.Online
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s away=%t", user, state, away)
	for _, x := range in {
		topics := slices.Sorted(maps.Keys(x.topics))[1:]
		fmt.Fprintf(&b, " {%s %s %q %q %t %d}", x.id, m.leases[x.lease].node, topics, x.meta, x.away, x.since.UnixNano())
	}
	return b.String()
}

// shown writes a record of the store as the model does.
func shown(r store.UserRecord) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s away=%t", r.User, r.State, r.Away)
	for _, x := range r.Sessions {
		fmt.Fprintf(&b, " {%s %s %q %q %t %d}", x.ID, x.Node, slices.Sorted(slices.Values(x.Topics)), x.Meta, x.Away, x.Since.UnixNano())
	}
	return b.String()
}
