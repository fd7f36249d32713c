package client_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/client"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// peer is the server's side of one connection of presence.v1.
type peer struct {
	*websocket.Conn
	n int // of the connection, from 1
}

func (p peer) tell(format string) {
	_ = p.Write(context.Background(), websocket.MessageText, []byte("\x01"+format))
}

// asked is what the client asks for.
type asked struct {
	T, Topic string
	ID       int
	Meta     json.RawMessage
	conn     int
	at       time.Time
}

// scripted serves presence.v1: answer says what becomes of each request, and
// false ends the connection so that the client comes back at once.
func (r *rig) scripted(answer func(p peer, q asked) bool) (all func() []asked) {
	var mu sync.Mutex
	var log []asked
	r.fake(func(ctx context.Context, n int, c *websocket.Conn) {
		p := peer{c, n}
		p.tell(`{"t":"welcome","v":1,"user":"ann","session":"1","interval":25000}`)
		for {
			_, m, err := c.Read(ctx)
			if err != nil {
				return
			}
			q := asked{conn: n, at: time.Now()}
			if len(m) == 0 || json.Unmarshal(m[1:], &q) != nil {
				continue
			}
			mu.Lock()
			log = append(log, q)
			mu.Unlock()
			if !answer(p, q) {
				_ = c.Close(1012, "retry=0")
				return
			}
		}
	})
	return func() []asked {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(log)
	}
}

func (p peer) ok(q asked) { p.tell(`{"t":"ok","id":` + strconv.Itoa(q.ID) + `}`) }

func (p peer) no(q asked, code string) {
	p.tell(`{"t":"error","id":` + strconv.Itoa(q.ID) + `,"code":"` + code + `","text":"no"}`)
}

// kinds is what was asked on a connection, in order.
func kinds(all []asked, conn int) (list []string) {
	for _, q := range all {
		if q.conn == conn {
			list = append(list, q.T)
		}
	}
	return list
}

// collect takes the events of a topic until it is closed.
func collect(t *client.Topic) (all func() []string) {
	var mu sync.Mutex
	var log []string
	go func() {
		for e := range t.Events() {
			mu.Lock()
			log = append(log, e.Kind+" "+e.Member.User)
			mu.Unlock()
		}
	}()
	return func() []string {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(log)
	}
}

// A topic that was counted has no names to compare with: who was there all the
// time does not join.
func TestNamesAfterACountAreNoJoins(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.scripted(func(p peer, q asked) bool {
			p.ok(q)
			if q.T != "follow" {
				return true
			}
			for _, m := range []string{
				`{"t":"snapshot","topic":"room","version":1,"first":true,"members":[{"user":"ann"},{"user":"bob"}]}`,
				`{"t":"count","topic":"room","version":2,"users":5000,"sessions":6000}`,
				`{"t":"snapshot","topic":"room","version":3,"first":true,"members":[{"user":"ann"},{"user":"cat"}]}`,
				`{"t":"delta","topic":"room","version":4,"changes":[{"k":"join","member":{"user":"dan"}}]}`,
				`{"t":"snapshot","topic":"room","version":5,"first":true,"members":[{"user":"ann"},{"user":"eve"}]}`,
			} {
				p.tell(m)
				time.Sleep(time.Second)
			}
			return true
		})
		c := r.client("/", r.options())
		room := c.Follow("room")
		log := collect(room)
		time.Sleep(20 * time.Second)
		all := log()
		require.Equal(t, []string{"snapshot ", "count ", "snapshot ", "join dan"}, all[:4])
		require.ElementsMatch(t, []string{"leave cat", "leave dan", "join eve", "snapshot "}, all[4:])
		room.Close()
	})
}

// The same with a server that counts.
func TestShrinkingTopicHasNoJoins(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		n := r.node(presence.Options{Limits: presence.Limits{FollowMembers: 20}})
		c := r.client("/?user=ann", r.options())
		room := c.Follow("")
		log := collect(room)
		var all []*presence.Session
		open := func(count int) {
			for range count {
				s, err := n.p.Open(t.Context(), presence.Identity{})
				require.NoError(t, err)
				all = append(all, s)
			}
			time.Sleep(5 * time.Second)
		}
		open(10)
		members, _ := room.Members()
		require.Len(t, members, 11)
		open(30)
		require.Equal(t, 41, room.Users())
		before := len(log())
		for _, s := range all[5:] {
			s.Disconnect(presence.Reason{})
		}
		time.Sleep(5 * time.Second)
		members, live := room.Members()
		require.True(t, live)
		require.Len(t, members, 6)
		for _, e := range log()[before:] {
			require.Contains(t, []string{"count ", "snapshot "}, e)
		}
		room.Close()
	})
}

// A server whose store is away cannot tell who is in a topic. Each turn is told
// once, and a snapshot after a loss says that all is live.
func TestStaleIsNotLive(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.scripted(func(p peer, q asked) bool {
			if q.T != "follow" {
				return false
			}
			p.ok(q)
			p.tell(`{"t":"snapshot","topic":"room","version":1,"first":true,"members":[{"user":"ann"}]}`)
			if p.n > 1 {
				p.tell(`{"t":"live","topic":"room"}`)
				return true
			}
			go func() {
				time.Sleep(time.Second)
				p.tell(`{"t":"stale","topic":"room"}`)
				p.tell(`{"t":"stale","topic":"room"}`)
				time.Sleep(time.Second)
				p.tell(`{"t":"delta","topic":"room","version":2,"changes":[{"k":"leave","user":"ann"}]}`)
				time.Sleep(time.Second)
				p.tell(`{"t":"live","topic":"room"}`)
				p.tell(`{"t":"live","topic":"room"}`)
				time.Sleep(time.Second)
				p.CloseNow()
			}()
			return true
		})
		room := r.client("/", r.options()).Follow("room")
		log := collect(room)
		time.Sleep(500 * time.Millisecond)
		for _, want := range []struct {
			members int
			live    bool
		}{{1, true}, {1, false}, {0, false}, {0, true}} {
			members, live := room.Members()
			require.Len(t, members, want.members)
			require.Equal(t, want.live, live)
			time.Sleep(time.Second)
		}
		time.Sleep(10 * time.Second)
		require.Equal(t, []string{"snapshot ", "stale ", "leave ann", "live ", "stale ", "join ann", "snapshot "}, log())
		room.Close()
	})
}

// Who reads too slowly for all that was told knows in the end whether it is live.
func TestSlowReaderKnowsWhatIsStale(t *testing.T) {
	for _, last := range []string{"", "stale", "unfollowed"} {
		inBubble(t, func(t *testing.T, r *rig) {
			r.scripted(func(p peer, q asked) bool {
				p.ok(q)
				p.tell(`{"t":"snapshot","topic":"room","version":1,"first":true,"members":[]}`)
				if last != "" {
					p.tell(`{"t":"` + last + `","topic":"room"}`)
				}
				for i := range 1100 {
					p.tell(`{"t":"delta","topic":"room","version":` + strconv.Itoa(i+2) + `,"changes":[{"k":"update","member":{"user":"ann"}}]}`)
				}
				return true
			})
			room := r.client("/", r.options()).Follow("room")
			time.Sleep(time.Second)
			log := collect(room)
			require.Equal(t, map[string][]string{
				"":           {"snapshot "},
				"stale":      {"snapshot ", "stale "},
				"unfollowed": {"snapshot ", "error "},
			}[last], log())
			room.Close()
		})
	}
}

// Who has left is offline, whether a delta or a snapshot says it. Who they were is
// as last known.
func TestWhoHasLeftIsOffline(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		const ann, bob = `{"user":"ann","state":"online","sessions":2,"since":5,"metas":[1]}`, `{"user":"bob","state":"grace","away":true,"sessions":0,"since":6}`
		r.scripted(func(p peer, q asked) bool {
			p.ok(q)
			p.tell(`{"t":"snapshot","topic":"room","version":1,"first":true,"members":[` + ann + `,` + bob + `]}`)
			p.tell(`{"t":"delta","topic":"room","version":2,"changes":[{"k":"leave","user":"ann","cause":"lost"}]}`)
			p.tell(`{"t":"snapshot","topic":"room","version":3,"first":true,"members":[]}`)
			return true
		})
		room := r.client("/", r.options()).Follow("room")
		var left []client.Event
		for e := range room.Events() {
			if e.Kind == "leave" {
				left = append(left, e)
			}
			if len(left) == 2 {
				break
			}
		}
		require.Equal(t, []client.Event{
			{Kind: "leave", Cause: "lost", Member: client.Member{User: "ann", State: "offline", Since: 5, Metas: []json.RawMessage{[]byte("1")}}},
			{Kind: "leave", Member: client.Member{User: "bob", State: "offline", Since: 6}},
		}, left)
	})
}

// What an endpoint without presence.v1 cannot do is told at once, and done where
// there is another one after a reconnect.
func TestEndpointWithoutPresence(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		foreign := http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			c, err := websocket.Accept(w, q, nil)
			if err != nil {
				return
			}
			for {
				kind, m, err := c.Read(q.Context())
				if err != nil || c.Write(q.Context(), kind, m) != nil {
					return
				}
			}
		})
		stop := r.serve(foreign)
		c := r.client("/?user=ann", r.options())
		began := time.Now()
		ctx := t.Context()
		require.ErrorIs(t, c.Join(ctx, "room"), client.ErrNoPresence)
		require.ErrorIs(t, c.Leave(ctx, "room"), client.ErrNoPresence)
		require.ErrorIs(t, c.SetMeta(ctx, 1), client.ErrNoPresence)
		require.ErrorIs(t, c.Active(ctx), client.ErrNoPresence)
		room := c.Follow("room")
		log := collect(room)
		require.Equal(t, []string{"error "}, log())
		require.ErrorIs(t, room.Err(), client.ErrNoPresence)
		require.Zero(t, time.Since(began))
		require.NoError(t, c.Write(ctx, websocket.MessageText, []byte("hello")))
		_, m, err := c.Read(ctx)
		require.NoError(t, err)
		require.Equal(t, "hello", string(m))

		// Who asks while there is no connection is told by the next one.
		stop()
		r.crash()
		synctest.Wait()
		require.NoError(t, c.Active(ctx))
		joined := make(chan error, 1)
		go func() { joined <- c.Join(ctx, "room") }()
		stop = r.serve(foreign)
		require.ErrorIs(t, <-joined, client.ErrNoPresence)
		require.Equal(t, []string{"error ", "error "}, log())

		stop()
		r.crash()
		r.node(presence.Options{})
		time.Sleep(time.Minute)
		require.NoError(t, room.Err())
		require.NoError(t, c.Join(ctx, "room"))
		time.Sleep(time.Second)
		require.Equal(t, []string{"error ", "error ", "snapshot ", "join ann"}, log())
		room.Close()
	})
}

// A delta that is missing is asked for once, and what comes until then is not
// believed.
func TestGapIsAskedForOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		all := r.scripted(func(p peer, q asked) bool {
			if q.ID > 1 {
				time.Sleep(time.Second)
			}
			p.ok(q)
			p.tell(`{"t":"snapshot","topic":"room","version":` + strconv.Itoa(10*q.ID) + `,"first":true,"members":[]}`)
			if q.ID == 1 {
				p.tell(`{"t":"delta","topic":"room","version":12,"changes":[{"k":"join","member":{"user":"bob"}}]}`)
				p.tell(`{"t":"delta","topic":"room","version":13,"changes":[]}`)
				p.tell(`{"t":"delta","topic":"room","version":11,"changes":[{"k":"join","member":{"user":"cat"}}]}`)
			} else {
				p.tell(`{"t":"delta","topic":"room","version":21,"changes":[{"k":"join","member":{"user":"dan"}}]}`)
			}
			return true
		})
		c := r.client("/", r.options())
		room := c.Follow("room")
		log := collect(room)
		time.Sleep(20 * time.Second)
		require.Equal(t, []string{"snapshot ", "snapshot ", "join dan"}, log())
		room.Close()
		require.Equal(t, []string{"follow", "follow", "unfollow"}, kinds(all(), 1))
	})
}

// Follow just when the welcome arrives asks once, whoever of the two comes first.
func TestFollowBesideTheWelcomeAsksOnce(t *testing.T) {
	for range 200 {
		inBubble(t, func(t *testing.T, r *rig) {
			all := r.scripted(func(p peer, q asked) bool { p.ok(q); return true })
			c := r.client("/", r.options())
			var follow sync.WaitGroup
			for i := range 20 {
				follow.Go(func() { c.Follow(strconv.Itoa(i)) })
			}
			follow.Wait()
			time.Sleep(time.Second)
			require.Len(t, all(), 20)
		})
	}
}

func TestSecondWelcomeIsIgnored(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.scripted(func(p peer, q asked) bool {
			p.tell(`{"t":"welcome","v":1,"user":"eve","session":"2","interval":25000}`)
			p.ok(q)
			return true
		})
		c := r.client("/", r.options())
		require.NoError(t, c.Join(t.Context(), "room"))
		require.Equal(t, "ann", c.User())
	})
}

// A join is asked for by the reconnect itself, whatever the call of Join is
// doing: an answer that came just before the loss is not needed for it.
func TestJoinIsAskedForByTheReconnect(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		all := r.scripted(func(p peer, q asked) bool {
			if p.n == 1 {
				return false // lost, with or without the answer
			}
			p.ok(q)
			return true
		})
		c := r.client("/", r.options())
		began := time.Now()
		require.NoError(t, c.Join(t.Context(), "room"))
		again := all()[1]
		require.Equal(t, []any{2, "join", "room"}, []any{again.conn, again.T, again.Topic})
		require.Less(t, again.at.Sub(began), 100*time.Millisecond, "by the next welcome, not by the next try of Join")
		require.NoError(t, c.SetMeta(t.Context(), "busy"))
	})
}

// What was decided last is what counts, whatever is tried again meanwhile.
func TestTheLastWishCounts(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		busy := true
		var mu sync.Mutex
		all := r.scripted(func(p peer, q asked) bool {
			mu.Lock()
			defer mu.Unlock()
			if busy && q.T == "join" || string(q.Meta) == "1" {
				p.no(q, "rate")
			} else {
				p.ok(q)
			}
			return q.T != "follow" || p.n > 1
		})
		c := r.client("/", r.options())
		joined, first, second := make(chan error, 1), make(chan error, 1), make(chan error, 1)
		go func() { joined <- c.Join(t.Context(), "room") }()
		go func() { first <- c.SetMeta(t.Context(), 1) }()
		time.Sleep(100 * time.Millisecond)
		go func() { second <- c.SetMeta(t.Context(), 2) }()
		require.NoError(t, c.Leave(t.Context(), "room"))
		mu.Lock()
		busy = false
		mu.Unlock()
		require.ErrorIs(t, <-joined, client.ErrReplaced)
		require.NoError(t, <-first)
		require.NoError(t, <-second)
		last := map[string]string{}
		for _, q := range all() {
			last[q.T] = string(q.Meta)
		}
		require.Equal(t, "2", last["set"])

		c.Follow("room") // ends the connection
		time.Sleep(10 * time.Second)
		require.Equal(t, []string{"set", "follow"}, kinds(all(), 2), "left is left")
	})
}

// What the server says right behind the answer is what counts.
func TestUnfollowed(t *testing.T) {
	for range 100 {
		inBubble(t, unfollowed)
	}
}

func unfollowed(t *testing.T, r *rig) {
	r.scripted(func(p peer, q asked) bool {
		p.ok(q)
		p.tell(`{"t":"snapshot","topic":"room","version":1,"first":true,"members":[{"user":"ann"}]}`)
		p.tell(`{"t":"unfollowed","topic":"room"}`)
		return true
	})
	c := r.client("/", r.options())
	room := c.Follow("room")
	time.Sleep(time.Second)
	members, live := room.Members()
	require.Len(t, members, 1)
	require.False(t, live)
	var refused *client.RequestError
	require.ErrorAs(t, room.Err(), &refused)
	require.Equal(t, "forbidden", refused.Code)
	var kinds []string
	for e := range room.Events() {
		if kinds = append(kinds, e.Kind); e.Kind == "error" {
			break
		}
	}
	require.Equal(t, []string{"snapshot", "error"}, kinds)
}

func TestEventsTellThatATopicMayNotBeFollowed(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.scripted(func(p peer, q asked) bool {
			p.no(q, "forbidden")
			return true
		})
		room := r.client("/", r.options()).Follow("room")
		for e := range room.Events() {
			require.Equal(t, "error", e.Kind)
			break
		}
		require.Error(t, room.Err())
	})
}

// Who waits for the answer is told, and nobody else.
func TestRefusedAfterALoss(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.scripted(func(p peer, q asked) bool {
			if p.n > 1 {
				p.no(q, "forbidden")
			}
			return p.n > 1
		})
		o := r.options()
		o.OnRefused = func(err error) { require.NoError(t, err) }
		c := r.client("/", o)
		var refused *client.RequestError
		err := c.Join(t.Context(), "room")
		require.ErrorAs(t, err, &refused)
		require.EqualError(t, err, `client: join "room": no (forbidden)`)
		time.Sleep(10 * time.Second)
	})
}

func TestRefusedAfterAReconnect(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		all := r.scripted(func(p peer, q asked) bool {
			switch {
			case q.T == "leave":
				return false // lost
			case p.n > 1:
				p.no(q, "forbidden")
			default:
				p.ok(q)
			}
			return true
		})
		o := r.options()
		told := make(chan error, 10)
		o.OnRefused = func(err error) { told <- err }
		c := r.client("/", o)
		require.NoError(t, c.Join(t.Context(), "room"))
		require.NoError(t, c.SetMeta(t.Context(), 1))
		room := c.Follow("room")
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		require.ErrorIs(t, c.Leave(ctx, "other"), context.DeadlineExceeded)
		time.Sleep(10 * time.Second)
		require.Len(t, told, 2)
		for _, text := range []string{`join "room" again`, "set the metadata again"} {
			err := <-told
			var refused *client.RequestError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, "forbidden", refused.Code)
			require.EqualError(t, err, "client: "+text+": no (forbidden)")
		}
		require.Error(t, room.Err())
		require.ElementsMatch(t, []string{"join", "set", "follow"}, kinds(all(), 2))
	})
}
