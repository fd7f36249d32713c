package presence

import (
	"bytes"
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
	"github.com/a4cafe1a/presence/store"
)

// Session is one connection: one tab, one device. It is pending from
// Identify, live from verification, then ended. All methods may be called
// concurrently; only those that take a context may wait.
type Session struct {
	p    *Presence
	set  *settings
	id   uint64
	next *Session // of the same user, older; the registry's
	conn *link.Conn
	ref  wheel.Ref // guarded by mu

	user  string
	named bool

	ended    atomic.Pointer[End]
	touched  atomic.Int64  // without a conn: the last sign of life
	closeBy  atomic.Int64  // a close handshake is under way until then
	proveBy  atomic.Int64  // challenged: silence until then ends it
	provedAt atomic.Int64  // when it was challenged
	proveAck atomic.Uint64 // what the client had acknowledged then
	live     atomic.Bool
	parked   atomic.Bool // read by the poller
	looking  atomic.Bool
	again    atomic.Bool // a look was due while one was running
	released atomic.Bool
	entered  atomic.Bool

	pulse pulse // of the scheduler
	peer  *Peer // of a Callback; guarded by mu
	wire  *wire // of presence.v1; set before the upgrade

	mu       sync.Mutex
	topics   []string // sorted, without ""
	meta     json.RawMessage
	expires  time.Time
	away     bool
	started  time.Time // on this node's clock
	since    time.Time // on the store's clock, zero until it answered
	listed   bool      // the store was told
	goodbye  End       // what the close handshake says the cause will be
	hooks    hookState
	ctx      context.Context
	cancel   context.CancelCauseFunc
	upgraded context.CancelCauseFunc // of the request's context
}

// SessionInfo describes a session at one moment.
type SessionInfo struct {
	ID, User string
	Node     string // name of the node that holds it
	Topics   []string
	Meta     json.RawMessage
	Away     bool
	Local    bool // held by this node
	Since    time.Time
	// LastSeen is when the last byte arrived; for a session of another node,
	// when that node last renewed its lease.
	LastSeen time.Time
	// RTT is the time the last heartbeat took, 0 if unknown or not Local.
	RTT time.Duration
}

func (p *Presence) newSession(set *settings, id Identity) *Session {
	s := &Session{p: p, set: set, id: p.newID(), started: time.Now()}
	s.identify(id)
	s.touched.Store(int64(p.wheel.Exact()))
	return s
}

// identify sets who the session is. Only while it is pending.
func (s *Session) identify(id Identity) {
	s.user, s.named = id.User, id.User != ""
	if !s.named {
		s.user = s.ID()
	}
	s.topics = topicSet(id.Topics)
	s.meta = compact(id.Meta)
	s.expires = id.Expires
}

// newID never repeats within a start, and hardly ever at all.
func (p *Presence) newID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:])
}

// compact makes equal values equal bytes; null is none.
func compact(meta json.RawMessage) json.RawMessage {
	var b bytes.Buffer
	if len(meta) == 0 || json.Compact(&b, meta) != nil || b.String() == "null" {
		return nil
	}
	return b.Bytes()
}

func topicSet(topics []string) []string {
	set := make([]string, 0, len(topics))
	for _, t := range topics {
		if t != "" {
			set = append(set, t)
		}
	}
	slices.Sort(set)
	return slices.Compact(set)
}

// FromContext returns the session of an upgrade request, which is pending
// until the client is verified. It is nil outside an upgrade.
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
	if s.ctx == nil {
		s.ctx, s.cancel = context.WithCancelCause(context.Background())
		if e := s.ended.Load(); e != nil {
			s.cancel(e)
		}
	}
	return s.ctx
}

// Info describes the session now.
func (s *Session) Info() SessionInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	info := SessionInfo{
		ID: s.ID(), User: s.user, Node: s.p.node.Name,
		Topics: slices.Clone(s.topics), Meta: s.meta, Away: s.away,
		Local: true, Since: s.since,
		LastSeen: time.Now().Add(-max(0, s.quiet(s.p.wheel.Exact()))).Round(0),
	}
	if info.Since.IsZero() {
		info.Since = s.started
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

// Join adds the session to topics. A pending session joins with its
// connection. It returns when the store has taken it, or nil after CommitWait,
// at once while the store is away: then the change follows. ErrLimit: a name is too long, not
// UTF-8 or contains a zero byte, or there would be too many; then none is
// joined. ErrEnded: the session has ended.
func (s *Session) Join(ctx context.Context, topics ...string) error {
	add := topicSet(topics)
	for _, t := range add {
		if err := s.p.opts.Limits.checkName("topic", t); err != nil {
			return err
		}
	}
	return s.change(ctx, store.Op{Kind: store.OpJoin, Topics: add}, func() (bool, error) {
		merged := topicSet(append(slices.Clone(s.topics), add...))
		if limit := s.p.opts.Limits.TopicsPerSession; len(merged) > limit {
			return false, fmt.Errorf("%w: more than %d topics", ErrLimit, limit)
		}
		changed := len(merged) != len(s.topics)
		s.topics = merged
		return changed, nil
	})
}

// Leave takes the session out of topics, on purpose: there is no grace. It
// waits and fails as Join does. Everyone, "", cannot be left.
func (s *Session) Leave(ctx context.Context, topics ...string) error {
	drop := topicSet(topics)
	err := s.change(ctx, store.Op{Kind: store.OpLeave, Topics: drop}, func() (bool, error) {
		left := slices.DeleteFunc(slices.Clone(s.topics), func(t string) bool {
			_, found := slices.BinarySearch(drop, t)
			return found
		})
		changed := len(left) != len(s.topics)
		s.topics = left
		return changed, nil
	})
	s.left(drop)
	return err
}

// SetMeta replaces the session's metadata by v as JSON; nil removes it. An
// unchanged value does nothing. At most four changes a second reach others,
// the last one always does. ErrLimit: it is longer than Limits.MetaBytes, or
// the user's sessions have more than 64 KiB together; then others see the
// value from before.
func (s *Session) SetMeta(ctx context.Context, v any) error {
	var meta json.RawMessage
	if v != nil {
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("presence: metadata: %w", err)
		}
		meta = compact(b)
	}
	if err := s.p.opts.Limits.checkMeta(meta); err != nil {
		return err
	}
	var before json.RawMessage
	err := s.change(ctx, store.Op{Kind: store.OpMeta, Meta: meta}, func() (bool, error) {
		if string(s.meta) == string(meta) {
			return false, nil
		}
		before, s.meta = s.meta, meta
		return true, nil
	})
	if err != nil {
		s.mu.Lock()
		if string(s.meta) == string(meta) && isLimit(err) {
			s.meta = before
		}
		s.mu.Unlock()
	}
	return err
}

// change applies a change here and, once the store knows the session, there.
func (s *Session) change(ctx context.Context, op store.Op, apply func() (changed bool, err error)) error {
	s.mu.Lock()
	if s.ended.Load() != nil {
		s.mu.Unlock()
		return ErrEnded
	}
	changed, err := apply()
	listed := s.listed
	s.mu.Unlock()
	if err != nil || !changed || !listed {
		return err
	}
	op.User, op.Session = s.user, s.ID()
	return s.p.commit(ctx, op)
}

// SetExpires moves the moment the session ends with 4401; zero: never.
func (s *Session) SetExpires(t time.Time) {
	s.mu.Lock()
	s.expires = t
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

func (l *Limits) checkMeta(meta json.RawMessage) error {
	if len(meta) > l.MetaBytes {
		return fmt.Errorf("%w: metadata is at most %d bytes", ErrLimit, l.MetaBytes)
	}
	if len(meta) > 0 && !json.Valid(meta) {
		return fmt.Errorf("%w: metadata must be valid JSON", ErrLimit)
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
	if len(topics) > l.TopicsPerSession {
		return fmt.Errorf("%w: more than %d topics", ErrLimit, l.TopicsPerSession)
	}
	return l.checkMeta(id.Meta)
}
