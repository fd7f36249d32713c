package frame_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/frame"
	"github.com/a4cafe1a/presence/internal/wstest"
)

// channelResult is what a stream comes to, however it was cut.
type channelResult struct {
	out      string
	messages []string
	data     int
	err      string
}

type channelReceiver struct {
	channelResult
	partial []byte
}

func (r *channelReceiver) Data()               { r.data++ }
func (r *channelReceiver) Control(frame.Op)    {}
func (r *channelReceiver) Close(int, []byte)   {}
func (r *channelReceiver) Pong([]byte) bool    { return false }
func (r *channelReceiver) Message([]byte) bool { return false }
func (r *channelReceiver) Channel(part []byte, last bool) {
	r.partial = append(r.partial, part...)
	if last {
		r.messages = append(r.messages, string(r.partial))
		r.partial = nil
	}
}

func scanChannel(t *testing.T, stream []byte, size int) channelResult {
	s := frame.In{HasChannel: true, MaxMessage: 4}
	var r channelReceiver
	var held []byte
	for part := range slices.Chunk(stream, size) {
		b := slices.Concat(held, part)
		n, h, err := s.Scan(b, &r)
		r.out += string(b[:n])
		held = slices.Clone(b[n : n+h])
		require.LessOrEqual(t, h, 125+13)
		if err != nil {
			r.err = err.Error()
			break
		}
	}
	return r.channelResult
}

func TestChannel(t *testing.T) {
	const text, binary, more, end = 0x81, 0x82, 0x01, 0x80
	long := "\x01" + strings.Repeat("x", frame.MaxChannel-1)
	type f struct {
		first   byte
		payload string
	}
	for _, test := range []struct {
		name     string
		frames   []f
		passes   []int // frames that reach the library
		messages []string
		err      string
	}{
		{name: "one", frames: []f{{text, "\x01hello"}}, messages: []string{"\x01hello"}},
		{name: "the mark alone", frames: []f{{text, "\x01"}}, messages: []string{"\x01"}},
		{name: "between others", frames: []f{{text, "a"}, {text, "\x01b"}, {binary, "\x01c"}, {text, ""}, {text, "\x01d"}, {text, "e\x01"}},
			passes: []int{0, 2, 3, 5}, messages: []string{"\x01b", "\x01d"}},
		{name: "the longest", frames: []f{{text, long}}, messages: []string{long}},
		{name: "too long", frames: []f{{text, "a"}, {text, long + "x"}}, passes: []int{0}, err: "too long"},
		{name: "fragmented", frames: []f{{more, "\x01a"}, {end, "b"}}, err: "fragmented"},
		{name: "fragmented behind nothing", frames: []f{{more, ""}, {0x00, ""}, {end, "\x01b"}}, passes: []int{0, 1}, err: "fragmented"},
		{name: "the mark inside a fragmented one", frames: []f{{more, "a"}, {end, "\x01b"}, {text, "\x01c"}},
			passes: []int{0, 1}, messages: []string{"\x01c"}},
		{name: "a fragmented one with control frames inside", frames: []f{{more, ""}, {0x89, "\x01"}, {end, "b"}}, passes: []int{0, 1, 2}},
		{name: "compressed", frames: []f{{text | 0x40, "\x01a"}}, passes: []int{0}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stream, want []byte
			for i, f := range test.frames {
				b := wstest.Masked(f.first, []byte(f.payload))
				stream = append(stream, b...)
				if slices.Contains(test.passes, i) {
					want = append(want, b...)
				}
			}
			for size := 1; size <= min(len(stream), 40); size++ {
				r := scanChannel(t, stream, size)
				require.Equal(t, string(want), r.out, size)
				require.Equal(t, test.messages, r.messages, size)
				if test.err == "" {
					require.Empty(t, r.err, size)
				} else {
					require.Contains(t, r.err, test.err, size)
				}
			}
			require.Equal(t, scanChannel(t, stream, 7), scanChannel(t, stream, len(stream)))
		})
	}
}

// However a stream is cut, it comes to the same.
func FuzzChannel(f *testing.F) {
	f.Add(slices.Concat(wstest.Masked(0x81, []byte("\x01abc")), wstest.Masked(0x01, nil), wstest.Masked(0x80, []byte("\x01"))), 3)
	f.Fuzz(func(t *testing.T, stream []byte, size int) {
		if len(stream) == 0 || size < 1 {
			return
		}
		require.Equal(t, scanChannel(t, stream, len(stream)), scanChannel(t, stream, size))
	})
}
