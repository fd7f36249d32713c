// Sizes: what a quiet session holds. The race detector makes stacks and objects larger.

//go:build linux && !race

package presence_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence"
)

// TestStackOfABlockingSession: the handshake must fit into 8 KiB of stack. One
// that has grown to 16 KiB stays so, since the frames that wait in a quiet
// session fill more than a quarter of it.
func TestStackOfABlockingSession(t *testing.T) {
	p := quiet(t)
	const n = 200
	before := memory().StackInuse
	gather(t, p, deep(p.Handler(drop)), n)
	each := int(memory().StackInuse-before) / n
	t.Logf("%d B for each session", each)
	require.Less(t, each, 12<<10)
	require.Greater(t, each, 1<<10, "nothing was measured")
}

// TestBytesOfASession bounds what a session of a user of its own costs, as
// BenchmarkBytes counts it.
func TestBytesOfASession(t *testing.T) {
	each := bytesPerSession(t, 20_000)
	t.Logf("%d B for each session", each)
	require.LessOrEqual(t, each, 1000)
	require.GreaterOrEqual(t, each, 500, "not all was counted")
}

// TestNamesPinNoRequest: what Identify and Join are given are often parts of a
// long request line or message.
func TestNamesPinNoRequest(t *testing.T) {
	p := quiet(t)
	const n = 64
	part := func(i int) string { return (strconv.Itoa(i) + strings.Repeat("x", 1<<20))[:8] }
	before := memory().HeapAlloc
	for i := range n {
		s, err := p.Open(t.Context(), presence.Identity{User: part(i), Topics: []string{part(i)}})
		require.NoError(t, err)
		require.NoError(t, s.Join(t.Context(), "joined-"+part(i), part(i+n)))
	}
	require.Less(t, int(memory().HeapAlloc-before), n<<18)
}

// deep adds the frames of a router and a middleware or two.
func deep(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var frames [512]byte
		next.ServeHTTP(w, r)
		runtime.KeepAlive(&frames)
	})
}

// quiet is a Presence whose heartbeats do not come while the test runs.
func quiet(t testing.TB) *presence.Presence {
	p, err := presence.New(presence.Options{Identify: byQuery, HeartbeatInterval: time.Hour})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond) // which ends are spread over
		defer cancel()
		p.Shutdown(ctx)
	})
	return p
}

// gather connects n users, without a goroutine for each on the client's side,
// and returns when all are live.
func gather(t testing.TB, p *presence.Presence, handler http.Handler, n int) {
	srv := httptest.NewServer(handler)
	t.Cleanup(func() {
		srv.Close()
		require.Eventually(t, func() bool { sessions, _ := p.PlacesTaken(); return sessions == 0 }, time.Minute, time.Millisecond)
	})
	for i := range n {
		nc, err := net.Dial("tcp", srv.Listener.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { nc.Close() })
		prove(t, nc, "/?user="+strconv.Itoa(i))
	}
	require.Eventually(t, func() bool {
		users, err := p.Count(context.Background(), "")
		return err == nil && users.Users == n
	}, time.Minute, time.Millisecond)
}

func memory() (m runtime.MemStats) {
	for range 3 { // pools take two collections to forget
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m
}

// The library does not watch the context of serve, which ends with the
// connection.
func TestContextOfServeIsNotWatched(t *testing.T) {
	const n = 50
	var own, derived float64
	done := make(chan struct{})
	s := newSite(t, siteSetup{Options: noBeats(), route: handle(func(ctx context.Context, c *presence.Conn) error {
		defer close(done)
		allocs := func(ctx context.Context) float64 {
			return testing.AllocsPerRun(n, func() {
				_, b, err := c.Read(ctx)
				require.NoError(t, err)
				require.NoError(t, c.Write(ctx, websocket.MessageText, b))
			})
		}
		own = allocs(ctx)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		derived = allocs(ctx)
		return nil
	})})
	client := s.dial("ann")
	for range 2 * (n + 1) {
		require.NoError(t, client.SendText("a message"))
	}
	<-done
	t.Logf("%v allocations, %v where it is watched", own, derived)
	require.LessOrEqual(t, own+6, derived, "two for each of head, payload and answer")
}
