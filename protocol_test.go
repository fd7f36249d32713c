package presence_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/a4cafe1a/presence/store"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

const v1 = "Sec-WebSocket-Protocol: presence.v1"

// wireMsg is a message of the server.
type wireMsg struct {
	T, User, Session, Code, Text, Topic string
	V, Users, Sessions                  int
	Interval                            int64
	ID                                  *int64
	Version                             uint64
	First, More                         bool
	Members                             []wireMember
	Changes                             []struct {
		K, User, Cause string
		Member         wireMember
	}
}

type wireMember struct {
	User, State string
	Away, Cut   bool
	Sessions    int
	Since       int64
	Metas       []json.RawMessage
}

// wired is a client of presence.v1 that folds what it is told.
type wired struct {
	*wstest.Client
	t       *testing.T
	said    []wireMsg // but snapshots, deltas, counts
	app     []string
	members map[string]map[string]wireMember
	version map[string]uint64
	counts  map[string]int
	log     []string
	parts   int
	amid    []byte // of a message of the app in several frames
	asked   int
}

func wire(t *testing.T, c *wstest.Client) *wired {
	return &wired{Client: c, t: t, members: map[string]map[string]wireMember{}, version: map[string]uint64{}, counts: map[string]int{}}
}

func (b *bubble) wired(path string, headers ...string) *wired {
	b.t.Helper()
	if len(headers) == 0 {
		headers = []string{v1}
	}
	w := wire(b.t, b.dial(path, headers...))
	w.take()
	return w
}

func (w *wired) ask(format string, args ...any) {
	w.t.Helper()
	w.asked++
	require.NoError(w.t, w.SendText("\x01"+fmt.Sprintf(format, args...)))
}

// take takes over what has come.
func (w *wired) take() *wired {
	w.t.Helper()
	wait(settle)
	for len(w.Frames) > 0 {
		w.frame(<-w.Frames)
	}
	return w
}

func (w *wired) frame(f wstest.Frame) {
	w.t.Helper()
	if f.Op != wstest.Text || len(f.Payload) == 0 || f.Payload[0] != 1 {
		if len(f.Payload) > 0 {
			w.app = append(w.app, string(f.Payload))
		}
		return
	}
	require.True(w.t, f.Fin)
	require.LessOrEqual(w.t, len(f.Payload), 16<<10)
	var m wireMsg
	require.NoError(w.t, json.Unmarshal(f.Payload[1:], &m), "%s", f.Payload)
	switch m.T {
	case "snapshot":
		if m.First {
			w.members[m.Topic] = map[string]wireMember{}
			w.parts = 0
			w.log = append(w.log, "snapshot")
		}
		w.parts++
		for _, member := range m.Members {
			w.members[m.Topic][member.User] = member
		}
		w.version[m.Topic] = m.Version
	case "delta":
		require.Equal(w.t, w.version[m.Topic]+1, m.Version, "a gap")
		w.version[m.Topic] = m.Version
		members := w.members[m.Topic]
		for _, c := range m.Changes {
			user := c.User + c.Member.User
			_, is := members[user]
			require.Equal(w.t, c.K != "join", is, "%s of %s", c.K, user)
			w.log = append(w.log, c.K+" "+user)
			if c.K == "leave" {
				delete(members, user)
			} else {
				members[user] = c.Member
			}
		}
	case "count":
		delete(w.members, m.Topic)
		w.counts[m.Topic] = m.Users
		w.log = append(w.log, fmt.Sprintf("count %d", m.Users))
	default:
		w.said = append(w.said, m)
	}
}

// last is the answer to the latest request. It may wait for the store.
func (w *wired) last() string {
	w.t.Helper()
	for range 100 {
		if w.take(); len(w.said) > w.asked { // and the welcome
			break
		}
		wait(50 * time.Millisecond)
	}
	require.Len(w.t, w.said, w.asked+1)
	m := w.said[len(w.said)-1]
	return strings.TrimSpace(m.T + " " + m.Code)
}

func (w *wired) users(topic string) []string {
	w.take()
	all := []string{}
	for u := range w.members[topic] {
		all = append(all, u)
	}
	slices.Sort(all)
	return all
}

func all(*presence.Session, presence.Ask) error { return nil }

func callback(p *presence.Presence) http.Handler { return p.Callback(nil) }

// both runs a test with Handler and with Callback.
func both(t *testing.T, o presence.Options, f func(t *testing.T, b *bubble)) {
	t.Run("Handler", func(t *testing.T) { inBubble(t, o, nil, f) })
	t.Run("Callback", func(t *testing.T) { inBubble(t, o, callback, f) })
}

func TestWelcome(t *testing.T) {
	both(t, presence.Options{HeartbeatInterval: 12 * time.Second}, func(t *testing.T, b *bubble) {
		ann := b.wired("/?user=ann", v1, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
		require.Empty(t, ann.Response.Header.Get("Sec-WebSocket-Extensions"), "no compression")
		require.Equal(t, "presence.v1", ann.Response.Header.Get("Sec-WebSocket-Protocol"))
		require.Len(t, ann.said, 1)
		m := ann.said[0]
		require.Equal(t, "welcome", m.T)
		require.Equal(t, 1, m.V)
		require.Equal(t, "ann", m.User)
		require.Len(t, m.Session, 16)
		require.EqualValues(t, 12_000, m.Interval)
	})
}

func TestFollowing(t *testing.T) {
	both(t, presence.Options{Authorize: all}, func(t *testing.T, b *bubble) {
		ann := b.wired("/?user=ann&topic=room")
		ann.ask(`{"t":"follow","id":1,"topic":"room"}`)
		require.Equal(t, "ok", ann.last())
		require.Equal(t, []string{"ann"}, ann.users("room"))
		require.Equal(t, "online", ann.members["room"]["ann"].State)

		bob := b.wired("/?user=bob&topic=room")
		bob.ask(`{"t":"follow","id":1,"topic":"room"}`)
		require.Equal(t, []string{"ann", "bob"}, bob.users("room"))
		require.Equal(t, []string{"ann", "bob"}, ann.users("room"))
		bob.ask(`{"t":"set","id":2,"meta":{"status":"busy"}}`)
		require.Equal(t, "ok", bob.last())
		ann.take()
		require.JSONEq(t, `{"status":"busy"}`, string(ann.members["room"]["bob"].Metas[0]))
		require.Equal(t, []string{"snapshot", "join bob", "update bob"}, ann.log)

		bob.ask(`{"t":"leave","id":3,"topic":"room"}`)
		require.Equal(t, "ok", bob.last())
		require.Equal(t, []string{"ann"}, ann.users("room"))
		bob.ask(`{"t":"join","topic":"room"}`)
		require.Equal(t, "ok", bob.last())
		require.Equal(t, []string{"ann", "bob"}, ann.users("room"))
		require.Nil(t, bob.said[len(bob.said)-1].ID)

		ann.ask(`{"t":"unfollow","id":9,"topic":"room"}`)
		ann.take()
		n := len(ann.log)
		bob.Close()
		wait(time.Minute)
		ann.take()
		require.Len(t, ann.log, n, "not followed any more")
	})
}

// lateStore is behind with its news, as a store on another machine may be.
type lateStore struct {
	store.Store
	by time.Duration
}

func (s *lateStore) Watch(ctx context.Context, topic string) (store.Feed, error) {
	feed, err := s.Store.Watch(ctx, topic)
	return lateFeed{feed, s.by}, err
}

type lateFeed struct {
	store.Feed
	by time.Duration
}

func (f lateFeed) Next(ctx context.Context) (store.Batch, error) {
	b, err := f.Feed.Next(ctx)
	select {
	case <-time.After(f.by):
	case <-ctx.Done():
	}
	return b, err
}

// A client that follows is in what it is shown, though the news of it is late:
// one that comes again must not see itself leave.
func TestFollowersSeeThemselves(t *testing.T) {
	test := func(t *testing.T, b *bubble) {
		bob := b.wired("/?user=bob")
		bob.ask(`{"t":"follow","topic":"room"}`)
		bob.ask(`{"t":"follow","topic":""}`)
		bob.take()
		comes := func() *wired {
			ann := b.wired("/?user=ann&topic=room")
			ann.ask(`{"t":"follow","topic":""}`)
			ann.ask(`{"t":"follow","topic":"room"}`)
			wait(time.Second)
			return ann.take()
		}
		ann := comes()
		require.Equal(t, []string{"snapshot", "snapshot"}, ann.log)
		require.Equal(t, "online", ann.members[""]["ann"].State)
		require.Equal(t, "online", ann.members["room"]["ann"].State)
		ann.Close()
		wait(time.Second)
		bob.take()
		require.Equal(t, "grace", bob.members["room"]["ann"].State)
		ann = comes()
		require.Equal(t, []string{"snapshot", "snapshot"}, ann.log)
		require.Equal(t, "online", ann.members["room"]["ann"].State)

		bob.ask(`{"t":"follow","topic":"late"}`)
		ann.ask(`{"t":"unfollow","topic":"room"}`)
		ann.ask(`{"t":"unfollow","topic":""}`)
		wait(time.Second)
		ann.log = nil
		ann.ask(`{"t":"join","topic":"late"}`)
		ann.ask(`{"t":"follow","topic":"late"}`)
		wait(time.Second)
		ann.take()
		require.Equal(t, []string{"snapshot"}, ann.log)
		require.Equal(t, "online", ann.members["late"]["ann"].State)
	}
	for name, mount := range map[string]func(*presence.Presence) http.Handler{"Handler": nil, "Callback": callback} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, presence.Options{Authorize: all, Store: &lateStore{&lazyStore{}, 200 * time.Millisecond}}, mount, test)
		})
	}
}

// News that do not come keep nobody waiting for long.
func TestFollowersWithoutNewsOfThemselves(t *testing.T) {
	o := presence.Options{Authorize: all, Store: &lateStore{&lazyStore{}, time.Hour}}
	inBubble(t, o, nil, func(t *testing.T, b *bubble) {
		bob := b.wired("/?user=bob")
		bob.ask(`{"t":"follow","topic":""}`)
		bob.take()
		ann := b.wired("/?user=ann")
		ann.ask(`{"t":"follow","topic":""}`)
		require.Empty(t, ann.take().log)
		wait(1200 * time.Millisecond)
		require.Equal(t, []string{"bob"}, ann.users(""))
	})
}

// A reload is no leave, a loss is one after the grace.
func TestFollowersSeeTheGrace(t *testing.T) {
	inBubble(t, presence.Options{Authorize: all}, nil, func(t *testing.T, b *bubble) {
		ann := b.wired("/?user=ann")
		ann.ask(`{"t":"follow","topic":""}`)
		require.Equal(t, []string{"ann"}, ann.users(""))
		bob := b.wired("/?user=bob")
		bob.Close()
		ann.take()
		require.Equal(t, "grace", ann.members[""]["bob"].State)
		bob = b.wired("/?user=bob")
		ann.take()
		require.Equal(t, "online", ann.members[""]["bob"].State)
		bob.Close()
		wait(6 * time.Second)
		require.Equal(t, []string{"ann"}, ann.users(""))
		require.Equal(t, []string{"snapshot", "join bob", "update bob", "update bob", "update bob", "leave bob"}, ann.log)
	})
}

func TestWithoutAuthorizeOnlyWhatIsSafe(t *testing.T) {
	inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
		ann := b.wired("/?user=ann&topic=room")
		for _, test := range []struct{ ask, want string }{
			{`{"t":"follow","id":1,"topic":"room"}`, "ok"},
			{`{"t":"follow","id":1,"topic":"other"}`, "error forbidden"},
			{`{"t":"follow","id":1,"topic":""}`, "error forbidden"},
			{`{"t":"join","id":1,"topic":"other"}`, "error forbidden"},
			{`{"t":"leave","id":1,"topic":"room"}`, "error forbidden"},
			{`{"t":"set","id":1,"meta":{"status":"a"}}`, "ok"},
			{`{"t":"set","id":1,"meta":{"status":"b"}}`, "ok"},
			{`{"t":"set","id":1,"meta":null}`, "ok"},
			{`{"t":"active","id":1}`, "ok"},
		} {
			ann.ask("%s", test.ask)
			require.Equal(t, test.want, ann.last(), test.ask)
		}
		s := presence.SessionOf(b.p, ann.said[0].Session)
		require.NoError(t, s.SetMeta(t.Context(), map[string]string{"role": "admin"}))
		ann.ask(`{"t":"set","id":1,"meta":{"role":"king"}}`)
		require.Equal(t, "error forbidden", ann.last(), "what the app has set")
		require.JSONEq(t, `{"role":"admin"}`, string(s.Info().Meta))

		// Out of the topic is out of its presence.
		require.NoError(t, s.Leave(t.Context(), "room", "nowhere"))
		require.Equal(t, "unfollowed", ann.take().said[len(ann.said)-1].T)
		require.Equal(t, "room", ann.said[len(ann.said)-1].Topic)
		n := len(ann.log)
		b.wired("/?user=bob&topic=room")
		ann.take()
		require.Len(t, ann.log, n)
	})
}

func TestAuthorizeDecides(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	o := presence.Options{Authorize: func(s *presence.Session, a presence.Ask) error {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, fmt.Sprintf("%s %s %s %s", s.User(), a.Kind, a.Topic, a.Meta))
		if a.Topic == "secret" {
			return errors.New("the reason is not sent")
		}
		return nil
	}}
	inBubble(t, o, nil, func(t *testing.T, b *bubble) {
		ann := b.wired("/?user=ann")
		for _, kind := range []string{"follow", "join", "leave"} {
			ann.ask(`{"t":%q,"id":1,"topic":"secret"}`, kind)
			require.Equal(t, "error forbidden", ann.last())
			require.Equal(t, "not allowed", ann.said[len(ann.said)-1].Text)
			ann.ask(`{"t":%q,"id":1,"topic":"room"}`, kind)
			require.Equal(t, "ok", ann.last())
		}
		ann.ask(`{"t":"set","id":1,"meta":7}`)
		require.Equal(t, "ok", ann.last())
		mu.Lock()
		defer mu.Unlock()
		require.Equal(t, []string{"ann follow secret ", "ann follow room ", "ann join secret ", "ann join room ",
			"ann leave secret ", "ann leave room ", "ann set  7"}, asked)
	})
}

func TestBadRequests(t *testing.T) {
	both(t, presence.Options{Authorize: all, Limits: presence.Limits{TopicsPerSession: 2}}, func(t *testing.T, b *bubble) {
		ann := b.wired("/?user=ann")
		for _, test := range []struct{ ask, want string }{
			{``, "error bad-request"},
			{`{`, "error bad-request"},
			{`[]`, "error bad-request"},
			{`"follow"`, "error bad-request"},
			{`{}`, "error bad-request"},
			{`{"t":"welcome"}`, "error bad-request"},
			{`{"t":"follow"}`, "error bad-request"},
			{`{"t":"follow","topic":7}`, "error bad-request"},
			{`{"t":"follow","id":"x","topic":"a"}`, "error bad-request"},
			{`{"t":"join","topic":""}`, "error bad-request"},
			{`{"t":"set"}`, "error bad-request"},
			{`{"t":"active","topic":"a"}`, "error bad-request"},
			{`{"t":"active"}`, "ok"},
			{`{"t":"set","topic":"a","meta":1}`, "error bad-request"},
			{`{"t":"follow","topic":"` + strings.Repeat("x", 300) + `"}`, "error limit"},
			{`{"t":"set","meta":"` + strings.Repeat("x", 5_000) + `"}`, "error limit"},
			{`{"t":"follow","topic":"a\u0000"}`, "error limit"},
			{`{"t":"follow","topic":"a","more":"unknown fields are ignored"}`, "ok"},
			{`{"t":"follow","topic":"b"}`, "ok"},
			{`{"t":"follow","topic":"c"}`, "error limit"},
			{`{"t":"follow","topic":"a"}`, "ok"},
			{`{"t":"unfollow","topic":"a"}`, "ok"},
			{`{"t":"follow","topic":"c"}`, "ok"},
			{`{"t":"join","topic":"a"}`, "ok"},
			{`{"t":"join","topic":"b"}`, "ok"},
			{`{"t":"join","topic":"c"}`, "error limit"},
		} {
			ann.ask("%s", test.ask)
			require.Equal(t, test.want, ann.last(), test.ask)
		}
		require.Equal(t, 1, b.sessions("ann"))
	})
}

func TestTooManyRequests(t *testing.T) {
	both(t, presence.Options{Authorize: all}, func(t *testing.T, b *bubble) {
		ann := b.wired("/?user=ann")
		for i := range 130 {
			ann.ask(`{"t":"unfollow","id":%d,"topic":"a"}`, i)
		}
		ann.take()
		count := map[string]int{}
		for _, m := range ann.said {
			count[m.T+" "+m.Code]++
		}
		require.GreaterOrEqual(t, count["error rate"], 1)
		require.Equal(t, 130, count["ok "]+count["error rate"])
		wait(10 * time.Second)
		ann.ask(`{"t":"unfollow","id":1,"topic":"a"}`)
		require.Equal(t, "ok", ann.last(), "it is kept, and may go on")

		for range 300 {
			if ann.SendText("\x01{}") != nil {
				break
			}
		}
		e := b.end("ann")
		require.Equal(t, presence.CauseLimit, e.Cause)
		require.Equal(t, 4429, e.Code)
	})
}

func TestFragmentedOrTooLongIsAProtocolError(t *testing.T) {
	for name, frames := range map[string][]byte{
		"fragmented": wstest.Masked(0x01, []byte("\x01{")),
		"too long":   wstest.Masked(0x81, []byte("\x01"+strings.Repeat(" ", 16<<10))),
	} {
		t.Run(name, func(t *testing.T) {
			both(t, presence.Options{}, func(t *testing.T, b *bubble) {
				ann := b.wired("/?user=ann")
				_, _ = ann.Write(frames)
				e := b.end("ann")
				require.Equal(t, presence.CauseProtocolError, e.Cause)
				require.Equal(t, 1002, e.Code)
			})
		})
	}
}

// The app's messages pass, whatever they are, and it never sees ours.
func TestChannelAndAppShareTheConnection(t *testing.T) {
	var seen []string
	echo := func(p *presence.Presence) http.Handler {
		return p.At(presence.Route{Subprotocols: []string{"chat"}}).Handler(func(ctx context.Context, c *presence.Conn) error {
			if c.Subprotocol() != "chat" {
				return errors.New("subprotocol " + c.Subprotocol())
			}
			for {
				kind, m, err := c.Read(ctx)
				if err != nil {
					return err
				}
				seen = append(seen, string(m))
				if err := c.Write(ctx, kind, m); err != nil {
					return err
				}
			}
		})
	}
	inBubble(t, presence.Options{Authorize: all}, echo, func(t *testing.T, b *bubble) {
		ann := b.wired("/?user=ann", "Sec-WebSocket-Protocol: presence.v1+chat, chat")
		require.Equal(t, "presence.v1+chat", ann.Response.Header.Get("Sec-WebSocket-Protocol"))
		big := strings.Repeat("x", 20_000)
		var want []string
		for i := range 20 {
			ann.ask(`{"t":"follow","id":%d,"topic":""}`, i)
			want = append(want, fmt.Sprint(i), big)
			require.NoError(t, ann.SendText(fmt.Sprint(i)))
			require.NoError(t, ann.SendText(big))
			ann.take()
		}
		require.Equal(t, want, ann.app)
		require.Equal(t, want, seen)
		require.Equal(t, "ok", ann.last())

		// Not chosen: such messages are the app's.
		bob := b.wired("/?user=bob", "Sec-WebSocket-Protocol: chat")
		require.Equal(t, "chat", bob.Response.Header.Get("Sec-WebSocket-Protocol"))
		require.NoError(t, bob.SendText("\x01{}"))
		wait(settle)
		require.Equal(t, "\x01{}", string((<-bob.Frames).Payload))
	})
}

// Nothing goes in between the fragments of a message of the app.
func TestChannelWaitsForTheAppsMessage(t *testing.T) {
	var half chan struct{}
	serve := func(ctx context.Context, c *presence.Conn) error {
		w, err := c.Writer(ctx, websocket.MessageText)
		if err != nil {
			return err
		}
		_, _ = w.Write([]byte(strings.Repeat("a", 10_000)))
		<-half
		_, _ = w.Write([]byte(strings.Repeat("b", 10_000)))
		if err := w.Close(); err != nil {
			return err
		}
		return drop(ctx, c)
	}
	route := func(p *presence.Presence) http.Handler {
		half = make(chan struct{}) // of the bubble
		return p.Handler(serve)
	}
	inBubble(t, presence.Options{Authorize: all}, route, func(t *testing.T, b *bubble) {
		ann := b.dial("/?user=ann", v1)
		require.NoError(t, ann.SendText("\x01"+`{"t":"follow","id":1,"topic":""}`))
		wait(time.Second)
		close(half)
		wait(time.Second)
		amid := false
		w := wire(t, ann)
		for len(ann.Frames) > 0 {
			f := <-ann.Frames
			if len(f.Payload) > 0 && f.Payload[0] == 1 && f.Op == wstest.Text {
				require.False(t, amid, "%s", f.Payload)
				w.frame(f)
				continue
			}
			amid = !f.Fin
		}
		_ = w
	})
}

func TestLargeTopicsAreCoalescedAndThenCounted(t *testing.T) {
	o := presence.Options{Authorize: all, Limits: presence.Limits{FollowMembers: 100, SnapshotMembers: 200}}
	inBubble(t, o, callback, func(t *testing.T, b *bubble) {
		ann := b.wired("/?user=ann")
		ann.ask(`{"t":"follow","topic":""}`)
		ann.take()
		open := func(n int) (all []*presence.Session) {
			for range n {
				s, err := b.p.Open(t.Context(), presence.Identity{})
				require.NoError(t, err)
				all = append(all, s)
			}
			return all
		}
		open(60)
		wait(time.Second)
		require.Len(t, ann.users(""), 61)
		wait(time.Second)
		ann.take()
		before := ann.version[""]
		for range 20 {
			open(1)
			wait(10 * time.Millisecond)
		}
		wait(time.Second)
		require.Len(t, ann.users(""), 81)
		require.LessOrEqual(t, ann.version[""]-before, uint64(4), "20 joins within 200 ms")

		more := open(60)
		wait(2 * time.Second)
		ann.take()
		require.Equal(t, 141, ann.counts[""])
		require.Nil(t, ann.members[""])
		bob := b.wired("/?user=bob")
		bob.ask(`{"t":"follow","topic":""}`)
		wait(time.Second)
		bob.take()
		require.Equal(t, 142, bob.counts[""])
		n := len(ann.log)
		for range 50 {
			wait(100 * time.Millisecond)
			open(1)
		}
		ann.take()
		require.LessOrEqual(t, len(ann.log)-n, 6, "counted once a second")
		for _, s := range more {
			s.Disconnect(presence.Reason{})
		}
		wait(2 * time.Second)
		ann.take()
		require.Nil(t, ann.members[""], "132 are still too many")
		infos := 0
		for m := range b.p.Members(t.Context(), "", "") {
			if m.User != "ann" && m.User != "bob" && infos < 80 {
				_, err := b.p.DisconnectUser(t.Context(), m.User, presence.Reason{})
				require.NoError(t, err)
				infos++
			}
		}
		wait(3 * time.Second)
		require.Len(t, ann.users(""), 52, "names again")
		require.Equal(t, ann.users(""), bob.users(""))
	})
}

// gated is a connection whose reads can be held up.
type gated struct {
	net.Conn
	gate chan struct{} // full: closed
}

func (g *gated) Read(p []byte) (int, error) {
	g.gate <- struct{}{}
	<-g.gate
	return g.Conn.Read(p)
}

// A client that does not read loses deltas, and gets a snapshot when it reads.
func TestSlowFollowerGetsASnapshot(t *testing.T) {
	o := presence.Options{Authorize: all, HeartbeatInterval: -1}
	both(t, o, func(t *testing.T, b *bubble) {
		g := &gated{b.conn(), make(chan struct{}, 1)}
		c, err := wstest.Dial(g, "/?user=ann", v1)
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		ann := wire(t, c).take()
		ann.ask(`{"t":"follow","topic":""}`)
		require.Equal(t, []string{"ann"}, ann.users(""))

		g.gate <- struct{}{}
		meta := json.RawMessage(`"` + strings.Repeat("x", 4_000) + `"`)
		for range 300 {
			_, err := b.p.Open(t.Context(), presence.Identity{Meta: meta})
			require.NoError(t, err)
			wait(10 * time.Millisecond)
		}
		before := ann.version[""]
		<-g.gate
		wait(5 * time.Second)
		require.Len(t, ann.users(""), 301)
		snapshots := 0
		for _, l := range ann.log {
			if l == "snapshot" {
				snapshots++
			}
		}
		require.Greater(t, snapshots, 1)
		require.Less(t, len(ann.log), 300, "what waited was bounded")
		require.Greater(t, ann.version[""], before)
	})
}

// One that goes on to ask and never reads what is said is slow.
func TestWhoAsksAndDoesNotReadIsSlow(t *testing.T) {
	var g *gated
	o := presence.Options{Authorize: all, HeartbeatInterval: -1}
	o.OnDisconnect = func(*presence.Session, presence.End) { <-g.gate } // the goodbye waits for the write, on a lock that stops the bubble's clock
	both(t, o, func(t *testing.T, b *bubble) {
		g = &gated{b.conn(), make(chan struct{}, 1)}
		c, err := wstest.Dial(g, "/?user=ann", v1)
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		wire(t, c).take()
		g.gate <- struct{}{}
		const answer = len(`{"t":"error","code":"bad-request","text":"not understood"}`)
		asked := 0
		for c.SendText("\x01{}") == nil && b.sessions("ann") == 1 {
			asked++
			wait(100 * time.Millisecond) // as fast as it may
			require.Less(t, asked, 2*256<<10/answer)
		}
		require.Greater(t, asked, 256<<10/(2*answer))
		require.Equal(t, presence.CauseSlow, b.end("ann").Cause)
		require.Equal(t, 1013, b.end("ann").Code)
	})
}

func TestSnapshotInParts(t *testing.T) {
	inBubble(t, presence.Options{Authorize: all}, nil, func(t *testing.T, b *bubble) {
		meta := json.RawMessage(`"` + strings.Repeat("x", 3_000) + `"`)
		for range 100 {
			_, err := b.p.Open(t.Context(), presence.Identity{Meta: meta})
			require.NoError(t, err)
		}
		for range 5 {
			_, err := b.p.Open(t.Context(), presence.Identity{User: "many", Meta: meta})
			require.NoError(t, err)
		}
		wait(time.Second)
		ann := b.wired("/?user=ann")
		ann.ask(`{"t":"follow","topic":""}`)
		wait(time.Second)
		require.Len(t, ann.users(""), 102)
		require.Greater(t, ann.parts, 20)
		many := ann.members[""]["many"]
		require.True(t, many.Cut)
		require.Len(t, many.Metas, 2)
		require.Equal(t, 5, many.Sessions)
	})
}

func TestFollowingEndsWithTheSession(t *testing.T) {
	inBubble(t, presence.Options{Authorize: all}, callback, func(t *testing.T, b *bubble) {
		var all []*wired
		for i := range 10 {
			w := b.wired(fmt.Sprintf("/?user=u%d", i))
			w.ask(`{"t":"follow","topic":"a"}`)
			w.ask(`{"t":"follow","topic":"b"}`)
			all = append(all, w)
		}
		wait(time.Second)
		require.Equal(t, 2, presence.Followed(b.p))
		for _, w := range all {
			w.Close()
		}
		wait(time.Second)
		synctest.Wait()
		require.Zero(t, presence.Followed(b.p))
	})
}

// Each request is a message of the client's own, as those of the app are:
// its user is back from away, and the session is not idle. A heartbeat is none.
func TestRequestsCountAsActivity(t *testing.T) {
	for sent, counts := range map[string]bool{
		"\x01" + `{"t":"active","id":1}`:              true,
		"\x01" + `{"t":"set","id":1,"meta":null}`:     true,
		"\x01" + `{"t":"follow","id":1,"topic":"a"}`:  true,
		"\x01" + `{"t":"join","id":1,"topic":"none"}`: true, // is refused
		"words": true,
		"":      false,
	} {
		t.Run(sent, func(t *testing.T) {
			both(t, presence.Options{AwayAfter: time.Minute, IdleTimeout: 3 * time.Minute}, func(t *testing.T, b *bubble) {
				ann := b.wired("/?user=ann&topic=a")
				s := presence.SessionOf(b.p, ann.said[0].Session)
				wait(2 * time.Minute)
				require.True(t, s.Info().Away)
				require.NoError(t, ann.SendText(sent))
				wait(settle)
				require.Equal(t, !counts, s.Info().Away)
				wait(90 * time.Second)
				require.Equal(t, counts, s.Context().Err() == nil)
				require.True(t, s.Info().Away, "again")
				wait(2 * time.Minute)
				require.Equal(t, presence.CauseIdle, b.end("ann").Cause)
			})
		})
	}
}

// counter counts how often it is asked how many are in a topic.
type counter struct {
	store.Store
	asked atomic.Int64
}

func (s *counter) Count(ctx context.Context, topic string) (store.Counts, error) {
	s.asked.Add(1)
	return s.Store.Count(ctx, topic)
}

// A topic that is too large for names is counted once a second, for all of its
// followers on this node together.
func TestOneCountForAllFollowers(t *testing.T) {
	s := &counter{Store: &lazyStore{}}
	o := presence.Options{Authorize: all, Store: s, Limits: presence.Limits{FollowMembers: 5}}
	inBubble(t, o, callback, func(t *testing.T, b *bubble) {
		var followers []*wired
		for i := range 20 {
			w := b.wired(fmt.Sprintf("/?user=u%d", i))
			w.ask(`{"t":"follow","topic":""}`)
			followers = append(followers, w)
		}
		wait(3 * time.Second)
		before := s.asked.Load()
		wait(20 * time.Second)
		require.InDelta(t, 20, s.asked.Load()-before, 1)
		for _, w := range followers {
			require.Equal(t, 20, w.take().counts[""])
			w.Close()
		}
		wait(3 * time.Second)
		before = s.asked.Load()
		wait(20 * time.Second)
		require.Equal(t, before, s.asked.Load(), "nobody follows")
	})
}

// While the store is away nobody can tell who is in a topic: followers are told
// that, and again when what they know is right. Who follows meanwhile gets what
// was known last, and is told, too.
func TestFollowersAreToldThatTheStoreIsAway(t *testing.T) {
	for name, limit := range map[string]int{"names": 0, "counts": 1} {
		t.Run(name, func(t *testing.T) {
			o := presence.Options{Authorize: all, LeaveGrace: -1, Limits: presence.Limits{FollowMembers: limit}}
			withAway(t, o, func(t *testing.T, b *bubble, s *awayStore) {
				states := func(w *wired) []string { return w.states("room") }
				ann := b.wired("/?user=ann&topic=room")
				ben := b.wired("/?user=ben&topic=room")
				ann.ask(`{"t":"follow","topic":"room"}`)
				wait(3 * time.Second)
				require.Empty(t, states(ann))
				s.away.Store(true)
				ben.Close() // a change that the store cannot be told
				wait(5 * time.Second)
				require.Equal(t, []string{"stale"}, states(ann))
				cem := b.wired("/?user=cem")
				cem.ask(`{"t":"follow","topic":"room"}`)
				wait(time.Second)
				require.Equal(t, []string{"stale"}, states(cem))
				if limit == 0 {
					require.Equal(t, []string{"ann", "ben"}, cem.users("room"), "as it was")
				} else {
					require.Equal(t, 2, cem.counts["room"])
				}

				s.away.Store(false)
				wait(5 * time.Second)
				for _, w := range []*wired{ann, cem} {
					require.Equal(t, []string{"stale", "live"}, states(w))
					if limit == 0 {
						require.Equal(t, []string{"ann"}, w.users("room"))
					} else {
						require.Equal(t, 1, w.counts["room"])
					}
				}
				wait(time.Minute)
				require.Equal(t, []string{"stale", "live"}, states(ann))
			})
		})
	}
}

// states are what the client was told of the topic: stale, live.
func (w *wired) states(topic string) (list []string) {
	for _, m := range w.take().said {
		if m.T == "stale" || m.T == "live" {
			require.Equal(w.t, topic, m.Topic)
			list = append(list, m.T)
		}
	}
	return slices.Compact(list) // a count has it again
}

// flushedStore forgets the leases when it is told to, answers all the time, and
// cannot tell who is there while it has a hold.
type flushedStore struct {
	store.Store
	forgot, hold atomic.Bool
}

func (s *flushedStore) Renew(ctx context.Context, l store.Lease, sum store.Summary) (store.Orders, error) {
	if s.forgot.CompareAndSwap(true, false) {
		return store.Orders{}, store.ErrLeaseLost
	}
	return s.Store.Renew(ctx, l, sum)
}

func (s *flushedStore) Count(ctx context.Context, topic string) (store.Counts, error) {
	if s.hold.Load() {
		return store.Counts{}, &store.HoldError{For: time.Second}
	}
	return s.Store.Count(ctx, topic)
}

// A store that has lost what it knew answers all the while, and yet nobody can
// tell who is in a topic until the nodes have said it again.
func TestFollowersAreToldThatTheStoreWasFlushed(t *testing.T) {
	s := &flushedStore{Store: &lazyStore{}}
	inBubble(t, presence.Options{Authorize: all, Store: s}, nil, func(t *testing.T, b *bubble) {
		ann := b.wired("/?user=ann&topic=room")
		ann.ask(`{"t":"follow","topic":"room"}`)
		wait(10 * time.Second)
		s.forgot.Store(true) // as at a node that was frozen: the store knows it all
		wait(10 * time.Second)
		require.False(t, s.forgot.Load())
		require.Empty(t, ann.states("room"))

		s.hold.Store(true)
		s.forgot.Store(true)
		wait(10 * time.Second)
		require.Equal(t, []string{"stale"}, ann.states("room"))
		s.hold.Store(false)
		wait(5 * time.Second)
		require.Equal(t, []string{"stale", "live"}, ann.states("room"))
		require.Equal(t, []string{"ann"}, ann.users("room"))
	})
}
