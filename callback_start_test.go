package presence_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/a4cafe1a/presence"
	"github.com/stretchr/testify/require"
)

// A session may end at the very moment its connection begins to be read. It is
// over once, not twice.
func TestCallbackEndedWhileItStarts(t *testing.T) {
	const n = 300
	var closed atomic.Int64
	mount := func(p *presence.Presence) http.Handler {
		return p.Callback(func(r *http.Request, c *presence.Peer) (presence.Callbacks, error) {
			// The request's context ends when it is let go, halfway through.
			context.AfterFunc(r.Context(), func() { c.Disconnect(presence.Reason{}) })
			return presence.Callbacks{Closed: func(presence.End) { closed.Add(1) }}, nil
		})
	}
	inBubble(t, presence.Options{}, mount, func(t *testing.T, b *bubble) {
		for range n {
			b.dial("/?user=ann")
		}
		synctest.Wait()
		require.Equal(t, int64(n), closed.Load())
	})
}
