package client

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"sync"
	"time"
)

// Member is a user in a topic.
type Member struct {
	User     string            `json:"user"`
	State    string            `json:"state"` // online or grace; of an event leave offline
	Away     bool              `json:"away"`
	Sessions int               `json:"sessions"`
	Since    int64             `json:"since"` // milliseconds since 1970
	Metas    []json.RawMessage `json:"metas"`
	Cut      bool              `json:"cut"` // some metas were left out
}

// gone is the member of an event leave.
func (m Member) gone() Member {
	m.State, m.Away, m.Sessions = "offline", false, 0
	return m
}

// Event is a change of a topic.
type Event struct {
	// Kind is one of
	//
	//	join, leave, update  what has become of Member
	//	snapshot, count      all is known anew, and live: look at Members or Users
	//	stale                what is known may be out of date: the connection is
	//	                     lost, or the server's store is away
	//	live                 it is how it is now again, and nothing else has changed
	//	error                the topic is not followed, and Topic.Err says why
	//
	// A snapshot tells what it has changed as joins, leaves and updates first.
	// After a count, which is without names, nobody is known, and the next
	// snapshot has no difference to tell: look at Members then. Stale and live
	// take turns, where a snapshot or a count stands for live; before the first
	// of these, and after an error, nothing is live.
	Kind string
	// Member is who joined, left or was updated. Of leave it is as last known,
	// but offline and without sessions.
	Member Member
	Cause  string // of leave; "" when it is not known
}

// Topic is who is in a topic, kept up to date while there is a connection. All
// methods may be called concurrently.
type Topic struct {
	c    *Conn
	name string

	mu       sync.Mutex
	members  map[string]Member
	users    int
	counting bool
	live     bool
	named    bool // members are what the server has told, now or before the loss
	version  uint64
	gap      bool // a delta is missing, and a snapshot was asked for
	parts    []Member
	err      error
	events   []Event
	lost     bool          // events were dropped
	more     chan struct{} // closed at the next event
	over     bool
}

// topicEvents is what waits for a slow reader of Events.
const topicEvents = 1024

// Members is a copy of who is in the topic. live: it is how it is now; else how
// it was when the connection was lost, or before the server could not tell any
// more because its store is away. Above the server's limit it is empty.
func (t *Topic) Members() (members map[string]Member, live bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.members), t.live
}

// Users is how many are in the topic.
func (t *Topic) Users() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counting {
		return t.users
	}
	return len(t.members)
}

// Err is what the server answered instead of following, that it has stopped, or
// ErrNoPresence.
func (t *Topic) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// Events iterates over the changes from now on, until Close or the end of the
// Conn. A reader that is 1,024 behind gets an event snapshot instead: look at
// Members. Behind it comes stale where it is not live, or error. For one
// goroutine.
func (t *Topic) Events() iter.Seq[Event] {
	return func(yield func(Event) bool) {
		for {
			t.mu.Lock()
			events, more, over := t.events, t.more, t.over
			t.events = nil
			if t.lost {
				events, t.lost = []Event{{Kind: "snapshot"}}, false
				switch {
				case t.err != nil:
					events = append(events, Event{Kind: "error"})
				case !t.live:
					events = append(events, Event{Kind: "stale"})
				}
			}
			t.mu.Unlock()
			for _, e := range events {
				if !yield(e) {
					return
				}
			}
			if len(events) > 0 {
				continue
			}
			if over {
				return
			}
			<-more
		}
	}
}

// Close stops following.
func (t *Topic) Close() {
	defer t.finish()
	w := &t.c.wired
	w.mu.Lock()
	mine := w.topics[t.name] == t
	if mine {
		delete(w.topics, t.name)
	}
	w.mu.Unlock()
	if !mine {
		return
	}
	ctx, cancel := context.WithTimeout(t.c.ctx, time.Second)
	defer cancel()
	_ = w.ask(ctx, func() request {
		if w.topics[t.name] != nil {
			return nil // followed anew
		}
		return request{"t": "unfollow", "topic": t.name}
	})
}

// answered takes over what the server said to following.
func (t *Topic) answered(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = err
	t.live = t.live && err == nil
	if err != nil && !t.over {
		t.emit(Event{Kind: "error"})
	}
}

// down: what is known is how it was.
func (t *Topic) down() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gap, t.parts = false, nil
	t.setLive(false)
}

// setLive tells whether what is known is how it is. t.mu is held.
func (t *Topic) setLive(live bool) {
	if t.live == live {
		return
	}
	t.live = live
	if live {
		t.emit(Event{Kind: "live"})
	} else {
		t.emit(Event{Kind: "stale"})
	}
}

func (t *Topic) finish() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.live = false
	if !t.over {
		t.over = true
		close(t.more)
		t.more = make(chan struct{})
	}
}

// emit queues an event. t.mu is held.
func (t *Topic) emit(e Event) {
	if len(t.events) >= topicEvents {
		t.events, t.lost = nil, true
	}
	t.events = append(t.events, e)
	close(t.more)
	t.more = make(chan struct{})
}

// said is a message of the server.
type said struct {
	T, User, Session, Topic, Code, Text string
	ID                                  int64
	Interval                            *int64
	Version                             uint64
	First, More                         bool
	Users                               int
	Members                             []Member
	Changes                             []struct {
		K, User, Cause string
		Member         Member
	}
}

// told takes a message over. again: one is missing, and the topic is to be asked
// for anew.
func (t *Topic) told(m *said) (again bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch m.T {
	case "snapshot":
		if m.First {
			t.parts = nil
		}
		t.parts = append(t.parts, m.Members...)
		t.version, t.gap = m.Version, false
		if m.More {
			return false
		}
		t.replace()
	case "count":
		t.version, t.gap = m.Version, false
		t.counting, t.users, t.live, t.named = true, m.Users, true, false
		clear(t.members)
		t.emit(Event{Kind: "count"})
	case "stale":
		t.setLive(false)
	case "live":
		t.setLive(true)
	case "unfollowed":
		t.err, t.live = &RequestError{"forbidden", "the topic may not be followed any more"}, false
		t.emit(Event{Kind: "error"})
	case "delta":
		if t.gap || m.Version != t.version+1 {
			again := !t.gap
			t.gap = true
			return again
		}
		t.version = m.Version
		for _, c := range m.Changes {
			if c.K == "leave" {
				was := t.members[c.User]
				delete(t.members, c.User)
				was.User = c.User
				t.emit(Event{Kind: "leave", Member: was.gone(), Cause: c.Cause})
				continue
			}
			t.members[c.Member.User] = c.Member
			t.emit(Event{Kind: c.K, Member: c.Member})
		}
	}
	return false
}

// replace takes a snapshot over, and tells the difference to what was known.
func (t *Topic) replace() {
	before := t.members
	t.members = make(map[string]Member, len(t.parts))
	for _, m := range t.parts {
		t.members[m.User] = m
	}
	t.parts = nil
	named := t.named
	t.named, t.live, t.counting = true, true, false
	if named {
		for user, m := range before {
			if _, is := t.members[user]; !is {
				t.emit(Event{Kind: "leave", Member: m.gone()})
			}
		}
		for user, m := range t.members {
			was, is := before[user]
			switch {
			case !is:
				t.emit(Event{Kind: "join", Member: m})
			case fmt.Sprint(was) != fmt.Sprint(m):
				t.emit(Event{Kind: "update", Member: m})
			}
		}
	}
	t.emit(Event{Kind: "snapshot"})
}
