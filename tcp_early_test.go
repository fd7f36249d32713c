//go:build unix

package presence_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// eager sends a message right behind the handshake, in one piece with it.
type eager struct {
	net.Conn
	message []byte
}

func (e *eager) Write(b []byte) (int, error) {
	_, err := e.Conn.Write(append(append([]byte(nil), b...), e.message...))
	e.message = nil
	return len(b), err
}

// A client may send more than is kept during verification before it looks for
// our ping. Its pong is proof then, and nothing of the message is lost. Nor is
// one that was read with the proof, although nothing comes after it.
func TestMessageRightBehindTheHandshake(t *testing.T) {
	for _, size := range []int{5, 200 << 10} {
		t.Run(fmt.Sprint(size), func(t *testing.T) { rightBehind(t, size) })
	}
}

func rightBehind(t *testing.T, size int) {
	overBoth(t, func(t *testing.T, secure bool) {
		s := newSite(t, siteSetup{Options: noBeats(), secure: secure, route: func(p *presence.Presence) http.Handler {
			return p.At(presence.Route{ReadLimit: int64(size)}).Callback(func(_ *http.Request, peer *presence.Peer) (presence.Callbacks, error) {
				return presence.Callbacks{Message: func(_ context.Context, typ websocket.MessageType, b []byte) error {
					return peer.Send(typ, b)
				}}, nil
			})
		}})
		c := s.dialOn(&eager{s.conn(), wstest.Masked(0x80|wstest.Binary, make([]byte, size))}, "ann")
		require.Len(t, message(t, c), size)
	})
}

// meddler lets something happen between the verification and the first read.
type meddler struct {
	http.ResponseWriter
	meddle func()
}

func (m *meddler) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, brw, err := http.NewResponseController(m.ResponseWriter).Hijack()
	m.meddle()
	return nc, brw, err
}

// A session may end after it was opened and before anybody reads it. Its end is
// told, and Shutdown need not wait for it.
func TestCallbackEndedBeforeItIsRead(t *testing.T) {
	overBoth(t, func(t *testing.T, secure bool) {
		var closed atomic.Int64
		s := newSite(t, siteSetup{Options: noBeats(), secure: secure, route: func(p *presence.Presence) http.Handler {
			callback := p.Callback(func(*http.Request, *presence.Peer) (presence.Callbacks, error) {
				return presence.Callbacks{Closed: func(presence.End) { closed.Add(1) }}, nil
			})
			return p.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				callback.ServeHTTP(&meddler{w, func() { presence.FromContext(r.Context()).Disconnect(presence.Reason{}) }}, r)
			}))
		}})
		_, err := wstest.Dial(s.conn(), "/?user=ann")
		require.NoError(t, err)
		require.Equal(t, presence.CauseKicked, s.end("ann").Cause)
		require.NoError(t, s.shutdown())
		require.Equal(t, int64(1), closed.Load())
	})
}
