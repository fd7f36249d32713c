package presence_test

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/stretchr/testify/require"
)

// compressing is a middleware's writer that keeps the status until it knows the
// body, as those of echo and gziphandler do.
type compressing struct {
	http.ResponseWriter
	code int
}

func (c *compressing) WriteHeader(code int) { c.code = code }

func (c *compressing) Write(b []byte) (int, error) {
	c.done()
	return c.ResponseWriter.Write(b)
}

func (c *compressing) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	h, ok := c.ResponseWriter.(http.Hijacker)
	if !ok {
		return nil, nil, errors.New("no Hijacker below")
	}
	return h.Hijack()
}

func (c *compressing) done() {
	if code := c.code; code != 0 {
		c.code = 0
		c.ResponseWriter.WriteHeader(code)
	}
}

func compress(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", "Accept-Encoding")
		c := &compressing{ResponseWriter: w}
		defer c.done()
		h.ServeHTTP(c, r)
	})
}

// lazy is a framework's writer that keeps the status until the first byte, as that
// of gin does.
type lazy struct{ compressing }

func (l *lazy) WriteHeaderNow() { l.done() }

func framework(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l := &lazy{compressing{ResponseWriter: w}}
		defer l.done()
		h.ServeHTTP(l, r)
	})
}

// adaptor is a server that is not net/http's, as fasthttp is: what is not written
// to a hijacked connection is not sent.
func adaptor(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = r.WithContext(context.WithValue(r.Context(), http.ServerContextKey, nil))
		h.ServeHTTP(&compressing{ResponseWriter: w}, r)
	})
}

// The 101 reaches the client, although a middleware keeps what it is given by
// WriteHeader.
func TestAnswerThatIsWithheld(t *testing.T) {
	for name, wrap := range map[string]func(http.Handler) http.Handler{"compressor": compress, "framework": framework, "adaptor": adaptor} {
		for kind, mount := range mounts {
			for where, route := range map[string]func(p *presence.Presence) http.Handler{
				"around":                   func(p *presence.Presence) http.Handler { return wrap(mount(p)) },
				"around Middleware around": func(p *presence.Presence) http.Handler { return wrap(p.Middleware(mount(p))) },
				"inside Middleware around": func(p *presence.Presence) http.Handler { return p.Middleware(wrap(mount(p))) },
			} {
				if where == "inside Middleware around" && (kind == "Middleware" || name == "adaptor") {
					continue // a library is seen by the middleware only, and a server is outside of all
				}
				t.Run(name+" "+where+" "+kind, func(t *testing.T) {
					inBubble(t, presence.Options{}, route, func(t *testing.T, b *bubble) {
						nc := b.conn()
						require.NoError(t, nc.SetDeadline(time.Now().Add(time.Second)))
						c, err := wstest.Dial(nc, "/?user=ann")
						require.NoError(t, err)
						require.NoError(t, nc.SetDeadline(time.Time{}))
						wait(settle)
						require.Equal(t, "websocket", c.Response.Header.Get("Upgrade"))
						require.Equal(t, 1, b.sessions("ann"))
						wait(90 * time.Second)
						require.Equal(t, 1, b.sessions("ann"))
						require.NoError(t, c.SendClose(1000, ""))
						require.Equal(t, presence.CauseClientClosed, b.end("ann").Cause)
					})
				})
			}
		}
	}
}

// A Hijack that fails is told to the client, not a 101 that nobody stands behind,
// and the log says whose it was.
func TestHijackThatFails(t *testing.T) {
	bare := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(struct{ http.ResponseWriter }{w}, r)
		})
	}
	for kind, mount := range mounts {
		for where, route := range map[string]func(p *presence.Presence) http.Handler{
			"around":  func(p *presence.Presence) http.Handler { return bare(compress(mount(p))) },
			"between": func(p *presence.Presence) http.Handler { return p.Middleware(bare(compress(mount(p)))) },
		} {
			if kind == "Middleware" && where == "between" {
				continue // twice the same does nothing
			}
			t.Run(kind+" "+where, func(t *testing.T) {
				book := &logbook{}
				inBubble(t, presence.Options{Logger: book.logger()}, route, func(t *testing.T, b *bubble) {
					status := http.StatusInternalServerError // of the library
					if kind == "Callback" {
						status = http.StatusNotImplemented
					}
					for range 2 {
						res := b.refused("/?user=ann", status)
						require.Empty(t, res.Header.Get("Sec-WebSocket-Accept"))
						require.Empty(t, res.Header.Get("Upgrade"))
					}
					b.nothingLeft()
				})
				said := book.lines("cannot be hijacked")
				require.Len(t, said, 1, "once for each type")
				require.Contains(t, said[0], "level=ERROR")
				require.Contains(t, said[0], "*presence_test.compressing")
				require.Contains(t, said[0], "no Hijacker below")
			})
		}
	}
}
