package presence_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/stretchr/testify/require"
)

// A client that keeps its proof of life back must not outlive a kick.
func TestKickReachesThePending(t *testing.T) {
	for name, route := range mounts {
		for how, kick := range map[string]func(b *bubble, id string) int{
			"user": func(b *bubble, _ string) int {
				told, err := b.p.DisconnectUser(b.t.Context(), "ann", presence.Reason{Code: 4000})
				require.NoError(b.t, err)
				return told
			},
			"session": func(b *bubble, id string) int {
				found, err := b.p.DisconnectSession(b.t.Context(), "ann", id, presence.Reason{Code: 4000})
				require.NoError(b.t, err)
				if found {
					return 1
				}
				return 0
			},
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				inBubble(t, presence.Options{}, route, func(t *testing.T, b *bubble) {
					ann, err := wstest.Handshake(b.conn(), "/?user=ann")
					require.NoError(t, err)
					bob, err := wstest.Handshake(b.conn(), "/?user=bob")
					require.NoError(t, err)
					wait(settle)
					ids := presence.Pending(b.p)
					require.Len(t, ids, 2)
					require.Equal(t, 1, kick(b, ids["ann"]))
					require.Zero(t, kick(b, ids["ann"]), "it was told")
					ann.Mute.Store(true) // this network has no buffers, and its end is being written
					go ann.Read()
					go bob.Read()
					wait(time.Second)
					require.Equal(t, 4000, (<-ann.Frames).Code())
					require.Zero(t, b.sessions("ann"))
					require.Equal(t, 1, b.sessions("bob"))
					require.Empty(t, b.ends, "it was never live")
				})
			})
		}
	}
}

// Nor must one whom Identify was about to let in.
func TestKickReachesWhoIsBeingIdentified(t *testing.T) {
	kick := func(b *bubble) {
		told, err := b.p.DisconnectUser(b.t.Context(), "ann", presence.Reason{})
		require.NoError(b.t, err)
		require.Zero(b.t, told)
	}
	for name, route := range mounts {
		t.Run(name, func(t *testing.T) {
			var asked, answer chan bool
			o := presence.Options{Identify: func(r *http.Request) (presence.Identity, error) {
				if r.Header.Get("Slow") != "" {
					asked <- true
					<-answer
				}
				return byQuery(r)
			}}

			inBubble(t, o, route, func(t *testing.T, b *bubble) {
				asked, answer = make(chan bool), make(chan bool)
				status := make(chan int, 1)
				go func() {
					c, _ := wstest.Dial(b.conn(), "/?user=ann", "Slow: yes")
					status <- c.Response.StatusCode
				}()
				<-asked
				wait(time.Millisecond)
				kick(b)
				answer <- true
				require.Equal(t, http.StatusForbidden, <-status)
				b.dial("/?user=ann")
				require.Equal(t, 1, b.sessions("ann"), "who comes later is let in")
			})
		})
	}
	t.Run("Attach", func(t *testing.T) {
		inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
			client, nc := net.Pipe()
			defer client.Close()
			go io.Copy(io.Discard, client)
			_, _, err := b.p.Attach(t.Context(), nc, func(net.Conn) (presence.Identity, error) {
				wait(time.Millisecond)
				kick(b)
				return presence.Identity{User: "ann"}, nil
			})
			var e *presence.End
			require.ErrorAs(t, err, &e)
			require.Equal(t, presence.CauseKicked, e.Cause)
			require.Zero(t, b.sessions("ann"))
		})
	})
}

// A login that panics gives its place back.
func TestAttachLoginPanics(t *testing.T) {
	inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
		client, nc := net.Pipe()
		defer client.Close()
		require.PanicsWithValue(t, "login", func() {
			_, _, _ = b.p.Attach(context.Background(), nc, func(net.Conn) (presence.Identity, error) { panic("login") })
		})
		_, err := client.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
		synctest.Wait()
		sessions, verifying := b.p.PlacesTaken()
		require.Zero(t, sessions+verifying)
	})
}
