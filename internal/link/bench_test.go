package link_test

import (
	"net"
	"testing"

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
