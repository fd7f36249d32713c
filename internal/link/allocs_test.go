// Under the race detector sync.Pool drops a part of what it is given.

//go:build linux && !race

package link_test

import (
	"fmt"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/link"
	"github.com/a4cafe1a/presence/internal/sock"
	"github.com/a4cafe1a/presence/internal/wheel"
	"github.com/a4cafe1a/presence/internal/wstest"
)

// watched is a connection whose client has used a dialect, over TCP.
type watched struct {
	*link.Conn
	t      testing.TB
	sock   sock.Sock // of the server
	client net.Conn
	buf    []byte
}

func watch(t testing.TB, word word) *watched {
	w := wheel.New(0)
	t.Cleanup(w.Stop)
	server, client := wstest.Pair(t)
	cfg := link.Config{Clock: w, ControlFrames: 1 << 30}
	require.NoError(t, client.SetReadDeadline(time.Now().Add(5*time.Second))) // what does not come by then was not sent
	c := &watched{link.Upgrade(server, cfg.With(word), owner{}, nil, true, nil), t, sock.Of(server), client, make([]byte, 1<<10)}
	c.asks(word)
	return c
}

// says sends a heartbeat message to the server, which reads it.
func (c *watched) says(word word) {
	b := append(c.buf[:0], 0x81, 0x80|byte(len(word)), 0, 0, 0, 0)
	if _, err := c.client.Write(append(b, word...)); err != nil {
		c.t.Fatal(err)
	}
	for n, ok := 0, true; ok && n < len(b)+len(word); n, ok = c.sock.Pending() {
		runtime.Gosched()
	}
	if c.Arrive(false) {
		c.t.Fatal("the library should not see it")
	}
}

// asks sends one that is answered.
func (c *watched) asks(word word) {
	c.says(word)
	c.gets(2 + len(word))
}

func (c *watched) gets(n int) {
	for n > 0 {
		k, err := c.client.Read(c.buf[:n])
		if err != nil {
			c.t.Fatal(err)
		}
		n -= k
	}
}

// beats sends a heartbeat: a message and a ping.
func (c *watched) beats(word word) {
	if !c.Watches() {
		c.t.Fatal("it has used the dialect")
	}
	c.Beat(true)
	c.gets(2 + len(word) + 2)
}

// A heartbeat of a client that watches the server, and the answer to one that
// it sends, leave no garbage.
func TestHeartbeatMessagesAllocateNothing(t *testing.T) {
	for _, word := range []word{"", "ping", `{"type":"heartbeat","of":"a server with a lot to say"}`} {
		t.Run(fmt.Sprint(len(word)), func(t *testing.T) {
			c := watch(t, word)
			require.Zero(t, testing.AllocsPerRun(200, func() { c.beats(word) }), "a beat")
			c.says(word) // the answer to a beat, which is not answered
			require.Zero(t, testing.AllocsPerRun(200, func() { c.asks(word) }), "an answer")
		})
	}
}

// Bounds: 10 us and no allocation, most of it in the kernel.
func BenchmarkWatchedBeat(b *testing.B) {
	c := watch(b, "")
	require.NoError(b, c.client.SetReadDeadline(time.Time{}))
	b.ReportAllocs()
	for b.Loop() {
		c.beats("")
	}
}
