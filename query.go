package presence

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/a4cafe1a/presence/internal/wheel"
	"github.com/a4cafe1a/presence/store"
)

// State is how much of a user is there.
type State = store.State

// The states of a user.
const (
	Unknown = store.Unknown // it cannot be told now
	Offline = store.Offline
	Grace   = store.Grace  // the last session was lost less than a grace ago
	Online  = store.Online // at least one live session
)

// Counts says how many are in a topic.
type Counts = store.Counts

// Status describes a user. In JSON its names are those of presence.v1, the
// state is a word, times are RFC 3339, and a time that is not known is missing.
type Status struct {
	User     string    `json:"user"`
	State    State     `json:"state"`
	Away     bool      `json:"away"` // all sessions are
	Sessions int       `json:"sessions"`
	Since    time.Time `json:"since,omitzero"` // when the user came
	// LastSeen is when the last byte arrived, as Lookup tells it of a user who
	// is on this node alone. Of other live users it is when a node that has
	// sessions of theirs last renewed its lease; of one that has left, when the
	// last session ended, zero if not kept.
	LastSeen time.Time `json:"last_seen,omitzero"`
	AsOf     time.Time `json:"as_of,omitzero"` // when the store, or this node, knew this
}

// Member is a user in a topic. State, Sessions and Since are those there. In
// JSON it is a Status with metas.
type Member struct {
	Status
	Metas []json.RawMessage `json:"metas,omitempty"` // of the sessions that have any
}

// Online says whether the user is online or in grace. A session on this node
// answers without the store. The error is ErrUnknown or ErrStoreUnavailable
// when it cannot be known: never false instead. ErrLimit: no user can have that
// name, since it is empty, too long, not UTF-8 or has a zero byte.
func (p *Presence) Online(ctx context.Context, user string) (bool, error) {
	if p.registry.online(user) {
		return true, nil
	}
	if err := cmp.Or(p.closed(), p.opts.Limits.checkUser(user)); err != nil {
		return false, failed("online", err)
	}
	q := questions.Get().(*question)
	q.users[0] = user
	if err := q.ask(ctx, p, "online", q.users[:]); err != nil {
		return false, err
	}
	defer q.done()
	var st Status
	p.describe(&st, &q.records[0], nil, moment{}) // no session is here
	switch st.State {
	case Unknown:
		return false, p.unknown("online", user)
	case Offline:
		return false, nil
	}
	return true, nil
}

// Lookup describes users, in the same order. It costs one round trip per
// partition of the store, whatever their number. When some cannot be known,
// they are in state Unknown, and the error is ErrUnknown or
// ErrStoreUnavailable; the others are right. While the store is known to be
// away no query waits for it for more than 50 ms; until that is known it may
// take the store's own timeout. ErrLimit, as for Online, is said of one name
// and for all of them.
func (p *Presence) Lookup(ctx context.Context, users ...string) ([]Status, error) {
	if err := p.closed(); err != nil {
		return nil, failed("lookup", err)
	}
	if len(users) == 0 {
		return nil, nil
	}
	q := questions.Get().(*question)
	all, unknown, failure := make([]Status, len(users)), -1, error(nil)
	for rest := all; len(rest) > 0; {
		// What a store in this process says of some is still in the cache when
		// it is read. Another is asked once.
		part := users[len(all)-len(rest):]
		if p.near {
			part = part[:min(len(part), findSome)]
		}
		switch err := q.ask(ctx, p, "lookup", part); {
		case err == nil:
		case errors.Is(err, ErrUnknown):
			failure, q = err, new(question)
			for _, u := range part {
				q.records = append(q.records, store.UserRecord{User: u, AsOf: time.Now()})
			}
		default:
			return nil, err
		}
		now := p.moment()
		var newest [findSome]*Session
		for i := range q.records {
			if i%findSome == 0 {
				p.registry.find(newest[:], q.records[i:min(i+findSome, len(part))])
			}
			st := &rest[i]
			p.describe(st, &q.records[i], newest[i%findSome], now)
			if st.State == Unknown {
				unknown = len(users) - len(rest) + i
			}
			if st.State == Online {
				continue // so the name is valid
			}
			if err := p.opts.Limits.checkUser(st.User); err != nil {
				return nil, failed("lookup", err)
			}
		}
		rest = rest[len(part):]
	}
	q.done()
	switch {
	case unknown < 0:
		return all, nil
	case failure == nil:
		failure = p.unknown("lookup", users[unknown])
	}
	return all, failure
}

// question is the memory that asking the store takes. It is used again: for
// 1,000 users it would be 200 KiB of garbage each time.
type question struct {
	users   [1]string
	records []store.UserRecord
}

var questions = sync.Pool{New: func() any { return new(question) }}

// questionRecords is how many records are kept for the next question.
const questionRecords = 2000

func (q *question) ask(ctx context.Context, p *Presence, op string, users []string) error {
	return p.ask(ctx, op, func(ctx context.Context) (err error) {
		q.records, err = p.store.Lookup(ctx, slices.Grow(q.records[:0], len(users)), users)
		return err
	})
}

// unknown says that the store does not know of the user, and why that is not
// offline: it is in a hold.
func (p *Presence) unknown(op, user string) error {
	if left := p.member.HoldFor(user); left > 0 {
		return failed(op, ErrUnknown, &store.HoldError{For: left})
	}
	return failed(op, ErrUnknown) // one that no renewal has told of yet
}

// done gives the memory back. It is not called after an error: a store that
// gave up waiting may still be writing.
func (q *question) done() {
	if cap(q.records) <= questionRecords {
		questions.Put(q)
	}
}

// moment is the time on both clocks.
type moment struct {
	wall  time.Time
	exact wheel.Time
}

func (p *Presence) moment() moment { return moment{time.Now().Round(0), p.wheel.Exact()} }

// describe fills in st: what the store says, and what this node knows better. It
// has the newest of the user's sessions here, nil for none.
func (p *Presence) describe(st *Status, r *store.UserRecord, newest *Session, now moment) {
	// In place, which takes half as long as a copy of the whole.
	st.User, st.State, st.Away = r.User, r.State, r.Away
	st.Since, st.LastSeen, st.AsOf = r.Since, r.LastSeen, r.AsOf
	elsewhere := 0
	for i := range r.Sessions {
		if r.Sessions[i].Node != p.node.ID {
			elsewhere++
		}
	}
	st.Sessions = elsewhere
	if newest == nil {
		if st.State == Online && elsewhere == 0 {
			st.State = Grace // the store is about to be told
		}
		return
	}
	st.State = Online
	away, since, heard := true, int64(math.MaxInt64), wheel.Time(0)
	for s := newest; s != nil; s = s.next.Load() {
		st.Sessions++
		since, heard = min(since, s.since.Load()), max(heard, s.lastByte())
		away = away && s.marks.has(markAway)
	}
	if st.Since.IsZero() || since < st.Since.UnixNano() {
		st.Since = time.Unix(0, since).UTC()
	}
	if t := now.wall.Add(-time.Duration(max(0, now.exact-heard))); elsewhere == 0 || t.After(st.LastSeen) {
		st.LastSeen = t
	}
	if elsewhere == 0 {
		st.Away = away
	}
}

func statusOf(r *store.UserRecord) Status {
	return Status{
		User: r.User, State: r.State, Away: r.Away, Sessions: len(r.Sessions),
		Since: r.Since, LastSeen: r.LastSeen, AsOf: r.AsOf,
	}
}

// Sessions describes the user's live sessions, oldest first. When those of
// other nodes cannot be known, it returns the ones of this node with
// ErrUnknown or ErrStoreUnavailable. ErrLimit is as for Online.
func (p *Presence) Sessions(ctx context.Context, user string) ([]SessionInfo, error) {
	if err := cmp.Or(p.closed(), p.opts.Limits.checkUser(user)); err != nil {
		return nil, failed("sessions", err)
	}
	var infos []SessionInfo
	for _, s := range p.registry.byUser(user) {
		infos = append(infos, s.Info())
	}
	var records []store.UserRecord
	err := p.ask(ctx, "sessions", func(ctx context.Context) (err error) {
		records, err = p.store.Lookup(ctx, nil, []string{user})
		return err
	})
	switch {
	case err != nil:
	case records[0].State == Unknown:
		err = p.unknown("sessions", user)
	default:
		for _, r := range records[0].Sessions {
			if r.Node != p.node.ID {
				infos = append(infos, SessionInfo{
					ID: r.ID, User: user, Node: r.NodeName, Topics: r.Topics, Meta: r.Meta,
					Away: r.Away, Since: r.Since, LastSeen: records[0].LastSeen,
				})
			}
		}
	}
	slices.SortStableFunc(infos, func(a, b SessionInfo) int { return a.Since.Compare(b.Since) })
	return infos, err
}

// Members iterates over the members of a topic, those in grace included, in
// order of the store's partitions, then of names; "" is everyone. It begins
// behind the user after, who need not be there any more, and reads pages as it
// goes. Users that come or go meanwhile may be missed; nobody is seen twice.
// An error ends it. ErrLimit: no topic can have that name, or no user that of
// after.
func (p *Presence) Members(ctx context.Context, topic, after string) iter.Seq2[Member, error] {
	return func(yield func(Member, error) bool) {
		err := cmp.Or(p.closed(), p.opts.Limits.checkName("topic", topic))
		if err == nil && after != "" {
			err = p.opts.Limits.checkUser(after)
		}
		if err != nil {
			yield(Member{}, failed("members", err))
			return
		}
		for more := true; more; {
			var page store.Page
			err := p.ask(ctx, "members", func(ctx context.Context) (err error) {
				page, err = p.store.Members(ctx, topic, after, membersPage)
				return err
			})
			if err != nil {
				yield(Member{}, err)
				return
			}
			for i := range page.Members {
				if !yield(memberOf(&page.Members[i]), nil) {
					return
				}
			}
			after, more = page.Next, page.More
		}
	}
}

const membersPage = 100

func memberOf(r *store.UserRecord) Member {
	m := Member{Status: statusOf(r)}
	for i := range r.Sessions {
		if meta := r.Sessions[i].Meta; meta != nil {
			m.Metas = append(m.Metas, meta)
		}
	}
	return m
}

// Count says how many are in a topic, in constant time.
func (p *Presence) Count(ctx context.Context, topic string) (Counts, error) {
	if err := cmp.Or(p.closed(), p.opts.Limits.checkName("topic", topic)); err != nil {
		return Counts{}, failed("count", err)
	}
	var c Counts
	err := p.ask(ctx, "count", func(ctx context.Context) (err error) {
		c, err = p.store.Count(ctx, topic)
		return err
	})
	return c, err
}
