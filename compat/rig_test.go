package compat

import (
	"bytes"
	"context"
	"flag"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/stretchr/testify/require"
)

// TestMain lets many tests run at once: they wait most of the time.
func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("24")
	}
	os.Exit(m.Run())
}

// A rig is a site whose handler is wrapped by presence.
type rig struct {
	*site
	t    *testing.T
	p    *presence.Presence
	logs *logs

	mu      sync.Mutex
	started map[string]int
	ends    map[string][]presence.End
}

// often are heartbeats so often that they come between everything, and a timeout so long that no busy machine reaps a live client.
func often(o *presence.Options) {
	o.HeartbeatInterval = 20 * time.Millisecond
	o.HeartbeatTimeout = time.Minute
	o.Limits.ControlFramesPerSecond = 10_000
}

// newPresence is a Presence that takes the user from the query. It ends with the test.
func newPresence(t *testing.T, adjust ...func(*presence.Options)) *rig {
	t.Helper()
	r := &rig{t: t, logs: &logs{}, started: map[string]int{}, ends: map[string][]presence.End{}}
	o := presence.Options{
		Identify: func(req *http.Request) (presence.Identity, error) {
			return presence.Identity{User: req.URL.Query().Get("user")}, nil
		},
		OnConnect: func(s *presence.Session) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.started[s.User()]++
		},
		OnDisconnect: func(s *presence.Session, e presence.End) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.ends[s.User()] = append(r.ends[s.User()], e)
		},
		Logger: slog.New(slog.NewTextHandler(r.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	often(&o)
	for _, f := range adjust {
		f(&o)
	}
	p, err := presence.New(o)
	require.NoError(t, err)
	r.p = p
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what presence logged:\n%s", r.logs.lines(""))
		}
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		defer cancel()
		_ = p.Shutdown(ctx)
	})
	return r
}

// newRig serves h behind Middleware.
func newRig(t *testing.T, w way, h http.Handler, adjust ...func(*presence.Options)) *rig {
	t.Helper()
	r := newPresence(t, adjust...)
	r.site = newSite(t, w, r.p.Middleware(h))
	return r
}

// sessions is the number of sessions of a user.
func (r *rig) sessions(user string) int {
	r.t.Helper()
	infos, err := r.p.Sessions(context.Background(), user)
	require.NoError(r.t, err)
	return len(infos)
}

// starts is the number of times OnConnect ran for a user.
func (r *rig) starts(user string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.started[user]
}

// end waits for the one end of the one session of a user, and makes sure that no query knows it any more.
func (r *rig) end(user string) presence.End {
	r.t.Helper()
	var ends []presence.End
	eventually(r.t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		ends = r.ends[user]
		return len(ends) > 0
	}, "the session of %s should end", user)
	require.Len(r.t, ends, 1)
	require.Zero(r.t, r.sessions(user))
	return ends[0]
}

// logs keeps what was logged.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// lines are the records that contain s.
func (l *logs) lines(s string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
	for line := range strings.Lines(l.b.String()) {
		if strings.Contains(line, s) {
			found = append(found, line)
		}
	}
	return found
}

// eachApp runs f for every library that is fit, in parallel, in each of the ways.
func eachApp(t *testing.T, ways []way, fit func(app) bool, f func(*testing.T, app, way)) {
	t.Parallel()
	for _, a := range apps {
		if fit != nil && !fit(a) {
			continue
		}
		for _, w := range ways {
			t.Run(a.name+"/"+w.String(), func(t *testing.T) {
				t.Parallel()
				f(t, a, w)
			})
		}
	}
}
