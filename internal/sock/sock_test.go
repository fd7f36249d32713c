//go:build unix

package sock_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/sock"
	"github.com/a4cafe1a/presence/internal/wstest"
)

// await polls until done says so: the kernel offers nothing to wait on.
func await(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(time.Millisecond) {
		require.False(t, time.Now().After(end), "waited in vain: %s", what)
	}
}

// readAll reads n bytes with Sock.Read.
func readAll(t testing.TB, s sock.Sock, n int) []byte {
	t.Helper()
	var got []byte
	buf := make([]byte, 4096)
	await(t, "bytes to read", func() bool {
		k, err := s.Read(buf)
		got = append(got, buf[:k]...)
		if !errors.Is(err, sock.ErrAgain) {
			require.NoError(t, err)
		}
		return len(got) >= n
	})
	return got
}

func TestReadAndWrite(t *testing.T) {
	server, client := wstest.Pair(t)
	s, c := sock.Of(server), sock.Of(client)

	n, err := s.Read(make([]byte, 8))
	require.Zero(t, n)
	require.ErrorIs(t, err, sock.ErrAgain)

	n, err = c.Write([]byte("hello"))
	require.NoError(t, err)
	require.Equal(t, 5, n)
	require.Equal(t, "hello", string(readAll(t, s, 5)))

	for _, f := range []func([]byte) (int, error){s.Read, s.Write} {
		n, err = f(nil)
		require.NoError(t, err, "an empty transfer is no end of stream")
		require.Zero(t, n)
	}

	require.NoError(t, client.CloseWrite())
	await(t, "end of stream", func() bool {
		n, err = s.Read(make([]byte, 8))
		return !errors.Is(err, sock.ErrAgain)
	})
	require.Zero(t, n)
	require.ErrorIs(t, err, io.EOF)
}

func TestWriteSaysAgainWhenThePeerDoesNotRead(t *testing.T) {
	server, client := wstest.Pair(t)
	s := sock.Of(server)
	chunk := bytes.Repeat([]byte("x"), 100_000)
	sent, again := 0, 0
	await(t, "a full socket", func() bool {
		n, err := s.Write(chunk)
		sent += n
		if err == nil {
			require.Equal(t, len(chunk), n)
			again = 0
			return false
		}
		require.ErrorIs(t, err, sock.ErrAgain)
		require.Less(t, n, len(chunk))
		again++
		return n == 0 && again > 20
	})

	// Nothing was lost or doubled: the peer gets what the counts said.
	got := make(chan int64)
	go func() {
		n, _ := io.Copy(io.Discard, client)
		got <- n
	}()
	require.NoError(t, server.CloseWrite())
	require.EqualValues(t, sent, <-got)
}

func TestExpiredDeadlinesAreIgnored(t *testing.T) {
	server, client := wstest.Pair(t)
	require.NoError(t, server.SetDeadline(time.Now().Add(-time.Hour)))
	_, err := server.Write([]byte("x"))
	require.Error(t, err, "the deadline must be in force for this test to mean something")

	s := sock.Of(server)
	_, err = s.Write([]byte("ping"))
	require.NoError(t, err)
	buf := make([]byte, 4)
	_, err = io.ReadFull(client, buf)
	require.NoError(t, err)
	_, err = client.Write(buf)
	require.NoError(t, err)
	require.Equal(t, "ping", string(readAll(t, s, 4)))
}

func TestClosed(t *testing.T) {
	server, _ := wstest.Pair(t)
	s := sock.Of(server)
	require.NoError(t, server.Close())

	_, err := s.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = s.Write([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed)
	requireUnknown(t, s)
	require.False(t, s.Reset())
	require.NotPanics(t, func() { requireUnknown(t, sock.Of(server)) }, "found after the close")
}

func TestNilKnowsNothing(t *testing.T) {
	var s sock.Sock
	_, err := s.Read(make([]byte, 1))
	require.ErrorIs(t, err, errors.ErrUnsupported)
	_, err = s.Write([]byte("x"))
	require.ErrorIs(t, err, errors.ErrUnsupported)
	requireUnknown(t, s)
	require.False(t, s.Reset())
}

func requireUnknown(t *testing.T, s sock.Sock) {
	t.Helper()
	_, pending := s.Pending()
	_, unacked := s.Unacked()
	_, acked := s.Acked()
	_, received := s.Received()
	_, since := s.SinceReceived()
	_, full := s.ReceiveFull()
	require.Equal(t, [6]bool{}, [6]bool{pending, unacked, acked, received, since, full})
}

func TestWriteToAResetConnection(t *testing.T) {
	server, client := wstest.Pair(t)
	require.True(t, sock.Of(client).Reset())
	require.NoError(t, client.Close())
	s := sock.Of(server)
	var err error
	await(t, "the reset", func() bool {
		_, err = s.Read(make([]byte, 1))
		return !errors.Is(err, sock.ErrAgain)
	})
	require.NotErrorIs(t, err, io.EOF, "Reset must make Close a reset, not an end of stream")
	_, err = s.Write([]byte("x"))
	require.Error(t, err)
	require.NotErrorIs(t, err, sock.ErrAgain)
}

type wrapper struct{ net.Conn }

func (w wrapper) NetConn() net.Conn { return w.Conn }

type opaque struct{ net.Conn }

type endless struct{ net.Conn }

func (e *endless) NetConn() net.Conn { return e }

type embedding struct{ *net.TCPConn }

func TestOf(t *testing.T) {
	server, _ := wstest.Pair(t)
	pipe, _ := net.Pipe()
	var deep15, deep16 net.Conn = server, server
	for range 15 {
		deep15 = wrapper{deep15}
	}
	for range 16 {
		deep16 = wrapper{deep16}
	}
	for name, tc := range map[string]struct {
		nc            net.Conn
		found, direct bool
	}{
		"TCP":              {server, true, true},
		"embedded TCP":     {embedding{server}, true, false},
		"TLS":              {tls.Server(server, &tls.Config{}), true, false},
		"wrapper":          {wrapper{server}, true, false},
		"wrapped TLS":      {wrapper{tls.Server(wrapper{server}, &tls.Config{})}, true, false},
		"15 wrappers":      {deep15, true, false},
		"too deep":         {deep16, false, false},
		"opaque":           {opaque{server}, false, false},
		"wraps nothing":    {wrapper{nil}, false, false},
		"returns itself":   {&endless{}, false, false},
		"not a connection": {nil, false, false},
		"pipe":             {pipe, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tc.found, sock.Of(tc.nc).Known())
			require.Equal(t, tc.direct, sock.Direct(tc.nc))
		})
	}
}

// tlsPair is pair with TLS on top, after the handshake.
func tlsPair(t testing.TB) (server, client *tls.Conn) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	b, a := wstest.Pair(t)
	server = tls.Server(b, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	client = tls.Client(a, &tls.Config{InsecureSkipVerify: true})
	done := make(chan error)
	go func() { done <- client.Handshake() }()
	require.NoError(t, server.Handshake())
	require.NoError(t, <-done)
	return server, client
}

func unixPair(t testing.TB) (server, client net.Conn) {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	require.NoError(t, err)
	defer ln.Close()
	client, err = net.Dial("unix", ln.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { client.Close() })
	server, err = ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { server.Close() })
	return server, client
}

func TestUnixSocket(t *testing.T) {
	server, client := unixPair(t)
	require.True(t, sock.Direct(server))
	s := sock.Of(server)
	_, err := client.Write([]byte("hello"))
	require.NoError(t, err)
	require.Equal(t, "hello", string(readAll(t, s, 5)))
	_, acked := s.Acked()
	_, received := s.Received()
	_, since := s.SinceReceived()
	_, full := s.ReceiveFull()
	require.Equal(t, [4]bool{}, [4]bool{acked, received, since, full}, "questions about TCP")
}
