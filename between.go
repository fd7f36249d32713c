package presence

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
)

// writeHeader sees to it that a 101 leaves: some frameworks keep the status until
// the first byte, which a hijacked connection never writes.
func writeHeader(w http.ResponseWriter, code int) {
	w.WriteHeader(code)
	if code == http.StatusSwitchingProtocols {
		if w, ok := w.(interface{ WriteHeaderNow() }); ok {
			w.WriteHeaderNow()
		}
	}
}

// withheld says whether a 101 written to w may never be sent. Middlewares that
// compress keep the status until they know the body; they have set Vary by now.
// What the adaptors of other servers do, nobody knows. Their Hijack is good: then
// we send the 101, and a logger further out misses the status.
func (u *upgrade) withheld(w http.ResponseWriter) bool {
	return u.foreign || hasToken(w.Header()["Vary"], "Accept-Encoding")
}

// writer is what a mount answers with, that owns the upgrade or stands inside
// Middleware.
func (u *upgrade) writer(w http.ResponseWriter, owned bool) http.ResponseWriter {
	if owned {
		return u
	}
	return &inside{w, u} // w leads to the upgrade
}

// inside is the writer of a mount inside Middleware. Others stand between the two.
type inside struct {
	http.ResponseWriter
	u *upgrade
}

// WriteHeader is as http.ResponseWriter says.
func (i *inside) WriteHeader(code int) {
	if code == http.StatusSwitchingProtocols && i.u.withheld(i.ResponseWriter) {
		i.u.WriteHeader(code)
		return
	}
	writeHeader(i.ResponseWriter, code)
}

// Unwrap is for http.ResponseController.
func (i *inside) Unwrap() http.ResponseWriter { return i.ResponseWriter }

// Hijack is as http.Hijacker says.
func (i *inside) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return i.u.hijack(i.ResponseWriter)
}

// hijack takes the connection of w. When that fails, a 101 that is owed is taken
// back, so that an error can be told instead.
func (u *upgrade) hijack(w http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error) {
	nc, brw, err := http.NewResponseController(w).Hijack()
	if err != nil && u.s.conn == nil && u.s.ended.Load() == nil {
		u.p.hijackFailed(w, err)
		if u.owed {
			u.owed, u.switched = false, false
			u.unanswer()
		}
	}
	return nc, brw, err
}

// within is the writer that w leads to, as http.ResponseController finds it.
func within(w http.ResponseWriter) (inner http.ResponseWriter, ok bool) {
	outer, ok := w.(interface{ Unwrap() http.ResponseWriter })
	if !ok {
		return nil, false
	}
	return outer.Unwrap(), true
}

// canHijack walks to the writer that decides.
func (p *Presence) canHijack(w http.ResponseWriter, r *http.Request) bool {
	for inner, ok := within(w); ok; inner, ok = within(w) {
		w = inner
	}
	if _, ok := w.(http.Hijacker); ok {
		return true
	}
	cure := "give it an Unwrap() http.ResponseWriter method, or mount the WebSocket outside of the middleware that makes it"
	if strings.Contains(fmt.Sprintf("%T", w), "timeoutWriter") {
		cure = "mount the WebSocket outside of http.TimeoutHandler"
	}
	p.logSealed(w, "path", r.URL.Path, "cure", cure)
	return false
}

// hijackFailed logs whose Hijack it was: it has one, and what it wraps has none.
// Where it is the server's, the connection is at fault.
func (p *Presence) hijackFailed(w http.ResponseWriter, err error) {
	for inner, ok := within(w); ok; inner, ok = within(w) {
		if _, ok := w.(http.Hijacker); ok {
			break
		}
		w = inner
	}
	if !ofServer(w) {
		p.logSealed(w, "error", err,
			"cure", "give what it wraps a Hijack method, or mount the WebSocket outside of the middlewares that make the two")
	}
}

// logSealed logs what stands in the way once per type.
func (p *Presence) logSealed(w http.ResponseWriter, more ...any) {
	if name := fmt.Sprintf("%T", w); p.once("hijack " + name) {
		p.log.Error("presence: this http.ResponseWriter cannot be hijacked, so no WebSocket passes", append([]any{"type", name}, more...)...)
	}
}
