//go:build unix

package presence_test

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/stretchr/testify/require"
)

// A socket that is closed while it holds unread data is reset, and the reset
// overtakes the close frame. So whoever is ended in the middle of sending a
// large message is still heard out.
func TestCloseCodeArrivesWhileTheClientIsSending(t *testing.T) {
	type how struct {
		name  string
		code  int
		cause presence.Cause
		set   func(*presence.Options)
		end   func(*site, *presence.Session)
	}
	nothing := func(*site, *presence.Session) {}
	hows := []how{
		{"kick", 4403, presence.CauseKicked, nil, func(_ *site, x *presence.Session) { x.Disconnect(presence.Reason{}) }},
		{"own code", 4999, presence.CauseKicked, nil, func(s *site, x *presence.Session) {
			n, err := s.p.DisconnectUser(context.Background(), "ann", presence.Reason{Code: 4999, Text: "go"})
			require.NoError(s.t, err)
			require.Equal(s.t, 1, n)
		}},
		{"shutdown", 1012, presence.CauseShutdown, nil, func(s *site, _ *presence.Session) { go s.shutdown() }},
		{"idle", 4408, presence.CauseIdle, func(o *presence.Options) { o.IdleTimeout = 500 * time.Millisecond }, nothing},
		{"expired", 4401, presence.CauseExpired, nil, func(_ *site, x *presence.Session) { x.SetExpires(time.Now()) }},
	}
	overBoth(t, func(t *testing.T, secure bool) {
		for _, h := range hows {
			for _, app := range []string{"reading", "deaf"} {
				t.Run(fmt.Sprintf("%s/%s", h.name, app), func(t *testing.T) {
					t.Parallel()
					o := noBeats()
					o.CloseTimeout = 10 * time.Second // a client that closes does not use it up
					if h.set != nil {
						h.set(&o)
					}
					set := siteSetup{Options: o, secure: secure, route: handle(deaf)}
					if app == "reading" {
						set.route = func(p *presence.Presence) http.Handler {
							return p.At(presence.Route{ReadLimit: 2 << 20}).Handler(drop)
						}
					}
					s := newSite(t, set)
					c := s.dial("ann")
					half := make(chan struct{})
					var sent atomic.Int64
					failed := make(chan error, 1)
					go func() { failed <- upload(c, half, &sent) }()
					eventually(t, func() bool { return sent.Load() >= 64<<10 }, "half of it should be on its way")
					h.end(s, s.connected("ann"))
					e := s.end("ann")
					require.Equal(t, h.cause, e.Cause)
					close(half)
					require.NoError(t, <-failed, "it should be let finish")
					require.Equal(t, h.code, code(t, c))
				})
			}
		}
	})
}

// upload sends a part of a message of 1 MiB, and the rest when half is closed.
func upload(c *wstest.Client, half <-chan struct{}, sent *atomic.Int64) error {
	b := wstest.Masked(0x80|wstest.Binary, make([]byte, 1<<20))
	for i := 0; i < len(b); i += 16 << 10 {
		if i == 64<<10 {
			<-half
		}
		n, err := c.Write(b[i:min(i+16<<10, len(b))])
		sent.Add(int64(n))
		if err != nil {
			return err
		}
	}
	return nil
}
