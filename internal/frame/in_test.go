package frame_test

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/frame"
)

// recorder writes down what it is told, and calls its own what ours does. It
// appends to what it is given, which must not reach the frame behind.
type recorder struct{ events []string }

func (r *recorder) note(format string, args ...any) {
	r.events = append(r.events, fmt.Sprintf(format, args...))
}

func (r *recorder) Data()               { r.note("data") }
func (r *recorder) Control(op frame.Op) { r.note("control %d", op) }

func (r *recorder) Close(code int, reason []byte) {
	r.note("close %d %q", code, reason)
	_ = append(reason, "xx"...)
}

func (r *recorder) Pong(payload []byte) bool {
	r.note("pong %q", payload)
	_ = append(payload, "xx"...)
	return ours(payload)
}

func (r *recorder) Channel(part []byte, last bool) {
	r.note("channel %q %v", part, last)
	_ = append(part, "xx"...)
}

func (r *recorder) Message(payload []byte) bool {
	r.note("message %q", payload)
	_ = append(payload, "xx"...)
	return ours(payload)
}

// scanIn scans the parts of a stream as a connection would, and checks what must
// hold after every part.
func scanIn(t require.TestingT, s *frame.In, parts [][]byte) (res inResult) {
	guard := []byte("guard")
	var r recorder
	var held []byte
	for _, part := range parts {
		b := slices.Concat(held, part, guard)
		size := len(b) - len(guard)
		n, h, err := s.Scan(b[:size], &r)
		require.Equal(t, guard, b[size:], "bytes behind the slice were changed")
		require.LessOrEqual(t, n+h, size)
		require.LessOrEqual(t, h, max(125, int(s.MaxMessage))+13, "held is not bounded")
		res.Out = append(res.Out, b[:n]...)
		held = slices.Clone(b[n : n+h])
		if err != nil {
			require.Zero(t, h)
			var protocol *frame.ProtocolError
			require.ErrorAs(t, err, &protocol)
			require.NotEmpty(t, protocol.Reason)
			n, h, again := s.Scan(slices.Clone(part), &r)
			require.Zero(t, n+h, "bytes after an error")
			require.Same(t, err, again)
			res.Failed = true
			break
		}
		if h > 0 {
			require.Zero(t, s.Remaining())
			require.False(t, s.Boundary())
		}
	}
	res.Events, res.Held, res.Left = r.events, held, s.Remaining()
	require.Equal(t, !res.Failed && len(held) == 0 && res.Left == 0, s.Boundary())
	return res
}

// requireIn compares with the reference. Empty and nil are the same here.
func requireIn(t require.TestingT, want, got inResult) {
	require.Equal(t, want.Failed, got.Failed, "failed")
	require.Equal(t, want.Events, got.Events, "events")
	require.True(t, bytes.Equal(want.Out, got.Out), "want %x\ngot  %x", want.Out, got.Out)
	require.True(t, bytes.Equal(want.Held, got.Held), "want %x\nheld %x", want.Held, got.Held)
	require.Equal(t, want.Left, got.Left, "remaining")
}

func TestInRules(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, tt := range []struct {
		name   string
		stream []byte
		limit  int
		passes bool // all of it goes on
		events []string
	}{
		{"empty text of ours", clientFrame(0x81, ""), 0, false, []string{`message ""`}},
		{"ping message of ours", clientFrame(0x81, "ping"), 16, false, []string{`message "ping"`}},
		{"text not ours", clientFrame(0x81, "hello"), 16, true, []string{`message "hello"`, "data"}},
		{"text of the longest length", clientFrame(0x81, "ping"), 4, false, []string{`message "ping"`}},
		{"text too long", clientFrame(0x81, "pings!"), 5, true, []string{"data"}},
		{"none are looked for", clientFrame(0x81, ""), -1, true, []string{"data"}},
		{"16-bit candidate", clientFrame(0x81, long), 300, false, []string{fmt.Sprintf("message %q", long)}},
		{"compressed text", clientFrame(0xc1, "ping"), 16, true, []string{"data"}},
		{"binary", clientFrame(0x82, "ping"), 16, true, []string{"data"}},
		{"first fragment", clientFrame(0x01, "ping"), 16, true, []string{"data"}},
		{
			"fragmented message with a pong inside",
			slices.Concat(clientFrame(0x41, "a"), clientFrame(0x8a, "odd"), clientFrame(0x00, "b"), clientFrame(0x80, "")),
			16, true, []string{"data", "control 10", `pong "odd"`},
		},
		{
			"message after a fragmented one",
			slices.Concat(clientFrame(0x02, "a"), clientFrame(0x80, "b"), clientFrame(0x81, "c")),
			16, true, []string{"data", `message "c"`, "data"},
		},
		{"pong of ours", clientFrame(0x8a, "four"), -1, false, []string{"control 10", `pong "four"`}},
		{"empty pong of ours", clientFrame(0x8a, ""), -1, false, []string{"control 10", `pong ""`}},
		{"pong of the library", clientFrame(0x8a, "odd"), -1, true, []string{"control 10", `pong "odd"`}},
		{"ping", clientFrame(0x89, "four"), 16, true, []string{"control 9"}},
		{"close without a status", clientFrame(0x88, ""), 16, true, []string{"control 8", `close 1005 ""`}},
		{"close", clientFrame(0x88, status(4000, "é")), 16, true, []string{"control 8", `close 4000 "é"`}},
		{
			"anything after close",
			slices.Concat(clientFrame(0x88, status(1000, "")), clientFrame(0x8a, ""), []byte("\xff\xff\xff")),
			16, true, []string{"control 8", `close 1000 ""`},
		},
		{
			"close inside a fragmented message",
			slices.Concat(clientFrame(0x01, "a"), clientFrame(0x88, status(1000, ""))),
			16, true, []string{"data", "control 8", `close 1000 ""`},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := inResult{Events: tt.events}
			if tt.passes {
				want.Out = tt.stream
			}
			splits(tt.stream, func(parts [][]byte) {
				requireIn(t, want, scanIn(t, &frame.In{MaxMessage: int32(tt.limit)}, parts))
			})
		})
	}
}

func TestInProtocolErrors(t *testing.T) {
	long := strings.Repeat("x", 126)
	head := func(b ...byte) []byte { return append(b, 1, 2, 3, 4) } // and a mask
	for _, tt := range []struct {
		name, reason string
		stream       []byte
	}{
		{"unmasked", "frame is not masked", serverFrame(0x81, "hello")},
		{"opcode 3", "reserved opcode", clientFrame(0x83, "")},
		{"opcode 7", "reserved opcode", clientFrame(0x87, "")},
		{"opcode 11", "reserved opcode", clientFrame(0x8b, "")},
		{"opcode 15", "reserved opcode", clientFrame(0x8f, "")},
		{"RSV2", "reserved bit is set", clientFrame(0xa1, "")},
		{"RSV3", "reserved bit is set", clientFrame(0x92, "")},
		{"RSV1 on a ping", "reserved bit is set", clientFrame(0xc9, "")},
		{"RSV1 on a close", "reserved bit is set", clientFrame(0xc8, "")},
		{"fragmented ping", "control frame is fragmented", clientFrame(0x09, "")},
		{"fragmented pong", "control frame is fragmented", clientFrame(0x0a, "")},
		{"long ping", "control frame is too long", clientFrame(0x89, long)},
		{"long pong", "control frame is too long", clientFrame(0x8a, long)},
		{"long close", "control frame is too long", clientFrame(0x88, long)},
		{"continuation first", "continuation without a message", clientFrame(0x80, "")},
		{
			"continuation after the end", "continuation without a message",
			slices.Concat(clientFrame(0x01, "a"), clientFrame(0x80, "b"), clientFrame(0x80, "c")),
		},
		{
			"text inside a message", "new message inside a fragmented one",
			slices.Concat(clientFrame(0x01, "a"), clientFrame(0x81, "")),
		},
		{
			"binary inside a message", "new message inside a fragmented one",
			slices.Concat(clientFrame(0x01, "a"), clientFrame(0x00, ""), clientFrame(0x82, "")),
		},
		{"top bit", "length has its top bit set", head(0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0)},
		{"16 bits for 125", "length is not in its shortest form", head(0x82, 0xfe, 0, 125)},
		{"64 bits for 65535", "length is not in its shortest form", head(0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff)},
		{"close of one byte", "close payload of one byte", clientFrame(0x88, "x")},
		{"close reason", "close reason is not UTF-8", clientFrame(0x88, status(1000, "\xc3"))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := clientFrame(0x82, "before")
			stream := slices.Concat(before, tt.stream)
			splits(stream, func(parts [][]byte) {
				s := &frame.In{MaxMessage: 16}
				got := scanIn(t, s, parts)
				requireIn(t, referenceIn(stream, 16), got)
				require.True(t, got.Failed)
				require.Truef(t, bytes.HasPrefix(got.Out, before), "what came before is missing: %x", got.Out)
				_, _, err := s.Scan(nil, &recorder{})
				require.EqualError(t, err, "websocket protocol error: "+tt.reason)
			})
		})
	}
}

func TestInCloseCodes(t *testing.T) {
	legal := map[int]bool{}
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		legal[code] = true
	}
	for _, code := range []int{0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535} {
		legal[code] = false
	}
	for code, ok := range legal {
		got := scanIn(t, &frame.In{}, [][]byte{clientFrame(0x88, status(code, "bye"))})
		require.Equal(t, !ok, got.Failed, "code %d", code)
	}
}

// Only what must be held is held.
func TestInHeld(t *testing.T) {
	for _, tt := range []struct {
		name    string
		stream  []byte
		n, held int
		left    uint64
	}{
		{"one byte", clientFrame(0x82, "abc")[:1], 0, 1, 0},
		{"header without its mask", clientFrame(0x82, "abc")[:5], 0, 5, 0},
		{"binary header", clientFrame(0x82, "abc")[:6], 6, 0, 3},
		{"binary payload", clientFrame(0x82, "abc")[:7], 7, 0, 2},
		{"ping header", clientFrame(0x89, "abc")[:6], 6, 0, 3},
		{"pong", clientFrame(0x8a, "abc")[:8], 0, 8, 0},
		{"close", clientFrame(0x88, "abc")[:8], 0, 8, 0},
		{"candidate", clientFrame(0x81, "abc")[:8], 0, 8, 0},
		{"text too long", clientFrame(0x81, "abcde")[:8], 8, 0, 3},
		{"held behind a swallowed pong", slices.Concat(clientFrame(0x8a, ""), clientFrame(0x82, "abc")[:5]), 0, 5, 0},
		{"longest length", []byte{0x82, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3, 4, 5}, 15, 0, math.MaxInt64 - 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := frame.In{MaxMessage: 4}
			n, held, err := s.Scan(slices.Clone(tt.stream), &recorder{})
			require.NoError(t, err)
			require.Equal(t, tt.n, n, "n")
			require.Equal(t, tt.held, held, "held")
			require.Equal(t, tt.left, s.Remaining(), "remaining")
		})
	}
}

func TestInMaxMessageMayChange(t *testing.T) {
	var r recorder
	s := frame.In{MaxMessage: -1}
	_, _, err := s.Scan(clientFrame(0x81, "ping"), &r)
	require.NoError(t, err)
	s.MaxMessage = 16
	_, _, err = s.Scan(clientFrame(0x81, "ping"), &r)
	require.NoError(t, err)
	require.Equal(t, []string{"data", `message "ping"`}, r.events)
}

// inStreams are cut at every place by TestInEverySplit, and seed the fuzzing.
var inStreams = map[string][]byte{
	"mixed": slices.Concat(
		clientFrame(0x81, "hello"), clientFrame(0x8a, "four"), clientFrame(0x82, "binary"), clientFrame(0x81, ""),
		clientFrame(0x89, "ping"), clientFrame(0x8a, "odd"), clientFrame(0xc1, "packed"), clientFrame(0x81, "ping"),
	),
	"fragments": slices.Concat(
		clientFrame(0x01, "one"), clientFrame(0x8a, ""), clientFrame(0x00, ""), clientFrame(0x89, "x"),
		clientFrame(0x80, "two"), clientFrame(0x81, "ping"), clientFrame(0x42, "z"), clientFrame(0x80, ""),
	),
	"long": slices.Concat(
		clientFrame(0x8a, "12"), clientFrame(0x81, strings.Repeat("m", 126)), clientFrame(0x81, strings.Repeat("n", 127)),
		clientFrame(0x8a, strings.Repeat("p", 125)), clientFrame(0x82, strings.Repeat("b", 200)), clientFrame(0x81, ""),
	),
	"close": slices.Concat(
		clientFrame(0x8a, ""), clientFrame(0x88, status(1001, "away")), clientFrame(0x8a, ""), []byte("what is this?"),
	),
	"swallowed": slices.Concat(
		clientFrame(0x8a, ""), clientFrame(0x81, ""), clientFrame(0x8a, "22"), clientFrame(0x81, "22"), clientFrame(0x82, "rest"),
	),
	"error": slices.Concat(
		clientFrame(0x8a, ""), clientFrame(0x82, "fine"), clientFrame(0x01, "start"), clientFrame(0x81, "wrong"), clientFrame(0x82, "never"),
	),
	"bad close": slices.Concat(clientFrame(0x81, "fine"), clientFrame(0x88, status(1006, "")), clientFrame(0x82, "never")),
	"cut short": slices.Concat(clientFrame(0x8a, ""), clientFrame(0x81, "ping")[:8]),
}

func TestInEverySplit(t *testing.T) {
	for name, stream := range inStreams {
		t.Run(name, func(t *testing.T) {
			for _, limit := range []int{-1, 0, 4, 256} {
				want := referenceIn(stream, limit)
				splits(stream, func(parts [][]byte) {
					requireIn(t, want, scanIn(t, &frame.In{MaxMessage: int32(limit)}, parts))
				})
			}
		})
	}
}

// A 64-bit length is too long for every split; these are the interesting ones.
func TestInLongPayload(t *testing.T) {
	stream := slices.Concat(clientFrame(0x8a, ""), clientFrame(0x81, strings.Repeat("long", 1<<14)), clientFrame(0x81, "ping"))
	want := referenceIn(stream, 256)
	require.Equal(t, []string{"control 10", `pong ""`, "data", `message "ping"`}, want.Events)
	for _, size := range []int{1, 7, 4096, 65536, len(stream) - 1, len(stream)} {
		requireIn(t, want, scanIn(t, &frame.In{MaxMessage: 256}, chunks(stream, size)))
	}
}

// quiet is a receiver that costs nothing.
type quiet struct{ ours bool }

func (quiet) Data()             {}
func (quiet) Control(frame.Op)  {}
func (quiet) Close(int, []byte) {}

func (q quiet) Pong([]byte) bool     { return q.ours }
func (q quiet) Message([]byte) bool  { return q.ours }
func (q quiet) Channel([]byte, bool) {}

func TestScanDoesNotAllocate(t *testing.T) {
	in := frame.In{MaxMessage: 16 << 10}
	var out frame.Out
	client := slices.Concat(clientFrame(0x8a, "four"), clientFrame(0x82, "data"), clientFrame(0x81, strings.Repeat("m", 16<<10)))
	server := slices.Concat(serverFrame(0x81, "hello"), serverFrame(0x89, ""))
	b := make([]byte, len(client))
	r := &quiet{ours: true}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		copy(b, client)
		if n, _, err := in.Scan(b, r); n != 10 || err != nil {
			panic(fmt.Sprint(n, err))
		}
		out.Scan(server)
	}))
}

func TestStateIsSmall(t *testing.T) {
	require.LessOrEqual(t, unsafe.Sizeof(frame.In{}), uintptr(32))
	require.LessOrEqual(t, unsafe.Sizeof(frame.Out{}), uintptr(32))
	require.LessOrEqual(t, unsafe.Sizeof(frame.Head{}), uintptr(12))
}
