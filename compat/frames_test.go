package compat

import (
	"crypto/tls"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/gobwas/ws"
	"github.com/stretchr/testify/require"
)

// A client that sends byte by byte, the handshake, messages, fragments and pongs alike.
func TestByteByByte(t *testing.T) {
	eachApp(t, ways, nil, func(t *testing.T, a app, w way) {
		wit := &witness{}
		r := newRig(t, w, a.build(wit, settings{}))
		ann := r.connect(t, "ann", func(c *client) { c.bytes = true })
		ann.text("hello")
		require.Equal(t, "hello", string(ann.receive().data))
		ann.beats(5)
		long := strings.Repeat("0123456789", 30)
		ann.text(long)
		require.Equal(t, long, string(ann.receive().data))
		if a.fragments {
			require.NoError(t, ann.sendFrame(false, opText, []byte("one, ")))
			ann.beats(3)
			require.NoError(t, ann.sendFrame(false, opCont, nil))
			ann.ping("between")
			require.NoError(t, ann.sendFrame(true, opCont, []byte("two")))
			require.Equal(t, "one, two", string(ann.receive().data))
		}
		ann.beats(3)
		ann.close(4002, "bye")
		end := r.end("ann")
		require.Equal(t, presence.CauseClientClosed, end.Cause)
		require.Equal(t, 4002, end.Code)
		_, _, pongs := wit.seen()
		require.Empty(t, pongs)
	})
}

// Messages of a megabyte both ways, in fragments where the library knows them, with hundreds of heartbeats before, between and after the fragments.
func TestLarge(t *testing.T) {
	eachApp(t, direct, nil, func(t *testing.T, a app, w way) {
		wit := &witness{}
		var who atomic.Pointer[client]
		r := newRig(t, w, a.build(wit, settings{pause: func() { who.Load().morePings(5) }}))
		ann := r.connect(t, "ann")
		who.Store(ann)
		ann.text("hello")
		require.Equal(t, "hello", string(ann.receive().data))
		big := pattern(megabyte)

		before := ann.pings.Load()
		switch {
		case a.fragments:
			op, rest := byte(opBinary), big
			for len(rest) > 0 {
				n := min(len(rest), megabyte/16+1)
				require.NoError(t, ann.sendFrame(n == len(rest), op, rest[:n]))
				op, rest = opCont, rest[n:]
				ann.beats(7)
			}
			requireSame(t, big, ann.receive())
		default:
			for range 8 {
				ann.beats(13)
				ann.send(opBinary, big)
				requireSame(t, big, ann.receive())
			}
		}
		require.GreaterOrEqual(t, ann.pings.Load()-before, int64(100))

		if a.drips {
			ann.text(cmdDrip)
			m := ann.receive()
			requireSame(t, dripped, m)
			require.GreaterOrEqual(t, m.pings, int64(40), "heartbeats between the frames of one message")
		} else {
			for range 8 {
				ann.send(opBinary, big)
				requireSame(t, big, ann.receive())
				ann.beats(7)
			}
		}
		ann.text("still here")
		require.Equal(t, "still here", string(ann.receive().data))
		require.Equal(t, 1, r.sessions("ann"))
		_, _, pongs := wit.seen()
		require.Empty(t, pongs, "pongs to heartbeats are not for the app")
	})
}

// A frame that the app writes in pieces is one frame: a heartbeat waits for its end, however long that takes.
func TestFrameInPieces(t *testing.T) {
	t.Parallel()
	for _, w := range direct {
		t.Run(w.String(), func(t *testing.T) {
			t.Parallel()
			big := pattern(10 * 1000)
			r := newRig(t, w, http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
				c, _, _, err := ws.UpgradeHTTP(req, rw)
				if err != nil {
					return
				}
				defer func() { _ = c.Close() }()
				_ = ws.WriteHeader(c, ws.Header{Fin: true, OpCode: ws.OpBinary, Length: int64(len(big))})
				for b := big; len(b) > 0; b = b[1000:] {
					_, _ = c.Write(b[:1000])
					start := time.Now()
					eventually(t, func() bool { return time.Since(start) > 50*time.Millisecond }, "time goes on")
				}
				_, _ = gobwasFrame(c)
			}))
			ann := r.connect(t, "ann")
			m := ann.receive()
			requireSame(t, big, m)
			require.Zero(t, m.pings)
			ann.beats(3)
		})
	}
}

// A message in the same packet as the handshake reaches the app, but it proves nothing: it was sent before the client could know of the 101.
func TestPipelined(t *testing.T) {
	both := []way{{false, "direct"}, {true, "direct"}, {false, "tunnel"}}
	eachApp(t, both, nil, func(t *testing.T, a app, w way) {
		t.Run("proved", func(t *testing.T) {
			wit := &witness{}
			r := newRig(t, w, a.build(wit, settings{}))
			ann := r.dial(t)
			var deaf atomic.Bool
			deaf.Store(true)
			kept := make(chan string, 16)
			ann.unheard = func(p string) bool {
				if deaf.Load() {
					kept <- p
				}
				return deaf.Load()
			}
			require.NoError(t, ann.write(append(r.request("user=ann", nil), frame(true, opText, []byte("early"))...)))
			ann.start()
			ping := <-kept
			require.Zero(t, r.sessions("ann"), "not proved yet")
			require.Zero(t, r.starts("ann"), "not proved yet")
			_, messages, _ := wit.seen()
			require.Empty(t, messages, "not proved yet")

			deaf.Store(false)
			require.NoError(t, ann.sendFrame(true, opPong, []byte(ping)))
			require.Equal(t, "early", string(ann.receive().data))
			require.Equal(t, 1, r.sessions("ann"))
			ann.text("late")
			require.Equal(t, "late", string(ann.receive().data))
			_, messages, pongs := wit.seen()
			require.Equal(t, []string{"early", "late"}, messages)
			require.Empty(t, pongs)
		})
		if w.tls {
			// The server may have decrypted the message together with the request, or hold its record undecrypted.
			t.Run("a record of its own", func(t *testing.T) {
				wit := &witness{}
				r := newRig(t, w, wit.serve(a.build(wit, settings{})), func(o *presence.Options) { o.VerifyTimeout = verifySoon })
				ann := r.dial(t)
				ann.unheard = func(string) bool { return true }
				require.NoError(t, ann.nc.(*tls.Conn).Handshake())
				ann.cork.on = true
				require.NoError(t, ann.write(r.request("user=ann", nil)))
				require.NoError(t, ann.write(frame(true, opText, []byte("early"))))
				require.NoError(t, ann.cork.pull())
				ann.start()
				ann.ended()
				require.Zero(t, r.starts("ann"), "never proved")
				opened, _, _ := wit.seen()
				require.Zero(t, opened, "the app never got it")
			})
		}
		t.Run("never proved", func(t *testing.T) {
			wit := &witness{}
			r := newRig(t, w, wit.serve(a.build(wit, settings{})), func(o *presence.Options) { o.VerifyTimeout = verifySoon })
			ann := r.dial(t)
			ann.unheard = func(string) bool { return true }
			require.NoError(t, ann.write(append(r.request("user=ann", nil), frame(true, opText, []byte("early"))...)))
			ann.start()
			ann.ended()
			eventually(t, func() bool { return wit.handlersReturned() == 1 }, "the handler should return")
			opened, messages, _ := wit.seen()
			require.Zero(t, opened, "the app never got it")
			require.Empty(t, messages)
			require.Zero(t, r.starts("ann"))
			require.Zero(t, r.sessions("ann"))
		})
	})
}

// The app's own pings get their pongs, and only those: the heartbeats go on all the time and are not for the app.
func TestOwnPings(t *testing.T) {
	eachApp(t, direct, func(a app) bool { return a.pings }, func(t *testing.T, a app, w way) {
		wit := &witness{}
		r := newRig(t, w, a.build(wit, settings{}))
		ann := r.connect(t, "ann")
		const n = 10
		var want []string
		for range n {
			ann.text(cmdPing)
			require.Equal(t, sawPong, string(ann.receive().data))
			ann.beats(2)
			want = append(want, "mine")
		}
		_, _, pongs := wit.seen()
		switch a.name {
		case "coder": // its payloads are numbers
			require.Len(t, pongs, n)
		case "nhooyr": // shows no pongs to the app
		default:
			require.Equal(t, want, pongs)
		}
		// An empty pong may be for either of us. The app must get its own; in doubt it gets one more.
		ann.text(cmdPingEmpty)
		require.Equal(t, sawPong, string(ann.receive().data))
		require.Equal(t, 1, r.sessions("ann"))
	})
}

// A wrapped handler keeps what it set on the answer, and requests without an upgrade are none of our business.
func TestUntouched(t *testing.T) {
	eachApp(t, direct[:1], nil, func(t *testing.T, a app, w way) {
		ask := func(s *site) (int, string) {
			res, err := s.http.Get("http://" + s.addr + "/?user=ann")
			if err != nil { // x/net answers on the hijacked connection, and in its own way
				return 0, ""
			}
			defer func() { _ = res.Body.Close() }()
			return res.StatusCode, res.Header.Get("Upgrade")
		}
		code, upgrade := ask(newSite(t, w, a.build(&witness{}, settings{})))
		r := newRig(t, w, a.build(&witness{}, settings{}))
		got, gotUpgrade := ask(r.site)
		require.Equal(t, code, got)
		require.Equal(t, upgrade, gotUpgrade)
		require.NotEqual(t, http.StatusOK, got)
		require.Zero(t, r.starts("ann"))
	})
}
