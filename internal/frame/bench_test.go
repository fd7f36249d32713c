package frame_test

import (
	"strings"
	"testing"

	"github.com/a4cafe1a/presence/internal/frame"
)

// BenchmarkIn bounds what a frame costs on its way from the client: every inbound
// frame of every connection pays it. Streamed is the common case; candidate and
// pong add the unmasking; the long payload shows that its length costs nothing.
func BenchmarkIn(b *testing.B) {
	for _, bb := range []struct {
		name  string
		frame []byte
	}{
		{"streamed", clientFrame(0x82, strings.Repeat("x", 32))},
		{"candidate 32 B", clientFrame(0x81, strings.Repeat("x", 32))},
		{"candidate 256 B", clientFrame(0x81, strings.Repeat("x", 256))},
		{"pong", clientFrame(0x8a, "12345678")},
		{"1 MiB", clientFrame(0x82, strings.Repeat("x", 1<<20))},
	} {
		b.Run(bb.name, func(b *testing.B) {
			s := frame.In{MaxMessage: 256}
			r := &quiet{}
			b.SetBytes(int64(len(bb.frame)))
			b.ReportAllocs()
			for b.Loop() {
				if n, _, err := s.Scan(bb.frame, r); n != len(bb.frame) || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}

// BenchmarkInSwallow bounds what a chunk costs from which something is taken: the
// bytes behind it are moved once.
func BenchmarkInSwallow(b *testing.B) {
	pong, data := clientFrame(0x8a, "12345678"), clientFrame(0x82, strings.Repeat("x", 4096))
	chunk := append(pong[:len(pong):len(pong)], data...)
	buf := make([]byte, len(chunk))
	s := frame.In{MaxMessage: 256}
	r := &quiet{ours: true}
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	for b.Loop() {
		copy(buf, chunk)
		if n, _, err := s.Scan(buf, r); n != len(data) || err != nil {
			b.Fatal(n, err)
		}
	}
}

// BenchmarkOut bounds what a frame costs on its way to the client. In two writes is
// how gorilla/websocket sends: the header, then the payload.
func BenchmarkOut(b *testing.B) {
	for _, bb := range []struct {
		name  string
		parts [][]byte
	}{
		{"small", [][]byte{serverFrame(0x81, strings.Repeat("x", 32))}},
		{"small in two writes", chunks(serverFrame(0x81, strings.Repeat("x", 32)), 2, 32)},
		{"1 MiB", [][]byte{serverFrame(0x82, strings.Repeat("x", 1<<20))}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			var o frame.Out
			size := 0
			for _, part := range bb.parts {
				size += len(part)
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				for _, part := range bb.parts {
					o.Scan(part)
				}
			}
			if !o.Gap() {
				b.Fatal("not between two frames")
			}
		})
	}
}
