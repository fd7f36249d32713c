package compat

import (
	"context"
	"io"
	"log"
	"net/http"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"
)

// routerTimeout is the deadline that a router sets on every request. Sessions outlive it.
const routerTimeout = 100 * time.Millisecond

// chiStack are the middlewares that every chi app has.
func chiStack(logs io.Writer, timeout bool) chi.Router {
	r := chi.NewRouter()
	r.Use(middleware.RequestID)
	r.Use(middleware.RequestLogger(&middleware.DefaultLogFormatter{Logger: log.New(logs, "", 0), NoColor: true}))
	r.Use(middleware.Recoverer)
	r.Use(middleware.Compress(5))
	if timeout {
		r.Use(middleware.Timeout(routerTimeout))
	}
	return r
}

// Middleware works inside chi's middlewares, where it is protected from the router's Timeout, and around the whole router.
func TestChi(t *testing.T) {
	eachApp(t, direct, nil, func(t *testing.T, a app, w way) {
		stacks := map[string]func(*presence.Presence, io.Writer, http.Handler) http.Handler{
			"inside": func(p *presence.Presence, l io.Writer, h http.Handler) http.Handler {
				r := chiStack(l, true)
				r.Use(p.Middleware)
				r.Handle("/", h)
				return r
			},
			"inside, on the route": func(p *presence.Presence, l io.Writer, h http.Handler) http.Handler {
				r := chiStack(l, true)
				r.With(p.Middleware).Handle("/", h)
				return r
			},
			"around": func(p *presence.Presence, l io.Writer, h http.Handler) http.Handler {
				r := chiStack(l, false)
				r.Handle("/", h)
				return p.Middleware(r)
			},
		}
		for name, stack := range stacks {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				start := time.Now()
				wit, access := &witness{}, &logs{}
				r := newPresence(t)
				r.site = newSite(t, w, stack(r.p, access, wit.serve(a.build(wit, settings{}))))

				ann := r.connect(t, "ann")
				ann.text("hello")
				require.Equal(t, "hello", string(ann.receive().data))
				eventually(t, func() bool { return time.Since(start) > 3*routerTimeout }, "time goes on")
				livesOn(t, r, ann)
				eventually(t, func() bool { return len(access.lines("user=ann")) == 1 }, "chi logs the request once")
				_, _, pongs := wit.seen()
				require.Empty(t, pongs)
			})
		}
	})
}

// A panic after the upgrade ends the session with app-error, and goes on to chi's Recoverer.
func TestChiRecoverer(t *testing.T) {
	t.Parallel()
	for _, w := range direct {
		t.Run(w.String(), func(t *testing.T) {
			t.Parallel()
			r, recovered := newPresence(t), make(panics, 1)
			c := chi.NewRouter()
			c.Use(middleware.RequestLogger(recovered), middleware.Recoverer, r.p.Middleware)
			c.Get("/", func(rw http.ResponseWriter, req *http.Request) {
				ws, err := (&websocket.Upgrader{}).Upgrade(rw, req, nil)
				if err != nil {
					return
				}
				_, _, _ = ws.ReadMessage()
				panic("the app is broken")
			})
			r.site = newSite(t, w, c)

			ann := r.connect(t, "ann")
			ann.text("hello")
			require.Equal(t, 1011, ann.ended())
			end := r.end("ann")
			require.Equal(t, presence.CauseAppError, end.Cause)
			require.Equal(t, 1011, end.Code)
			require.Equal(t, "the app is broken", <-recovered)
		})
	}
}

// panics is a chi logger that gets what Recoverer recovered.
type panics chan any

func (p panics) NewLogEntry(*http.Request) middleware.LogEntry   { return p }
func (p panics) Write(int, int, http.Header, time.Duration, any) {}
func (p panics) Panic(v any, _ []byte)                           { p <- v }

// Behind http.TimeoutHandler nothing can be hijacked. The library answers as it does without us; Handler and Callback answer 501; what is in
// the way is logged once.
func TestTimeoutHandler(t *testing.T) {
	ask := func(t *testing.T, s *site) (int, string) {
		t.Helper()
		req, err := http.NewRequest("GET", "http://"+s.addr+"/?user=ann", nil)
		require.NoError(t, err)
		for k, v := range map[string]string{
			"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
			"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Origin": "http://" + s.addr,
		} {
			req.Header.Set(k, v)
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		res, err := s.http.Do(req.WithContext(ctx))
		if err != nil { // x/net panics
			require.NoError(t, ctx.Err(), "an answer, not a hanging client")
			return 0, ""
		}
		defer func() { _ = res.Body.Close() }()
		b, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return res.StatusCode, string(b)
	}
	once := func(t *testing.T, r *rig) {
		t.Helper()
		found := r.logs.lines("timeoutWriter")
		require.Len(t, found, 1, "the type in the way is logged once")
		require.Regexp(t, "level=(WARN|ERROR)", found[0])
		require.Zero(t, r.starts("ann"))
	}
	eachApp(t, direct[:1], nil, func(t *testing.T, a app, w way) {
		stock := newSite(t, w, http.TimeoutHandler(a.build(&witness{}, settings{}), patience, "too slow"))
		code, body := ask(t, stock)
		require.NotEqual(t, http.StatusSwitchingProtocols, code)

		r := newPresence(t)
		r.site = newSite(t, w, http.TimeoutHandler(r.p.Middleware(a.build(&witness{}, settings{})), patience, "too slow"))
		for range 3 {
			got, gotBody := ask(t, r.site)
			require.Equal(t, code, got)
			require.Equal(t, body, gotBody)
		}
		once(t, r)
	})
	t.Run("Handler", func(t *testing.T) {
		t.Parallel()
		r := newPresence(t)
		h := r.p.Handler(func(context.Context, *presence.Conn) error { return nil })
		r.site = newSite(t, way{via: "direct"}, http.TimeoutHandler(h, patience, "too slow"))
		for range 3 {
			code, _ := ask(t, r.site)
			require.Equal(t, http.StatusNotImplemented, code)
		}
		once(t, r)
	})
	t.Run("Callback", func(t *testing.T) {
		t.Parallel()
		r := newPresence(t)
		r.site = newSite(t, way{via: "direct"}, http.TimeoutHandler(r.p.Callback(nil), patience, "too slow"))
		for range 3 {
			code, _ := ask(t, r.site)
			require.Equal(t, http.StatusNotImplemented, code)
		}
		once(t, r)
	})
}
