package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"sync"
	"time"

	"github.com/coder/websocket"
)

const mark = '\x01' // begins each message of presence.v1

// Member is a user in a topic.
type Member struct {
	User     string            `json:"user"`
	State    string            `json:"state"` // online or grace
	Away     bool              `json:"away"`
	Sessions int               `json:"sessions"`
	Since    int64             `json:"since"` // milliseconds since 1970
	Metas    []json.RawMessage `json:"metas"`
	Cut      bool              `json:"cut"` // some metas were left out
}

// Event is a change of a topic.
type Event struct {
	Kind   string // join, leave, update, snapshot, count
	Member Member // of the first three
	Cause  string // of leave; "" when it is not known
}

// RequestError is what the server answered to a request.
type RequestError struct{ Code, Text string }

// Error says what the server said.
func (e *RequestError) Error() string { return "client: " + e.Code + ": " + e.Text }

var errDown = errors.New("client: the connection was lost")

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
	known    bool
	version  uint64
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
// it was when the connection was lost. Above the server's limit it is empty.
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

// Err is what the server answered instead of following.
func (t *Topic) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// Events iterates over the changes from now on, until Close or the end of the
// Conn. A reader that is 1,024 behind gets an event snapshot instead: look at
// Members. For one goroutine.
func (t *Topic) Events() iter.Seq[Event] {
	return func(yield func(Event) bool) {
		for {
			t.mu.Lock()
			events, more, over := t.events, t.more, t.over
			t.events = nil
			if t.lost {
				events, t.lost = []Event{{Kind: "snapshot"}}, false
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
	w := &t.c.wired
	w.mu.Lock()
	if w.topics[t.name] == t {
		delete(w.topics, t.name)
	}
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.c.ctx, time.Second)
	defer cancel()
	_ = w.ask(ctx, map[string]any{"t": "unfollow", "topic": t.name})
	t.finish()
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

// told takes a message over. gap: one is missing.
func (t *Topic) told(m *said) (gap bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch m.T {
	case "snapshot":
		if m.First {
			t.parts = nil
		}
		t.parts = append(t.parts, m.Members...)
		t.version = m.Version
		if m.More {
			return false
		}
		t.replace()
	case "count":
		t.version, t.counting, t.users, t.live = m.Version, true, m.Users, true
		clear(t.members)
		t.emit(Event{Kind: "count"})
	case "delta":
		if m.Version != t.version+1 {
			return true
		}
		t.version = m.Version
		for _, c := range m.Changes {
			if c.K == "leave" {
				was := t.members[c.User]
				delete(t.members, c.User)
				was.User = c.User
				t.emit(Event{Kind: "leave", Member: was, Cause: c.Cause})
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
	first := !t.known
	t.known, t.live, t.counting = true, true, false
	if !first {
		for user, m := range before {
			if _, is := t.members[user]; !is {
				t.emit(Event{Kind: "leave", Member: m})
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

// wired is a Conn's side of presence.v1.
type wired struct {
	c *Conn

	mu      sync.Mutex
	ws      *websocket.Conn // set by the welcome
	up      chan struct{}   // closed by the welcome
	user    string
	session string
	lastID  int64
	asked   map[int64]chan error
	topics  map[string]*Topic
	joined  map[string]bool
	meta    json.RawMessage
}

func (w *wired) init(c *Conn) {
	w.c, w.up = c, make(chan struct{})
	w.asked, w.topics, w.joined = map[int64]chan error{}, map[string]*Topic{}, map[string]bool{}
}

// told is called where the connection is read.
func (w *wired) told(ws *websocket.Conn, data []byte) {
	var m said
	if json.Unmarshal(data, &m) != nil {
		return // of a later version, perhaps
	}
	switch m.T {
	case "welcome":
		if m.Interval != nil {
			w.c.interval.Store(*m.Interval * int64(time.Millisecond))
		}
		w.mu.Lock()
		w.ws, w.user, w.session = ws, m.User, m.Session
		close(w.up)
		w.mu.Unlock()
		go w.again()
	case "ok", "error":
		w.mu.Lock()
		answer := w.asked[m.ID]
		delete(w.asked, m.ID)
		w.mu.Unlock()
		if answer == nil {
			return
		}
		if m.T == "ok" {
			answer <- nil
		} else {
			answer <- &RequestError{m.Code, m.Text}
		}
	default:
		w.mu.Lock()
		t := w.topics[m.Topic]
		w.mu.Unlock()
		if t != nil && t.told(&m) {
			go w.follow(t)
		}
	}
}

// again asks for everything on a new connection.
func (w *wired) again() {
	w.mu.Lock()
	topics, joined, meta := maps.Clone(w.topics), maps.Clone(w.joined), w.meta
	w.mu.Unlock()
	for topic := range joined {
		_ = w.persist(w.c.ctx, map[string]any{"t": "join", "topic": topic})
	}
	if meta != nil {
		_ = w.persist(w.c.ctx, map[string]any{"t": "set", "meta": meta})
	}
	for _, t := range topics {
		w.follow(t)
	}
}

// down: the connection is lost. What was asked is asked again by who waits.
func (w *wired) down() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ws != nil {
		w.ws, w.up = nil, make(chan struct{})
	}
	for id, answer := range w.asked {
		answer <- errDown
		delete(w.asked, id)
	}
	for _, t := range w.topics {
		t.mu.Lock()
		t.live, t.parts = false, nil
		t.mu.Unlock()
	}
}

func (w *wired) close() {
	w.down()
	w.mu.Lock()
	topics := maps.Clone(w.topics)
	w.mu.Unlock()
	for _, t := range topics {
		t.finish()
	}
}

// ask makes one request on the connection there is, and waits for the answer.
func (w *wired) ask(ctx context.Context, m map[string]any) error {
	w.mu.Lock()
	ws := w.ws
	if ws == nil {
		w.mu.Unlock()
		return errDown
	}
	w.lastID++
	m["id"] = w.lastID
	id, answer := w.lastID, make(chan error, 1)
	w.asked[id] = answer
	w.mu.Unlock()
	data, err := json.Marshal(m)
	if err == nil {
		err = ws.Write(ctx, websocket.MessageText, append([]byte{mark}, data...))
	}
	if err != nil {
		w.mu.Lock()
		delete(w.asked, id)
		w.mu.Unlock()
		return err
	}
	select {
	case err = <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// persist asks until there is an answer, over reconnects.
func (w *wired) persist(ctx context.Context, m map[string]any) error {
	for {
		w.mu.Lock()
		up := w.up
		w.mu.Unlock()
		select {
		case <-up:
		case <-w.c.ctx.Done():
			return context.Cause(w.c.ctx)
		case <-ctx.Done():
			return ctx.Err()
		}
		err := w.ask(ctx, m)
		var refused *RequestError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &refused) && refused.Code != "rate" && refused.Code != "unavailable":
			return err
		}
		pause := time.NewTimer(time.Second)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		case <-w.c.ctx.Done():
			pause.Stop()
			return context.Cause(w.c.ctx)
		}
	}
}

func (w *wired) follow(t *Topic) {
	err := w.persist(w.c.ctx, map[string]any{"t": "follow", "topic": t.name})
	t.mu.Lock()
	t.err = err
	t.mu.Unlock()
}

// Follow follows a topic, over reconnects; "" is everyone. It returns at once;
// the first event is snapshot or count. The same Topic for the same name until
// it is closed.
func (c *Conn) Follow(topic string) *Topic {
	w := &c.wired
	w.mu.Lock()
	t := w.topics[topic]
	fresh := t == nil
	if fresh {
		t = &Topic{c: c, name: topic, members: map[string]Member{}, more: make(chan struct{})}
		w.topics[topic] = t
	}
	up := w.ws != nil
	w.mu.Unlock()
	if c.ctx.Err() != nil {
		t.finish()
	} else if fresh && up {
		go w.follow(t)
	}
	return t
}

// Join joins a topic, now and after every reconnect.
func (c *Conn) Join(ctx context.Context, topic string) error {
	err := c.wired.persist(ctx, map[string]any{"t": "join", "topic": topic})
	if err == nil {
		c.wired.mu.Lock()
		c.wired.joined[topic] = true
		c.wired.mu.Unlock()
	}
	return err
}

// Leave leaves a topic, without a grace.
func (c *Conn) Leave(ctx context.Context, topic string) error {
	c.wired.mu.Lock()
	delete(c.wired.joined, topic)
	c.wired.mu.Unlock()
	return c.wired.persist(ctx, map[string]any{"t": "leave", "topic": topic})
}

// SetMeta replaces the metadata of the session by v as JSON, now and after
// every reconnect.
func (c *Conn) SetMeta(ctx context.Context, v any) error {
	meta, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("client: metadata: %w", err)
	}
	if err := c.wired.persist(ctx, map[string]any{"t": "set", "meta": json.RawMessage(meta)}); err != nil {
		return err
	}
	c.wired.mu.Lock()
	c.wired.meta = meta
	c.wired.mu.Unlock()
	return nil
}

// User is who the server says this is, "" before it has.
func (c *Conn) User() string {
	c.wired.mu.Lock()
	defer c.wired.mu.Unlock()
	return c.wired.user
}

// Session is the ID of this connection's session.
func (c *Conn) Session() string {
	c.wired.mu.Lock()
	defer c.wired.mu.Unlock()
	return c.wired.session
}
