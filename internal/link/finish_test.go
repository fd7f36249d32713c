package link_test

import (
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/link"
	"github.com/a4cafe1a/presence/internal/wheel"
)

// overtaken returns bytes to the read that a deadline was to end, as a socket
// does when they arrive before the reader runs.
type overtaken struct {
	net.Conn
	reads, past chan struct{}
	done        bool
}

func (o *overtaken) Read(p []byte) (int, error) {
	if o.done {
		return 0, io.EOF
	}
	o.done = true
	close(o.reads)
	<-o.past
	return copy(p, "late"), nil
}

func (o *overtaken) SetReadDeadline(t time.Time) error {
	if t.Before(time.Now()) {
		close(o.past)
	}
	return nil
}

type owner struct{ link.Owner }

func (owner) Gone() {}

func TestNothingIsReadAfterTheEnd(t *testing.T) {
	w := wheel.New(0)
	defer w.Stop()
	mine, theirs := net.Pipe()
	defer theirs.Close()
	nc := &overtaken{Conn: mine, reads: make(chan struct{}), past: make(chan struct{})}
	c := link.Plain(nc, &link.Config{Clock: w, Goodbyes: link.NewGoodbyes(1, nil)}, owner{})
	defer c.Close()
	kicked := errors.New("kicked")
	go func() {
		<-nc.reads
		c.Finish(kicked, link.Farewell{Linger: time.Second})
	}()
	n, err := c.Read(make([]byte, 100))
	require.ErrorIs(t, err, kicked)
	require.Zero(t, n)
}

// Thousands may be told to go at once, and each waits for its client. Where no
// poller does so it holds a goroutine, but no buffer to speak of.
func TestAGoodbyeThatWaitsHoldsNoBuffer(t *testing.T) {
	const n = 500
	w := wheel.New(0)
	defer w.Stop()
	conns := make([]*link.Conn, n)
	clients := make([]net.Conn, n)
	for i := range conns {
		var mine net.Conn
		mine, clients[i] = net.Pipe()
		conns[i] = link.Plain(mine, &link.Config{Clock: w, Goodbyes: link.NewGoodbyes(1, nil)}, owner{})
	}
	before := heap()
	for _, c := range conns {
		c.Finish(net.ErrClosed, link.Farewell{Linger: time.Hour})
	}
	for _, client := range clients {
		_, err := client.Write([]byte("late")) // it is read: the goodbye waits
		require.NoError(t, err)
	}
	each := (heap() - before) / n
	for _, client := range clients {
		_, err := client.Write(make([]byte, 64<<10)) // and so is what is much
		require.NoError(t, err)
		require.NoError(t, client.Close())
	}
	require.Less(t, each, 2<<10, "bytes for each")
}

func heap() int {
	var m runtime.MemStats
	for range 2 { // a pool keeps what it has for one collection more
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
