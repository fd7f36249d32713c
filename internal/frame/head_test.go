package frame_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/frame"
)

// scanHead scans the parts of a stream, and compares with the reference after
// every part. It returns how much was head.
func scanHead(t require.TestingT, parts [][]byte) (total int, done bool, status int) {
	var h frame.Head
	var sent []byte
	for _, part := range parts {
		var n int
		n, done = h.Scan(part)
		total += n
		sent = append(sent, part...)
		wantTotal, wantDone, wantStatus := referenceHead(sent)
		require.Equal(t, wantTotal, total, "consumed of %q", sent)
		require.Equal(t, wantDone, done, "done after %q", sent)
		require.Equal(t, wantStatus, h.Status(), "status after %q", sent)
	}
	return total, done, h.Status()
}

func TestHead(t *testing.T) {
	const switching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
	for _, tt := range []struct {
		name, stream string
		n            int // -1: all
		done         bool
		status       int
	}{
		{"nothing", "", 0, false, 0},
		{"101", switching, -1, true, 101},
		{"frames behind it", switching + "\x89\x00", len(switching), true, 101},
		{"LF alone", "HTTP/1.1 101 OK\nA: b\n\nrest", 22, true, 101},
		{"mixed ends", "HTTP/1.1 101 OK\r\nA: b\n\r\nrest", 24, true, 101},
		{"HTTP/1.0", "HTTP/1.0 403 Forbidden\r\n\r\n", -1, true, 403},
		{"no reason", "HTTP/1.1 101\r\n\r\n", -1, true, 101},
		{"status not known", "HTTP/1.1 10", -1, false, 0},
		{"status just not known", "HTTP/1.1 101", -1, false, 0},
		{"status known", "HTTP/1.1 101 ", -1, false, 101},
		{"CR alone ends nothing", "HTTP/1.1 101 OK\r\r\nA\r\r\n\r\r\nB", -1, false, 101},
		{"not HTTP", "\x81\x05hello", 0, true, -1},
		{"HTTP/2", "HTTP/2.0 200\r\n\r\n", 5, true, -1},
		{"lower case", "http/1.1 101 OK\r\n\r\n", 0, true, -1},
		{"no minor version", "HTTP/1.x 101", 7, true, -1},
		{"code of two digits", "HTTP/1.1 10 OK", 11, true, -1},
		{"code of four digits", "HTTP/1.1 1010 OK", 12, true, -1},
		{"code 099", "HTTP/1.1 099 OK", 9, true, -1},
		{"two spaces", "HTTP/1.1  101 OK", 9, true, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.n < 0 {
				tt.n = len(tt.stream)
			}
			splits([]byte(tt.stream), func(parts [][]byte) {
				n, done, status := scanHead(t, parts)
				require.Equal(t, tt.n, n, "consumed")
				require.Equal(t, tt.done, done, "done")
				require.Equal(t, tt.status, status, "status")
			})
		})
	}
}

func TestHeadIsBounded(t *testing.T) {
	const start, end = "HTTP/1.1 101 OK\r\nA: ", "\r\n\r\n"
	fill := strings.Repeat("a", 65536-len(start)-len(end))
	for _, size := range []int{4096, 100000} {
		n, done, status := scanHead(t, chunks([]byte(start+fill+end+"x"), size))
		require.True(t, done)
		require.Equal(t, 65536, n)
		require.Equal(t, 101, status)

		n, done, status = scanHead(t, chunks([]byte(start+fill+"b"+end+"x"), size))
		require.True(t, done)
		require.Equal(t, 65536, n)
		require.Equal(t, -1, status)
	}
}
