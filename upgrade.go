package presence

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"

	"github.com/a4cafe1a/presence/internal/link"
)

type upgradeKey struct{}

// upgradeOf returns the upgrade a request is part of, of whatever Presence.
func upgradeOf(r *http.Request) *upgrade {
	u, _ := r.Context().Value(upgradeKey{}).(*upgrade)
	return u
}

// isUpgrade says whether a request asks for a WebSocket (RFC 6455 section 4.1).
func isUpgrade(r *http.Request) bool {
	return r.Method == http.MethodGet && r.ProtoMajor == 1 && r.ProtoMinor >= 1 &&
		hasToken(r.Header["Connection"], "upgrade") && hasToken(r.Header["Upgrade"], "websocket")
}

// whyNoUpgrade says what isUpgrade misses. Proxies take these headers out unless
// they are told not to.
func whyNoUpgrade(r *http.Request) string {
	switch {
	case r.ProtoMajor != 1 || r.ProtoMinor < 1:
		return r.Proto + " has no upgrade, HTTP/1.1 has"
	case r.Method != http.MethodGet:
		return "a WebSocket begins with GET, and this is " + r.Method
	case !hasToken(r.Header["Upgrade"], "websocket"):
		return "no header Upgrade: websocket, unless a proxy took it out"
	}
	return "no header Connection: Upgrade, unless a proxy took it out"
}

// noteStripped warns of a handshake that began as an upgrade and arrived as none.
func (p *Presence) noteStripped(r *http.Request) {
	if r.Method == http.MethodGet && r.Header["Sec-Websocket-Key"] != nil && p.saidStripped.Now() {
		p.log.Warn("presence: a proxy took the upgrade out of a handshake", "path", r.URL.Path, "reason", whyNoUpgrade(r),
			"cure", "let the proxy speak HTTP/1.1 to this server, and pass the headers Upgrade and Connection")
	}
}

func hasToken(values []string, token string) bool {
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

// upgrade is the http.ResponseWriter that the library gets. Its Hijack hands
// out the connection that keeps the heartbeat. It belongs to the request's
// goroutine.
type upgrade struct {
	p        *Presence
	s        *Session
	w        http.ResponseWriter
	links    *link.Config
	header   http.Header   // when over: a copy nobody sends
	over     bool          // hijacked or refused: nothing is sent through w any more
	stop     func()        // of watching the request's context; nil: nobody does
	switched bool          // the library has called WriteHeader(101)
	owed     bool          // and it is not sent yet: it leaves with the first ping
	returned bool          // the wrapped handler did, without a panic
	offered  *http.Request // of presence.v1 to a wrapped handler; nil: none
	foreign  bool          // the server is not net/http's
}

// request returns r with the context of an upgrade: the values of the old
// one, no deadline, ended with the session, or with the client while pending.
func (u *upgrade) request(r *http.Request) *http.Request {
	inner, cancel := u.detach(r)
	u.watch(r.Context(), cancel)
	return inner
}

// detach is request where the app does not see the context before the upgrade:
// who leaves until then is found out by the upgrade.
func (u *upgrade) detach(r *http.Request) (*http.Request, context.CancelCauseFunc) {
	outer := r.Context()
	ctx, cancel := context.WithCancelCause(context.WithValue(context.WithoutCancel(outer), upgradeKey{}, u))
	u.s.mu.Lock()
	if u.s.contexts == nil {
		u.s.contexts = new(contexts)
	}
	over := &u.s.contexts.upgraded
	if before := *over; before != nil { // a Handler inside Middleware
		*over = func(cause error) { before(cause); cancel(cause) }
	} else {
		*over = cancel
	}
	u.s.mu.Unlock()
	return r.WithContext(ctx), cancel
}

func (u *upgrade) watch(outer context.Context, cancel context.CancelCauseFunc) {
	stop := context.AfterFunc(outer, func() {
		// A router's deadline is for its handlers, not for the connection.
		if errors.Is(outer.Err(), context.Canceled) {
			cancel(context.Cause(outer))
		}
	})
	if before := u.stop; before != nil {
		u.stop = func() { before(); stop() }
	} else {
		u.stop = func() { stop() }
	}
}

// unwatch stops watching the request's context.
func (u *upgrade) unwatch() {
	if stop := u.stop; stop != nil {
		u.stop = nil // what it holds may go: a session is long
		stop()
	}
}

// finish is called when the handler has returned or panics.
func (u *upgrade) finish() {
	u.unwatch()
	u.settle()
	s := u.s
	if s.conn == nil {
		s.discard()
		return
	}
	if !u.returned && s.ended.Load() == nil {
		s.end(End{Cause: CauseAppError, Code: codeAppError})
	}
}

// Header is as http.ResponseWriter says.
func (u *upgrade) Header() http.Header {
	if !u.over {
		return u.w.Header()
	}
	if u.header == nil {
		if u.header = u.w.Header().Clone(); u.header == nil {
			u.header = http.Header{}
		}
	}
	return u.header
}

// WriteHeader is as http.ResponseWriter says. After Hijack it does nothing:
// some libraries report a failed one like this.
func (u *upgrade) WriteHeader(code int) {
	if u.over {
		return
	}
	if e := u.s.ended.Load(); e != nil && code == http.StatusSwitchingProtocols {
		u.refuse(e)
		return
	}
	u.switched = u.switched || code == http.StatusSwitchingProtocols
	if u.owed = code == http.StatusSwitchingProtocols && (ofServer(u.w) || u.withheld(u.w)); u.owed {
		return
	}
	writeHeader(u.w, code)
}

// ofServer says that w is net/http's own. Then nobody stands between who would
// see the status of an answer, and a write is saved.
func ofServer(w http.ResponseWriter) bool {
	t := reflect.TypeOf(w)
	return t.Kind() == reflect.Pointer && t.Elem().PkgPath() == "net/http" && t.Elem().Name() == "response"
}

// settle sends an owed 101 where no Hijack follows.
func (u *upgrade) settle() {
	if u.owed && !u.over {
		u.owed = false
		u.w.WriteHeader(http.StatusSwitchingProtocols)
	}
}

// answer is the 101 as net/http would send it, with what the app has set.
func (u *upgrade) answer() []byte {
	var b bytes.Buffer
	b.Grow(256)
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	_ = u.w.Header().WriteSubset(&b, ofBodies)
	b.WriteString("\r\n")
	return b.Bytes()
}

var ofBodies = map[string]bool{"Content-Length": true, "Transfer-Encoding": true}

// refuse answers instead of a 101, because the app has ended the session while
// it was pending. What the library writes after that is nobody's business.
func (u *upgrade) refuse(e *End) {
	code := e.status()
	u.unanswer()
	switch code {
	case http.StatusTooManyRequests:
		u.w.Header().Set("Retry-After", seconds(retryUser))
	case http.StatusInternalServerError:
		u.p.log.Error("presence: ended by the app before the upgrade", "session", u.s.ID(), "user", u.s.user, "end", e)
	}
	u.p.countRefused(code)
	http.Error(u.w, http.StatusText(code), code)
	u.over, u.header = true, http.Header{}
}

// unanswer takes back what the library has set for its 101.
func (u *upgrade) unanswer() {
	h := u.w.Header()
	for name := range h {
		if name == "Upgrade" || name == "Connection" || strings.HasPrefix(name, "Sec-Websocket-") {
			delete(h, name)
		}
	}
}

// Write is as http.ResponseWriter says.
func (u *upgrade) Write(b []byte) (int, error) {
	if u.over {
		return len(b), nil
	}
	u.settle()
	return u.w.Write(b)
}

// ReadFrom copies without a buffer where the writer below can.
func (u *upgrade) ReadFrom(src io.Reader) (int64, error) {
	if u.over {
		return io.Copy(io.Discard, src)
	}
	u.settle()
	return io.Copy(u.w, src)
}

// Flush is as http.Flusher says.
func (u *upgrade) Flush() {
	if !u.over {
		u.settle()
		_ = http.NewResponseController(u.w).Flush()
	}
}

// Unwrap is for http.ResponseController.
func (u *upgrade) Unwrap() http.ResponseWriter { return u.w }

// Hijack takes the connection over and returns one that keeps the heartbeat.
// If the 101 is out, it also verifies the client; else the Write that
// completes the 101 does.
func (u *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	s := u.s
	if s.conn != nil {
		return nil, nil, http.ErrHijacked
	}
	if e := s.ended.Load(); e != nil {
		if u.owed {
			u.refuse(e)
		}
		return nil, nil, e
	}
	nc, brw, err := u.hijack(u.w)
	if err != nil {
		return nil, nil, err
	}
	if err := u.taken(nc, brw); err != nil {
		return nil, nil, err
	}
	return s.conn, brw, nil
}

// taken goes on when the connection has been taken over. It is apart because
// net/http needs a third of an 8 KiB stack to send the 101, inside Hijack.
func (u *upgrade) taken(nc net.Conn, brw *bufio.ReadWriter) error {
	s := u.s
	if e := u.wrap(nc, brw); e != nil {
		return e
	}
	if !s.enter() {
		return s.end(u.p.shutdownEnd())
	}
	if u.switched {
		return s.verify()
	}
	return nil
}

// wrap makes the session's connection of the one that was taken over. It returns
// how a session has ended meanwhile, and then so does the connection.
func (u *upgrade) wrap(nc net.Conn, brw *bufio.ReadWriter) *End {
	s := u.s
	u.unwatch()
	u.over = true
	// Bytes that came with the request go through Read. Some libraries refuse
	// a reader that holds any, some lose them.
	early, _ := brw.Reader.Peek(brw.Reader.Buffered())
	var owed []byte
	if u.owed {
		owed = u.answer()
	}
	conn := link.Upgrade(nc, u.links, (*owner)(s), bytes.Clone(early), u.switched, owed)
	r := u.offered
	u.offered = nil // a session is long
	switch {
	case s.wire != nil:
		conn.OpenChannel(s.wire.deliver)
	case r == nil:
	case u.switched:
		u.p.answered(r, u.w.Header().Get("Sec-WebSocket-Protocol"))
	default:
		conn.OnAnswer(func(b []byte) { u.p.answered(r, string(b)) })
	}
	brw.Reader.Reset(conn)
	brw.Writer.Reset(conn)
	s.mu.Lock()
	s.conn = conn
	e := s.ended.Load()
	s.mu.Unlock()
	if e != nil {
		conn.Finish(e, u.p.farewell(e))
	}
	return e
}
