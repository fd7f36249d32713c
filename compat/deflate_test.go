package compat

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/lxzan/gws"
	"github.com/stretchr/testify/require"
)

// prose compresses well, and better with the messages before it.
func prose(i int) []byte {
	var b bytes.Buffer
	for line := range 5 + i*7%300 {
		fmt.Fprintf(&b, "message %d, line %d: the quick brown fox jumps over the lazy dog\n", i, line)
	}
	return b.Bytes()
}

// Compression works with heartbeats between the messages, with and without a context that both sides keep. Only pongs have to be told from
// compressed data; a heartbeat in the wrong place, or a lost byte, ruins every message after it.
func TestDeflate(t *testing.T) {
	const messages, beats = 40, 2
	t.Parallel()
	for _, takeover := range []bool{false, true} {
		mode := websocket.CompressionNoContextTakeover
		if takeover {
			mode = websocket.CompressionContextTakeover
		}
		t.Run(fmt.Sprintf("takeover %v", takeover), func(t *testing.T) {
			fit := func(a app) bool { return a.deflates && (a.takeover || !takeover) }
			eachApp(t, direct, fit, func(t *testing.T, a app, w way) {
				t.Run("coder client", func(t *testing.T) {
					t.Parallel()
					r := newRig(t, w, a.build(&witness{}, settings{deflate: true, takeover: takeover}))
					var pings atomic.Int64
					c := r.libraryAs(t, "ann", &websocket.DialOptions{
						CompressionMode: mode,
						OnPingReceived:  func(context.Context, []byte) bool { pings.Add(1); return true },
					})
					ctx, cancel := context.WithTimeout(context.Background(), patience)
					defer cancel()
					type result struct {
						data []byte
						err  error
					}
					read := make(chan result, 2*messages) // more than come
					go func() {
						for {
							_, b, err := c.Read(ctx)
							read <- result{b, err}
							if err != nil {
								return
							}
						}
					}()
					for i := range messages {
						require.NoError(t, c.Write(ctx, websocket.MessageText, prose(i)))
						res := <-read
						require.NoError(t, res.err)
						require.Equal(t, string(prose(i)), string(res.data))
						enough := pings.Load() + beats
						eventually(t, func() bool { return pings.Load() >= enough }, "heartbeats go on")
					}
				})
				t.Run("gws client", func(t *testing.T) {
					t.Parallel()
					r := newRig(t, w, a.build(&witness{}, settings{deflate: true, takeover: takeover}))
					c := r.gwsClient(t, takeover)
					// The library puts what it answers to a ping into its compression window, where nobody else expects it. So pings to it must
					// be empty; one to a client that spoke first is not.
					eventually(t, func() bool { return c.pings.Load() > 0 }, "a ping")
					for i := range messages {
						require.NoError(t, c.conn.WriteMessage(gws.OpcodeText, prose(i)))
						select {
						case b := <-c.got:
							require.Equal(t, string(prose(i)), b)
						case err := <-c.closed:
							require.FailNow(t, "closed", "%v", err)
						case <-time.After(patience):
							require.FailNow(t, "no message")
						}
						enough := c.pings.Load() + beats
						eventually(t, func() bool { return c.pings.Load() >= enough }, "heartbeats go on")
					}
				})
			})
		})
	}
}

// gwsClient is a client that keeps its context on its own side too.
type gwsClient struct {
	gws.BuiltinEventHandler
	conn   *gws.Conn
	got    chan string
	closed chan error
	pings  atomic.Int64
}

func (c *gwsClient) OnClose(_ *gws.Conn, err error) { c.closed <- err }
func (c *gwsClient) OnPing(s *gws.Conn, p []byte)   { _ = s.WritePong(p); c.pings.Add(1) }
func (c *gwsClient) OnMessage(_ *gws.Conn, m *gws.Message) {
	c.got <- m.Data.String()
	_ = m.Close()
}

func (s *site) gwsClient(t *testing.T, takeover bool) *gwsClient {
	t.Helper()
	c := &gwsClient{got: make(chan string, 16), closed: make(chan error, 1)}
	scheme := "ws://"
	if s.conf != nil {
		scheme = "wss://"
	}
	conn, res, err := gws.NewClient(c, &gws.ClientOption{
		Addr:              scheme + s.addr + "/?user=ann",
		TlsConfig:         s.conf,
		HandshakeTimeout:  patience,
		PermessageDeflate: gws.PermessageDeflate{Enabled: true, ServerContextTakeover: takeover, ClientContextTakeover: takeover},
		RequestHeader:     http.Header{},
	})
	require.NoError(t, err)
	require.Contains(t, res.Header.Get("Sec-WebSocket-Extensions"), "permessage-deflate")
	c.conn = conn
	go conn.ReadLoop()
	t.Cleanup(func() { _ = conn.NetConn().Close() })
	return c
}
