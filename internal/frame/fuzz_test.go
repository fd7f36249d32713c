package frame_test

import (
	"slices"
	"testing"

	"github.com/a4cafe1a/presence/internal/frame"
)

// maxFuzz keeps inputs short: the references look at everything again and again.
const maxFuzz = 1024

// cuts makes chunks of the sizes that the fuzzer chose.
func cuts(b, sizes []byte) [][]byte {
	if len(sizes) == 0 {
		return [][]byte{b}
	}
	list := make([]int, len(sizes))
	for i, size := range sizes {
		list[i] = int(size) + 1
	}
	return chunks(b, list...)
}

// frames reads data as a list of frames to build: first byte, length, payload. Raw
// bytes rarely make a second valid frame, so the fuzzer may choose between the two.
func frames(data []byte, build func(b0 byte, payload string) []byte) (stream []byte) {
	for len(data) >= 2 {
		b0, n := data[0], min(int(data[1]), len(data)-2)
		stream = append(stream, build(b0, string(data[2:2+n]))...)
		data = data[2+n:]
	}
	return append(stream, data...)
}

func FuzzIn(f *testing.F) {
	for _, stream := range inStreams {
		f.Add(stream, []byte(nil), false, int16(16))
		f.Add(stream, []byte{0}, false, int16(256))
		f.Add(stream, []byte{6, 0, 11}, false, int16(-1))
	}
	f.Add([]byte("\x81\x05hello\x8a\x04four\x82\x01x\x8a\x00\x88\x02\x03\xe8"), []byte{2}, true, int16(4))
	f.Fuzz(func(t *testing.T, data, sizes []byte, build bool, limit int16) {
		if len(data) > maxFuzz {
			t.Skip()
		}
		if build {
			data = frames(data, clientFrame)
		}
		want := referenceIn(data, int(limit))
		requireIn(t, want, scanIn(t, &frame.In{MaxMessage: int32(limit)}, cuts(slices.Clone(data), sizes)))
	})
}

func FuzzOut(f *testing.F) {
	for _, stream := range outStreams {
		f.Add(stream, []byte(nil), false)
		f.Add(stream, []byte{0}, false)
		f.Add(stream, []byte{1, 0, 11}, false)
	}
	f.Add([]byte("\x81\x05hello\x8a\x04four\x02\x01x\x89\x00\x80\x00\x88\x02\x03\xe8"), []byte{2}, true)
	f.Fuzz(func(t *testing.T, data, sizes []byte, build bool) {
		if len(data) > maxFuzz {
			t.Skip()
		}
		if build {
			data = frames(data, serverFrame)
		}
		scanOut(t, cuts(data, sizes))
	})
}

func FuzzHead(f *testing.F) {
	for _, stream := range []string{
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x89\x00",
		"HTTP/1.0 403\nA: b\n\n",
		"HTTP/1.1 200 OK\r\n\n",
		"HTTP/2 101 OK\r\n\r\n",
	} {
		f.Add([]byte(stream), []byte(nil))
		f.Add([]byte(stream), []byte{0})
		f.Add([]byte(stream), []byte{10, 0, 1})
	}
	f.Fuzz(func(t *testing.T, data, sizes []byte) {
		if len(data) > maxFuzz {
			t.Skip()
		}
		scanHead(t, cuts(data, sizes))
	})
}
