//go:build unix

package presence_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

const download = 208 << 10

// giver is an app that reads, and sends one large message.
func giver(ctx context.Context, c *presence.Conn) error {
	ctx = c.CloseRead(ctx)
	if err := c.Write(ctx, websocket.MessageBinary, make([]byte, download)); err != nil {
		return err
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// downloading connects ann, who takes a message slowly.
func downloading(t *testing.T, secure bool) (*site, *paced, *wstest.Client) {
	if runtime.GOOS != "linux" {
		t.Skip("needs a kernel that tells what is acknowledged")
	}
	s := newSite(t, siteSetup{Options: beats(), secure: secure, send: 8 << 10, route: handle(giver)})
	nc, slow := s.slowConn(2<<10, 120*time.Millisecond)
	c, err := wstest.Dial(nc, "/?user=ann")
	require.NoError(t, err)
	s.connected("ann")
	return s, slow, c
}

// A client that takes one message for three timeouts cannot answer meanwhile:
// the heartbeat waits behind the message.
func TestSlowDownloadIsNotReaped(t *testing.T) {
	overBoth(t, func(t *testing.T, secure bool) {
		s, _, c := downloading(t, secure)
		began := time.Now()
		require.Len(t, message(t, c), download)
		require.GreaterOrEqual(t, time.Since(began), 3*beats().HeartbeatTimeout, "too fast to show anything")
		s.stays("ann")
		beaten(t, 2, c)
		s.stays("ann")
	})
}

// Between the messages of a stream there is room for a heartbeat, although the
// app never stops writing and the socket is always nearly full.
func TestSlowStreamIsKeptByHeartbeats(t *testing.T) {
	overBoth(t, func(t *testing.T, secure bool) {
		o := beats()
		o.DownloadTimeout = o.HeartbeatTimeout // nothing else keeps it
		s := newSite(t, siteSetup{Options: o, secure: secure, send: 32 << 10, route: handle(func(ctx context.Context, c *presence.Conn) error {
			ctx = c.CloseRead(ctx)
			for {
				if err := c.Write(ctx, websocket.MessageBinary, make([]byte, 10_000)); err != nil {
					return err
				}
			}
		})})
		nc, _ := s.slowConn(4<<10, 20*time.Millisecond)
		c, err := wstest.Dial(nc, "/?user=ann")
		require.NoError(t, err)
		s.connected("ann")
		for began := time.Now(); time.Since(began) < 3*o.HeartbeatTimeout; {
			require.Len(t, message(t, c), 10_000)
		}
		s.stays("ann")
		require.GreaterOrEqual(t, c.Pings.Load(), int64(5))
	})
}

// A large message that the kernel takes at once is ahead of the next heartbeat,
// also where nothing had been sent for some heartbeats before.
func TestDownloadAfterQuietHeartbeatsIsNotReaped(t *testing.T) {
	send := make(map[string]func(*presence.Presence, <-chan struct{}) http.Handler)
	send["handler"] = func(p *presence.Presence, now <-chan struct{}) http.Handler {
		return p.Handler(func(ctx context.Context, c *presence.Conn) error {
			ctx = c.CloseRead(ctx)
			<-now
			return errors.Join(c.Write(ctx, websocket.MessageBinary, make([]byte, download)), deaf(ctx, c))
		})
	}
	send["callback"] = func(p *presence.Presence, now <-chan struct{}) http.Handler {
		return p.Callback(func(_ *http.Request, peer *presence.Peer) (presence.Callbacks, error) {
			go func() {
				<-now
				_ = peer.Send(websocket.MessageBinary, make([]byte, download))
			}()
			return presence.Callbacks{}, nil
		})
	}
	for name, route := range send {
		t.Run(name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, secure bool) {
				if runtime.GOOS != "linux" {
					t.Skip("needs a kernel that tells what is acknowledged")
				}
				o := beats()
				o.HeartbeatTimeout = 6 * o.HeartbeatInterval
				now := make(chan struct{})
				s := newSite(t, siteSetup{Options: o, secure: secure, send: 1 << 20, route: func(p *presence.Presence) http.Handler {
					return route(p, now)
				}})
				nc, slow := s.slowConn(2<<10, 120*time.Millisecond)
				c, err := wstest.Dial(nc, "/?user=ann")
				require.NoError(t, err)
				s.connected("ann")
				beaten(t, 3, c)
				taken := slow.taken.Load()
				began := time.Now()
				close(now)
				require.Len(t, message(t, c), download)
				require.GreaterOrEqual(t, slow.taken.Load()-taken, int64(download))
				require.GreaterOrEqual(t, time.Since(began), 2*o.HeartbeatTimeout, "too fast to show anything")
				s.stays("ann")
			})
		})
	}
}

func TestDownloadThatStopsIsReaped(t *testing.T) {
	overBoth(t, func(t *testing.T, secure bool) {
		s, slow, _ := downloading(t, secure)
		eventually(t, func() bool { return slow.taken.Load() > download/3 }, "it should take a part")
		s.stays("ann")
		slow.held.Store(true)
		e := s.end("ann")
		stopped := time.Unix(0, slow.last.Load())
		require.Equal(t, presence.CauseSilent, e.Cause)
		require.GreaterOrEqual(t, e.at.Sub(stopped), beats().HeartbeatTimeout/2)
		require.Less(t, e.at.Sub(stopped), 3*beats().HeartbeatTimeout) // what it has room for arrives first
	})
}

// An app that only writes never sees a pong. The looks do.
func TestAppThatOnlyWritesKeepsItsClients(t *testing.T) {
	overBoth(t, func(t *testing.T, secure bool) {
		o := beats()
		s := newSite(t, siteSetup{Options: o, secure: secure, route: handle(func(ctx context.Context, c *presence.Conn) error {
			return talk(ctx, c, o.HeartbeatInterval/4)
		})})
		c := s.dial("ann")
		began := time.Now()
		for time.Since(began) < 3*o.HeartbeatTimeout {
			require.Len(t, message(t, c), 100)
		}
		s.stays("ann")
	})
}

// An app that does nothing at all keeps its clients too, those that only answer
// and those that talk.
func TestAppThatDoesNotReadKeepsItsClients(t *testing.T) {
	overBoth(t, func(t *testing.T, secure bool) {
		o := beats()
		s := newSite(t, siteSetup{Options: o, secure: secure, route: handle(deaf)})
		quiet, talker := s.dial("ann"), s.dial("ben")
		talker.Mute.Store(true) // what it says must do
		began := time.Now()
		for n := 0; time.Since(began) < 3*o.HeartbeatTimeout; n++ {
			require.NoError(t, talker.SendText(strings.Repeat("x", 1000))) // soon more than a look keeps
			beaten(t, 1, quiet)
		}
		s.stays("ann")
		s.stays("ben")
		require.Positive(t, s.connected("ann").Info().RTT, "the pongs were seen")
	})
}

// Unread data that fills the socket keeps pongs out too. That is the app's
// doing, and the client is told so.
func TestAppThatLetsTheSocketFillIsStalled(t *testing.T) {
	overBoth(t, func(t *testing.T, secure bool) {
		o := beats()
		s := newSite(t, siteSetup{Options: o, secure: secure, recv: 16 << 10, route: handle(deaf)})
		c := s.dial("ann")
		require.NoError(t, tcpOf(c.Conn).SetWriteBuffer(8<<10)) // or it takes much that never leaves
		var sent atomic.Int64                                   // when it last got anything through
		go func() {
			for c.SendText(strings.Repeat("x", 300)) == nil {
				sent.Store(time.Now().UnixNano())
			}
		}()
		e := s.end("ann")
		require.Equal(t, presence.CauseStalled, e.Cause)
		require.GreaterOrEqual(t, e.at.Sub(time.Unix(0, sent.Load())), o.HeartbeatTimeout*3/4, "before it was full for so long")
		require.Equal(t, 1011, code(t, c))
	})
}

// What a client had sent before it vanished is no sign of life when a slow app
// reads it later.
func TestLateReadingIsNoSignOfLife(t *testing.T) {
	overBoth(t, func(t *testing.T, secure bool) {
		o := beats()
		s := newSite(t, siteSetup{Options: o, secure: secure, route: handle(func(ctx context.Context, c *presence.Conn) error {
			for tick := time.NewTicker(o.HeartbeatInterval / 4); ; {
				select {
				case <-tick.C:
					if _, _, err := c.Read(ctx); err != nil {
						return err
					}
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
		})})
		c := s.dial("ann")
		c.Mute.Store(true)
		for range 50 { // to be read for 50 x interval/4, three timeouts
			require.NoError(t, c.SendText(strings.Repeat("x", 1000)))
		}
		sent := time.Now()
		e := s.end("ann")
		require.Equal(t, presence.CauseSilent, e.Cause)
		require.GreaterOrEqual(t, e.at.Sub(sent), o.HeartbeatTimeout-o.HeartbeatInterval/4)
		require.Less(t, e.at.Sub(sent), 2*o.HeartbeatTimeout)
	})
}

// A kick does not wait for a client that does not read, nor for the app's Write
// to it.
func TestKickDoesNotWaitForABlockedWrite(t *testing.T) {
	overBoth(t, func(t *testing.T, secure bool) {
		o := noBeats()
		o.CloseTimeout = time.Second
		writing, wrote := make(chan struct{}), make(chan error, 1)
		s := newSite(t, siteSetup{Options: o, secure: secure, send: 8 << 10, route: handle(func(ctx context.Context, c *presence.Conn) error {
			close(writing)
			err := c.Write(context.Background(), websocket.MessageBinary, make([]byte, 4<<20))
			wrote <- err
			return err
		})})
		nc, slow := s.slowConn(4<<10, 0)
		_, err := wstest.Dial(nc, "/?user=ann")
		require.NoError(t, err)
		x := s.connected("ann")
		<-writing
		eventually(t, func() bool { return slow.taken.Load() > 32<<10 }, "the message should be on its way")
		slow.held.Store(true)

		kicked := time.Now()
		x.Disconnect(presence.Reason{})
		require.Zero(t, s.count("ann"), "out of the queries at once")
		require.Equal(t, presence.CauseKicked, s.end("ann").Cause)
		err = <-wrote
		require.True(t, isEnd(err), "the Write should fail with the end, not: %v", err)
		eventually(t, func() bool { return s.closed(nc) }, "the socket should be closed")
		require.Less(t, time.Since(kicked), 5*o.CloseTimeout, "TLS would give its alert five more")
	})
}

// isEnd says that err tells how a session ended.
func isEnd(err error) bool {
	var e *presence.End
	return errors.As(err, &e) && errors.Is(err, net.ErrClosed)
}
