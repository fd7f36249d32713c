package frame_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/frame"
)

func stateOf(o *frame.Out) outState {
	code, sent := o.CloseSent()
	return outState{
		Gap: o.Gap(), Between: o.BetweenMessages(), Closing: o.Closing(), Opaque: o.Opaque(),
		HeadOnly: o.HeadOnly(), Code: code, Sent: sent, Messages: o.Messages(), Pings: o.Pings(),
	}
}

// scanOut scans the parts of a stream, and compares with the reference after every
// part.
func scanOut(t require.TestingT, parts [][]byte) outState {
	var o frame.Out
	var sent []byte
	for _, part := range parts {
		o.Scan(part)
		sent = append(sent, part...)
		require.Equal(t, referenceOut(sent), stateOf(&o), "after %x", sent)
	}
	return stateOf(&o)
}

func TestOutStates(t *testing.T) {
	long := strings.Repeat("x", 65536)
	idle := outState{Gap: true, Between: true}
	opaque := outState{Opaque: true}
	for _, tt := range []struct {
		name   string
		stream []byte
		want   outState
	}{
		{"nothing", nil, idle},
		{"one byte", []byte{0x81}, outState{HeadOnly: 1}},
		{"header", serverFrame(0x81, "hello")[:2], outState{HeadOnly: 2, Messages: 1}},
		{"half a header", serverFrame(0x82, long)[:9], outState{HeadOnly: 9}},
		{"longest header", serverFrame(0x82, long)[:10], outState{HeadOnly: 10, Messages: 1}},
		{"payload", serverFrame(0x81, "hello")[:3], outState{Messages: 1}},
		{"message", serverFrame(0x81, "hello"), outState{Gap: true, Between: true, Messages: 1}},
		{"empty message", serverFrame(0x81, ""), outState{Gap: true, Between: true, Messages: 1}},
		{"compressed message", serverFrame(0xc2, "zip"), outState{Gap: true, Between: true, Messages: 1}},
		{"long message", serverFrame(0x82, long), outState{Gap: true, Between: true, Messages: 1}},
		{"first fragment", serverFrame(0x01, "a"), outState{Gap: true, Messages: 1}},
		{"ping between fragments", slices.Concat(serverFrame(0x01, "a"), serverFrame(0x89, "b")), outState{Gap: true, Messages: 1}},
		{"last fragment", slices.Concat(serverFrame(0x01, "a"), serverFrame(0x80, "b")), outState{Gap: true, Between: true, Messages: 1}},
		{"ping", serverFrame(0x89, ""), outState{Gap: true, Between: true, Pings: 1}},
		{"ping with payload", serverFrame(0x89, "a"), outState{Gap: true, Between: true}},
		{"pong", serverFrame(0x8a, "a"), idle},
		{"close header", serverFrame(0x88, status(1000, ""))[:2], outState{Closing: true, HeadOnly: 2}},
		{"half a code", serverFrame(0x88, status(1000, ""))[:3], outState{Closing: true}},
		{"half a reason", serverFrame(0x88, status(1000, "bye"))[:5], outState{Closing: true}},
		{"close", serverFrame(0x88, status(4001, "bye")), outState{Closing: true, Code: 4001, Sent: true}},
		{"close without a status", serverFrame(0x88, ""), outState{Closing: true, Code: 1005, Sent: true}},
		{"close with a wrong code", serverFrame(0x88, status(1006, "")), outState{Closing: true, Code: 1006, Sent: true}},
		{"after close", slices.Concat(serverFrame(0x88, ""), serverFrame(0x89, "")), outState{Closing: true, Code: 1005, Sent: true}},

		{"masked", clientFrame(0x81, "hello"), opaque},
		{"close of one byte", serverFrame(0x88, "x"), opaque},
		{"reserved opcode", serverFrame(0x83, ""), opaque},
		{"reserved control opcode", serverFrame(0x8b, ""), opaque},
		{"RSV2", serverFrame(0xa1, ""), opaque},
		{"RSV1 on a pong", serverFrame(0xca, ""), opaque},
		{"fragmented ping", serverFrame(0x09, ""), opaque},
		{"long ping", serverFrame(0x89, strings.Repeat("x", 126)), opaque},
		{"continuation first", serverFrame(0x80, ""), opaque},
		{"text inside a message", slices.Concat(serverFrame(0x01, ""), serverFrame(0x81, "")), outState{Opaque: true, Messages: 1}},
		{"16 bits for 125", []byte{0x82, 126, 0, 125}, opaque},
		{"64 bits for 65535", []byte{0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, opaque},
		{"top bit", []byte{0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0}, opaque},
		{"odd and then plain", slices.Concat(clientFrame(0x81, "hello"), serverFrame(0x81, "hello")), opaque},
		{"HTTP", []byte("HTTP/1.1 400 Bad Request\r\n\r\n"), opaque},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.Equal(t, tt.want, referenceOut(tt.stream), "the reference is wrong")
			require.Equal(t, tt.want, scanOut(t, [][]byte{tt.stream}))
			if len(tt.stream) < 1000 {
				splits(tt.stream, func(parts [][]byte) {
					require.Equal(t, tt.want, scanOut(t, parts))
				})
			}
		})
	}
}

func TestOutSetOpaque(t *testing.T) {
	var o frame.Out
	o.Scan(serverFrame(0x81, "hello")[:2])
	require.Equal(t, 2, o.HeadOnly())
	o.SetOpaque()
	o.Scan([]byte("hello"))
	require.Equal(t, outState{Opaque: true, Messages: 1}, stateOf(&o))
}

// outStreams are cut at every place by TestOutEverySplit, and seed the fuzzing.
var outStreams = map[string][]byte{
	"mixed": slices.Concat(
		serverFrame(0x81, "hello"), serverFrame(0x89, "a"), serverFrame(0x8a, ""), serverFrame(0x82, strings.Repeat("b", 200)),
		serverFrame(0x81, ""), serverFrame(0xc1, "packed"),
	),
	"fragments": slices.Concat(
		serverFrame(0x01, "one"), serverFrame(0x89, ""), serverFrame(0x00, ""), serverFrame(0x80, "two"), serverFrame(0x42, "z"), serverFrame(0x80, ""),
	),
	"close":     slices.Concat(serverFrame(0x82, "x"), serverFrame(0x88, status(1001, "away")), serverFrame(0x82, "x")),
	"odd":       slices.Concat(serverFrame(0x82, "x"), clientFrame(0x82, "x"), serverFrame(0x82, "x")),
	"cut short": slices.Concat(serverFrame(0x82, "x"), serverFrame(0x82, strings.Repeat("b", 200))[:3]),
}

func TestOutEverySplit(t *testing.T) {
	for name, stream := range outStreams {
		t.Run(name, func(t *testing.T) {
			splits(stream, func(parts [][]byte) { scanOut(t, parts) })
		})
	}
}

func TestOutLongPayload(t *testing.T) {
	stream := slices.Concat(serverFrame(0x82, strings.Repeat("long", 1<<14)), serverFrame(0x89, ""))
	for _, size := range []int{4096, 65536, len(stream) - 1} {
		require.Equal(t, outState{Gap: true, Between: true, Messages: 1, Pings: 1}, scanOut(t, chunks(stream, size)))
	}
}
