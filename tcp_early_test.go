//go:build unix

package presence_test

import (
	"context"
	"net"
	"net/http"
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
// our ping. Its pong is proof then, and nothing of the message is lost.
func TestLargeMessageRightBehindTheHandshake(t *testing.T) {
	const size = 200 << 10
	overBoth(t, func(t *testing.T, secure bool) {
		s := newSite(t, siteSetup{Options: noBeats(), secure: secure, route: func(p *presence.Presence) http.Handler {
			return p.At(presence.Route{ReadLimit: size}).Callback(func(_ *http.Request, peer *presence.Peer) (presence.Callbacks, error) {
				return presence.Callbacks{Message: func(_ context.Context, typ websocket.MessageType, b []byte) error {
					return peer.Send(typ, b)
				}}, nil
			})
		}})
		c := s.dialOn(&eager{s.conn(), wstest.Masked(0x80|wstest.Binary, make([]byte, size))}, "ann")
		require.Len(t, (<-c.Frames).Payload, size)
	})
}
