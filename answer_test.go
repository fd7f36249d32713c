package presence_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
)

// recorder is a middleware's writer that wants to know the status.
type recorder struct {
	unwrapping
	status int
}

func (r *recorder) WriteHeader(code int) {
	r.status = code
	r.ResponseWriter.WriteHeader(code)
}

// handshake sends a request and returns what the server writes first, of which a
// read of this network gets one write.
func handshake(t *testing.T, b *bubble) []byte {
	nc := b.conn()
	t.Cleanup(func() { nc.Close() })
	_, err := nc.Write([]byte(wstest.Request("/?user=ann")))
	require.NoError(t, err)
	got := make([]byte, 4096)
	n, err := nc.Read(got)
	require.NoError(t, err)
	return got[:n]
}

// TestAnswerLeavesWithThePing: one write instead of two, where no middleware
// stands between that would miss the status.
func TestAnswerLeavesWithThePing(t *testing.T) {
	for name, mount := range mounts {
		t.Run(name, func(t *testing.T) {
			route := func(p *presence.Presence) http.Handler {
				h := mount(p)
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Set-Cookie", "a=b")
					w.Header().Set("X-Lines", "one\r\nX-Two: two")
					w.Header().Set("Content-Length", "7")
					h.ServeHTTP(w, r)
				})
			}
			inBubble(t, presence.Options{}, route, func(t *testing.T, b *bubble) {
				rest := bufio.NewReader(bytes.NewReader(handshake(t, b)))
				res, err := http.ReadResponse(rest, nil)
				require.NoError(t, err)
				require.Equal(t, "101 Switching Protocols", res.Status)
				require.Equal(t, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", res.Header.Get("Sec-WebSocket-Accept"))
				require.Equal(t, "websocket", res.Header.Get("Upgrade"))
				require.Equal(t, "Upgrade", res.Header.Get("Connection"))
				require.Equal(t, "a=b", res.Header.Get("Set-Cookie"))
				require.Equal(t, "one  X-Two: two", res.Header.Get("X-Lines"))
				require.Empty(t, res.Header.Get("Content-Length"))
				require.Empty(t, res.Header.Get("X-Two"))
				ping, err := io.ReadAll(rest)
				require.NoError(t, err)
				require.NotEmpty(t, ping, "the ping came later")
				require.Equal(t, byte(0x89), ping[0])
			})
		})
	}
}

// TestMiddlewareSeesTheStatus: a logger around it is told of the 101.
func TestMiddlewareSeesTheStatus(t *testing.T) {
	for name, mount := range mounts {
		t.Run(name, func(t *testing.T) {
			seen := make(chan int, 1)
			route := func(p *presence.Presence) http.Handler {
				h := mount(p)
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					rec := &recorder{unwrapping: unwrapping{w}}
					defer func() { seen <- rec.status }()
					h.ServeHTTP(rec, r)
				})
			}
			inBubble(t, presence.Options{}, route, func(t *testing.T, b *bubble) {
				require.True(t, bytes.HasSuffix(handshake(t, b), []byte("\r\n\r\n")))
			})
			require.Equal(t, http.StatusSwitchingProtocols, <-seen)
		})
	}
}

// TestAnswerThatWasOwed: whatever an app does between its WriteHeader and its
// Hijack, the client gets an answer.
func TestAnswerThatWasOwed(t *testing.T) {
	for name, c := range map[string]struct {
		app    http.HandlerFunc
		status int
	}{
		"returns": {func(http.ResponseWriter, *http.Request) {}, 101},
		"flushes": {func(w http.ResponseWriter, _ *http.Request) { _ = http.NewResponseController(w).Flush() }, 101},
		"writes":  {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "x") }, 101},
		"copies": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.Copy(w, io.LimitReader(bytes.NewReader([]byte("x")), 1))
		}, 101},
		"gives up": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }, 418},
		"kicks": {func(w http.ResponseWriter, r *http.Request) {
			presence.FromContext(r.Context()).Disconnect(presence.Reason{Code: 4000})
			_, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				panic("hijacked")
			}
		}, 403},
	} {
		t.Run(name, func(t *testing.T) {
			route := func(p *presence.Presence) http.Handler {
				return p.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.WriteHeader(http.StatusSwitchingProtocols)
					c.app(w, r)
				}))
			}
			inBubble(t, presence.Options{}, route, func(t *testing.T, b *bubble) {
				res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(handshake(t, b))), nil)
				require.NoError(t, err)
				require.Equal(t, c.status, res.StatusCode)
			})
		})
	}
}

// TestEndedInTheMiddleOfAHijack: a session that ends when net/http has given its
// connection away and we have not taken it yet. The client gets the 101, then
// the close frame.
func TestEndedInTheMiddleOfAHijack(t *testing.T) {
	var pending *presence.Session
	accepted := make(chan error, 1)
	route := func(p *presence.Presence) http.Handler {
		return p.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			pending = presence.FromContext(r.Context())
			_, err := websocket.Accept(w, r, nil)
			accepted <- err
		}))
	}
	inBubble(t, presence.Options{}, route, func(t *testing.T, b *bubble) {
		b.srv.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateHijacked {
				pending.Disconnect(presence.Reason{Code: 4000})
			}
		}
		c, err := wstest.Handshake(b.conn(), "/?user=ann")
		require.NoError(t, err)
		go c.Read()
		f := <-c.Frames
		require.Equal(t, 4000, f.Code())
		require.ErrorContains(t, <-accepted, "4000")
		require.Zero(t, b.p.Stats().Sessions)
		c.Close()
	})
}

// TestAskedAgain: a client that lost the first ping, as those do that drop what
// comes in one packet with the 101, gets another.
func TestAskedAgain(t *testing.T) {
	for name, mount := range mounts {
		t.Run(name, func(t *testing.T) {
			inBubble(t, presence.Options{}, mount, func(t *testing.T, b *bubble) {
				c, err := wstest.Handshake(b.conn(), "/?user=ann")
				require.NoError(t, err)
				c.Mute.Store(true)
				go c.Read()
				wait(1900 * time.Millisecond)
				require.EqualValues(t, 1, c.Pings.Load())
				require.Zero(t, b.sessions("ann"))
				c.Mute.Store(false)
				wait(200 * time.Millisecond)
				require.EqualValues(t, 2, c.Pings.Load())
				require.Equal(t, 1, b.sessions("ann"))
				c.Close()
			})
		})
	}
}
