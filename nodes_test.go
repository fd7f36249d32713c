package presence_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/stretchr/testify/require"
)

// another starts a further node in the bubble, which ends with the test.
func (b *bubble) another(o presence.Options, route func(p *presence.Presence) http.Handler) *bubble {
	b.t.Helper()
	if o.Identify == nil {
		o.Identify = byQuery
	}
	p, err := presence.New(o)
	require.NoError(b.t, err)
	handler := p.Handler(drop)
	if route != nil {
		handler = route(p)
	}
	other := &bubble{t: b.t, p: p, ln: wstest.Listen()}
	other.srv = &http.Server{Handler: handler, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go other.srv.Serve(other.ln)
	b.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = p.Shutdown(ctx)
		other.srv.Close()
	})
	wait(0)
	return other
}

// logbook keeps what is logged.
type logbook struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logbook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logbook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// lines returns the lines that contain text.
func (l *logbook) lines(text string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

// nothingLeft expects that no session is counted or shown.
func (b *bubble) nothingLeft() {
	b.t.Helper()
	wait(2 * time.Second) // CloseTimeout
	sessions, verifying := b.p.PlacesTaken()
	require.Zero(b.t, sessions, "sessions counted")
	require.Zero(b.t, verifying, "upgrades counted")
	counts, err := b.p.Count(b.t.Context(), "")
	require.NoError(b.t, err)
	require.Zero(b.t, counts.Sessions)
}

// open makes a Presence outside of a bubble, for requests without a network.
func open(t *testing.T, o presence.Options) *presence.Presence {
	t.Helper()
	p, err := presence.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Shutdown(context.Background())) })
	return p
}
