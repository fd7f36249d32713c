package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

const mark = '\x01' // begins each message of presence.v1

// RequestError is what the server answered to a request.
type RequestError struct{ Code, Text string }

// Error says text and code, such as "client: not allowed (forbidden)".
func (e *RequestError) Error() string { return "client: " + e.Text + " (" + e.Code + ")" }

// requestFailed says which request it was, and nothing twice.
type requestFailed struct {
	what string
	error
}

func (e *requestFailed) Unwrap() error { return e.error }

func (e *requestFailed) Error() string {
	return "client: " + e.what + ": " + strings.TrimPrefix(e.error.Error(), "client: ")
}

func failed(what string, err error) error {
	if err == nil {
		return nil
	}
	return &requestFailed{what, err}
}

var (
	// ErrReplaced is returned by Join when a Leave of the same topic came
	// before the server had answered, and the other way round.
	ErrReplaced = errors.New("client: another request has taken its place")

	errDown = errors.New("client: the connection was lost")
)

// wired is a Conn's side of presence.v1.
type wired struct {
	c    *Conn
	turn chan struct{} // held while a request is looked up and written: the last one decided is the last one sent

	mu      sync.Mutex
	ws      *websocket.Conn // set by the welcome
	foreign bool            // there is a connection, without presence.v1
	up      chan struct{}   // closed by the welcome, or where none will come
	user    string
	session string
	lastID  int64
	asked   map[int64]asking
	topics  map[string]*Topic
	wishes  map[string]*wish
	meta    *metadata // as it should be; nil: never set
	metaOK  *metadata // as the server has last taken it
}

// wish is where this client should be: in a topic, or until the server has
// answered, out of it. It is kept from the call on, so that a connection that
// is lost just after the answer is made up for like any other.
type wish struct {
	join    bool
	waiting int // calls of Join or Leave
	granted bool
}

type metadata struct{ json json.RawMessage }

func (w *wired) init(c *Conn) {
	w.c, w.up, w.turn = c, make(chan struct{}), make(chan struct{}, 1)
	w.asked, w.topics, w.wishes = map[int64]asking{}, map[string]*Topic{}, map[string]*wish{}
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
		if w.ws == ws { // again: it says nothing new
			w.mu.Unlock()
			return
		}
		w.ws, w.user, w.session = ws, m.User, m.Session
		close(w.up)
		// Taken here: what comes later asks on this connection by itself.
		wishes, topics, meta := maps.Clone(w.wishes), maps.Clone(w.topics), w.meta
		w.mu.Unlock()
		go w.again(ws, wishes, topics, meta)
	case "ok", "error":
		w.mu.Lock()
		q := w.asked[m.ID]
		delete(w.asked, m.ID)
		w.mu.Unlock()
		if q.answer == nil {
			return
		}
		var err error
		if m.T == "error" {
			err = &RequestError{m.Code, m.Text}
		}
		if q.follows != nil && !passes(err) {
			q.follows.answered(err) // not by who waits: it could overtake what the server says next
		}
		q.answer <- err
	default:
		w.mu.Lock()
		t := w.topics[m.Topic]
		w.mu.Unlock()
		if t != nil && t.told(&m) {
			go w.follow(t, ws)
		}
	}
}

// again asks for all that there was at the welcome of a new connection, until
// there is another.
func (w *wired) again(ws *websocket.Conn, wishes map[string]*wish, topics map[string]*Topic, meta *metadata) {
	for topic, x := range wishes {
		if !x.join {
			continue // who leaves asks by itself
		}
		err := w.persist(w.c.ctx, func() request {
			if w.ws != ws || w.wishes[topic] != x {
				return nil
			}
			return request{"t": "join", "topic": topic}
		})
		if w.refused(err, func() bool { return w.drop(topic, x) }) {
			w.c.refused(failed(fmt.Sprintf("join %q again", topic), err))
		}
	}
	if meta != nil {
		err := w.persist(w.c.ctx, func() request {
			if w.ws != ws || w.meta != meta {
				return nil
			}
			return request{"t": "set", "meta": meta.json}
		})
		if w.refused(err, func() bool { return w.meta == meta && w.metaOK == meta }) {
			w.c.refused(failed("set the metadata again", err))
		}
	}
	for _, t := range topics {
		w.follow(t, ws)
	}
}

// refused says whether the server has refused what was granted before, so that
// nobody waits for the answer. mine is called with the lock held.
func (w *wired) refused(err error, mine func() bool) bool {
	var no *RequestError
	if !errors.As(err, &no) {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return mine()
}

// drop forgets a wish that nobody waits for. w.mu is held.
func (w *wired) drop(topic string, x *wish) bool {
	if w.wishes[topic] != x || x.waiting > 0 {
		return false
	}
	delete(w.wishes, topic)
	return true
}

// unspoken: the new connection is without presence.v1.
func (w *wired) unspoken() {
	w.mu.Lock()
	w.foreign = true
	close(w.up)
	topics := maps.Clone(w.topics)
	w.mu.Unlock()
	for _, t := range topics {
		t.answered(ErrNoPresence)
	}
}

// down: the connection is lost. What was asked is asked again by who waits.
func (w *wired) down() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ws != nil || w.foreign {
		w.ws, w.foreign, w.up = nil, false, make(chan struct{})
	}
	for id, q := range w.asked {
		q.answer <- errDown
		delete(w.asked, id)
	}
	for _, t := range w.topics {
		t.down()
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

// follow asks for a topic on a connection, unless there is another by then:
// its welcome asks again.
func (w *wired) follow(t *Topic, ws *websocket.Conn) {
	err := w.persist(w.c.ctx, func() request {
		if w.ws != ws || w.topics[t.name] != t {
			return nil
		}
		return request{"t": "follow", "topic": t.name}
	})
	var no *RequestError
	if err != nil && !errors.Is(err, ErrReplaced) && !errors.As(err, &no) {
		t.answered(err) // the Conn has ended
	}
}

// Follow follows a topic, over reconnects; "" is everyone. It returns at once;
// the first event is snapshot, count or error. The same Topic for the same name
// until it is closed. The endpoint must speak presence.v1, see ErrNoPresence; one
// that does after a reconnect is asked then.
func (c *Conn) Follow(topic string) *Topic {
	w := &c.wired
	w.mu.Lock()
	t := w.topics[topic]
	fresh := t == nil
	if fresh {
		t = &Topic{c: c, name: topic, members: map[string]Member{}, more: make(chan struct{})}
		w.topics[topic] = t
	}
	ws, foreign := w.ws, w.foreign
	w.mu.Unlock()
	switch {
	case c.ctx.Err() != nil:
		t.finish()
	case fresh && foreign:
		t.answered(ErrNoPresence)
	case fresh && ws != nil:
		go w.follow(t, ws)
	}
	return t
}

// Join joins a topic, now and after every reconnect: what the server refuses
// then is told to Options.OnRefused. Where ctx ends first nobody knows whether
// the topic was joined; Leave sees to it that it is not. The endpoint must speak
// presence.v1, see ErrNoPresence. While the server's store is away, Join succeeds
// as soon as the server knows of it, and who follows the topic, this client
// included, is told when the store is back.
func (c *Conn) Join(ctx context.Context, topic string) error { return c.wired.wish(ctx, topic, true) }

// Leave leaves a topic, without a grace. The app may put a new session in it
// again after a reconnect. The endpoint must speak presence.v1, see
// ErrNoPresence.
func (c *Conn) Leave(ctx context.Context, topic string) error { return c.wired.wish(ctx, topic, false) }

func (w *wired) wish(ctx context.Context, topic string, join bool) error {
	kind := "leave"
	if join {
		kind = "join"
	}
	w.mu.Lock()
	x := w.wishes[topic]
	if x == nil || x.join != join {
		x = &wish{join: join}
		w.wishes[topic] = x
	}
	x.waiting++
	w.mu.Unlock()
	err := w.persist(ctx, func() request {
		if w.wishes[topic] != x {
			return nil
		}
		return request{"t": kind, "topic": topic}
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	x.waiting--
	x.granted = x.granted || err == nil
	if !x.join || !x.granted {
		w.drop(topic, x)
	}
	return failed(fmt.Sprintf("%s %q", kind, topic), err)
}

// SetMeta replaces the metadata of the session by v as JSON, now and after
// every reconnect. Of several calls under way the last one wins. The endpoint
// must speak presence.v1, see ErrNoPresence.
func (c *Conn) SetMeta(ctx context.Context, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return failed("set the metadata", err)
	}
	w := &c.wired
	mine := &metadata{b}
	w.mu.Lock()
	w.meta = mine
	w.mu.Unlock()
	sent := mine
	err = w.persist(ctx, func() request {
		sent = w.meta
		if sent == nil {
			sent = mine // the other one was refused
		}
		return request{"t": "set", "meta": sent.json}
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		w.metaOK = sent
	} else if w.meta == mine {
		w.meta = w.metaOK
	}
	return failed("set the metadata", err)
}

// Active tells the server that the user is here, so that it is neither away nor
// idle. Messages of the app and other requests say the same, and so does a new
// connection. nil also where there is no connection now; one that is idle
// (4408) is replaced. ErrNoPresence where the endpoint does not speak
// presence.v1.
func (c *Conn) Active(ctx context.Context) error {
	c.rouse()
	err := c.wired.ask(ctx, func() request { return request{"t": "active"} })
	if errors.Is(err, errDown) {
		return nil
	}
	return failed("active", err)
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
