package frame_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/frame"
)

func TestAppend(t *testing.T) {
	long := strings.Repeat("x", 70000)
	b := func(n int) []byte { return []byte(long[:n]) }
	for _, tt := range []struct {
		name string
		got  []byte
		b0   byte
		want string // payload
	}{
		{"ping", frame.AppendPing(nil, []byte("a")), 0x89, "a"},
		{"empty ping", frame.AppendPing(nil, nil), 0x89, ""},
		{"longest ping", frame.AppendPing(nil, b(125)), 0x89, long[:125]},
		{"ping too long", frame.AppendPing(nil, b(126)), 0x89, long[:125]},
		{"pong", frame.AppendPong(nil, []byte("a")), 0x8a, "a"},
		{"pong too long", frame.AppendPong(nil, b(200)), 0x8a, long[:125]},
		{"empty text", frame.AppendText(nil, nil), 0x81, ""},
		{"text of 125", frame.AppendText(nil, b(125)), 0x81, long[:125]},
		{"text of 126", frame.AppendText(nil, b(126)), 0x81, long[:126]},
		{"text of 65535", frame.AppendText(nil, b(65535)), 0x81, long[:65535]},
		{"text of 65536", frame.AppendText(nil, b(65536)), 0x81, long[:65536]},
		{"close", frame.AppendClose(nil, 4408, "idle"), 0x88, status(4408, "idle")},
		{"close without a reason", frame.AppendClose(nil, 1000, ""), 0x88, status(1000, "")},
		{"close 0", frame.AppendClose(nil, 0, "idle"), 0x88, ""},
		{"close 1005", frame.AppendClose(nil, 1005, "idle"), 0x88, ""},
		{"longest reason", frame.AppendClose(nil, 1000, long[:123]), 0x88, status(1000, long[:123])},
		{"reason too long", frame.AppendClose(nil, 1000, long[:124]), 0x88, status(1000, long[:123])},
		{"cut between characters", frame.AppendClose(nil, 1000, "x"+strings.Repeat("é", 61)+"y"), 0x88, status(1000, "x"+strings.Repeat("é", 61))},
		{"cut inside a character", frame.AppendClose(nil, 1000, strings.Repeat("é", 62)), 0x88, status(1000, strings.Repeat("é", 61))},
		{"cut inside a long character", frame.AppendClose(nil, 1000, long[:120]+"😀"), 0x88, status(1000, long[:120])},
		{"reason not UTF-8", frame.AppendClose(nil, 1000, "a\xffb"), 0x88, status(1000, "a\uFFFDb")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.Equal(t, serverFrame(tt.b0, tt.want), tt.got)
			require.False(t, scanOut(t, [][]byte{tt.got}).Opaque)
		})
	}
}

func TestAppendKeepsWhatIsThere(t *testing.T) {
	b := []byte("before")
	b = frame.AppendPing(b, nil)
	b = frame.AppendText(b, []byte("pong"))
	b = frame.AppendClose(b, 1012, "")
	require.Equal(t, "before\x89\x00\x81\x04pong\x88\x02\x03\xf4", string(b))
}
