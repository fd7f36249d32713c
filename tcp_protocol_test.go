//go:build unix

package presence_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// presence.v1 on real sockets: TCP and TLS, read by a goroutine each and parked.

// talkers are apps that send back what they are sent, and never see presence.v1.
var talkers = map[string]func(*presence.Presence) http.Handler{
	"handler": func(p *presence.Presence) http.Handler {
		return p.At(echoRoute).Handler(func(ctx context.Context, c *presence.Conn) error {
			for {
				kind, m, err := c.Read(ctx)
				if err != nil {
					return err
				}
				w, err := c.Writer(ctx, kind) // in two frames, and more
				if err != nil {
					return err
				}
				for _, part := range [][]byte{m[:len(m)/2], m[len(m)/2:]} {
					if _, err := w.Write(part); err != nil {
						return err
					}
					if len(m) > 8<<10 { // more than the library's buffer
						time.Sleep(5 * time.Millisecond)
					}
				}
				if err := w.Close(); err != nil {
					return err
				}
			}
		})
	},
	"callback": func(p *presence.Presence) http.Handler {
		return p.At(echoRoute).Callback(func(_ *http.Request, c *presence.Peer) (presence.Callbacks, error) {
			return presence.Callbacks{Message: func(_ context.Context, kind websocket.MessageType, m []byte) error {
				return c.Send(kind, m)
			}}, nil
		})
	},
}

var echoRoute = presence.Route{ReadLimit: 1 << 20, Subprotocols: []string{"chat"}}

// onEach runs f with each app, over TCP and over TLS.
func onEach(t *testing.T, o presence.Options, f func(t *testing.T, s *site)) {
	overBoth(t, func(t *testing.T, secure bool) {
		for name, route := range talkers {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				f(t, newSite(t, siteSetup{Options: o, secure: secure, route: route}))
			})
		}
	})
}

// wired connects a client of presence.v1, which has had its welcome.
func (s *site) wired(user, more string) *wired {
	s.t.Helper()
	c, err := wstest.Dial(s.conn(), "/?user="+user+more, v1+"+chat, chat")
	require.NoError(s.t, err)
	s.connected(user)
	return wire(s.t, c).welcomed()
}

func (w *wired) welcomed() *wired {
	w.t.Helper()
	w.until("the welcome", func() bool { return len(w.said) == 1 })
	require.Equal(w.t, "welcome", w.said[0].T)
	return w
}

// until takes over what comes, until it is as it should be.
func (w *wired) until(what string, done func() bool) {
	w.t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	for !done() {
		select {
		case f, ok := <-w.Frames:
			if !ok {
				require.Failf(w.t, "it ended", "waiting for %s: %v", what, w.Err)
			}
			require.NotEqual(w.t, byte(wstest.Close), f.Op, "waiting for %s: closed with %d %s", what, f.Code(), f.Reason())
			switch {
			case f.Op == wstest.Pong:
			case f.Fin && f.Op != wstest.Continuation:
				require.Nil(w.t, w.amid, "a message in the middle of another")
				w.frame(f)
			default:
				w.amid = append(w.amid, f.Payload...)
				if f.Fin {
					w.app, w.amid = append(w.app, string(w.amid)), nil
				}
			}
		case <-late.C:
			require.Failf(w.t, "it did not happen", "%s; told: %v, answers: %v", what, w.log, w.said)
		}
	}
}

// answer makes a request and returns what is said to it.
func (w *wired) answer(format string, args ...any) string {
	w.t.Helper()
	n := len(w.said)
	w.ask(format, args...)
	w.until("an answer to "+fmt.Sprintf(format, args...), func() bool { return len(w.said) > n })
	return strings.TrimSpace(w.said[n].T + " " + w.said[n].Code)
}

func (w *wired) has(topic string, users ...string) {
	w.t.Helper()
	w.until(fmt.Sprint("in ", topic, ": ", users), func() bool {
		if len(w.members[topic]) != len(users) {
			return false
		}
		return !slices.ContainsFunc(users, func(u string) bool { _, is := w.members[topic][u]; return !is })
	})
}

// asleep waits until the session of a Callback holds no goroutine.
func (s *site) asleep(user string) {
	s.t.Helper()
	if runtime.GOOS != "linux" || !strings.Contains(s.t.Name(), "/callback") {
		return
	}
	x := s.connected(user)
	eventually(s.t, func() bool { return presence.Sleeps(x) }, "%s should be parked", user)
}

func TestProtocolOnSockets(t *testing.T) {
	onEach(t, presence.Options{Authorize: notSecret}, func(t *testing.T, s *site) {
		ann := s.wired("ann", "&topic=room")
		require.Equal(t, "presence.v1+chat", ann.Response.Header.Get("Sec-WebSocket-Protocol"))
		require.Equal(t, "ok", ann.answer(`{"t":"follow","id":1,"topic":"room"}`))
		ann.has("room", "ann")
		s.asleep("ann")

		bob := s.wired("bob", "")
		require.Equal(t, "error forbidden", bob.answer(`{"t":"join","id":1,"topic":"secret"}`))
		require.Equal(t, "error forbidden", bob.answer(`{"t":"follow","id":1,"topic":"secret"}`))
		require.Equal(t, "ok", bob.answer(`{"t":"join","id":1,"topic":"room"}`))
		ann.has("room", "ann", "bob")
		require.Equal(t, "ok", bob.answer(`{"t":"set","id":2,"meta":{"status":"busy"}}`))
		ann.until("bob's status", func() bool { return len(ann.members["room"]["bob"].Metas) == 1 })
		require.JSONEq(t, `{"status":"busy"}`, string(ann.members["room"]["bob"].Metas[0]))
		require.Equal(t, []string{"snapshot", "join bob", "update bob"}, ann.log)
		s.asleep("ann")

		require.Equal(t, "ok", bob.answer(`{"t":"leave","id":3,"topic":"room"}`))
		ann.has("room", "ann")
		require.Equal(t, "ok", ann.answer(`{"t":"unfollow","id":4,"topic":"room"}`))
		require.Equal(t, "ok", bob.answer(`{"t":"join","id":5,"topic":"room"}`))
		require.NoError(t, ann.SendText("the last word"))
		ann.until("the echo", func() bool { return len(ann.app) == 1 })
		require.Equal(t, "leave bob", ann.log[len(ann.log)-1], "not followed any more")
	})
}

func notSecret(_ *presence.Session, a presence.Ask) error {
	if a.Topic == "secret" {
		return errors.New("no")
	}
	return nil
}

// Requests and messages of the app, small, large and in fragments, share the
// connection, in whatever pieces they come. Others come, go and change all the
// time, so that deltas have to find the gaps.
func TestProtocolAmidTheAppsMessages(t *testing.T) {
	o := presence.Options{Authorize: all, Limits: presence.Limits{ControlFramesPerSecond: 10_000}}
	onEach(t, o, func(t *testing.T, s *site) {
		ann := s.wired("ann", "")
		require.Equal(t, "ok", ann.answer(`{"t":"follow","id":1,"topic":""}`))
		stop, changed := make(chan struct{}), make(chan int)
		go func() {
			n := 0
			defer func() { changed <- n }()
			for {
				select {
				case <-stop:
					return
				default:
				}
				if x, err := s.p.Open(context.Background(), presence.Identity{User: fmt.Sprint("u", n%7)}); err == nil {
					x.Disconnect(presence.Reason{})
					n++
				}
				time.Sleep(time.Millisecond) // others beside it need the CPU in time
			}
		}()

		const rounds, window = 60, 5
		answered := 0
		for i := 0; i < rounds || i%window != 0 || len(ann.log) < 20; i++ {
			small, large := fmt.Sprint("m", i), strings.Repeat(string(rune('a'+i%26)), 1<<(6+i%10))
			var stream bytes.Buffer
			stream.Write(wstest.Masked(0x81, []byte(small)))
			if i < rounds { // more are too many
				stream.Write(wstest.Masked(0x81, []byte("\x01"+`{"t":"unfollow","id":1,"topic":"x"}`)))
				answered++
			}
			stream.Write(wstest.Masked(0x01, []byte(large)))
			stream.Write(wstest.Masked(0x89, []byte("ping")))
			stream.Write(wstest.Masked(0x80, []byte("end")))
			// Pieces that cut through headers, marks and payloads.
			for b := stream.Bytes(); len(b) > 0; {
				n := min(len(b), 1+(len(b)*7)%5000)
				_, err := ann.Write(b[:n])
				require.NoError(t, err)
				b = b[n:]
			}
			if i%window == window-1 { // what is not read is bounded
				ann.until("the echoes", func() bool { return len(ann.app) == 2*window && len(ann.said) == 2+answered })
				for k, m := range ann.app {
					round := i - window + 1 + k/2
					if k%2 == 0 {
						require.Equal(t, fmt.Sprint("m", round), m)
						continue
					}
					large := strings.Repeat(string(rune('a'+round%26)), 1<<(6+round%10)) + "end"
					require.True(t, m == large, "the %d bytes of round %d are not what was sent", len(m), round)
				}
				ann.app = nil
			}
		}
		for _, m := range ann.said[1:] {
			require.Equal(t, "ok", m.T)
		}
		close(stop)
		require.Positive(t, <-changed)
		ann.has("", "ann")
		s.stays("ann")
	})
}

// What is wrong is answered, and the connection kept.
func TestProtocolKeepsWhoErrs(t *testing.T) {
	onEach(t, presence.Options{Authorize: all}, func(t *testing.T, s *site) {
		ann := s.wired("ann", "")
		for _, bad := range []string{``, `{`, `[]`, `null`, `"x"`, `{"t":"nonsense"}`, `{"t":"follow"}`, "\xff\xfe", `{"t":"join","topic":""}`} {
			n := len(ann.said)
			require.NoError(t, ann.SendText("\x01"+bad))
			ann.until(bad, func() bool { return len(ann.said) > n })
			require.Equal(t, "bad-request", ann.said[n].Code, bad)
			s.asleep("ann")
		}
		// A binary message is the app's, whatever it begins with.
		require.NoError(t, ann.Send(wstest.Binary, []byte("\x02bytes")))
		ann.until("the echo", func() bool { return len(ann.app) == 1 })
		// As long as it may be.
		require.NoError(t, ann.SendText("\x01"+`{"t":"active","id":9}`+strings.Repeat(" ", 16<<10-22)))
		ann.until("the answer", func() bool { return ann.said[len(ann.said)-1].T == "ok" })
		require.EqualValues(t, 9, *ann.said[len(ann.said)-1].ID)
		// One byte at a time.
		for _, b := range wstest.Masked(0x81, []byte("\x01"+`{"t":"active","id":10}`)) {
			_, err := ann.Write([]byte{b})
			require.NoError(t, err)
			time.Sleep(time.Millisecond) // so that each is a segment
		}
		ann.until("the answer", func() bool { m := ann.said[len(ann.said)-1]; return m.ID != nil && *m.ID == 10 })
		s.stays("ann")
	})
}

// What breaks the protocol ends the connection, with a code that arrives.
func TestProtocolEndsWhoBreaksIt(t *testing.T) {
	hostile := map[string]struct {
		send  func(c *wstest.Client)
		code  int
		cause presence.Cause
	}{
		"fragmented": {func(c *wstest.Client) { _, _ = c.Write(wstest.Masked(0x01, []byte("\x01{"))) }, 1002, presence.CauseProtocolError},
		"an empty fragment first": {func(c *wstest.Client) {
			_, _ = c.Write(append(wstest.Masked(0x01, nil), wstest.Masked(0x80, []byte("\x01{}"))...))
		}, 1002, presence.CauseProtocolError},
		"too long": {func(c *wstest.Client) { _ = c.SendText("\x01" + strings.Repeat(" ", 16<<10)) }, 1002, presence.CauseProtocolError},
		"said to be huge": {func(c *wstest.Client) {
			_, _ = c.Write([]byte{0x81, 0xff, 0, 0, 0, 0, 0x7f, 0, 0, 0, 0, 0, 0, 0, 1})
		}, 1002, presence.CauseProtocolError},
		"a flood": {func(c *wstest.Client) {
			// So many that a slow machine, where a few are let through meanwhile, sees a flood, too.
			flood := bytes.Repeat(wstest.Masked(0x81, []byte("\x01{}")), 4000)
			_, _ = c.Write(flood)
		}, 4429, presence.CauseLimit},
	}
	for name, h := range hostile {
		t.Run(name, func(t *testing.T) {
			onEach(t, presence.Options{Authorize: all}, func(t *testing.T, s *site) {
				bob := s.wired("bob", "")
				ann := s.wired("ann", "")
				s.asleep("ann")
				h.send(ann.Client)
				require.Equal(t, h.code, code(t, ann.Client))
				require.Equal(t, h.cause, s.end("ann").Cause)
				require.Equal(t, "ok", bob.answer(`{"t":"follow","id":1,"topic":""}`), "nobody else is harmed")
			})
		})
	}
}

// A client that follows and does not read costs a bounded queue, and gets a
// snapshot when it reads.
func TestProtocolAndClientsThatDoNotRead(t *testing.T) {
	// Not beside others: it keeps the CPU busy, and some of them need it in time.
	for _, secure := range []bool{false, true} {
		for name, route := range talkers {
			t.Run(fmt.Sprint(name, " secure ", secure), func(t *testing.T) {
				o := noBeats()
				o.Authorize = all
				s := newSite(t, siteSetup{Options: o, secure: secure, route: route, send: 8 << 10})
				d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error { return smallReceive(raw, 8<<10) }}
				nc, err := d.Dial("tcp", s.addr())
				require.NoError(t, err)
				g := &gated{nc, make(chan struct{}, 1)}
				c, err := wstest.Dial(s.client(g), "/?user=ann", v1)
				require.NoError(t, err)
				ann := wire(t, c).welcomed()
				require.Equal(t, "ok", ann.answer(`{"t":"follow","id":1,"topic":""}`))
				ann.has("", "ann")
				bob := s.wired("bob", "") // reads, and so sees what ann is sent
				require.Equal(t, "ok", bob.answer(`{"t":"follow","id":1,"topic":""}`))

				g.gate <- struct{}{}
				meta := json.RawMessage(`"` + strings.Repeat("x", 4000) + `"`)
				var opening sync.WaitGroup
				others := make([]*presence.Session, 150)
				for i := range others {
					opening.Go(func() {
						var err error
						others[i], err = s.p.Open(context.Background(), presence.Identity{Meta: meta})
						assert.NoError(t, err)
					})
				}
				opening.Wait()
				require.False(t, t.Failed())
				defer func() {
					for _, x := range others {
						x.Disconnect(presence.Reason{})
					}
				}()
				bob.until("all members", func() bool { return len(bob.members[""]) == 152 })
				for _, x := range others[50:] {
					x.Disconnect(presence.Reason{})
				}
				bob.until("the leaves", func() bool { return len(bob.members[""]) == 52 })
				<-g.gate
				snapshots := func() (n int) {
					for _, l := range ann.log {
						if l == "snapshot" {
							n++
						}
					}
					return n
				}
				ann.until("a snapshot of 52 members", func() bool { return snapshots() > 1 && len(ann.members[""]) == 52 })
				require.Less(t, len(ann.log), 250, "what waited was bounded")
				s.stays("ann")
			})
		}
	}
}

// A message reaches the app although the client breaks the protocol right
// behind it, in the same packet, also where the poller has read both.
func TestMessageBeforeAViolationOnSockets(t *testing.T) {
	overBoth(t, func(t *testing.T, secure bool) {
		got := make(chan string, 1)
		s := newSite(t, siteSetup{Options: noBeats(), secure: secure, route: func(p *presence.Presence) http.Handler {
			return p.Callback(func(*http.Request, *presence.Peer) (presence.Callbacks, error) {
				return presence.Callbacks{Message: func(ctx context.Context, _ websocket.MessageType, m []byte) error {
					if ctx.Err() == nil {
						got <- string(m)
					}
					return nil
				}}, nil
			})
		}})
		c := s.dial("ann")
		x := s.connected("ann")
		eventually(t, func() bool { return runtime.GOOS != "linux" || presence.Sleeps(x) }, "ann should be parked")
		_, err := c.Write(append(wstest.Masked(0x81, []byte("good")), wstest.Masked(0x83, []byte("bad"))...))
		require.NoError(t, err)
		require.Equal(t, presence.CauseProtocolError, s.end("ann").Cause)
		require.Len(t, got, 1)
		var last wstest.Frame
		for f := range c.Frames {
			last = f
		}
		require.Equal(t, byte(wstest.Close), last.Op)
		require.Equal(t, 1002, last.Code())
	})
}
