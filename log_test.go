package presence_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/stretchr/testify/require"
)

func (l *logbook) debug() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Whoever gets no WebSocket can be found in the log, with the reason: a route
// for the wrong method and a proxy that takes headers out look the same to a
// client.
func TestRefusalsAreLogged(t *testing.T) {
	upgrade := []string{"Connection", "Upgrade", "Upgrade", "websocket"}
	with := func(more ...string) []string { return slices.Concat(upgrade, more) }
	handshake := with("Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	for _, c := range []struct {
		name, method string
		header       []string
		plain        bool // the ResponseWriter has no Hijack
		callback     bool
		proto        string
		status       int
		reason       string
	}{
		{name: "POST", method: "POST", header: handshake, status: 405, reason: "this is POST"},
		{name: "HEAD", method: "HEAD", header: handshake, status: 426, reason: "this is HEAD"},
		{name: "no headers", status: 426, reason: "no header Upgrade"},
		{name: "no Connection", header: handshake[2:], status: 426, reason: "no header Connection"},
		{name: "HTTP/2", proto: "HTTP/2.0", header: handshake, status: 426, reason: "HTTP/2.0 has no upgrade"},
		{name: "no Hijack", header: handshake, plain: true, status: 501, reason: "cannot be hijacked"},
		{name: "another origin", header: with("Origin", "https://evil.com"), status: 403, reason: "https://evil.com"},
		{name: "not ours", header: with("X-Not", "ours"), status: 404, reason: "presence: untracked"},
		{name: "an old version", header: with("Sec-WebSocket-Version", "8"), callback: true, status: 400, reason: "only WebSocket version 13"},
		{name: "no key", header: with("Sec-WebSocket-Version", "13"), callback: true, status: 400, reason: "Sec-WebSocket-Key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			book := &logbook{}
			p := open(t, presence.Options{Logger: book.debug(), Identify: func(r *http.Request) (presence.Identity, error) {
				if r.Header.Get("X-Not") != "" {
					return presence.Identity{}, presence.ErrUntracked
				}
				return presence.Identity{User: "ann"}, nil
			}})
			mounts := map[string]http.Handler{"Callback": p.Callback(nil)}
			if !c.callback { // what the library of Handler refuses is logged in its words
				mounts["Handler"] = p.Handler(drop)
			}
			for path, h := range mounts {
				r := httptest.NewRequest(c.method, "/"+path, nil)
				if c.proto != "" {
					r.Proto, r.ProtoMajor, r.ProtoMinor = c.proto, 2, 0
				}
				for i := 0; i < len(c.header); i += 2 {
					r.Header.Set(c.header[i], c.header[i+1])
				}
				recorder := httptest.NewRecorder()
				w := http.ResponseWriter(hijackable{recorder})
				if c.plain {
					w = recorder
				}
				h.ServeHTTP(w, r)
				require.Equal(t, c.status, recorder.Code, path)
				lines := book.lines("path=/" + path + " status=")
				require.Len(t, lines, 1, path)
				require.Contains(t, lines[0], `level=DEBUG msg="presence: refused"`)
				require.Contains(t, lines[0], c.reason)
			}
		})
	}
}

// Whoever filters a log for this package finds all of it.
func TestEveryLineSaysWhose(t *testing.T) {
	book := &logbook{}
	o := presence.Options{Logger: book.debug(), OnDisconnect: func(*presence.Session, presence.End) { panic("on purpose") }}
	inBubble(t, o, nil, func(t *testing.T, b *bubble) {
		b.dial("/?user=ann").Close()
		wait(time.Second)
	})
	require.NotEmpty(t, book.lines("session ended"))
	require.NotEmpty(t, book.lines("OnDisconnect panicked"))
	require.Len(t, book.lines(`msg="presence: `), len(book.lines("")))
}
