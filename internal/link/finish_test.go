package link_test

import (
	"errors"
	"io"
	"net"
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
	c := link.Plain(nc, &link.Config{Clock: w}, owner{})
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
