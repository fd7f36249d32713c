//go:build unix

package presence_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/stretchr/testify/require"
)

// lines serves a text protocol over TCP: the first line is the name, every
// other line comes back. polite: the name is asked for; else everybody is
// anonymous and need not say anything.
func lines(t *testing.T, s *site, polite bool) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				br := bufio.NewReader(nil)
				login := func(nc net.Conn) (presence.Identity, error) {
					br.Reset(nc)
					name, err := br.ReadString('\n')
					return presence.Identity{User: strings.TrimSpace(name)}, err
				}
				if !polite {
					login = nil
				}
				nc, _, err := s.p.Attach(t.Context(), nc, login)
				if err != nil {
					return
				}
				defer nc.Close()
				br.Reset(nc)
				for {
					line, err := br.ReadString('\n')
					if err != nil {
						return
					}
					if _, err := io.WriteString(nc, line); err != nil {
						return
					}
				}
			}()
		}
	}()
	return ln.Addr().String()
}

func attach(t *testing.T, addr, name string) (net.Conn, *bufio.Reader) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { nc.Close() })
	if name != "" {
		_, err = fmt.Fprintln(nc, name)
		require.NoError(t, err)
	}
	return nc, bufio.NewReader(nc)
}

// A client quiet for the timeout is closed and its hook runs; one that says
// something now and then stays.
func TestLineProtocol(t *testing.T) {
	t.Parallel()
	o := beats()
	s := opened(t, o)
	addr := lines(t, s, true)
	_, quiet := attach(t, addr, "ann")
	s.connected("ann")
	nc, br := attach(t, addr, "ben")
	s.connected("ben")
	closed := make(chan error, 1)
	go func() {
		_, err := quiet.ReadByte()
		closed <- err
	}()
	for began := time.Now(); time.Since(began) < 3*o.HeartbeatTimeout; {
		_, err := fmt.Fprintln(nc, "Hello!")
		require.NoError(t, err)
		line, err := br.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "Hello!\n", line, "nothing is added to the stream")
		time.Sleep(o.HeartbeatTimeout / 4) // its rhythm
	}
	e, over := s.told("ann")
	require.True(t, over, "a ghost")
	require.Equal(t, presence.CauseSilent, e.Cause)
	require.GreaterOrEqual(t, e.Quiet, o.HeartbeatTimeout)
	require.Less(t, e.Quiet, 2*o.HeartbeatTimeout)
	require.Error(t, <-closed)
	s.stays("ben")
	nc.Close()
	require.Equal(t, presence.CauseLost, s.end("ben").Cause)
}

// Where no heartbeat can be sent, what the client's kernel takes is no sign of
// life either: only what was on its way when one was due is waited for.
func TestTakingIsNoSignOfLife(t *testing.T) {
	t.Parallel()
	o := beats()
	s := opened(t, o)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	s.remote = ln.Addr().String()
	client, slow := s.slowConn(2<<10, 20*time.Millisecond)
	nc, err := ln.Accept()
	require.NoError(t, err)
	require.NoError(t, nc.(*net.TCPConn).SetWriteBuffer(8<<10))
	go io.Copy(io.Discard, client) // it takes all, and says nothing
	came := time.Now()
	nc, x, err := s.p.Attach(t.Context(), nc, nil)
	require.NoError(t, err)
	go func() {
		for err := error(nil); err == nil; {
			_, err = nc.Write(make([]byte, 1000))
		}
	}()
	eventually(t, func() bool { return x.Context().Err() != nil }, "it should be reaped")
	require.Less(t, time.Since(came), 3*o.HeartbeatTimeout)
	require.Equal(t, presence.CauseSilent, s.end(x.User()).Cause)
	require.Positive(t, slow.taken.Load())
}

// A browser's page that says "Hello!" on a timer stays, even if nothing in it
// answers heartbeats.
func TestPageThatTalksStays(t *testing.T) {
	overBoth(t, func(t *testing.T, secure bool) {
		o := beats()
		s := newSite(t, siteSetup{Options: o, secure: secure})
		c := s.dial("ann")
		c.Mute.Store(true)
		for began := time.Now(); time.Since(began) < 3*o.HeartbeatTimeout; {
			require.NoError(t, c.SendText("Hello!"))
			time.Sleep(o.HeartbeatTimeout / 4) // its rhythm
		}
		s.stays("ann")
	})
}

// Who has not said anything yet has as much time as anybody.
func TestClientThatHasSaidNothingIsNotClosedEarly(t *testing.T) {
	t.Parallel()
	o := beats()
	s := opened(t, o)
	came := time.Now()
	_, br := attach(t, lines(t, s, false), "")
	_, err := br.ReadByte()
	require.Error(t, err)
	require.GreaterOrEqual(t, time.Since(came), o.HeartbeatTimeout)
	eventually(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.ends) == 1 && s.ends[0].Cause == presence.CauseSilent && s.ends[0].Quiet >= o.HeartbeatTimeout
	}, "the hook should say so")
}
