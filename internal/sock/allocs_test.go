// Under the race detector sync.Pool drops a part of what it is given.

//go:build unix && !race

package sock_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/sock"
	"github.com/a4cafe1a/presence/internal/wstest"
)

func TestNothingIsAllocated(t *testing.T) {
	server, client := wstest.Pair(t)
	s, c := sock.Of(server), sock.Of(client)
	buf := make([]byte, 64)
	for name, call := range map[string]func(){
		"read nothing":   func() { s.Read(buf) },
		"write and read": func() { s.Write(buf); c.Read(buf) },
		"Pending":        func() { s.Pending() },
		"Unacked":        func() { s.Unacked() },
		"Acked":          func() { s.Acked() },
		"Received":       func() { s.Received() },
		"SinceReceived":  func() { s.SinceReceived() },
		"ReceiveFull":    func() { s.ReceiveFull() },
		"Reset":          func() { s.Reset() },
	} {
		require.Zero(t, testing.AllocsPerRun(200, call), name)
	}
}
