package presence

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"
)

// presence.v1 lets a client follow topics, join and leave them and set its
// metadata, over the connection that the app uses. Its messages are text that
// begins with U+0001. They are taken out and put in below the library. See
// docs/protocol.md.

const (
	protocol = "presence.v1"
	mark     = '\x01'

	askBurst  = 128 // requests that may come at once, and that may be refused after that
	askRate   = 16  // requests a second in the long run
	inboxMax  = 128 // requests that wait for Authorize or the store
	inboxSize = 64 << 10
	topicMax  = 512 // bytes of a name: a message must have room for it
)

// offer chooses the subprotocol of an upgrade, and turns presence.v1 on when
// the client wants it.
func (m *Mount) offer(u *upgrade, r *http.Request) []string {
	offers := r.Header.Values("Sec-WebSocket-Protocol")
	choice := ""
	for _, ours := range m.set.Subprotocols {
		if choice = chooseSubprotocol([]string{protocol + "+" + ours, ours}, offers); choice != "" {
			break
		}
	}
	if choice == "" {
		choice = chooseSubprotocol([]string{protocol}, offers)
	}
	if choice == "" {
		return nil
	}
	if choice == protocol || strings.HasPrefix(choice, protocol+"+") {
		u.s.wire = newWire(u.s)
		u.links = m.set.watched // a client of presence.v1 watches the server
	}
	return []string{choice}
}

// offersProtocol says whether a client wants presence.v1.
func offersProtocol(r *http.Request) bool {
	for _, v := range r.Header["Sec-Websocket-Protocol"] {
		if strings.Contains(v, protocol) {
			return true
		}
	}
	return false
}

// answered hears what a wrapped handler, which cannot speak presence.v1 unless it
// leads to another server, answers to a client that offers it.
func (p *Presence) answered(r *http.Request, answer string) {
	if !strings.Contains(answer, protocol) && p.saidProtocol.Now() {
		p.log.Warn("presence: a client offers presence.v1, and the handler in Middleware does not choose it: "+
			"a browser lets no such connection open; give these clients an endpoint of Handler or Callback", "path", r.URL.Path)
	}
}

// Subprotocol is the app's own, of Route.Subprotocols; "" if there is none.
func (c *Conn) Subprotocol() string {
	chosen := c.Conn.Subprotocol()
	if c.wire == nil {
		return chosen
	}
	_, own, _ := strings.Cut(chosen, "+")
	return own
}

// wire is a session's side of presence.v1.
type wire struct {
	s *Session

	mu       sync.Mutex
	inbox    [][]byte
	size     int
	live     bool // welcomed
	working  bool // a goroutine takes from inbox
	tokens   float64
	filledAt time.Time
	refused  int // in a row

	// of the one that works
	follows map[string]bool
	joined  map[string]bool // by the client
	meta    json.RawMessage // as the client has set it
}

func newWire(s *Session) *wire {
	return &wire{s: s, tokens: askBurst, filledAt: time.Now(), follows: map[string]bool{}, joined: map[string]bool{}}
}

// request is what a client sends.
type request struct {
	T     string          `json:"t"`
	ID    *int64          `json:"id"`
	Topic *string         `json:"topic"`
	Meta  json.RawMessage `json:"meta"`
}

// reply is what it gets back.
type reply struct {
	T    string `json:"t"`
	ID   *int64 `json:"id,omitempty"`
	Code string `json:"code,omitempty"`
	Text string `json:"text,omitempty"`
}

// welcome is the first message of the server.
type welcome struct {
	T        string `json:"t"`
	V        int    `json:"v"`
	User     string `json:"user"`
	Session  string `json:"session"`
	Interval int64  `json:"interval"`
}

// start begins to answer, when the session is live.
func (w *wire) start() {
	s := w.s
	w.send(encode(welcome{"welcome", 1, s.user, s.ID(), s.p.opts.HeartbeatInterval.Milliseconds()}))
	w.mu.Lock()
	w.live = true
	w.wake()
	w.mu.Unlock()
}

// stop forgets what is followed. Not under a lock of the follows.
func (w *wire) stop() { w.s.p.follows.forget(w) }

func encode(v any) []byte {
	b, err := marshal(v)
	if err != nil {
		panic(err) // only types of ours
	}
	return append([]byte{mark}, b...)
}

// send queues an answer. A client that asks and does not read is slow.
func (w *wire) send(msg []byte) {
	if !w.s.conn.Inject(msg) {
		w.s.end(End{Cause: CauseSlow, Code: codeSlow, Text: "too slow"})
	}
}

// deliver takes a message of the client. It is called where the connection is
// read, and leaves all work to a goroutine that exists while there is some.
func (w *wire) deliver(msg []byte) {
	w.mu.Lock()
	now := time.Now()
	w.tokens = min(askBurst, w.tokens+askRate*now.Sub(w.filledAt).Seconds())
	w.filledAt = now
	if w.tokens < 1 || len(w.inbox) >= inboxMax || w.size > 0 && w.size+len(msg) > inboxSize {
		w.refused++
		flood := w.refused > askBurst
		w.mu.Unlock()
		if flood {
			w.s.end(End{Cause: CauseLimit, Code: codeLimit, Text: "too many requests"})
			return
		}
		var q request
		_ = json.Unmarshal(msg[1:], &q) // for its id
		w.send(encode(reply{T: "error", ID: q.ID, Code: "rate", Text: "too many requests"}))
		return
	}
	w.tokens--
	w.refused = 0
	w.inbox = append(w.inbox, msg)
	w.size += len(msg)
	w.wake()
	w.mu.Unlock()
}

// wake starts the goroutine. w.mu is held.
func (w *wire) wake() {
	if w.live && !w.working && len(w.inbox) > 0 && w.s.p.begin() {
		w.working = true
		go w.work()
	}
}

func (w *wire) work() {
	defer w.s.p.running.Done()
	for {
		w.mu.Lock()
		if len(w.inbox) == 0 || w.s.ended.Load() != nil {
			w.inbox, w.size, w.working = nil, 0, false
			w.mu.Unlock()
			return
		}
		msg := w.inbox[0]
		w.inbox = w.inbox[1:]
		w.size -= len(msg)
		w.mu.Unlock()
		w.answer(msg)
	}
}

// answer carries out one request.
func (w *wire) answer(msg []byte) {
	var q request
	err := json.Unmarshal(msg[1:], &q)
	if err != nil {
		q.ID, err = nil, errBad
	} else {
		err = w.carryOut(&q)
	}
	if w.s.ended.Load() != nil {
		return
	}
	if err == nil {
		w.send(encode(reply{T: "ok", ID: q.ID}))
	} else {
		code, text := explain(err)
		w.send(encode(reply{T: "error", ID: q.ID, Code: code, Text: text}))
	}
	if err == nil && q.T == "follow" {
		w.s.p.follows.follow(w, *q.Topic) // what it sends comes after the ok
	}
}
