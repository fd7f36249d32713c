package compat

import (
	"context"
	"log/slog"
	"net/http"
	"testing"

	"github.com/NYTimes/gziphandler"
	"github.com/a4cafe1a/presence"
	"github.com/coder/websocket"
	"github.com/felixge/httpsnoop"
	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"
	"github.com/stretchr/testify/require"
)

// statusWriter is what many apps write by hand. A library that asks for http.Hijacker itself does not get through it.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (s *statusWriter) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

func (s *statusWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// middlewares are one of each kind of http.ResponseWriter that stands in front of handlers.
var middlewares = map[string]func(http.Handler) http.Handler{
	"echo, its Gzip keeps the status": func(h http.Handler) http.Handler {
		e := echo.New()
		e.Logger = slog.New(slog.DiscardHandler)
		e.Use(middleware.RequestLogger(), middleware.Recover(), middleware.Gzip())
		e.GET("/", echo.WrapHandler(h))
		return e
	},
	"gziphandler, keeps the status, no Unwrap": gziphandler.GzipHandler,
	"httpsnoop, as in otelhttp and gorilla/handlers": func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { httpsnoop.CaptureMetrics(h, w, r) })
	},
	"Unwrap only": func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(&statusWriter{ResponseWriter: w}, r) })
	},
}

// lives is the life of a client of a browser, which asks for compressed pages with every request.
func lives(t *testing.T, r *rig) {
	t.Helper()
	ann := r.dial(t)
	require.NoError(t, ann.write(r.request("user=ann", http.Header{"Accept-Encoding": {"gzip, deflate, br"}})))
	ann.start()
	ann.text("hello")
	require.Equal(t, "hello", string(ann.receive().data))
	livesOn(t, r, ann)
}

// livesOn has a client that talks already stay, talk again, and leave.
func livesOn(t *testing.T, r *rig, ann *client) {
	t.Helper()
	ann.beats(3)
	ann.text("still here")
	require.Equal(t, "still here", string(ann.receive().data))
	require.Equal(t, 1, r.sessions("ann"))
	ann.close(4002, "bye")
	require.Equal(t, presence.CauseClientClosed, r.end("ann").Cause)
	ann.ended()
}

// Middleware on a route makes every library work behind what others put in front of it, also where it does not without us.
func TestMiddlewareInsideOthers(t *testing.T) {
	eachApp(t, direct[:1], nil, func(t *testing.T, a app, w way) {
		for name, wrap := range middlewares {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				r, wit := newPresence(t), &witness{}
				r.site = newSite(t, w, wrap(r.p.Middleware(wit.serve(a.build(wit, settings{})))))
				lives(t, r)
			})
		}
	})
}

// The same for Handler and Callback, on a route or inside Middleware around everything.
func TestMountsInsideOthers(t *testing.T) {
	t.Parallel()
	mounts := map[string]func(*presence.Presence) http.Handler{
		"Handler": func(p *presence.Presence) http.Handler {
			return p.Handler(func(ctx context.Context, c *presence.Conn) error {
				for {
					kind, b, err := c.Read(ctx)
					if err != nil {
						return err
					}
					if err := c.Write(ctx, kind, b); err != nil {
						return err
					}
				}
			})
		},
		"Callback": func(p *presence.Presence) http.Handler {
			return p.Callback(func(_ *http.Request, c *presence.Peer) (presence.Callbacks, error) {
				return presence.Callbacks{Message: func(_ context.Context, kind websocket.MessageType, b []byte) error { return c.Send(kind, b) }}, nil
			})
		},
	}
	for kind, mount := range mounts {
		for name, wrap := range middlewares {
			for where, place := range map[string]func(*presence.Presence) http.Handler{
				"route":  func(p *presence.Presence) http.Handler { return wrap(mount(p)) },
				"around": func(p *presence.Presence) http.Handler { return p.Middleware(wrap(mount(p))) },
			} {
				for _, w := range direct {
					t.Run(kind+"/"+name+"/"+where+"/"+w.String(), func(t *testing.T) {
						t.Parallel()
						r := newPresence(t)
						r.site = newSite(t, w, place(r.p))
						lives(t, r)
					})
				}
			}
		}
	}
}
