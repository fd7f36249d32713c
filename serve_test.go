package presence_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
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

func TestWhatServeReturns(t *testing.T) {
	secret := errors.New("database password is 1234")
	for _, c := range []struct {
		name  string
		serve func(ctx context.Context, c *presence.Conn) error
		cause presence.Cause
		code  int // on the wire; 0: no close frame
		log   int
	}{
		{"nil", func(context.Context, *presence.Conn) error { return nil }, presence.CauseAppClosed, 1000, 0},
		{"an error", func(context.Context, *presence.Conn) error { return secret }, presence.CauseAppError, 1011, 1},
		{"its own goodbye, then the error of the read", func(ctx context.Context, c *presence.Conn) error {
			require.NoError(t, c.Conn.Close(4007, "enough"))
			_, _, err := c.Read(ctx)
			return err
		}, presence.CauseAppClosed, 4007, 0},
		{"its own goodbye, then nil", func(ctx context.Context, c *presence.Conn) error {
			return c.Conn.Close(1001, "")
		}, presence.CauseAppClosed, 1001, 0},
		{"the session's end", func(ctx context.Context, c *presence.Conn) error {
			c.Disconnect(presence.Reason{Code: 4321, Text: "out"})
			<-ctx.Done()
			return fmt.Errorf("serve: %w", context.Cause(ctx))
		}, presence.CauseKicked, 4321, 0},
		{"nil after the session's end", func(ctx context.Context, c *presence.Conn) error {
			c.Disconnect(presence.Reason{})
			return nil
		}, presence.CauseKicked, 4403, 0},
		{"an error after the session's end", func(ctx context.Context, c *presence.Conn) error {
			c.Disconnect(presence.Reason{})
			return secret
		}, presence.CauseKicked, 4403, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			book := &logbook{}
			mount := func(p *presence.Presence) http.Handler { return p.Handler(c.serve) }
			inBubble(t, presence.Options{Logger: book.logger()}, mount, func(t *testing.T, b *bubble) {
				client := b.dial("/?user=ann")
				f, ok := <-client.Frames
				require.True(t, ok, "a close frame")
				_ = client.SendClose(f.Code(), "") // as real clients do; it may be gone already
				b.nothingLeft()
				require.Equal(t, c.cause, b.end("ann").Cause)
				require.Equal(t, c.code, f.Code())
				require.NotContains(t, f.Reason(), "password")
				require.Len(t, book.lines("password"), c.log)
			})
		})
	}
}

func TestCloseOfTheClient(t *testing.T) {
	for _, c := range []struct {
		name string
		mute bool // the app does not read: nobody answers the close frame
	}{{"the app reads", false}, {"the app does not read", true}} {
		t.Run(c.name, func(t *testing.T) {
			serve := drop
			if c.mute {
				serve = func(ctx context.Context, _ *presence.Conn) error { <-ctx.Done(); return nil }
			}
			book := &logbook{}
			mount := func(p *presence.Presence) http.Handler { return p.Handler(serve) }
			o := presence.Options{Logger: book.logger(), HeartbeatInterval: 5 * time.Second}
			inBubble(t, o, mount, func(t *testing.T, b *bubble) {
				client := b.dial("/?user=ann")
				require.NoError(t, client.SendClose(1001, "off"))
				wait(7 * time.Second)
				e := b.end("ann")
				require.Equal(t, presence.CauseClientClosed, e.Cause)
				require.Equal(t, 1001, e.Code)
				require.Equal(t, "off", e.Text)
				require.Equal(t, 1001, (<-client.Frames).Code(), "echoed")
				require.Empty(t, book.lines("failed"))
			})
		})
	}
}

func TestPanics(t *testing.T) {
	type mounting = func(p *presence.Presence) http.Handler
	for _, c := range []struct {
		name  string
		mount mounting
		o     presence.Options
		ends  bool // OnDisconnect is told
	}{
		{"serve", func(p *presence.Presence) http.Handler {
			return p.Handler(func(context.Context, *presence.Conn) error { panic("boom") })
		}, presence.Options{}, true},
		{"serve inside Middleware", func(p *presence.Presence) http.Handler {
			return p.Middleware(p.Handler(func(context.Context, *presence.Conn) error { panic("boom") }))
		}, presence.Options{}, true},
		{"wrapped handler", func(p *presence.Presence) http.Handler {
			return p.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, err := websocket.Accept(w, r, nil)
				require.NoError(t, err)
				panic("boom")
			}))
		}, presence.Options{}, true},
		{"OnConnect in Handler", func(p *presence.Presence) http.Handler { return p.Handler(drop) },
			presence.Options{OnConnect: func(*presence.Session) { panic("boom") }}, true},
		{"OnConnect in Callback", func(p *presence.Presence) http.Handler { return p.Callback(nil) },
			presence.Options{OnConnect: func(*presence.Session) { panic("boom") }}, true},
		{"OnConnect in Middleware", func(p *presence.Presence) http.Handler { return p.Middleware(echo) },
			presence.Options{OnConnect: func(*presence.Session) { panic("boom") }}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			book := &logbook{} // of net/http, which recovers what goes on
			inBubble(t, c.o, c.mount, func(t *testing.T, b *bubble) {
				b.srv.ErrorLog.SetOutput(book)
				client := b.dial("/?user=ann")
				b.nothingLeft()
				e := b.end("ann")
				require.Equal(t, presence.CauseAppError, e.Cause)
				require.Equal(t, 1011, (<-client.Frames).Code())
				require.Len(t, book.lines("boom"), 1, "the panic goes on")
			})
		})
	}
	for name, mount := range map[string]mounting{
		"wrapped handler before the upgrade": func(p *presence.Presence) http.Handler {
			return p.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("boom") }))
		},
		"setup": func(p *presence.Presence) http.Handler {
			return p.Callback(func(*http.Request, *presence.Peer) (presence.Callbacks, error) { panic("boom") })
		},
		"Identify": func(p *presence.Presence) http.Handler {
			return p.At(presence.Route{Identify: func(*http.Request) (presence.Identity, error) { panic("boom") }}).Handler(drop)
		},
	} {
		t.Run(name, func(t *testing.T) {
			book := &logbook{}
			inBubble(t, presence.Options{}, mount, func(t *testing.T, b *bubble) {
				b.srv.ErrorLog.SetOutput(book)
				_, err := wstest.Handshake(b.conn(), "/?user=ann")
				require.Error(t, err)
				b.nothingLeft()
				require.Empty(t, b.ends)
				require.Len(t, book.lines("boom"), 1)
			})
		})
	}
	t.Run("OnDisconnect", func(t *testing.T) {
		book := &logbook{}
		o := presence.Options{Logger: book.logger(), OnDisconnect: func(*presence.Session, presence.End) { panic("boom") }}
		inBubble(t, o, nil, func(t *testing.T, b *bubble) {
			for range 2 {
				c := b.dial("/")
				require.NoError(t, c.SendClose(1000, ""))
				b.nothingLeft()
			}
			require.Len(t, book.lines("boom"), 2, "logged, and nobody else is hurt")
		})
	})
}

func TestSessionOutlivesItsHandler(t *testing.T) {
	mount := func(p *presence.Presence) http.Handler {
		return p.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := websocket.Accept(w, r, nil)
			require.NoError(t, err)
			go func() {
				defer c.CloseNow()
				for {
					typ, m, err := c.Read(context.Background())
					if err != nil || c.Write(context.Background(), typ, m) != nil {
						return
					}
				}
			}()
		}))
	}
	inBubble(t, presence.Options{}, mount, func(t *testing.T, b *bubble) {
		c := b.dial("/?user=ann")
		wait(10 * time.Minute)
		require.Equal(t, 1, b.sessions("ann"))
		require.NoError(t, c.SendText("still there"))
		synctest.Wait()
		require.Equal(t, "still there", string((<-c.Frames).Payload))
		c.Close()
		b.nothingLeft()
		require.Equal(t, presence.CauseLost, b.end("ann").Cause)
	})
}

type ctxKey struct{}

func TestContextOfAnUpgrade(t *testing.T) {
	value := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), ctxKey{}, "kept")))
		})
	}
	type seen struct {
		request, session context.Context
	}
	var got seen
	hold := func(ctx context.Context, c *presence.Conn) error {
		got = seen{ctx, c.Context()}
		return drop(ctx, c)
	}
	wrapped := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = seen{r.Context(), presence.FromContext(r.Context()).Context()}
		echo(w, r)
	})
	for name, mount := range map[string]func(p *presence.Presence) http.Handler{
		"Handler": func(p *presence.Presence) http.Handler {
			r := chi.NewRouter()
			r.Use(middleware.Timeout(time.Second), value)
			r.Handle("/", p.Handler(hold))
			return r
		},
		"wrapped handler": func(p *presence.Presence) http.Handler {
			r := chi.NewRouter()
			r.Use(middleware.Timeout(time.Second), value, p.Middleware)
			r.Handle("/", wrapped)
			return r
		},
		"Timeout between Middleware and Handler": func(p *presence.Presence) http.Handler {
			r := chi.NewRouter()
			r.Use(p.Middleware, middleware.Timeout(time.Second), value)
			r.Handle("/", p.Handler(hold))
			return r
		},
		"deadline of the server": func(p *presence.Presence) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				ctx, cancel := context.WithDeadline(r.Context(), time.Now().Add(time.Second))
				defer cancel()
				value(p.Handler(hold)).ServeHTTP(w, r.WithContext(ctx))
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, presence.Options{}, mount, func(t *testing.T, b *bubble) {
				c := b.dial("/?user=ann")
				require.Equal(t, "kept", got.request.Value(ctxKey{}))
				require.Nil(t, got.session.Value(ctxKey{}))
				require.Nil(t, got.session.Value(http.ServerContextKey))
				_, has := got.request.Deadline()
				require.False(t, has, "a router's deadline is not for a connection")
				wait(time.Minute)
				require.NoError(t, got.request.Err())
				require.NoError(t, got.session.Err())
				require.NoError(t, c.SendClose(4000, "bye"))
				wait(2 * time.Second)
				for which, ctx := range map[string]context.Context{"request": got.request, "session": got.session} {
					var e *presence.End
					require.ErrorAs(t, context.Cause(ctx), &e, which)
					require.Equal(t, presence.CauseClientClosed, e.Cause, which)
					require.Equal(t, 4000, e.Code, which)
				}
			})
		})
	}
}

func TestPendingContextEndsWithTheClient(t *testing.T) {
	released := make(chan error, 1)
	mount := func(p *presence.Presence) http.Handler {
		return p.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			released <- context.Cause(r.Context())
		}))
	}
	inBubble(t, presence.Options{}, mount, func(t *testing.T, b *bubble) {
		nc := b.conn()
		_, err := fmt.Fprint(nc, wstest.Request("/?user=ann"))
		require.NoError(t, err)
		wait(time.Second)
		require.Empty(t, released)
		nc.Close()
		b.nothingLeft()
		require.ErrorIs(t, <-released, context.Canceled)
	})
}

func TestBlockedReadSaysWhy(t *testing.T) {
	var err error
	blocked := func(ctx context.Context, c *presence.Conn) error {
		_, _, err = c.Read(ctx)
		return err
	}
	background := func(_ context.Context, c *presence.Conn) error {
		_, _, err = c.Read(context.Background())
		return err
	}
	reader := func(ctx context.Context, c *presence.Conn) error {
		_, _, err = c.Reader(ctx)
		return err
	}
	write := func(ctx context.Context, c *presence.Conn) error {
		<-ctx.Done()
		err = c.Write(ctx, websocket.MessageText, []byte("late"))
		return err
	}
	for name, serve := range map[string]func(ctx context.Context, c *presence.Conn) error{
		"Read": blocked, "Read with another context": background, "Reader": reader, "Write": write,
	} {
		t.Run(name, func(t *testing.T) {
			for range 20 { // which goroutine notices first is chance
				mount := func(p *presence.Presence) http.Handler { return p.Handler(serve) }
				inBubble(t, presence.Options{}, mount, func(t *testing.T, b *bubble) {
					b.dial("/?user=ann")
					n, e := b.p.DisconnectUser(t.Context(), "ann", presence.Reason{Code: 4100})
					require.NoError(t, e)
					require.Equal(t, 1, n)
					wait(0)
					var end *presence.End
					require.ErrorAs(t, err, &end)
					require.Equal(t, presence.CauseKicked, end.Cause)
					require.Equal(t, 4100, end.Code)
					require.ErrorIs(t, err, net.ErrClosed)
					require.ErrorIs(t, err, presence.ErrEnded)
				})
			}
		})
	}
	t.Run("another reason is kept", func(t *testing.T) {
		own := func(ctx context.Context, c *presence.Conn) error {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			_, _, err = c.Read(ctx)
			return err
		}
		mount := func(p *presence.Presence) http.Handler { return p.Handler(own) }
		inBubble(t, presence.Options{Logger: slog.New(slog.DiscardHandler)}, mount, func(t *testing.T, b *bubble) {
			b.dial("/?user=ann")
			wait(2 * time.Second)
			require.ErrorIs(t, err, context.DeadlineExceeded)
		})
	})
	t.Run("the client's goodbye", func(t *testing.T) {
		mount := func(p *presence.Presence) http.Handler { return p.Handler(blocked) }
		inBubble(t, presence.Options{}, mount, func(t *testing.T, b *bubble) {
			require.NoError(t, b.dial("/?user=ann").SendClose(4001, "x"))
			wait(0)
			require.Equal(t, websocket.StatusCode(4001), websocket.CloseStatus(err))
		})
	})
}

// What a client sent before it was lost is the app's, also when the app reads it
// after the end, with the context that has ended.
func TestMessagesBeforeTheLossAreRead(t *testing.T) {
	for range 20 { // whether a library that watches the context notices first is chance
		var got []string
		var err error
		late := func(ctx context.Context, c *presence.Conn) error {
			<-ctx.Done()
			for {
				var b []byte
				if _, b, err = c.Read(ctx); err != nil {
					return err
				}
				got = append(got, string(b))
			}
		}
		mount := func(p *presence.Presence) http.Handler { return p.Handler(late) }
		inBubble(t, presence.Options{}, mount, func(t *testing.T, b *bubble) {
			client := b.dial("/?user=ann")
			for _, word := range []string{"one", "two", "three"} {
				require.NoError(t, client.SendText(word))
			}
			client.Close()
			wait(time.Minute)
			require.Equal(t, presence.CauseLost, b.end("ann").Cause)
			require.Equal(t, []string{"one", "two", "three"}, got)
			require.ErrorIs(t, err, presence.ErrEnded)
		})
	}
}
