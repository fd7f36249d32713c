//go:build linux

package link_test

import (
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/link"
	"github.com/a4cafe1a/presence/internal/wheel"
	"github.com/a4cafe1a/presence/internal/work"
	"github.com/a4cafe1a/presence/internal/wstest"
)

// busy is a connection, in a wrapper as TLS is, of a process that gets no CPU
// for a while just before it writes.
type busy struct {
	*net.TCPConn
	pause    time.Duration
	deadline atomic.Pointer[time.Time]
}

func (b *busy) SetWriteDeadline(t time.Time) error {
	b.deadline.Store(&t)
	return b.TCPConn.SetWriteDeadline(t)
}

func (b *busy) Write(p []byte) (int, error) {
	if at := b.deadline.Load(); at != nil && !at.IsZero() && time.Now().Add(b.pause).After(*at) {
		return 0, os.ErrDeadlineExceeded
	}
	return b.TCPConn.Write(p)
}

// A write of TLS that comes too late for its deadline is the last one of its
// connection. So a busy server must not miss it.
func TestBeatsOfABusyServer(t *testing.T) {
	w := wheel.New(0)
	defer w.Stop()
	server, client := wstest.Pair(t)
	cfg := link.Config{Clock: w, Slow: &work.Pool{}, ControlFrames: 1 << 30}
	c := link.Upgrade(&busy{TCPConn: server, pause: 5 * time.Second}, cfg.With(), owner{}, nil, true, nil)
	require.NoError(t, client.SetReadDeadline(time.Now().Add(5*time.Second)))
	for range 3 {
		c.Beat(true)
		ping := make([]byte, 2)
		_, err := client.Read(ping)
		require.NoError(t, err)
		require.Equal(t, []byte{0x89, 0}, ping)
	}
}
