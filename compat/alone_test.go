package compat

import (
	"context"
	"io"
	"log"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

var quiet = log.New(io.Discard, "", 0)

// The apps, the servers and the client of these tests work without presence.
func TestAppsAlone(t *testing.T) {
	t.Parallel()
	for _, a := range apps {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			for _, w := range ways {
				t.Run(w.String(), func(t *testing.T) {
					t.Parallel()
					wit := &witness{}
					s := newSite(t, w, wit.serve(a.build(wit, settings{})))

					c := s.connect(t, "ann", func(c *client) { c.bytes = true })
					c.text("hello")
					require.Equal(t, "hello", string(c.receive().data))
					c.ping("are you there")
					if a.pings {
						c.text(cmdPing)
						require.Equal(t, sawPong, string(c.receive().data))
						c.text(cmdPingEmpty)
						require.Equal(t, sawPong, string(c.receive().data))
					}
					c.bytes = false
					big := pattern(megabyte)
					if a.fragments {
						require.NoError(t, c.sendFrame(false, opBinary, big[:1000]))
						require.NoError(t, c.sendFrame(false, opCont, big[1000:1000]))
						require.NoError(t, c.sendFrame(true, opCont, big[1000:]))
					} else {
						c.send(opBinary, big)
					}
					requireSame(t, big, c.receive())
					if a.drips {
						c.text(cmdDrip)
						m := c.receive()
						requireSame(t, dripped, m)
						require.GreaterOrEqual(t, m.frames, 5)
					}
					c.text(cmdClose)
					require.Equal(t, a.closes, c.ended())

					l := s.library(t, nil)
					ctx, cancel := context.WithTimeout(context.Background(), patience)
					defer cancel()
					require.NoError(t, l.Write(ctx, websocket.MessageText, []byte("hello")))
					_, b, err := l.Read(ctx)
					require.NoError(t, err)
					require.Equal(t, "hello", string(b))
					if a.name != "xnet" { // answers no close frame
						require.NoError(t, l.Close(4002, "bye"))
					}
				})
			}
		})
	}
}
