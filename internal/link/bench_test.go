package link_test

import (
	"net"
	"os"
	"testing"
	"time"

	"github.com/a4cafe1a/presence/internal/link"
	"github.com/a4cafe1a/presence/internal/wheel"
)

// Bounds: 5 ns and no allocation for counting a read as a sign of life.
func BenchmarkTouch(b *testing.B) {
	w := wheel.New(0)
	defer w.Stop()
	mine, theirs := net.Pipe()
	defer mine.Close()
	defer theirs.Close()
	c := link.Plain(mine, &link.Config{Clock: w}, nil)
	b.ReportAllocs()
	for b.Loop() {
		c.Heard()
	}
}

// tape gives the same bytes with every Read that has no deadline, and takes
// what is written.
type tape struct {
	net.Conn
	says    []byte
	limited bool
}

func (t *tape) Read(p []byte) (int, error) {
	if t.limited {
		return 0, os.ErrDeadlineExceeded
	}
	return copy(p, t.says), nil
}

func (t *tape) Write(p []byte) (int, error) { return len(p), nil }

func (t *tape) SetReadDeadline(at time.Time) error {
	t.limited = !at.IsZero()
	return nil
}

// Bounds: 100 ns and no allocation for a message of 32 B there and back, beside
// a connection that costs next to nothing.
func BenchmarkEcho(b *testing.B) {
	w := wheel.New(0)
	defer w.Stop()
	cfg := link.Config{Clock: w, ControlFrames: 100}
	asked := &tape{says: append([]byte{0x82, 0x80 | 32, 1, 2, 3, 4}, make([]byte, 32)...)}
	c := link.Upgrade(asked, cfg.With(), owner{}, nil, true, nil)
	buf := make([]byte, 4<<10)
	answer := append([]byte{0x82, 32}, make([]byte, 32)...)
	b.ReportAllocs()
	for b.Loop() {
		if n, err := c.Read(buf); n != len(asked.says) || err != nil {
			b.Fatal(n, err)
		}
		if n, err := c.Write(answer); n != len(answer) || err != nil {
			b.Fatal(n, err)
		}
	}
}
