package sock_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/sock"
	"github.com/a4cafe1a/presence/internal/wstest"
)

func pending(t testing.TB, s sock.Sock) int {
	t.Helper()
	n, ok := s.Pending()
	require.True(t, ok)
	return n
}

func unacked(t testing.TB, s sock.Sock) int {
	t.Helper()
	n, ok := s.Unacked()
	require.True(t, ok)
	return n
}

func acked(t testing.TB, s sock.Sock) uint64 {
	t.Helper()
	n, ok := s.Acked()
	require.True(t, ok)
	return n
}

func receiveFull(t testing.TB, s sock.Sock) bool {
	t.Helper()
	full, ok := s.ReceiveFull()
	require.True(t, ok)
	return full
}

func TestPending(t *testing.T) {
	server, client := wstest.Pair(t)
	s := sock.Of(server)
	require.Zero(t, pending(t, s))
	for i := 1; i <= 3; i++ {
		_, err := client.Write(make([]byte, 100))
		require.NoError(t, err)
		await(t, "arrival", func() bool { return pending(t, s) == i*100 })
	}
	_, err := io.ReadFull(server, make([]byte, 250))
	require.NoError(t, err)
	require.Equal(t, 50, pending(t, s))
}

func TestReceivedCountsWhatWasReadToo(t *testing.T) {
	server, client := wstest.Pair(t)
	s := sock.Of(server)
	before, ok := s.Received()
	require.True(t, ok)
	for i := 1; i <= 3; i++ {
		_, err := client.Write(make([]byte, 100))
		require.NoError(t, err)
		readAll(t, s, 100)
		now, _ := s.Received()
		require.Equal(t, uint64(i*100), now-before)
	}
}

func TestUnackedAndAcked(t *testing.T) {
	server, client := wstest.Pair(t)
	s := sock.Of(server)
	require.Zero(t, unacked(t, s))
	before := acked(t, s)
	_, err := server.Write(make([]byte, 5000))
	require.NoError(t, err)
	// The peer's kernel acknowledges although nobody reads.
	await(t, "acknowledgement", func() bool { return unacked(t, s) == 0 })
	require.Equal(t, before+5000, acked(t, s))
	require.Equal(t, 5000, pending(t, sock.Of(client)))
}

func TestAckedStandsStillWhenThePeerDoesNotRead(t *testing.T) {
	server, client := wstest.Pair(t)
	s, c := sock.Of(server), sock.Of(client)
	fill(t, s, c, 100_000)
	require.Positive(t, unacked(t, s))
	still := acked(t, s)
	for range 20 {
		_, err := s.Write(make([]byte, 100_000))
		require.ErrorIs(t, err, sock.ErrAgain)
		require.Equal(t, still, acked(t, s))
	}
	// It goes on as soon as the peer reads.
	go io.Copy(io.Discard, client)
	await(t, "acknowledgement", func() bool { return unacked(t, s) == 0 })
	require.Greater(t, acked(t, s), still)
}

func TestSinceReceived(t *testing.T) {
	server, client := wstest.Pair(t)
	s := sock.Of(server)
	since := func() time.Duration {
		d, ok := s.SinceReceived()
		require.True(t, ok)
		return d
	}
	await(t, "time without data", func() bool { return since() >= 200*time.Millisecond })
	start := time.Now()
	_, err := client.Write([]byte("x"))
	require.NoError(t, err)
	await(t, "arrival", func() bool { return pending(t, s) == 1 })
	d := since()
	require.Less(t, d, time.Since(start)+100*time.Millisecond) // the kernel counts in ticks, and may miss some

	// Bytes that the server sends, and their acknowledgements, are no news of
	// the peer.
	await(t, "time without data", func() bool { return since() >= 50*time.Millisecond })
	d = since()
	_, err = server.Write([]byte("x"))
	require.NoError(t, err)
	await(t, "acknowledgement", func() bool { return unacked(t, s) == 0 })
	require.GreaterOrEqual(t, since(), d)
}

// fill writes from s in pieces of size until the window of c, which nobody
// reads, is closed, all that it has taken is acknowledged, and s can take no
// more. Then nothing is on its way that could change it.
func fill(t testing.TB, s, c sock.Sock, size int) {
	t.Helper()
	received := func() uint64 {
		n, ok := c.Received()
		require.True(t, ok)
		return n
	}
	p := make([]byte, size)
	await(t, "acknowledgement", func() bool { return unacked(t, s) == 0 })
	ahead := acked(t, s) - received()
	await(t, "a closed window", func() bool {
		closed := receiveFull(t, c) && acked(t, s)-received() == ahead
		for range 200 {
			if _, err := s.Write(p); err != nil {
				require.ErrorIs(t, err, sock.ErrAgain)
				return closed
			}
		}
		return false
	})
}

func TestRoom(t *testing.T) {
	server, client := wstest.Pair(t)
	s := sock.Of(server)
	room := func() int {
		n, ok := s.Room()
		require.True(t, ok)
		return n
	}
	require.Positive(t, room())
	fill(t, s, sock.Of(client), 100_000)
	require.Zero(t, room())
	for range 1000 { // whenever there is room, a little goes out at once
		if _, err := io.ReadFull(client, make([]byte, 10_000)); room() > 0 {
			require.NoError(t, err)
			_, err = s.Write(make([]byte, 1000))
			require.NoError(t, err)
			return
		}
	}
	require.Fail(t, "there should be room again")
}

func TestReceiveFull(t *testing.T) {
	for _, buffer := range []int{0, 1, 4096, 65536} {
		for _, size := range []int{6, 100, 1400, 100_000} {
			t.Run(fmt.Sprintf("buffer %d segments %d", buffer, size), func(t *testing.T) {
				t.Parallel() // it mostly waits for the kernel's timers
				server, client := wstest.Pair(t)
				if buffer > 0 {
					require.NoError(t, server.SetReadBuffer(buffer))
				}
				require.NoError(t, client.SetWriteBuffer(32768))
				s, c := sock.Of(server), sock.Of(client)
				require.False(t, receiveFull(t, s), "nothing has arrived")
				_, err := c.Write(make([]byte, 6))
				require.NoError(t, err)
				await(t, "arrival", func() bool { return pending(t, s) == 6 })
				require.False(t, receiveFull(t, s), "a little has arrived")

				fill(t, c, s, size)
				n := pending(t, s)
				for range 20 {
					c.Write(make([]byte, size))
					require.True(t, receiveFull(t, s))
					require.Equal(t, n, pending(t, s), "full means that nothing more gets in")
				}

				buf := make([]byte, 1<<16)
				await(t, "room again", func() bool { s.Read(buf); return !receiveFull(t, s) })
			})
		}
	}
}

// A message that nobody reads fills nothing, however much there is: the peer
// still gets through.
func TestReceiveFullOnlyWhenNothingGetsIn(t *testing.T) {
	server, client := wstest.Pair(t)
	s, c := sock.Of(server), sock.Of(client)
	p := make([]byte, 1000)
	for range 10_000 {
		full := receiveFull(t, s)
		before := pending(t, s) // after it: what was on its way may have arrived until then
		n, err := c.Write(p)
		if n == 0 {
			require.ErrorIs(t, err, sock.ErrAgain)
			break
		}
		if full {
			require.Equal(t, before, pending(t, s))
		}
	}
	await(t, "a closed window", func() bool { c.Write(p); return receiveFull(t, s) })
}

func TestReceiveFullRule(t *testing.T) {
	for _, tc := range []struct {
		used, limit, window uint32
		full                bool
	}{
		{0, 1000, 500, false},
		{999, 1000, 500, false},
		{1001, 1000, 500, false}, // the kernel makes room when more comes
		{800, 1000, 0, true},
		{8240, 1000, 0, true},
		{499, 1000, 0, false}, // a field that is never filled
		{499, 1000, sock.WindowUnknown, false},
		{500, 1000, sock.WindowUnknown, true},
		{1 << 31, 1<<32 - 1, 0, true}, // no overflow
	} {
		require.Equal(t, tc.full, sock.ReceiveFullRule(tc.used, tc.limit, tc.window), "%+v", tc)
	}
}

func TestBelowTLS(t *testing.T) {
	server, client := tlsPair(t)
	s := sock.Of(server)
	await(t, "the end of the handshake", func() bool { return unacked(t, s) == 0 })
	before := acked(t, s)
	_, err := server.Write([]byte("hello"))
	require.NoError(t, err)
	_, err = io.ReadFull(client, make([]byte, 5))
	require.NoError(t, err)
	await(t, "acknowledgement", func() bool { return unacked(t, s) == 0 })
	require.Greater(t, acked(t, s), before+5, "the record is larger than its text")

	old := pending(t, s)
	_, err = client.Write([]byte("hello"))
	require.NoError(t, err)
	await(t, "arrival", func() bool { return pending(t, s) > old+5 })
	require.False(t, receiveFull(t, s))
}

func TestMultipathIsNotJudgedByItsFirstPath(t *testing.T) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(true)
	ln, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	var d net.Dialer
	d.SetMultipathTCP(true)
	client, err := d.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer client.Close()
	server, err := ln.Accept()
	require.NoError(t, err)
	defer server.Close()
	if multipath, err := server.(*net.TCPConn).MultipathTCP(); err != nil || !multipath {
		t.Skip("the kernel has no multipath TCP")
	}
	s := sock.Of(server)
	_, err = client.Write([]byte("hello"))
	require.NoError(t, err)
	require.Equal(t, "hello", string(readAll(t, s, 5)))
	_, isAcked := s.Acked()
	_, received := s.Received()
	_, since := s.SinceReceived()
	_, full := s.ReceiveFull()
	require.Equal(t, [4]bool{}, [4]bool{isAcked, received, since, full})
}

// Calls from many goroutines, the connection closed under them.
func TestConcurrentUse(t *testing.T) {
	server, client := wstest.Pair(t)
	s := sock.Of(server)
	go io.Copy(io.Discard, client)
	done := make(chan error)
	for range 4 {
		go func() {
			buf := make([]byte, 128)
			for {
				s.Pending()
				s.Acked()
				s.ReceiveFull()
				if _, err := s.Write(buf); err != nil && !errors.Is(err, sock.ErrAgain) {
					done <- err
					return
				}
			}
		}()
	}
	before := acked(t, s)
	await(t, "traffic", func() bool { return acked(t, s) > before+10_000 })
	require.NoError(t, server.Close())
	for range 4 {
		require.ErrorIs(t, <-done, net.ErrClosed)
	}
}
