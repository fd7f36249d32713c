package presence

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/a4cafe1a/presence/internal/link"
	"github.com/a4cafe1a/presence/internal/wheel"
)

// Session is one connection: one tab, one device. It is pending from
// Identify, live from verification, then ended. All methods may be called
// concurrently; only those that take a context may wait.
type Session struct {
	// What a look needs is together, then what a query needs: between two of them
	// the caches forget it, and each line of them is a wait.
	p       *Presence
	set     *settings
	ended   atomic.Pointer[End]
	goodbye atomic.Pointer[goodbye] // a close handshake is under way
	trial   atomic.Pointer[trial]   // it is to prove that it is alive
	extra   atomic.Pointer[extra]   // what most sessions have none of; stored under mu
	pulse   pulse                   // of the scheduler
	conn    *link.Conn
	touched atomic.Int64 // without a conn: the last sign of life
	marks   marks
	named   bool
	user    string
	next    atomic.Pointer[Session] // of the same user, older; the registry's
	since   atomic.Int64            // on the store's wall once it has answered, on this node's until then; stored under mu

	id   uint64
	wire *wire // of presence.v1; set before the upgrade

	mu       sync.Mutex
	ref      wheel.Ref
	peer     *Peer     // of a Callback
	contexts *contexts // nil: nobody has asked for one
	dated    bool      // the store has answered
	listed   bool      // the store was told
	hooks    hookState
}

// extra is replaced, never changed.
type extra struct {
	topics  []string // sorted, without ""
	meta    json.RawMessage
	expires time.Time
}

// contexts end with the session.
type contexts struct {
	ctx      context.Context
	cancel   context.CancelCauseFunc // of ctx
	upgraded context.CancelCauseFunc // of the request's context
}

func (c contexts) end(cause error) {
	if c.cancel != nil {
		c.cancel(cause)
	}
	if c.upgraded != nil {
		c.upgraded(cause)
	}
}

// held are the contexts to end. s.mu is held.
func (s *Session) held() contexts {
	if s.contexts == nil {
		return contexts{}
	}
	return *s.contexts
}

// marks say what has happened to a session, or is happening.
type marks struct{ atomic.Uint32 }

const (
	markEntered  uint32 = 1 << iota // counted among the connections that Shutdown awaits
	markVerified                    // no longer counted among the upgrades
	markReleased                    // no longer counted among the sessions
	markParked                      // read by the poller
	markLooking                     // a look is running
	markAgain                       // another was due meanwhile
	markAway                        // as others were told; changed under Session.mu
)

func (m *marks) has(mark uint32) bool { return m.Load()&mark != 0 }

// set says whether the mark was not there.
func (m *marks) set(mark uint32) (first bool) { return m.Or(mark)&mark == 0 }

// unset says whether the mark was there.
func (m *marks) unset(mark uint32) (was bool) { return m.And(^mark)&mark != 0 }

// SessionInfo describes a session at one moment. In JSON it is written as a
// Status is, and what is empty or not known is missing.
type SessionInfo struct {
	ID     string          `json:"id"`
	User   string          `json:"user"`
	Node   string          `json:"node"` // name of the node that holds it
	Topics []string        `json:"topics,omitempty"`
	Meta   json.RawMessage `json:"meta,omitempty"`
	Away   bool            `json:"away"`
	Local  bool            `json:"local"` // held by this node
	Since  time.Time       `json:"since"`
	// LastSeen is when the last byte arrived; for a session of another node,
	// when that node last renewed its lease.
	LastSeen time.Time `json:"last_seen,omitzero"`
	// RTT is the time the last heartbeat took, 0 if unknown or not Local. In
	// JSON it is in nanoseconds.
	RTT time.Duration `json:"rtt_ns,omitzero"`
}

func (p *Presence) newSession(set *settings, id Identity) *Session {
	s := &Session{p: p, set: set, id: p.newID()}
	s.since.Store(time.Now().UnixNano())
	s.identify(id)
	s.touched.Store(int64(p.wheel.Exact()))
	return s
}

// identify sets who the session is. Only while it is pending. Names are copied:
// they are often parts of a request, which would live as long as the session.
func (s *Session) identify(id Identity) {
	s.user, s.named = strings.Clone(id.User), id.User != ""
	if !s.named {
		s.user = s.ID()
	}
	s.setExtra(extra{cloneAll(topicSet(id.Topics)), compact(id.Meta), id.Expires})
}

func cloneAll(names []string) []string {
	for i := range names {
		names[i] = strings.Clone(names[i])
	}
	return names
}

// own is what the session has of its own. Who is going to change it holds s.mu.
func (s *Session) own() extra {
	if e := s.extra.Load(); e != nil {
		return *e
	}
	return extra{}
}

// setExtra replaces it. s.mu is held.
func (s *Session) setExtra(e extra) {
	if len(e.topics) == 0 && e.meta == nil && e.expires.IsZero() {
		s.extra.Store(nil)
		return
	}
	kept := e // or each call would allocate
	s.extra.Store(&kept)
}

// newID never repeats within a start, and hardly ever at all.
func (p *Presence) newID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:])
}

// FromContext returns the session of an upgrade request, which is pending
// until the client is verified: this is how a handler inside Middleware gets at
// it. It is nil outside an upgrade, and where Identify returned ErrUntracked.
func FromContext(ctx context.Context) *Session {
	if u, ok := ctx.Value(upgradeKey{}).(*upgrade); ok {
		return u.s
	}
	return nil
}

// ID is unique over all nodes and starts: 16 hexadecimal digits.
func (s *Session) ID() string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], s.id)
	return hex.EncodeToString(b[:])
}

// parseID returns 0, which no session has, for anything that is not an ID.
func parseID(id string) uint64 {
	b, err := hex.DecodeString(id)
	if err != nil || len(b) != 8 || strings.ToLower(id) != id {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// User is whom the session belongs to. An anonymous session is a user of its
// own, named by its ID.
func (s *Session) User() string { return s.user }

// Context ends with the session; its cause is the *End. It carries no values
// of the request.
func (s *Session) Context() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.contexts == nil {
		s.contexts = new(contexts)
	}
	c := s.contexts
	if c.ctx == nil {
		c.ctx, c.cancel = context.WithCancelCause(context.Background())
		if e := s.ended.Load(); e != nil {
			c.cancel(e)
		}
	}
	return c.ctx
}

// Info describes the session now.
func (s *Session) Info() SessionInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.own()
	info := SessionInfo{
		ID: s.ID(), User: s.user, Node: s.p.node.Name,
		Topics: slices.Clone(own.topics), Meta: own.meta, Away: s.marks.has(markAway),
		Local: true, Since: time.Unix(0, s.since.Load()).UTC(),
		LastSeen: time.Now().Add(-max(0, s.quiet(s.p.wheel.Exact()))).Round(0),
	}
	if s.conn != nil {
		info.RTT = s.conn.RTT()
	}
	return info
}

func (s *Session) lastByte() wheel.Time {
	if s.conn != nil {
		return s.conn.LastByte()
	}
	return wheel.Time(s.touched.Load())
}

func (s *Session) quiet(now wheel.Time) time.Duration { return time.Duration(now - s.lastByte()) }

// expired says whether a sign-in has run out; zero: it never does.
func expired(at time.Time) bool { return !at.IsZero() && !time.Now().Before(at) }

// SetExpires moves the moment the session ends with 4401; zero: never. So a
// client that sends a new token in time goes on without a Leave and a Join.
func (s *Session) SetExpires(t time.Time) {
	s.mu.Lock()
	own := s.own()
	own.expires = t
	s.setExtra(own)
	s.mu.Unlock()
	if !t.IsZero() {
		s.hasten(s.p.wheel.Exact() + wheel.Time(time.Until(t)))
	}
}

// Touch counts as a sign of life that the app saw, for sessions of Open and
// Attach.
func (s *Session) Touch() {
	if s.conn != nil {
		s.conn.Touch()
		return
	}
	s.touched.Store(int64(s.p.wheel.Exact()))
}

// Disconnect ends the session and returns at once. A code outside 4000-4999
// becomes 4403, a text longer than 123 bytes is cut.
func (s *Session) Disconnect(r Reason) { s.end(r.end()) }

// hasten asks for a look no later than at.
func (s *Session) hasten(at wheel.Time) {
	s.mu.Lock()
	ref := s.ref
	s.mu.Unlock()
	s.p.wheel.Hasten(ref, max(at, 1))
}

func (l *Limits) checkName(what, name string) error {
	switch {
	case len(name) > l.NameBytes:
		return fmt.Errorf("%w: a %s name is at most %d bytes", ErrLimit, what, l.NameBytes)
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: a %s name must be UTF-8", ErrLimit, what)
	case strings.IndexByte(name, 0) >= 0:
		return fmt.Errorf("%w: a %s name must not contain a zero byte", ErrLimit, what)
	}
	return nil
}

// checkUser is for who is asked about. Nobody is called "": it is hardly meant,
// but what a request without a sign-in has. An anonymous user is called as its
// session, however short names must be.
func (l *Limits) checkUser(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: the user name is empty", ErrLimit)
	case len(name) > l.NameBytes && parseID(name) != 0:
		return nil
	}
	return l.checkName("user", name)
}

var (
	errNotJSON = fmt.Errorf("%w: metadata must be valid JSON", ErrLimit)
	errTopics  = fmt.Errorf("%w: too many topics", ErrLimit)
)

func (l *Limits) checkTopics(n int) error {
	if n > l.TopicsPerSession {
		return fmt.Errorf("%w: %d are more than Limits.TopicsPerSession, %d", errTopics, n, l.TopicsPerSession)
	}
	return nil
}

func (l *Limits) checkMeta(meta json.RawMessage) error {
	if len(meta) > l.MetaBytes {
		return fmt.Errorf("%w: metadata is at most %d bytes", ErrLimit, l.MetaBytes)
	}
	if len(meta) > 0 && !json.Valid(meta) {
		return errNotJSON
	}
	return nil
}

func (l *Limits) checkIdentity(id Identity) error {
	if err := l.checkName("user", id.User); err != nil {
		return err
	}
	topics := topicSet(id.Topics)
	for _, t := range topics {
		if err := l.checkName("topic", t); err != nil {
			return err
		}
	}
	return cmp.Or(l.checkTopics(len(topics)), l.checkMeta(id.Meta))
}
