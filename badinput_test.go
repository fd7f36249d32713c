package presence_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// mounts are the three ways in.
var mounts = map[string]func(p *presence.Presence) http.Handler{
	"Handler":    func(p *presence.Presence) http.Handler { return p.Handler(drop) },
	"Callback":   func(p *presence.Presence) http.Handler { return p.Callback(nil) },
	"Middleware": func(p *presence.Presence) http.Handler { return p.Middleware(echo) },
}

func TestBadHandshake(t *testing.T) {
	good := wstest.Request("/?user=bad")
	for _, c := range []struct {
		name    string
		request string
		status  int
	}{
		{"no key", strings.Replace(good, "Sec-WebSocket-Key", "X-Key", 1), 400},
		{"key of the wrong length", strings.Replace(good, "dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", 1), 400},
		{"key that is no base64", strings.Replace(good, "dGhlIHNhbXBsZSBub25jZQ==", "!!!!", 1), 400},
		{"old version", strings.Replace(good, "Version: 13", "Version: 8", 1), 400},
		{"no version", strings.Replace(good, "Sec-WebSocket-Version", "X-Version", 1), 400},
		{"no host", strings.Replace(good, "Host: example.com\r\n", "", 1), 400},
		{"no HTTP", "hello there\r\n\r\n", 400},
		{"header without a colon", strings.Replace(good, "Host:", "Bad header\r\nHost:", 1), 400},
		{"endless header", "GET / HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("x", 2<<20), 431},
	} {
		for mounted, mount := range mounts {
			t.Run(c.name+" "+mounted, func(t *testing.T) {
				inBubble(t, presence.Options{}, mount, func(t *testing.T, b *bubble) {
					witness := b.dial("/?user=good")
					nc := b.conn()
					go io.WriteString(nc, c.request)
					resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
					require.NoError(t, err)
					require.Equal(t, c.status, resp.StatusCode)
					if strings.Contains(c.name, "version") {
						require.Equal(t, "13", resp.Header.Get("Sec-WebSocket-Version"), "RFC 6455 section 4.2.2")
					}
					nc.Close()
					wait(time.Minute)
					require.Zero(t, b.sessions("bad"))
					require.Equal(t, 1, b.sessions("good"))
					require.Empty(t, witness.Frames)
					sessions, verifying := b.p.PlacesTaken()
					require.EqualValues(t, 1, sessions)
					require.Zero(t, verifying)
				})
			})
		}
	}
}

func TestBadFrames(t *testing.T) {
	long := strings.Repeat("x", 126)
	for _, c := range []struct {
		name  string
		bytes []byte
		cause presence.Cause
		code  int
	}{
		{"garbage", []byte("GET / HTTP/1.1\r\n\r\n"), presence.CauseProtocolError, 1002},
		{"unmasked", []byte{0x81, 0x02, 'h', 'i'}, presence.CauseProtocolError, 1002},
		{"reserved bits", wstest.Masked(0xf1, []byte("x")), presence.CauseProtocolError, 1002},
		{"unknown opcode", wstest.Masked(0x83, []byte("x")), presence.CauseProtocolError, 1002},
		{"unknown control opcode", wstest.Masked(0x8b, nil), presence.CauseProtocolError, 1002},
		{"oversize ping", wstest.Masked(0x89, []byte(long)), presence.CauseProtocolError, 1002},
		{"oversize close", wstest.Masked(0x88, []byte(long)), presence.CauseProtocolError, 1002},
		{"fragmented ping", wstest.Masked(0x09, []byte("x")), presence.CauseProtocolError, 1002},
		{"length with the top bit", []byte{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, presence.CauseProtocolError, 1002},
		{"continuation of nothing", wstest.Masked(0x80, []byte("x")), presence.CauseProtocolError, 1002},
		{"message within a message", append(wstest.Masked(0x01, []byte("a")), wstest.Masked(0x81, []byte("b"))...), presence.CauseProtocolError, 1002},
		{"ping flood", flood(wstest.Ping), presence.CauseLimit, 4429},
		{"pong flood", flood(wstest.Pong), presence.CauseLimit, 4429},
	} {
		for mounted, mount := range mounts {
			t.Run(c.name+" "+mounted, func(t *testing.T) {
				inBubble(t, presence.Options{}, mount, func(t *testing.T, b *bubble) {
					witness := b.dial("/?user=good")
					bad := b.dial("/?user=bad")
					go bad.Write(c.bytes)
					wait(2 * time.Second)
					e := b.end("bad")
					require.Equal(t, c.cause, e.Cause)
					require.Equal(t, c.code, e.Code)
					var last wstest.Frame
					for f := range bad.Frames { // pongs before
						last = f
					}
					require.Equal(t, byte(wstest.Close), last.Op)
					require.Equal(t, c.code, last.Code())
					require.NotEmpty(t, last.Reason(), "says what was wrong")
					wait(time.Minute)
					require.Zero(t, b.sessions("bad"))
					require.Equal(t, 1, b.sessions("good"))
					require.Empty(t, witness.Frames)
				})
			})
		}
	}
}

func flood(op byte) (b []byte) {
	for range 40 {
		b = append(b, wstest.Masked(0x80|op, []byte("x"))...)
	}
	return b
}

func TestHeartbeatMessageFlood(t *testing.T) {
	inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
		c := b.dial("/?user=ann")
		for range 40 {
			_ = c.SendText("ping")
		}
		wait(time.Second)
		require.Equal(t, presence.CauseLimit, b.end("ann").Cause)
	})
}

// The second that is counted begins with the first of the pings, not with a
// second of the clock.
func TestFloodAtAnyTime(t *testing.T) {
	for tenth := range 10 {
		inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
			c := b.dial("/?user=ann")
			wait(1100*time.Millisecond + time.Duration(tenth)*100*time.Millisecond) // the pong of the handshake counts, too
			for range 4 {
				for range 10 {
					_ = c.Send(wstest.Pong, []byte("x"))
				}
				wait(200 * time.Millisecond)
			}
			wait(time.Second)
			require.Equal(t, presence.CauseLimit, b.end("ann").Cause, tenth)
		})
	}
}

func TestPingsWithinTheLimit(t *testing.T) {
	inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
		c := b.dial("/?user=ann")
		for range 20 {
			for range 20 {
				require.NoError(t, c.Send(wstest.Ping, nil))
			}
			wait(time.Second)
		}
		require.Equal(t, 1, b.sessions("ann"))
		require.Len(t, c.Frames, 400, "each is answered by the library")
	})
}

func TestHeaderByteByByte(t *testing.T) {
	t.Parallel()
	for mounted, mount := range mounts {
		t.Run(mounted, func(t *testing.T) {
			t.Parallel()
			p := open(t, presence.Options{Identify: byQuery})
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			srv := &http.Server{Handler: mount(p), ReadHeaderTimeout: 4 * time.Second}
			go srv.Serve(ln)
			defer srv.Close()

			loris, err := net.Dial("tcp", ln.Addr().String())
			require.NoError(t, err)
			defer loris.Close()
			request := wstest.Request("/?user=loris")
			_, err = io.WriteString(loris, request[:len(request)-3])
			require.NoError(t, err)

			nc, err := net.Dial("tcp", ln.Addr().String())
			require.NoError(t, err)
			defer nc.Close()
			slow := &bytewise{nc}
			c, err := wstest.Dial(slow, "/?user=ann")
			require.NoError(t, err)
			require.NoError(t, c.SendText("split as well"))
			require.Eventually(t, func() bool {
				online, err := p.Online(context.Background(), "ann")
				return err == nil && online
			}, time.Minute, time.Millisecond)

			require.NoError(t, loris.SetReadDeadline(time.Now().Add(time.Minute)))
			_, err = io.Copy(io.Discard, loris)
			require.NoError(t, err, "hung up on")
			online, err := p.Online(context.Background(), "loris")
			require.NoError(t, err)
			require.False(t, online)
			require.NoError(t, c.SendClose(1000, ""))
		})
	}
}

// bytewise writes every byte on its own.
type bytewise struct{ net.Conn }

func (c *bytewise) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := c.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

// What came before a violation, in one packet with it, reaches the app, while
// the session still lives. Then it ends.
func TestMessageBeforeAViolation(t *testing.T) {
	good := wstest.Masked(0x81, []byte("good"))
	packet := append(good[:len(good):len(good)], wstest.Masked(0x83, []byte("bad"))...)
	type told struct {
		message string
		alive   bool
	}
	for mounted, mount := range map[string]func(p *presence.Presence, got chan told) http.Handler{
		"Handler": func(p *presence.Presence, got chan told) http.Handler {
			return p.Handler(func(ctx context.Context, c *presence.Conn) error {
				_, m, err := c.Read(ctx)
				got <- told{string(m), err == nil && ctx.Err() == nil}
				_, _, err = c.Read(ctx)
				return err
			})
		},
		"Callback": func(p *presence.Presence, got chan told) http.Handler {
			return p.Callback(func(*http.Request, *presence.Peer) (presence.Callbacks, error) {
				return presence.Callbacks{Message: func(ctx context.Context, _ websocket.MessageType, m []byte) error {
					got <- told{string(m), ctx.Err() == nil}
					return nil
				}}, nil
			})
		},
		"byte by byte": func(p *presence.Presence, got chan told) http.Handler {
			return p.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				nc, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					return
				}
				defer nc.Close()
				_, _ = io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
					"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n") // RFC 6455 section 1.3
				frame, n := make([]byte, len(good)), 0
				for n < len(frame) && err == nil {
					var k int
					k, err = nc.Read(frame[n : n+1])
					n += k
				}
				message := ""
				if string(frame) == string(good) {
					message = "good"
				}
				got <- told{message, r.Context().Err() == nil}
				_, _ = io.Copy(io.Discard, nc)
			}))
		},
	} {
		t.Run(mounted, func(t *testing.T) {
			got := make(chan told, 1)
			handler := func(p *presence.Presence) http.Handler { return mount(p, got) }
			inBubble(t, presence.Options{}, handler, func(t *testing.T, b *bubble) {
				c := b.dial("/?user=ann")
				wait(time.Second)
				go c.Write(packet)
				require.Equal(t, told{"good", true}, <-got)
				wait(time.Second)
				e := b.end("ann")
				require.Equal(t, presence.CauseProtocolError, e.Cause)
				require.Equal(t, 1002, e.Code)
				require.NotEmpty(t, e.Text)
				last := wstest.Frame{}
				for f := range c.Frames {
					last = f
				}
				require.Equal(t, 1002, last.Code())
			})
		})
	}
}

// An app that takes its time does not keep a client that broke the protocol.
func TestViolationBehindASlowMessage(t *testing.T) {
	slow := calling(nil, func(*presence.Peer) presence.Callbacks {
		return presence.Callbacks{Message: func(ctx context.Context, _ websocket.MessageType, m []byte) error {
			<-ctx.Done()
			return nil
		}}
	})
	inBubble(t, presence.Options{CloseTimeout: 3 * time.Second}, slow, func(t *testing.T, b *bubble) {
		c := b.dial("/?user=ann")
		go c.Write(append(wstest.Masked(0x81, []byte("good")), wstest.Masked(0x83, []byte("bad"))...))
		wait(2 * time.Second)
		require.Equal(t, 1, b.sessions("ann"))
		wait(2 * time.Second)
		require.Equal(t, presence.CauseProtocolError, b.end("ann").Cause)
	})
}
