package presence_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// choosing is an app whose library answers with WriteHeader, or writes its 101
// itself, and chooses a subprotocol.
func choosing(chosen string, raw bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !raw {
			o := &websocket.AcceptOptions{}
			if chosen != "" {
				o.Subprotocols = []string{chosen}
			}
			if c, err := websocket.Accept(w, r, o); err == nil {
				_, _, _ = c.Read(r.Context())
				c.CloseNow()
			}
			return
		}
		nc, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer nc.Close()
		lines := []string{"HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="}
		if chosen != "" {
			lines = append(lines, "Sec-WebSocket-Protocol: "+chosen)
		}
		if _, err := io.WriteString(nc, strings.Join(lines, "\r\n")+"\r\n\r\n"); err == nil {
			_, _ = io.Copy(io.Discard, nc)
		}
	})
}

// A page that offers presence.v1 to a wrapped app gets no connection, and nothing
// tells it why. The log does.
func TestWrappedAppThatDoesNotSpeakPresenceIsTold(t *testing.T) {
	const both = "presence.v1+chat, chat"
	for _, c := range []struct {
		name, offer string
		app         http.Handler
		own         bool // a Callback in Middleware
		warned      bool
	}{
		{name: "by WriteHeader", offer: "presence.v1", app: choosing("", false), warned: true},
		{name: "by itself", offer: "presence.v1", app: choosing("", true), warned: true},
		{name: "the app's only, by WriteHeader", offer: both, app: choosing("chat", false), warned: true},
		{name: "the app's only, by itself", offer: both, app: choosing("chat", true), warned: true},
		{name: "chosen by WriteHeader", offer: "presence.v1", app: choosing("presence.v1", false)},
		{name: "chosen by itself", offer: both, app: choosing("presence.v1+chat", true)},
		{name: "not offered", offer: "chat", app: choosing("chat", true)},
		{name: "a Callback", offer: "presence.v1", own: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			book := &logbook{}
			mount := func(p *presence.Presence) http.Handler {
				if c.own {
					return p.Middleware(p.Callback(nil))
				}
				return p.Middleware(c.app)
			}
			inBubble(t, presence.Options{Logger: book.logger()}, mount, func(t *testing.T, b *bubble) {
				for range 3 {
					b.dial("/room?user=ann", "Sec-WebSocket-Protocol: "+c.offer)
				}
				require.Equal(t, 3, b.sessions("ann"))
				want := 0
				if c.warned {
					want = 1
				}
				lines := book.lines("does not choose it")
				require.Len(t, lines, want)
				if c.warned {
					require.Contains(t, lines[0], "level=WARN")
					require.Contains(t, lines[0], "path=/room")
					wait(31 * time.Second)
					b.dial("/room?user=ann", "Sec-WebSocket-Protocol: "+c.offer)
					require.Len(t, book.lines("does not choose it"), 2, "once in a while")
				}
			})
		})
	}
}

// A browser does not say why an upgrade failed, so presence.js asks. What Identify
// refuses is answered before the wrapped app, and all else is the app's.
func TestProbeOfAWrappedApp(t *testing.T) {
	const probe = "application/vnd.presence.probe, */*"
	for _, c := range []struct {
		name, method, accept string
		refused              error
		status               int
		app                  bool // gets the request
	}{
		{name: "not signed in", method: "GET", accept: probe, refused: presence.ErrUnauthorized, status: 401},
		{name: "HEAD", method: "HEAD", accept: probe, refused: presence.ErrUnauthorized, status: 401},
		{name: "not allowed", method: "GET", accept: probe, refused: presence.ErrForbidden, status: 403},
		{name: "too many", method: "GET", accept: probe, refused: presence.ErrTooMany, status: 429},
		{name: "later", method: "GET", accept: probe, refused: presence.RetryAfter(presence.ErrUnavailable, time.Minute), status: 503},
		{name: "a good one", method: "GET", accept: probe, status: 400, app: true},
		{name: "not ours", method: "GET", accept: probe, refused: presence.ErrUntracked, status: 400, app: true},
		{name: "POST", method: "POST", accept: probe, refused: presence.ErrUnauthorized, status: 400, app: true},
		{name: "no probe", method: "GET", accept: "*/*", refused: presence.ErrUnauthorized, status: 400, app: true},
		{name: "without Accept", method: "GET", refused: presence.ErrUnauthorized, status: 400, app: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := open(t, presence.Options{Identify: func(*http.Request) (presence.Identity, error) {
				return presence.Identity{User: "ann"}, c.refused
			}})
			asked := false
			h := p.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = true
				w.WriteHeader(http.StatusBadRequest)
			}))
			r := httptest.NewRequest(c.method, "/", nil)
			if c.accept != "" {
				r.Header.Set("Accept", c.accept)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			require.Equal(t, c.status, w.Code)
			require.Equal(t, c.app, asked)
			cached := "no-store"
			if c.app {
				cached = ""
			}
			require.Equal(t, cached, w.Header().Get("Cache-Control"))
			if c.status == 503 {
				require.Equal(t, "60", w.Header().Get("Retry-After"))
			}
			sessions, verifying := p.PlacesTaken()
			require.Zero(t, sessions+verifying)
		})
	}
}

// What a Handler in Middleware answers is its own: the outer Identify may know less.
func TestProbeReachesTheInnerMount(t *testing.T) {
	p := open(t, presence.Options{Identify: named("ann")})
	h := p.Middleware(p.At(presence.Route{Identify: refusing(presence.ErrForbidden)}).Callback(nil))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Accept", "application/vnd.presence.probe, */*")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	require.Equal(t, http.StatusForbidden, w.Code)
}

// As the README says: the app stays wrapped, and its pages have a second endpoint
// for presence.
func TestSecondEndpointBesideAWrappedApp(t *testing.T) {
	mount := func(p *presence.Presence) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("/ws", p.Middleware(echo))
		mux.Handle("GET /presence", p.Callback(nil))
		return mux
	}
	o := presence.Options{Authorize: func(*presence.Session, presence.Ask) error { return nil }}
	inBubble(t, o, mount, func(t *testing.T, b *bubble) {
		app := b.dial("/ws?user=ann")
		require.NoError(t, app.SendText("hello"))
		require.Equal(t, "hello", string((<-app.Frames).Payload))
		c := b.dial("/presence?user=ann", "Sec-WebSocket-Protocol: presence.v1")
		require.Equal(t, "presence.v1", c.Response.Header.Get("Sec-WebSocket-Protocol"))
		require.NoError(t, c.SendText("\x01"+`{"t":"join","id":1,"topic":"room"}`))
		require.NoError(t, c.SendText("\x01"+`{"t":"follow","id":2,"topic":"room"}`))
		wait(time.Second)
		var said string
		for range 4 {
			said += string((<-c.Frames).Payload)
		}
		require.Contains(t, said, `"t":"welcome"`)
		require.Contains(t, said, `"members":[{"user":"ann"`)
		require.Equal(t, 2, b.sessions("ann"), "of one user")
		counts, err := b.p.Count(t.Context(), "")
		require.NoError(t, err)
		require.Equal(t, 1, counts.Users)
	})
}
