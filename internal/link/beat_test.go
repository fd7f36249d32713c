//go:build linux

package link_test

import (
	"io"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/link"
	"github.com/a4cafe1a/presence/internal/sock"
	"github.com/a4cafe1a/presence/internal/wheel"
	"github.com/a4cafe1a/presence/internal/work"
	"github.com/a4cafe1a/presence/internal/wstest"
)

// word is a dialect of one word, which is answered by itself and beats.
type word string

func (w word) MaxLen() int { return len(w) }

func (w word) Answer(dst, msg []byte) ([]byte, bool) {
	if string(msg) != string(w) {
		return nil, false
	}
	return append(dst, w...), true
}

func (w word) Beat(dst []byte, heard bool) ([]byte, bool) { return append(dst, w...), heard }

// busy is a connection, in a wrapper as TLS is, of a process that gets no CPU
// for a while just before it writes, and in which something happens meanwhile.
type busy struct {
	*net.TCPConn
	pause     time.Duration
	meanwhile func() // once
	deadline  atomic.Pointer[time.Time]
}

func (b *busy) SetWriteDeadline(t time.Time) error {
	b.deadline.Store(&t)
	return b.TCPConn.SetWriteDeadline(t)
}

func (b *busy) Write(p []byte) (int, error) {
	if at := b.deadline.Load(); at != nil && !at.IsZero() && time.Now().Add(b.pause).After(*at) {
		return 0, os.ErrDeadlineExceeded
	}
	if f := b.meanwhile; f != nil {
		b.meanwhile = nil
		f()
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
	c := link.Upgrade(&busy{TCPConn: server, pause: time.Hour}, cfg.With(), owner{}, nil, true, nil)
	require.NoError(t, client.SetReadDeadline(time.Now().Add(5*time.Second)))
	for range 1000 {
		c.Beat(true)
		ping := make([]byte, 2)
		_, err := client.Read(ping)
		require.NoError(t, err)
		require.Equal(t, []byte{0x89, 0}, ping)
	}
}

// A heartbeat that becomes due while the one before it is still being written is
// not taken for that one: there would be none any more.
func TestBeatWhileBeating(t *testing.T) {
	w := wheel.New(0)
	defer w.Stop()
	server, client := wstest.Pair(t)
	cfg := link.Config{Clock: w, Slow: &work.Pool{}, ControlFrames: 1 << 30}
	nc := &busy{TCPConn: server}
	c := link.Upgrade(nc, cfg.With(), owner{}, nil, true, nil)
	nc.meanwhile = func() { c.Answered(); c.Beat(true) }
	c.Beat(true)
	require.NoError(t, client.SetReadDeadline(time.Now().Add(5*time.Second)))
	pings := make([]byte, 4)
	_, err := io.ReadFull(client, pings)
	require.NoError(t, err)
	require.Equal(t, []byte{0x89, 0, 0x89, 0}, pings)
}

// A heartbeat message that arrives while the one before it is answered is
// answered, too.
func TestAnswersWhileAnswering(t *testing.T) {
	const ping = word("ping")
	w := wheel.New(0)
	defer w.Stop()
	server, client := wstest.Pair(t)
	cfg := link.Config{Clock: w, Slow: &work.Pool{}, ControlFrames: 1 << 30}
	nc := &busy{TCPConn: server}
	c := link.Upgrade(nc, cfg.With(ping), owner{}, nil, true, nil)
	arrives := func() {
		_, err := client.Write(wstest.Masked(0x81, []byte(ping)))
		assert.NoError(t, err)
		for n, ok := 0, true; ok && n == 0; n, ok = sock.Of(server).Pending() {
			runtime.Gosched()
		}
		assert.False(t, c.Arrive(false))
	}
	nc.meanwhile = arrives
	arrives()
	require.NoError(t, client.SetReadDeadline(time.Now().Add(5*time.Second)))
	answers := make([]byte, 12)
	_, err := io.ReadFull(client, answers)
	require.NoError(t, err)
	require.Equal(t, "\x81\x04ping\x81\x04ping", string(answers))
}
