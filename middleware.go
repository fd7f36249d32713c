package presence

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/a4cafe1a/presence/internal/link"
)

// Route holds the settings of one mount; zero fields are those of Options.
type Route struct {
	// Identify replaces Options.Identify.
	Identify func(*http.Request) (Identity, error)

	// Dialects are the heartbeat messages that are understood. nil: for
	// Handler and Callback EmptyMessage and PingPong, for Middleware none,
	// because a wrapped app may mean "" or "ping"; it gets the empty message of
	// presence.js, unless that is told heartbeat: false. Empty: none. At most 31.
	Dialects []Dialect

	// OriginPatterns are hosts that pages of other origins may have, for
	// Handler and Callback: patterns of path.Match, for the host, or for
	// scheme://host where the pattern contains "://"; the host includes a
	// port that is not the scheme's own. The server's own host is always
	// allowed, and so are clients that send no Origin. "*" lets pages of any
	// site connect with the cookies of the visitor, and is logged. The wrapped
	// handlers of Middleware have a policy of their own.
	OriginPatterns []string

	// Subprotocols that Handler and Callback speak, best first. presence.v1
	// is understood in any case.
	Subprotocols []string

	// ReadLimit of a message in bytes, for Handler and Callback. 0: 32 KiB.
	// Negative: none.
	ReadLimit int64
}

// Mount mounts handlers with the settings of a Route.
type Mount struct {
	p   *Presence
	set settings
}

// settings are a Route with defaults.
type settings struct {
	Route
	rhythm  rhythm
	plain   *link.Config // of the connections of Middleware
	rich    *link.Config // of those of Handler and Callback
	watched *link.Config // of those that chose presence.v1
}

// maxDialects leaves a bit for the one that presence.v1 brings along.
const maxDialects = 31

func (p *Presence) settings(r Route) settings {
	set := settings{Route: r, rhythm: p.opts.rhythm()}
	dialects := r.Dialects
	set.plain = p.links.With(linked(dialects)...)
	if r.Dialects == nil {
		dialects = []Dialect{EmptyMessage, PingPong}
	}
	set.rich = p.links.With(linked(dialects)...)
	set.watched = set.rich
	if !slices.ContainsFunc(dialects, func(d Dialect) bool { _, ok := d.(emptyMessage); return ok }) {
		set.watched = p.links.With(append(linked(dialects), EmptyMessage)...)
	}
	if set.Identify == nil {
		set.Identify = p.opts.Identify
	}
	if set.ReadLimit == 0 {
		set.ReadLimit = 32 << 10
	}
	return set
}

// check says what is wrong with a route that could never work.
func (r *Route) check() error {
	if n := len(r.Dialects); n > maxDialects {
		return fmt.Errorf("Route.Dialects: %d are more than %d", n, maxDialects)
	}
	if slices.Contains(r.Dialects, nil) {
		return errors.New("Route.Dialects: one is nil")
	}
	for _, pattern := range r.OriginPatterns {
		if err := checkPattern(pattern); err != nil {
			return fmt.Errorf("Route.OriginPatterns: %q: %w", pattern, err)
		}
	}
	for _, name := range r.Subprotocols {
		if !isToken(name) {
			return fmt.Errorf("Route.Subprotocols: %q is no token of a header", name)
		}
	}
	return nil
}

// At returns mounts with settings of their own. It panics if they can never
// work: an origin pattern that is malformed or has a path, a subprotocol that
// is no token (RFC 6455 section 4.1), too many dialects.
func (p *Presence) At(r Route) *Mount {
	if err := r.check(); err != nil {
		panic("presence: At: " + err.Error())
	}
	for _, pattern := range r.OriginPatterns {
		if allowsAny(pattern) {
			p.log.Warn("presence: Route.OriginPatterns lets pages of any site connect, with the cookies of the visitor", "pattern", pattern)
		}
	}
	return &Mount{p, p.settings(r)}
}

// Middleware wraps handlers that upgrade to WebSocket with any library, which
// then get live, verified connections only. Mount it outside of a router or in
// its Use. Requests that are not upgrades, and upgrades that cannot be
// hijacked, reach next untouched. A handler may return and go on using its
// connection elsewhere: the session ends with the connection.
//
// The wrapped handlers do not speak presence.v1: for clients that follow topics,
// join them or set metadata give them another endpoint, of Handler or Callback. A
// browser whose page offers presence.v1 to one that does not choose it lets no
// connection open; the log warns of it.
//
// A request of presence.js that asks why an upgrade failed, known by its Accept, is
// answered where Identify refuses it, and passed on else.
//
// Inside Middleware, the same Presence again does nothing, a Handler or
// Callback of it decides who the session is, its topics and its metadata, and
// another Presence passes on.
//
// A library that reads with the request's context may report only that the
// context ended; context.Cause of it is the *End.
func (p *Presence) Middleware(next http.Handler) http.Handler {
	return (&Mount{p, p.mounts}).Middleware(next)
}

// Handler upgrades requests with github.com/coder/websocket and calls serve
// with each live, verified connection, on the request's goroutine. ctx keeps
// the values of the request's context, has no deadline of a router, and ends
// with the session; its cause is the *End.
//
// When serve returns nil the connection is closed with 1000. When it returns
// the session's own end or a close error, there is nothing left to close. For
// any other error it is closed with 1011; the error is logged and not sent. A
// panic ends the session as app-error and goes on.
//
// A request that is no upgrade gets what Identify refuses with, or 426, with
// another method than GET and HEAD 405; a wrong origin 403; a ResponseWriter that
// cannot be hijacked 501. The log says why at level debug.
func (p *Presence) Handler(serve func(context.Context, *Conn) error) http.Handler {
	return (&Mount{p, p.mounts}).Handler(serve)
}

// Callback is Handler without a request or a stack to hold: setup runs before
// the upgrade, on the request's goroutine, and says what to do with each
// message. Its error refuses the request as one of Identify does; where it ends
// the peer, that is 401 for code 4401, 429 for 4429, 500 when it has sent more
// than may wait, else 403. Join and SetMeta on the pending peer take effect with
// the connection. setup nil, or no Message: the connection is for presence only, and what the client sends
// is read and dropped.
func (p *Presence) Callback(setup func(*http.Request, *Peer) (Callbacks, error)) http.Handler {
	return (&Mount{p, p.mounts}).Callback(setup)
}

// Middleware is Presence.Middleware with the settings of the mount.
func (m *Mount) Middleware(next http.Handler) http.Handler {
	if next == nil {
		panic("presence: Middleware: nil handler")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isUpgrade(r) {
			m.p.noteStripped(r)
			if !isProbe(r) || !m.refuseProbe(w, r) {
				next.ServeHTTP(w, r)
			}
			return
		}
		if u := upgradeOf(r); u != nil {
			if u.p != m.p && m.p.once("nested") {
				m.p.log.Warn("presence: another Presence wraps this one; upgrades are tracked by that one only")
			}
			next.ServeHTTP(w, r)
			return
		}
		if !m.p.canHijack(w, r) {
			next.ServeHTTP(w, r)
			return
		}
		u, ok := m.begin(w, r, m.set.plain, func() { next.ServeHTTP(w, r) })
		if !ok {
			return
		}
		if offersProtocol(r) {
			u.offered = r
		}
		defer u.finish()
		next.ServeHTTP(u, u.request(r))
		u.returned = true
	})
}

// begin identifies and admits an upgrade. If it does not succeed, the request
// has been answered, or passed to untracked.
func (m *Mount) begin(w http.ResponseWriter, r *http.Request, links *link.Config, untracked func()) (*upgrade, bool) {
	p := m.p
	begun := p.wheel.Exact()
	id, err := m.identify(r)
	if errors.Is(err, ErrUntracked) {
		untracked()
		return nil, false
	}
	var s *Session
	if err == nil {
		s = p.newSession(&m.set, id)
		err = p.admit(s)
	}
	if err == nil {
		p.pending.Store(s, nil)
		if err = p.room(r.Context(), s.user); err == nil && p.kicks.since(s.user, begun) {
			err = errKicked
		}
		if err != nil {
			s.discard()
		}
	}
	if err != nil {
		p.refuse(w, r, err)
		return nil, false
	}
	return &upgrade{p: p, s: s, w: w, links: links, foreign: r.Context().Value(http.ServerContextKey) == nil}, true
}

// identify calls Identify and checks what it says.
func (m *Mount) identify(r *http.Request) (Identity, error) {
	id, err := m.set.Identify(r)
	if err != nil {
		return id, err
	}
	switch err := m.p.opts.Limits.checkIdentity(id); {
	case errors.Is(err, errNotJSON), errors.Is(err, errTopics):
		return id, errors.New("Identity: " + news(err)) // the app's mistake, so without the chain
	case err != nil:
		return id, &badIdentity{err}
	}
	if expired(id.Expires) {
		return id, ErrUnauthorized
	}
	return id, nil
}

// prepare does what Handler and Callback have in common before the upgrade:
// every check, and who it is. It returns nil when the request has been
// answered. An upgrade that is owned was begun here, and is to be finished. Who
// shows the request to the app makes it one of the upgrade first.
func (m *Mount) prepare(w http.ResponseWriter, r *http.Request) (u *upgrade, owned bool) {
	p := m.p
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		p.deny(w, r, http.StatusMethodNotAllowed, "a WebSocket begins with GET, and this is "+r.Method)
		return nil, false
	}
	switch {
	case !isUpgrade(r):
		p.noteStripped(r)
		m.answerPlain(w, r)
		return nil, false
	case !p.canHijack(w, r):
		p.denySealed(w, r)
		return nil, false
	case !p.originAllowed(r, m.set.OriginPatterns):
		p.deny(w, r, http.StatusForbidden, "a page of another origin: "+cutText(r.Header.Get("Origin")))
		return nil, false
	}
	if u := upgradeOf(r); u != nil && u.p == p {
		if err := m.decide(u, r); err != nil {
			p.refuse(w, r, err)
			return nil, false
		}
		return u, false
	}
	u, ok := m.begin(w, r, m.set.rich, func() { p.refuse(w, r, ErrUntracked) })
	if !ok {
		return nil, false
	}
	return u, true
}

// decide lets a mount inside Middleware say who the session is.
func (m *Mount) decide(u *upgrade, r *http.Request) error {
	begun := m.p.wheel.Exact()
	id, err := m.identify(r)
	if err != nil {
		return err
	}
	u.s.mu.Lock()
	u.s.set = &m.set
	u.s.identify(id)
	u.s.mu.Unlock()
	u.links = m.set.rich
	if m.p.kicks.since(id.User, begun) {
		return errKicked
	}
	return m.p.room(r.Context(), u.s.user)
}

// logAppError reports what serve or a callback returned.
func (s *Session) logAppError(where string, err error) {
	s.p.log.Error("presence: "+where+" failed", "session", s.ID(), "user", s.user, "error", fmt.Sprint(err))
}
