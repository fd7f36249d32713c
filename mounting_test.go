package presence_test

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/coder/websocket"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/stretchr/testify/require"
)

// echo is an app that knows nothing of presence.
var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		typ, m, err := c.Read(r.Context())
		if err != nil || c.Write(r.Context(), typ, m) != nil {
			return
		}
	}
})

// named identifies everybody as user.
func named(user string) func(*http.Request) (presence.Identity, error) {
	return func(*http.Request) (presence.Identity, error) { return presence.Identity{User: user}, nil }
}

func refusing(err error) func(*http.Request) (presence.Identity, error) {
	return func(*http.Request) (presence.Identity, error) { return presence.Identity{}, err }
}

func TestMountedTwiceActsOnce(t *testing.T) {
	connected := 0
	o := presence.Options{OnConnect: func(*presence.Session) { connected++ }}
	twice := func(p *presence.Presence) http.Handler { return p.Middleware(p.Middleware(p.Middleware(echo))) }
	inBubble(t, o, twice, func(t *testing.T, b *bubble) {
		c := b.dial("/?user=ann")
		require.Equal(t, 1, b.sessions("ann"))
		require.Equal(t, 1, connected)
		sessions, verifying := b.p.PlacesTaken()
		require.EqualValues(t, 1, sessions)
		require.Zero(t, verifying)
		require.NoError(t, c.SendText("hi"))
		synctest.Wait()
		require.Equal(t, "hi", string((<-c.Frames).Payload))
		require.NoError(t, c.SendClose(1000, ""))
		b.nothingLeft()
		require.Equal(t, presence.CauseClientClosed, b.end("ann").Cause)
	})
}

func TestInnermostMountDecidesTheIdentity(t *testing.T) {
	byPath := presence.Route{Identify: func(r *http.Request) (presence.Identity, error) {
		user := cmp.Or(chi.URLParam(r, "user"), r.PathValue("user"))
		if user == "" {
			return presence.Identity{}, presence.ErrUnauthorized
		}
		return presence.Identity{User: user, Topics: []string{"inner"}}, nil
	}}
	chiRouter := func(p *presence.Presence, h http.Handler) http.Handler {
		r := chi.NewRouter()
		r.Use(middleware.Timeout(time.Minute), p.Middleware)
		r.Handle("/u/{user}", h)
		return r
	}
	stdlib := func(p *presence.Presence, h http.Handler) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("/u/{user}", h)
		return p.Middleware(mux)
	}
	for name, router := range map[string]func(*presence.Presence, http.Handler) http.Handler{"chi": chiRouter, "stdlib": stdlib} {
		for kind, mount := range map[string]func(p *presence.Presence) http.Handler{
			"Handler":  func(p *presence.Presence) http.Handler { return p.At(byPath).Handler(drop) },
			"Callback": func(p *presence.Presence) http.Handler { return p.At(byPath).Callback(nil) },
		} {
			t.Run(name+" "+kind, func(t *testing.T) {
				connected := 0
				o := presence.Options{Identify: named("outer"), OnConnect: func(*presence.Session) { connected++ }}
				inBubble(t, o, func(p *presence.Presence) http.Handler { return router(p, mount(p)) }, func(t *testing.T, b *bubble) {
					c := b.dial("/u/ann")
					require.Equal(t, 1, b.sessions("ann"))
					require.Zero(t, b.sessions("outer"))
					require.Equal(t, 1, connected)
					counts, err := b.p.Count(t.Context(), "inner")
					require.NoError(t, err)
					require.Equal(t, 1, counts.Sessions)
					require.NoError(t, c.SendText("ping"))
					synctest.Wait()
					require.Equal(t, "pong", string((<-c.Frames).Payload), "its dialects, not those of Middleware")
					require.NoError(t, c.SendClose(1000, ""))
					b.nothingLeft()
				})
			})
		}
	}
}

func TestInnerMountRefuses(t *testing.T) {
	connected := false
	o := presence.Options{Identify: named("outer"), OnConnect: func(*presence.Session) { connected = true }}
	mount := func(p *presence.Presence) http.Handler {
		return p.Middleware(p.At(presence.Route{Identify: refusing(presence.ErrForbidden)}).Handler(drop))
	}
	inBubble(t, o, mount, func(t *testing.T, b *bubble) {
		b.refused("/", http.StatusForbidden)
		b.nothingLeft()
		require.False(t, connected)
	})
}

func TestSecondPresenceInsidePassesThrough(t *testing.T) {
	inner, book := (*presence.Presence)(nil), &logbook{}
	mount := func(p *presence.Presence) http.Handler {
		var err error
		inner, err = presence.New(presence.Options{Identify: byQuery, Logger: book.logger()})
		require.NoError(t, err)
		return p.Middleware(inner.Middleware(echo))
	}
	inBubble(t, presence.Options{}, mount, func(t *testing.T, b *bubble) {
		defer inner.Shutdown(context.Background())
		for range 3 {
			c := b.dial("/?user=ann")
			require.NoError(t, c.SendText("hi"))
			synctest.Wait()
			require.Equal(t, "hi", string((<-c.Frames).Payload))
		}
		require.Equal(t, 3, b.sessions("ann"))
		infos, err := inner.Sessions(t.Context(), "ann")
		require.NoError(t, err)
		require.Empty(t, infos)
		require.Len(t, book.lines("another Presence"), 1, "logged once")
	})
}

func TestUntracked(t *testing.T) {
	o := presence.Options{Identify: refusing(fmt.Errorf("not ours: %w", presence.ErrUntracked))}
	t.Run("Middleware passes on", func(t *testing.T) {
		var writer string
		mount := func(p *presence.Presence) http.Handler {
			return p.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				writer = fmt.Sprintf("%T", w)
				require.Nil(t, presence.FromContext(r.Context()))
				echo(w, r)
			}))
		}
		inBubble(t, o, mount, func(t *testing.T, b *bubble) {
			c := b.dial("/")
			require.NoError(t, c.SendText("hi"))
			synctest.Wait()
			require.Equal(t, "hi", string((<-c.Frames).Payload))
			require.Equal(t, "*http.response", writer)
			require.Zero(t, c.Pings.Load(), "nobody keeps it under heartbeat")
			b.nothingLeft()
			c.Close()
		})
	})
	t.Run("Handler answers 404", func(t *testing.T) {
		p := open(t, o)
		for _, h := range []http.Handler{p.Handler(drop), p.Callback(nil), p.Middleware(p.Handler(drop))} {
			require.Equal(t, http.StatusNotFound, get(h, "/").StatusCode)
		}
		inBubble(t, o, nil, func(t *testing.T, b *bubble) { b.refused("/", http.StatusNotFound) })
	})
	t.Run("a route inside tracks it", func(t *testing.T) {
		mount := func(p *presence.Presence) http.Handler {
			return p.Middleware(p.At(presence.Route{Identify: named("ann")}).Handler(drop))
		}
		inBubble(t, o, mount, func(t *testing.T, b *bubble) {
			b.dial("/")
			require.Equal(t, 1, b.sessions("ann"))
		})
	})
}

// get asks h without a network.
func get(h http.Handler, path string) *http.Response {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Result()
}

func TestOtherRequestsPassThroughUntouched(t *testing.T) {
	for _, c := range []struct{ name, request, proto string }{
		{"plain", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", ""},
		{"post with upgrade", strings.Replace(wstest.Request("/"), "GET", "POST", 1), ""},
		{"other protocol", "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: tcp-tunnel\r\n\r\n", ""},
		{"no Connection", "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n", ""},
		{"HTTP/1.0", strings.Replace(wstest.Request("/"), "HTTP/1.1", "HTTP/1.0", 1), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked := false
			o := presence.Options{Identify: func(*http.Request) (presence.Identity, error) {
				asked = true
				return presence.Identity{}, nil
			}}
			mount := func(p *presence.Presence) http.Handler {
				return p.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					require.Nil(t, presence.FromContext(r.Context()))
					fmt.Fprintf(w, "%T", w)
				}))
			}
			inBubble(t, o, mount, func(t *testing.T, b *bubble) {
				nc := b.conn()
				defer nc.Close()
				_, err := io.WriteString(nc, c.request)
				require.NoError(t, err)
				resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
				require.NoError(t, err)
				body, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				require.Equal(t, "*http.response", string(body))
				require.False(t, asked)
			})
		})
	}
	t.Run("HTTP/2", func(t *testing.T) {
		p := open(t, presence.Options{Identify: refusing(presence.ErrForbidden)})
		mux := http.NewServeMux()
		mux.Handle("/app", p.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s %T", r.Proto, w)
		})))
		mux.Handle("/ws", p.At(presence.Route{Identify: named("ann")}).Handler(drop))
		srv := httptest.NewUnstartedServer(mux)
		srv.EnableHTTP2 = true
		srv.StartTLS()
		defer srv.Close()
		resp, err := srv.Client().Get(srv.URL + "/app")
		require.NoError(t, err)
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		require.Equal(t, "HTTP/2.0 *http.http2responseWriter", string(body))
		resp, err = srv.Client().Get(srv.URL + "/ws")
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, http.StatusUpgradeRequired, resp.StatusCode)
		require.Empty(t, resp.Header.Get("Upgrade"), "not allowed in HTTP/2 (RFC 9113 section 8.2.2)")
	})
}

func TestOtherAnswersLeaveNoTrace(t *testing.T) {
	hijackAndRefuse := func(w http.ResponseWriter, r *http.Request) {
		nc, brw, err := w.(http.Hijacker).Hijack()
		require.NoError(t, err)
		fmt.Fprint(brw, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
		require.NoError(t, brw.Flush())
		nc.Close()
	}
	for _, c := range []struct {
		name   string
		status int
		body   string
		next   http.HandlerFunc
	}{
		{"ordinary page", 200, "page", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "page") }},
		{"error", http.StatusForbidden, "no\n", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) }},
		{"redirect", 302, "", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/other")
			w.WriteHeader(302)
		}},
		{"flushed", 200, "ab", func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "a")
			w.(http.Flusher).Flush()
			io.Copy(w, strings.NewReader("b"))
		}},
		{"refused by hand", 403, "no", hijackAndRefuse},
		{"refused by the library", 400, "", func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del("Sec-WebSocket-Key")
			_, err := websocket.Accept(w, r, nil)
			require.Error(t, err)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s *presence.Session
			var ctx context.Context
			hooked := false
			o := presence.Options{
				OnConnect:    func(*presence.Session) { hooked = true },
				OnDisconnect: func(*presence.Session, presence.End) { hooked = true },
			}
			mount := func(p *presence.Presence) http.Handler {
				return p.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					s = presence.FromContext(r.Context())
					ctx = s.Context()
					require.NoError(t, s.Join(r.Context(), "room"))
					c.next(w, r)
				}))
			}
			inBubble(t, o, mount, func(t *testing.T, b *bubble) {
				client, err := wstest.Handshake(b.conn(), "/?user=ann")
				require.Error(t, err)
				require.NotNil(t, client.Response, "%v", err)
				require.Equal(t, c.status, client.Response.StatusCode)
				if c.body != "" {
					body, err := io.ReadAll(client.Response.Body)
					require.NoError(t, err)
					require.Equal(t, c.body, string(body))
				}
				client.Close()
				b.nothingLeft()
				require.False(t, hooked)
				require.ErrorIs(t, s.Join(ctx, "late"), presence.ErrEnded)
				require.Error(t, ctx.Err(), "the session's context ends")
				online, err := b.p.Online(t.Context(), "ann")
				require.NoError(t, err)
				require.False(t, online)
			})
		})
	}
}

func TestPendingSession(t *testing.T) {
	change := func(t *testing.T, s *presence.Session) {
		require.NotNil(t, s)
		require.NoError(t, s.Join(context.Background(), "room", "hall"))
		require.NoError(t, s.Leave(context.Background(), "hall"))
		require.NoError(t, s.SetMeta(context.Background(), map[string]int{"x": 1}))
		require.Equal(t, []string{"lobby", "room"}, s.Info().Topics)
	}
	for name, mount := range map[string]func(p *presence.Presence) http.Handler{
		"Middleware": func(p *presence.Presence) http.Handler {
			return p.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				change(t, presence.FromContext(r.Context()))
				echo(w, r)
			}))
		},
		"Callback": func(p *presence.Presence) http.Handler {
			return p.Callback(func(r *http.Request, c *presence.Peer) (presence.Callbacks, error) {
				require.Same(t, c.Session, presence.FromContext(r.Context()))
				change(t, c.Session)
				return presence.Callbacks{}, nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, presence.Options{}, mount, func(t *testing.T, b *bubble) {
				c, err := wstest.Handshake(b.conn(), "/?user=ann&topic=lobby")
				require.NoError(t, err)
				c.Mute.Store(true)
				go c.Read()
				wait(time.Second)
				for _, topic := range []string{"", "lobby", "room"} {
					counts, err := b.p.Count(t.Context(), topic)
					require.NoError(t, err)
					require.Zero(t, counts.Users, "%q before the proof of life", topic)
				}
				require.NoError(t, c.SendText("any byte is proof"))
				wait(settle)
				for topic, n := range map[string]int{"": 1, "lobby": 1, "room": 1, "hall": 0} {
					counts, err := b.p.Count(t.Context(), topic)
					require.NoError(t, err)
					require.Equal(t, n, counts.Users, "%q", topic)
				}
				infos, err := b.p.Sessions(t.Context(), "ann")
				require.NoError(t, err)
				require.JSONEq(t, `{"x":1}`, string(infos[0].Meta))
				c.Close()
			})
		})
	}
}

func TestCannotBeHijacked(t *testing.T) {
	t.Run("Middleware passes on", func(t *testing.T) {
		book := &logbook{}
		app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			require.Nil(t, presence.FromContext(r.Context()))
			echo(w, r)
		})
		mount := func(p *presence.Presence) http.Handler {
			return http.TimeoutHandler(p.Middleware(app), time.Minute, "late")
		}
		inBubble(t, presence.Options{Logger: book.logger()}, mount, func(t *testing.T, b *bubble) {
			for range 3 {
				b.refused("/?user=ann", http.StatusNotImplemented) // the library's answer
			}
			b.nothingLeft()
		})
		require.Len(t, book.lines("cannot be hijacked"), 1, "logged once per type")
		require.Contains(t, book.lines("cannot be hijacked")[0], "outside of http.TimeoutHandler")
		require.Contains(t, book.lines("cannot be hijacked")[0], "*http.timeoutWriter")
	})
	for name, mount := range map[string]func(p *presence.Presence) http.Handler{
		"Handler":  func(p *presence.Presence) http.Handler { return p.Handler(drop) },
		"Callback": func(p *presence.Presence) http.Handler { return p.Callback(nil) },
	} {
		t.Run(name+" answers 501", func(t *testing.T) {
			book := &logbook{}
			wrap := func(p *presence.Presence) http.Handler {
				mux := http.NewServeMux()
				mux.Handle("/late", http.TimeoutHandler(mount(p), time.Minute, "late"))
				mux.HandleFunc("/bare", func(w http.ResponseWriter, r *http.Request) {
					mount(p).ServeHTTP(struct{ http.ResponseWriter }{w}, r)
				})
				return mux
			}
			inBubble(t, presence.Options{Logger: book.logger()}, wrap, func(t *testing.T, b *bubble) {
				for range 2 {
					b.refused("/late?user=ann", http.StatusNotImplemented)
					b.refused("/bare?user=ann", http.StatusNotImplemented)
				}
				b.nothingLeft()
			})
			require.Len(t, book.lines("cannot be hijacked"), 2, "once for each type")
			require.Len(t, book.lines("Unwrap() http.ResponseWriter"), 1)
		})
	}
}

// unwrapping is how well-behaved middleware wraps a writer.
type unwrapping struct{ http.ResponseWriter }

func (u unwrapping) Unwrap() http.ResponseWriter { return u.ResponseWriter }

func TestHijackThroughUnwrap(t *testing.T) {
	wrap := func(p *presence.Presence) http.Handler {
		h := p.Handler(drop)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(unwrapping{unwrapping{w}}, r) })
	}
	inBubble(t, presence.Options{}, wrap, func(t *testing.T, b *bubble) {
		b.dial("/?user=ann")
		require.Equal(t, 1, b.sessions("ann"))
	})
}
