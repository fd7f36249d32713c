package presence_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

const text = websocket.MessageText

// calling mounts a Callback that keeps its peers.
func calling(peers chan *presence.Peer, calls func(*presence.Peer) presence.Callbacks) func(p *presence.Presence) http.Handler {
	return func(p *presence.Presence) http.Handler {
		return p.Callback(func(r *http.Request, c *presence.Peer) (presence.Callbacks, error) {
			if peers != nil {
				peers <- c
			}
			return calls(c), nil
		})
	}
}

func TestMessagesInOrderOneAtATime(t *testing.T) {
	var got steps
	var running atomic.Int32
	mount := calling(nil, func(*presence.Peer) presence.Callbacks {
		return presence.Callbacks{Message: func(_ context.Context, typ websocket.MessageType, m []byte) error {
			require.EqualValues(t, 1, running.Add(1))
			time.Sleep(10 * time.Millisecond)
			got.add(fmt.Sprintf("%v %s", typ, m))
			running.Add(-1)
			return nil
		}}
	})
	inBubble(t, presence.Options{}, mount, func(t *testing.T, b *bubble) {
		c := b.dial("/?user=ann")
		var want []string
		for i := range 50 {
			m := fmt.Sprint(i, strings.Repeat("x", i*i))
			require.NoError(t, c.SendText(m))
			want = append(want, "MessageText "+m)
		}
		require.NoError(t, c.Send(wstest.Binary, []byte{7}))
		want = append(want, "MessageBinary \a")
		wait(time.Second)
		require.Equal(t, want, got.get())
	})
}

func TestSendBeforeTheUpgrade(t *testing.T) {
	mount := calling(nil, func(c *presence.Peer) presence.Callbacks {
		buf := []byte("hello")
		require.NoError(t, c.Send(text, buf))
		copy(buf, "XXXXX") // it may be used again
		require.NoError(t, c.Send(websocket.MessageBinary, []byte("you")))
		return presence.Callbacks{}
	})
	inBubble(t, presence.Options{}, mount, func(t *testing.T, b *bubble) {
		c := b.dial("/?user=ann")
		require.Len(t, c.Frames, 2)
		first, second := <-c.Frames, <-c.Frames
		require.Equal(t, "hello", string(first.Payload))
		require.Equal(t, byte(wstest.Text), first.Op)
		require.Equal(t, "you", string(second.Payload))
		require.Equal(t, byte(wstest.Binary), second.Op)
	})
}

func TestSendFromManyGoroutines(t *testing.T) {
	peers := make(chan *presence.Peer, 1)
	mount := calling(peers, func(*presence.Peer) presence.Callbacks { return presence.Callbacks{} })
	inBubble(t, presence.Options{}, mount, func(t *testing.T, b *bubble) {
		c := b.dial("/?user=ann")
		peer := <-peers
		for i := range 20 {
			go peer.Send(text, []byte(fmt.Sprint("m", i)))
		}
		wait(time.Second)
		got := map[string]bool{}
		for len(c.Frames) > 0 {
			got[string((<-c.Frames).Payload)] = true
		}
		require.Len(t, got, 20)
	})
}

// pausable is a client that can stop to read.
type pausable struct {
	net.Conn
	gate atomic.Pointer[chan struct{}]
}

func (c *pausable) pause() { ch := make(chan struct{}); c.gate.Store(&ch) }
func (c *pausable) resume() {
	if ch := c.gate.Swap(nil); ch != nil {
		close(*ch)
	}
}

func (c *pausable) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if ch := c.gate.Load(); ch != nil {
		<-*ch
	}
	return n, err
}

// unread runs f with the peer of a client that does not read until its session
// has ended.
func unread(t *testing.T, f func(b *bubble, client *wstest.Client, peer *presence.Peer)) {
	t.Helper()
	peers := make(chan *presence.Peer, 1)
	var nc *pausable
	o := presence.Options{OnDisconnect: func(*presence.Session, presence.End) { nc.resume() }}
	mount := calling(peers, func(*presence.Peer) presence.Callbacks { return presence.Callbacks{} })
	inBubble(t, o, mount, func(t *testing.T, b *bubble) {
		var client *wstest.Client
		nc, client = b.pausedClient()
		defer nc.resume()
		f(b, client, <-peers)
	})
}

// pausedClient is ann, who has got her connection and reads nothing more until
// the test resumes it.
func (b *bubble) pausedClient() (*pausable, *wstest.Client) {
	b.t.Helper()
	nc := &pausable{Conn: b.conn()}
	client, err := wstest.Dial(nc, "/?user=ann")
	require.NoError(b.t, err)
	b.t.Cleanup(func() { client.Close() })
	wait(settle)
	nc.pause()
	return nc, client
}

func TestFullQueue(t *testing.T) {
	for _, c := range []struct {
		name      string
		size      int
		fit, most int // how many may be sent
	}{
		{"64 messages", 10, 64, 66},
		{"256 KiB", 100 << 10, 2, 3},
		{"one larger message", 1 << 20, 1, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			peers := make(chan *presence.Peer, 1)
			var closed steps
			mount := calling(peers, func(*presence.Peer) presence.Callbacks {
				return presence.Callbacks{Closed: func(e presence.End) { closed.add(string(e.Cause)) }}
			})
			inBubble(t, presence.Options{}, mount, func(t *testing.T, b *bubble) {
				nc, client := b.pausedClient()
				defer nc.resume()
				peer := <-peers
				var err error
				start := time.Now()
				sent := 0
				for err == nil {
					if err = peer.Send(text, make([]byte, c.size)); err == nil {
						sent++
						synctest.Wait() // let the first be on its way
					}
				}
				require.Zero(t, time.Since(start), "Send never blocks")
				require.ErrorIs(t, err, presence.ErrSlow)
				require.GreaterOrEqual(t, sent, c.fit)
				require.LessOrEqual(t, sent, c.most)
				require.ErrorIs(t, peer.Send(text, nil), presence.ErrEnded)
				nc.resume()
				wait(2 * time.Second)
				e := b.end("ann")
				require.Equal(t, presence.CauseSlow, e.Cause)
				require.Equal(t, 1013, e.Code)
				require.Equal(t, []string{"slow"}, closed.get())
				var last wstest.Frame
				for f := range client.Frames {
					last = f
				}
				require.Equal(t, byte(wstest.Close), last.Op)
				require.Equal(t, 1013, last.Code(), "the client that reads again is told")
			})
		})
	}
}

func TestPeerClose(t *testing.T) {
	for _, c := range []struct{ code, want int }{
		{1000, 1000}, {3000, 3000}, {4000, 4000}, {4999, 4999},
		{0, 1000}, {-1, 1000}, {999, 1000}, {1005, 1000}, {1006, 1000}, {1011, 1000}, {2999, 1000}, {5000, 1000},
	} {
		t.Run(fmt.Sprint(c.code), func(t *testing.T) {
			mount := calling(nil, func(p *presence.Peer) presence.Callbacks {
				return presence.Callbacks{Message: func(context.Context, websocket.MessageType, []byte) error {
					p.Close(c.code, strings.Repeat("ü", 100))
					return nil
				}}
			})
			inBubble(t, presence.Options{}, mount, func(t *testing.T, b *bubble) {
				client := b.dial("/?user=ann")
				require.NoError(t, client.SendText("go"))
				f := <-client.Frames
				require.Equal(t, c.want, f.Code())
				require.Equal(t, strings.Repeat("ü", 61), f.Reason(), "cut to 123 bytes, whole runes")
				wait(0)
				require.Equal(t, presence.CauseAppClosed, b.end("ann").Cause)
			})
		})
	}
}

func TestCloseFollowsWhatWasSent(t *testing.T) {
	t.Run("a client that reads", func(t *testing.T) {
		mount := calling(nil, func(p *presence.Peer) presence.Callbacks {
			return presence.Callbacks{Message: func(context.Context, websocket.MessageType, []byte) error {
				for i := range 10 {
					require.NoError(t, p.Send(text, []byte(fmt.Sprint(i))))
				}
				p.Close(4000, "that was all")
				require.ErrorIs(t, p.Send(text, []byte("late")), presence.ErrEnded)
				return nil
			}}
		})
		inBubble(t, presence.Options{}, mount, func(t *testing.T, b *bubble) {
			c := b.dial("/?user=ann")
			require.NoError(t, c.SendText("go"))
			for i := range 10 {
				require.Equal(t, fmt.Sprint(i), string((<-c.Frames).Payload))
			}
			require.Equal(t, 4000, (<-c.Frames).Code())
		})
	})
	t.Run("a client that does not", func(t *testing.T) {
		unread(t, func(b *bubble, _ *wstest.Client, peer *presence.Peer) {
			for range 3 {
				require.NoError(t, peer.Send(text, []byte("x")))
				wait(0)
			}
			closed := time.Now()
			peer.Close(1000, "")
			peer.Close(4000, "again")
			wait(2 * time.Second)
			e := b.end("ann")
			require.Equal(t, presence.CauseAppClosed, e.Cause)
			require.Equal(t, 1000, e.Code)
			require.Equal(t, time.Second, e.at.Sub(closed), "it is waited for CloseTimeout")
		})
	})
}

// Whatever else ends the session does so at once: nobody waits for a client that
// broke the protocol to take what is queued for it (RFC 6455 section 7.1.7).
func TestOtherEndsDropWhatIsQueued(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(b *bubble, c *wstest.Client)
		code int
	}{
		{"no frame", func(_ *bubble, c *wstest.Client) { c.Write(wstest.Masked(0x83, nil)) }, 1002},
		{"no text", func(_ *bubble, c *wstest.Client) { c.SendText("\xff") }, 1007},
		{"a kick", func(b *bubble, _ *wstest.Client) {
			b.p.DisconnectUser(context.Background(), "ann", presence.Reason{})
		}, 4403},
	} {
		t.Run(c.name, func(t *testing.T) {
			unread(t, func(b *bubble, client *wstest.Client, peer *presence.Peer) {
				for range 10 {
					require.NoError(t, peer.Send(text, make([]byte, 20<<10)))
					wait(0)
				}
				c.do(b, client)
				wait(time.Second)
				require.Equal(t, c.code, b.end("ann").Code)
				taken := len(client.Frames)
				require.Less(t, taken, 10)
				var last wstest.Frame
				for range taken {
					last = <-client.Frames
				}
				require.Equal(t, c.code, last.Code(), "follows what was on its way")
			})
		})
	}
}

func TestClosedIsCalledOnceAtTheEnd(t *testing.T) {
	var got steps
	fail := errors.New("secret")
	message := func(_ context.Context, _ websocket.MessageType, m []byte) error {
		got.add(string(m))
		if string(m) == "fail" {
			return fail
		}
		time.Sleep(time.Second)
		return nil
	}
	mount := calling(nil, func(*presence.Peer) presence.Callbacks {
		return presence.Callbacks{Message: message, Closed: func(e presence.End) { got.add(fmt.Sprint(e.Cause, " ", e.Code)) }}
	})
	for _, c := range []struct {
		name string
		do   func(b *bubble, c *wstest.Client)
		want []string
	}{
		{"the client says goodbye", func(b *bubble, c *wstest.Client) { c.SendText("a"); c.SendClose(1001, "") }, []string{"a", "client-closed 1001"}},
		{"a kick while a message is handled", func(b *bubble, c *wstest.Client) {
			c.SendText("a")
			wait(time.Millisecond)
			b.p.DisconnectUser(context.Background(), "ann", presence.Reason{})
		}, []string{"a", "kicked 4403"}},
		{"an error", func(b *bubble, c *wstest.Client) { c.SendText("fail"); c.SendText("never seen") }, []string{"fail", "app-error 1011"}},
		{"the network", func(b *bubble, c *wstest.Client) { c.Close() }, []string{"lost 0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got = steps{}
			book := &logbook{}
			inBubble(t, presence.Options{Logger: book.logger()}, mount, func(t *testing.T, b *bubble) {
				client := b.dial("/?user=ann")
				c.do(b, client)
				wait(3 * time.Second)
				require.Equal(t, c.want, got.get())
				if c.name == "an error" {
					require.Equal(t, 1011, (<-client.Frames).Code())
					require.Len(t, book.lines("secret"), 1)
				} else {
					require.Empty(t, book.lines("failed"))
				}
			})
		})
	}
}

func TestSendOnlyMessages(t *testing.T) {
	sent := make(chan error, 20)
	mount := func(p *presence.Presence) http.Handler {
		return p.Callback(func(_ *http.Request, c *presence.Peer) (presence.Callbacks, error) {
			for kind := range websocket.MessageType(17) {
				if err := c.Send(kind, []byte("x")); err != nil {
					sent <- err
				}
			}
			return presence.Callbacks{}, nil
		})
	}
	inBubble(t, presence.Options{}, mount, func(t *testing.T, b *bubble) {
		ann := b.dial("/?user=ann")
		require.Len(t, sent, 15)
		require.ErrorIs(t, <-sent, presence.ErrLimit)
		require.Equal(t, byte(wstest.Text), (<-ann.Frames).Op)
		require.Equal(t, byte(wstest.Binary), (<-ann.Frames).Op)
		require.Empty(t, ann.Frames)
	})
}

// What the app panics with on a goroutine of ours ends one session, as net/http
// sees it, and is logged.
func TestPanicsEndTheSession(t *testing.T) {
	for where, c := range map[string]struct {
		o     presence.Options
		calls presence.Callbacks
		ask   string
		code  int
	}{
		"Callbacks.Message": {
			calls: presence.Callbacks{Message: func(context.Context, websocket.MessageType, []byte) error { panic("boom") }},
			ask:   "x", code: 1011,
		},
		"Callbacks.Closed": {
			calls: presence.Callbacks{
				Message: func(context.Context, websocket.MessageType, []byte) error { return io.EOF },
				Closed:  func(presence.End) { panic("boom") },
			},
			ask: "x", code: 1011,
		},
		"Authorize": {
			o:   presence.Options{Authorize: func(*presence.Session, presence.Ask) error { panic("boom") }},
			ask: "\x01" + `{"t":"join","id":1,"topic":"room"}`, code: 1011,
		},
	} {
		t.Run(where, func(t *testing.T) {
			book := &logbook{}
			c.o.Logger = book.logger()
			mount := func(p *presence.Presence) http.Handler {
				return p.Callback(func(*http.Request, *presence.Peer) (presence.Callbacks, error) { return c.calls, nil })
			}
			inBubble(t, c.o, mount, func(t *testing.T, b *bubble) {
				ann := b.dial("/?user=ann", v1)
				b.dial("/?user=bob")
				<-ann.Frames // the welcome
				require.NoError(t, ann.SendText(c.ask))
				wait(time.Second)
				require.Equal(t, c.code, (<-ann.Frames).Code())
				require.Equal(t, presence.CauseAppError, b.end("ann").Cause)
				require.Equal(t, 1, b.sessions("bob"))
				lines := book.lines(where + " panicked")
				require.Len(t, lines, 1)
				require.Contains(t, lines[0], "user=ann panic=boom stack=")
				require.Contains(t, lines[0], "callback_test.go", "where")
			})
		})
	}
}

func TestContextOfACallback(t *testing.T) {
	var got context.Context
	mount := func(p *presence.Presence) http.Handler {
		h := p.Callback(func(r *http.Request, _ *presence.Peer) (presence.Callbacks, error) {
			require.Equal(t, "kept", r.Context().Value(ctxKey{}), "setup is within the request")
			return presence.Callbacks{Message: func(ctx context.Context, _ websocket.MessageType, _ []byte) error {
				got = ctx
				return nil
			}}, nil
		})
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), ctxKey{}, "kept")))
		})
	}
	inBubble(t, presence.Options{}, mount, func(t *testing.T, b *bubble) {
		c := b.dial("/?user=ann")
		require.NoError(t, c.SendText("x"))
		wait(time.Minute)
		require.NoError(t, got.Err())
		require.Nil(t, got.Value(ctxKey{}))
		require.Nil(t, presence.FromContext(got))
		require.NoError(t, c.SendClose(1000, ""))
		wait(time.Second)
		var e *presence.End
		require.ErrorAs(t, context.Cause(got), &e)
	})
}

func TestPresenceOnly(t *testing.T) {
	for name, mount := range map[string]func(p *presence.Presence) http.Handler{
		"no setup":    func(p *presence.Presence) http.Handler { return p.Callback(nil) },
		"no messages": calling(nil, func(*presence.Peer) presence.Callbacks { return presence.Callbacks{} }),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, presence.Options{}, mount, func(t *testing.T, b *bubble) {
				c := b.dial("/?user=ann")
				for range 100 {
					require.NoError(t, c.SendText("nobody cares"))
				}
				wait(10 * time.Minute)
				require.Equal(t, 1, b.sessions("ann"))
				require.Empty(t, c.Frames)
			})
		})
	}
}

func TestClosedOfWhoEndsInOnConnect(t *testing.T) {
	var got steps
	mount := calling(nil, func(*presence.Peer) presence.Callbacks {
		return presence.Callbacks{Closed: func(e presence.End) { got.add(string(e.Cause)) }}
	})
	o := presence.Options{OnConnect: func(s *presence.Session) { s.Disconnect(presence.Reason{}) }}
	inBubble(t, o, mount, func(t *testing.T, b *bubble) {
		b.dial("/?user=ann")
		wait(time.Minute)
		require.Equal(t, presence.CauseKicked, b.end("ann").Cause)
		require.Equal(t, []string{"kicked"}, got.get())
	})
}

func TestEndedWhilePending(t *testing.T) {
	for name, mount := range map[string]func(p *presence.Presence) http.Handler{
		"Callback, Close": calling(nil, func(c *presence.Peer) presence.Callbacks {
			c.Close(4000, "changed my mind")
			return presence.Callbacks{Closed: func(presence.End) { panic("it was never verified") }}
		}),
		"Callback, Disconnect": calling(nil, func(c *presence.Peer) presence.Callbacks {
			c.Disconnect(presence.Reason{})
			return presence.Callbacks{}
		}),
		"Middleware": func(p *presence.Presence) http.Handler {
			return p.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				presence.FromContext(r.Context()).Disconnect(presence.Reason{})
				echo(w, r)
			}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			hooked := false
			o := presence.Options{OnConnect: func(*presence.Session) { hooked = true }}
			inBubble(t, o, mount, func(t *testing.T, b *bubble) {
				b.refused("/?user=ann", http.StatusForbidden)
				b.nothingLeft()
				require.False(t, hooked)
			})
		})
	}
}
