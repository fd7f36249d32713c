package client_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/client"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// 2,000 clients whose server restarts come back spread over the time there is,
// not in a spike: after a crash by their own jitter, after a Shutdown as its
// close frames say. What counts is who is connected again, and when.
func TestHerd(t *testing.T) {
	const herd = 2_000
	accepts := func(r *rig) (stop func()) { // a server that crashes needs to know no more
		r.fake(func(ctx context.Context, _ int, c *websocket.Conn) { _, _, _ = c.Read(ctx) })
		return r.crash
	}
	for _, test := range []struct {
		name    string
		start   func(r *rig) (stop func())
		restart func(r *rig, stop func())
		bucket  time.Duration
		most    float64 // in a bucket, times the mean until nine of ten are back
		atLeast time.Duration
	}{
		{
			name:    "crash, and back at once",
			start:   accepts,
			restart: func(r *rig, stop func()) { stop(); accepts(r) },
			// Anything up to MinDelay, all alike.
			bucket: 200 * time.Millisecond, most: 1.5, atLeast: 1600 * time.Millisecond,
		},
		{
			name:    "crash, and back after 5 s",
			start:   accepts,
			restart: func(r *rig, stop func()) { stop(); time.Sleep(5 * time.Second); accepts(r) },
			// They are in their second wait or a later one. Those whose waits are short dial more often, and so come first.
			bucket: 500 * time.Millisecond, most: 4, atLeast: 5 * time.Second,
		},
		{
			name:    "shutdown, with another server in its place",
			start:   func(r *rig) func() { return r.node(presence.Options{}).stop },
			restart: func(r *rig, stop func()) { r.node(presence.Options{}); go stop() },
			// Each is told to wait for up to 5 s, a third of DrainGrace.
			bucket: 500 * time.Millisecond, most: 1.5, atLeast: 4 * time.Second,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				stop := test.start(r)
				var mu sync.Mutex
				var back []time.Duration
				var restarted time.Time
				o := r.options()
				o.Interval = -1
				o.OnOpen = func() {
					mu.Lock()
					defer mu.Unlock()
					if !restarted.IsZero() {
						back = append(back, time.Since(restarted))
					}
				}
				all := make([]*client.Conn, herd)
				for i := range all {
					all[i] = r.client(fmt.Sprintf("/?user=u%d", i), o)
				}
				synctest.Wait() // all have been told
				mu.Lock()
				restarted = time.Now()
				mu.Unlock()
				test.restart(r, stop)
				time.Sleep(time.Minute)

				mu.Lock()
				defer mu.Unlock()
				require.Equal(t, herd, len(back), "each comes back, once")
				// They were told in order of time.
				began, took := back[0], back[herd*9/10]-back[0]
				histogram := make([]int, 1+(back[herd-1]-began)/test.bucket)
				for _, at := range back {
					histogram[(at-began)/test.bucket]++
				}
				t.Logf("the first is back %v after the restart, %d within another %v; per %v: %v\n%s", began, herd*9/10, took, test.bucket, histogram, bars(histogram))
				require.GreaterOrEqual(t, took, test.atLeast)
				mean := herd * 0.9 * float64(test.bucket) / float64(took)
				for i, n := range histogram {
					require.LessOrEqual(t, float64(n), test.most*mean, "a spike %v after the first: the mean is %.0f", time.Duration(i)*test.bucket, mean)
				}
			})
		})
	}
}

func bars(histogram []int) string {
	var b strings.Builder
	for _, n := range histogram {
		b.WriteString(strings.Repeat("#", n/10) + "\n")
	}
	return b.String()
}
