//go:build unix

package sock_test

import (
	"testing"

	"github.com/a4cafe1a/presence/internal/sock"
	"github.com/a4cafe1a/presence/internal/wstest"
)

// What a look at one connection costs in system calls. None may allocate. A
// question is about 1 us or less; the write, which runs the whole way through
// the network stack to the peer, is what a heartbeat really costs.
func BenchmarkSock(b *testing.B) {
	server, client := wstest.Pair(b)
	s, c := sock.Of(server), sock.Of(client)
	ping, buf := make([]byte, 2), make([]byte, 64)
	for _, bc := range []struct {
		name string
		call func()
	}{
		{"ReadNothing", func() { s.Read(buf) }},
		{"WriteAndRead", func() { s.Write(ping); c.Read(buf) }},
		{"Pending", func() { s.Pending() }},
		{"Unacked", func() { s.Unacked() }},
		{"Acked", func() { s.Acked() }},
		{"SinceReceived", func() { s.SinceReceived() }},
		{"ReceiveFull", func() { s.ReceiveFull() }},
		{"Reset", func() { s.Reset() }},
	} {
		b.Run(bc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bc.call()
			}
		})
	}
}

// Of runs once per connection.
func BenchmarkOf(b *testing.B) {
	server, _ := wstest.Pair(b)
	b.ReportAllocs()
	for b.Loop() {
		sock.Of(server)
	}
}
