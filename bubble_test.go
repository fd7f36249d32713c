package presence_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/stretchr/testify/require"
)

// bubble is a server in a synctest bubble: its time is the bubble's, and its
// network has no kernel.
type bubble struct {
	t   *testing.T
	p   *presence.Presence
	srv *http.Server
	ln  *wstest.Listener

	mu   sync.Mutex
	ends []ended
}

type ended struct {
	user string
	id   string
	at   time.Time
	presence.End
}

// inBubble runs f with a server of the given options. Users come from the
// query. route nil: Handler with a serve that reads and drops.
func inBubble(t *testing.T, o presence.Options, route func(p *presence.Presence) http.Handler, f func(t *testing.T, b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{t: t, ln: wstest.Listen()}
		if o.Identify == nil {
			o.Identify = byQuery
		}
		hook := o.OnDisconnect
		o.OnDisconnect = func(s *presence.Session, e presence.End) {
			b.mu.Lock()
			b.ends = append(b.ends, ended{s.User(), s.ID(), time.Now(), e})
			b.mu.Unlock()
			if hook != nil {
				hook(s, e)
			}
		}
		var err error
		b.p, err = presence.New(o)
		require.NoError(t, err)
		handler := b.p.Handler(drop)
		if route != nil {
			handler = route(b.p)
		}
		b.srv = &http.Server{Handler: handler, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
		go b.srv.Serve(b.ln)
		defer func() { // also when f fails: a bubble must not be left with goroutines
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			err := b.p.Shutdown(ctx)
			b.srv.Close()
			require.NoError(t, err)
			wait(10 * time.Second) // for goodbyes that nobody reads
			require.Empty(t, presence.Pending(b.p))
		}()
		synctest.Wait() // registered with the store
		f(t, b)
	})
}

func byQuery(r *http.Request) (presence.Identity, error) {
	q := r.URL.Query()
	return presence.Identity{User: q.Get("user"), Topics: q["topic"]}, nil
}

func drop(ctx context.Context, c *presence.Conn) error {
	for {
		if _, _, err := c.Read(ctx); err != nil {
			return err
		}
	}
}

// settle is how long a newcomer may wait for the group commit.
const settle = 20 * time.Millisecond

// dial connects as user and waits until the session is live, or stuck in its
// verification.
func (b *bubble) dial(path string, headers ...string) *wstest.Client {
	b.t.Helper()
	c, err := wstest.Dial(b.conn(), path, headers...)
	require.NoError(b.t, err)
	b.t.Cleanup(func() { c.Close() })
	wait(settle)
	return c
}

func (b *bubble) conn() net.Conn {
	b.t.Helper()
	nc, err := b.ln.Dial()
	require.NoError(b.t, err)
	return nc
}

// refused dials and expects a refusal with this status.
func (b *bubble) refused(path string, status int, headers ...string) *http.Response {
	b.t.Helper()
	c, err := wstest.Dial(b.conn(), path, headers...)
	b.t.Cleanup(func() { c.Close() })
	require.Error(b.t, err)
	require.NotNil(b.t, c.Response, err)
	require.Equal(b.t, status, c.Response.StatusCode)
	c.Close()
	return c.Response
}

func (b *bubble) sessions(user string) int {
	b.t.Helper()
	infos, err := b.p.Sessions(b.t.Context(), user)
	require.NoError(b.t, err)
	return len(infos)
}

// end returns the one end of the user's sessions that has been told so far.
func (b *bubble) end(user string) ended {
	b.t.Helper()
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []ended
	for _, e := range b.ends {
		if e.user == user {
			all = append(all, e)
		}
	}
	require.Len(b.t, all, 1, "ends of %s", user)
	return all[0]
}

// wait lets the bubble's time pass.
func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
