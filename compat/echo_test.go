package compat

import (
	"context"
	"net"
	"testing"

	"github.com/a4cafe1a/presence"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// A wrapped app works as before, by any way, and its sessions are seen as long as they last and no longer.
func TestEcho(t *testing.T) {
	eachApp(t, ways, nil, func(t *testing.T, a app, w way) {
		wit := &witness{}
		r := newRig(t, w, wit.serve(a.build(wit, settings{})))

		ann := r.connect(t, "ann")
		ann.text("hello")
		require.Equal(t, "hello", string(ann.receive().data))
		require.Equal(t, 1, r.sessions("ann"))
		require.Equal(t, 1, r.starts("ann"))
		ann.beats(3)
		ann.text("")
		require.Empty(t, ann.receive().data)
		ann.ping("are you there")

		bob := r.connect(t, "bob")
		bob.text(cmdClose)
		require.Equal(t, a.closes, bob.ended())
		end := r.end("bob")
		require.Equal(t, presence.CauseAppClosed, end.Cause)
		require.Equal(t, a.closes, end.Code)

		cat := r.libraryAs(t, "cat", nil)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, cat.Write(ctx, websocket.MessageBinary, []byte("meow")))
		_, b, err := cat.Read(ctx)
		require.NoError(t, err)
		require.Equal(t, "meow", string(b))
		require.Equal(t, 1, r.sessions("cat"))

		require.Equal(t, 1, r.sessions("ann"), "the others do not touch her")
		ann.close(4002, "bye")
		end = r.end("ann")
		require.Equal(t, presence.CauseClientClosed, end.Cause)
		require.Equal(t, 4002, end.Code)
		require.Equal(t, "bye", end.Text)
		if code := ann.ended(); a.name != "xnet" { // does not answer a close frame
			require.Equal(t, 4002, code)
		}

		_, messages, pongs := wit.seen()
		require.Equal(t, []string{"hello", "", cmdClose, "meow"}, messages, "what the app was shown")
		require.Empty(t, pongs, "pongs to heartbeats are not for the app")
	})
}

// A connection that is gone without a close frame is lost, at once.
func TestLost(t *testing.T) {
	eachApp(t, direct, nil, func(t *testing.T, a app, w way) {
		r := newRig(t, w, a.build(&witness{}, settings{}))
		ann := r.connect(t, "ann")
		ann.text("hello")
		require.Equal(t, "hello", string(ann.receive().data))
		require.NoError(t, ann.cork.Conn.(*net.TCPConn).SetLinger(0))
		require.NoError(t, ann.cork.Conn.Close())
		require.Equal(t, presence.CauseLost, r.end("ann").Cause)
	})
}

// Disconnect closes with the code, whatever the library is doing, and the library's blocked read fails.
func TestDisconnect(t *testing.T) {
	eachApp(t, direct, nil, func(t *testing.T, a app, w way) {
		wit := &witness{}
		r := newRig(t, w, a.build(wit, settings{}))
		ann := r.connect(t, "ann")
		ann.text("hello")
		require.Equal(t, "hello", string(ann.receive().data))
		n, err := r.p.DisconnectUser(context.Background(), "ann", presence.Reason{Code: 4010, Text: "go"})
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.Equal(t, 4010, ann.ended())
		end := r.end("ann")
		require.Equal(t, presence.CauseKicked, end.Cause)
		require.Equal(t, 4010, end.Code)
		eventually(t, func() bool { return wit.lastErr() != nil }, "the app's read should fail")
	})
}
