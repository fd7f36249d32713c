package presence_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/stretchr/testify/require"
)

// user opens a session that lives as long as the test.
func (b *bubble) user(name string, topics ...string) *presence.Session {
	b.t.Helper()
	s, err := b.p.Open(b.t.Context(), presence.Identity{User: name, Topics: topics})
	require.NoError(b.t, err)
	return s
}

// members are the users in a topic, after a user.
func (b *bubble) members(topic, after string) (users []string) {
	b.t.Helper()
	for m, err := range b.p.Members(b.t.Context(), topic, after) {
		require.NoError(b.t, err)
		users = append(users, m.User)
	}
	return users
}

func (b *bubble) count(topic string) presence.Counts {
	b.t.Helper()
	c, err := b.p.Count(b.t.Context(), topic)
	require.NoError(b.t, err)
	return c
}

// status is what Lookup says of one user.
func (b *bubble) status(user string) presence.Status {
	b.t.Helper()
	all, err := b.p.Lookup(b.t.Context(), user)
	require.NoError(b.t, err)
	require.Len(b.t, all, 1)
	require.Equal(b.t, user, all[0].User)
	return all[0]
}

func TestTopicsLive(t *testing.T) {
	inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
		ctx := t.Context()
		ann, tab, ben := b.user("ann", "lobby"), b.user("ann"), b.user("ben", "lobby")
		require.Equal(t, presence.Counts{Users: 2, Sessions: 3}, b.count(""))
		require.Equal(t, presence.Counts{Users: 2, Sessions: 2}, b.count("lobby"))
		require.NoError(t, tab.Join(ctx, "lobby", "room", "", "room"))
		require.NoError(t, ann.Join(ctx, "room"))
		require.NoError(t, ann.Join(ctx, "room"), "again: nothing")
		require.NoError(t, ann.Join(ctx), "nothing")
		require.Equal(t, presence.Counts{Users: 1, Sessions: 2}, b.count("room"))
		require.Equal(t, []string{"lobby", "room"}, tab.Info().Topics)
		require.NoError(t, ann.Leave(ctx, "room", "never there", ""))
		require.Equal(t, presence.Counts{Users: 1, Sessions: 1}, b.count("room"), "one of two tabs")
		require.NoError(t, tab.Leave(ctx, "room"))
		require.Zero(t, b.count("room"), "left on purpose: no grace")
		require.Equal(t, []string{"ann", "ben"}, b.members("lobby", ""))
		ben.Disconnect(presence.Reason{})
		wait(settle)
		require.Equal(t, []string{"ann"}, b.members("lobby", ""))
		require.ErrorIs(t, ben.Join(ctx, "room"), presence.ErrEnded)
		require.ErrorIs(t, ben.Leave(ctx, "lobby"), presence.ErrEnded)
		require.ErrorIs(t, ben.SetMeta(ctx, 1), presence.ErrEnded)
		require.Zero(t, b.count("room"))
	})
}

func TestMembersPages(t *testing.T) {
	const n = 350 // several pages underneath
	inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
		var want []string
		for i := range n {
			name := fmt.Sprintf("u%03d", i)
			want = append(want, name)
			b.user(name, "big")
		}
		require.Equal(t, want, b.members("big", ""))
		require.Equal(t, want[200:], b.members("big", "u199"))
		require.Equal(t, want[200:], b.members("big", "u199b"), "who need not be there")
		require.Empty(t, b.members("big", "u349"))
		require.Empty(t, b.members("nobody's", ""))
		seen := 0
		for range b.p.Members(t.Context(), "big", "") {
			if seen++; seen == 5 {
				break
			}
		}
		require.Equal(t, 5, seen)
		require.Equal(t, presence.Counts{Users: n, Sessions: n}, b.count("big"))

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, err := range b.p.Members(ctx, "big", "") {
			require.ErrorIs(t, err, context.Canceled)
		}
	})
}

func TestMembersWhileTheyGo(t *testing.T) {
	inBubble(t, presence.Options{LeaveGrace: -1}, nil, func(t *testing.T, b *bubble) {
		sessions := map[string]*presence.Session{}
		for i := range 300 {
			name := fmt.Sprintf("u%03d", i)
			sessions[name] = b.user(name)
		}
		seen := map[string]int{}
		for m, err := range b.p.Members(t.Context(), "", "") {
			require.NoError(t, err)
			seen[m.User]++
			sessions[m.User].Disconnect(presence.Reason{})
			wait(settle)
		}
		require.Len(t, seen, 300, "who was there all the while is seen")
		for user, n := range seen {
			require.Equal(t, 1, n, user)
		}
	})
}

func TestSetMeta(t *testing.T) {
	inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
		ctx := t.Context()
		s := b.user("ann", "room")
		sub, err := b.p.Subscribe(ctx, "room")
		require.NoError(t, err)
		defer sub.Close()
		require.Equal(t, presence.Snapshot, next(t, sub).Kind)

		require.NoError(t, s.SetMeta(ctx, map[string]string{"status": "here"}))
		e := next(t, sub)
		require.Equal(t, presence.Update, e.Kind)
		require.Equal(t, []json.RawMessage{[]byte(`{"status":"here"}`)}, e.Member.Metas)
		require.NoError(t, s.SetMeta(ctx, map[string]string{"status": "here"}))
		require.NoError(t, s.SetMeta(ctx, json.RawMessage(` {"status" : "here"} `)))
		wait(time.Second)
		require.Empty(t, pending(t, sub), "unchanged: nothing")

		start := time.Now()
		for i := range 100 { // a slider: 100 changes in a second
			go s.SetMeta(ctx, i)
			wait(10 * time.Millisecond)
		}
		wait(time.Second)
		events := pending(t, sub)
		require.LessOrEqual(t, len(events), 6, "at most four a second")
		require.GreaterOrEqual(t, len(events), 3)
		require.Equal(t, "99", string(events[len(events)-1].Member.Metas[0]), "the last one wins")
		require.Equal(t, "99", string(s.Info().Meta))
		require.Less(t, time.Since(start), 3*time.Second)

		require.NoError(t, s.SetMeta(ctx, nil))
		wait(time.Second)
		require.Nil(t, s.Info().Meta)
		require.Empty(t, pending(t, sub)[0].Member.Metas)
	})
}

func TestAway(t *testing.T) {
	inBubble(t, presence.Options{AwayAfter: time.Minute}, nil, func(t *testing.T, b *bubble) {
		one := b.dial("/?user=ann&topic=room")
		wait(30 * time.Second)
		b.dial("/?user=ann&topic=room")
		sub, err := b.p.Subscribe(t.Context(), "room")
		require.NoError(t, err)
		defer sub.Close()
		require.Equal(t, presence.Snapshot, next(t, sub).Kind)
		wait(31 * time.Second)
		require.False(t, b.status("ann").Away, "one of two sessions")
		infos := b.all("ann")
		require.Equal(t, []bool{true, false}, []bool{infos[0].Away, infos[1].Away})
		wait(30 * time.Second)
		require.True(t, b.status("ann").Away, "all are")
		require.Equal(t, presence.Online, b.status("ann").State)
		events := pending(t, sub)
		require.True(t, events[len(events)-1].Member.Away)
		require.NoError(t, one.SendText("back"))
		wait(settle)
		require.False(t, b.status("ann").Away, "at once")
		wait(59 * time.Second)
		require.False(t, b.status("ann").Away)
		wait(2 * time.Second)
		require.True(t, b.status("ann").Away, "again")
		require.Equal(t, 2, b.sessions("ann"), "heartbeats kept both")
		for _, e := range pending(t, sub) {
			require.Equal(t, presence.Update, e.Kind)
		}
	})
}

func TestSessionInfo(t *testing.T) {
	inBubble(t, presence.Options{NodeName: "node-a"}, nil, func(t *testing.T, b *bubble) {
		ctx := t.Context()
		came := time.Now()
		first := b.dial("/?user=ann&topic=room&topic=lobby&topic=room&topic=")
		wait(time.Minute)
		b.dial("/?user=ann")
		infos := b.all("ann")
		require.Len(t, infos, 2)
		one := infos[0]
		require.Len(t, one.ID, 16)
		require.Equal(t, "ann", one.User)
		require.Equal(t, "node-a", one.Node)
		require.Equal(t, []string{"lobby", "room"}, one.Topics)
		require.True(t, one.Local)
		require.False(t, one.Away)
		require.Nil(t, one.Meta)
		require.WithinDuration(t, came, one.Since, 100*time.Millisecond)
		require.WithinDuration(t, time.Now(), one.LastSeen, 26*time.Second)
		require.Positive(t, one.RTT)
		require.True(t, infos[1].Since.After(one.Since), "oldest first")
		require.NoError(t, first.SendText("x"))
		wait(0)
		require.WithinDuration(t, time.Now(), b.all("ann")[0].LastSeen, tick)

		st := b.status("ann")
		require.Equal(t, presence.Online, st.State)
		require.Equal(t, 2, st.Sessions)
		require.WithinDuration(t, came, st.Since, 100*time.Millisecond)
		require.WithinDuration(t, time.Now(), st.LastSeen, tick)
		require.WithinDuration(t, time.Now(), st.AsOf, time.Second)
		heard := time.Now()
		wait(20 * time.Second)
		require.WithinDuration(t, heard, b.status("ann").LastSeen, tick, "not the renewal of the node's lease")

		none, err := b.p.Sessions(ctx, "nobody")
		require.NoError(t, err)
		require.Empty(t, none)
	})
}

func TestLookupMany(t *testing.T) {
	inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
		b.user("ann")
		b.dial("/?user=ben").Close()
		wait(settle)
		all, err := b.p.Lookup(t.Context(), "nobody", "ann", "ben", "ann")
		require.NoError(t, err)
		require.Equal(t, []presence.State{presence.Offline, presence.Online, presence.Grace, presence.Online},
			[]presence.State{all[0].State, all[1].State, all[2].State, all[3].State}, "same order")
		none, err := b.p.Lookup(t.Context())
		require.NoError(t, err)
		require.Empty(t, none)
		for user, want := range map[string]bool{"nobody": false, "ann": true, "ben": true} {
			online, err := b.p.Online(t.Context(), user)
			require.NoError(t, err)
			require.Equal(t, want, online, user)
		}
	})
}

func TestQueriesAcrossNodes(t *testing.T) {
	cluster(t, presence.Options{}, func(t *testing.T, a, b *bubble) {
		a.dial("/?user=ann&topic=room")
		wait(time.Second)
		b.dial("/?user=ann&topic=room")
		b.dial("/?user=ben")
		for _, node := range []*bubble{a, b} {
			require.Equal(t, 2, node.status("ann").Sessions)
			require.Equal(t, presence.Counts{Users: 2, Sessions: 3}, node.count(""))
			require.Equal(t, presence.Counts{Users: 1, Sessions: 2}, node.count("room"))
			require.True(t, slices.Equal([]string{"ann", "ben"}, node.members("", "")))
			online, err := node.p.Online(t.Context(), "ben")
			require.NoError(t, err)
			require.True(t, online)
			infos := node.all("ann")
			require.Len(t, infos, 2)
			require.Equal(t, node == a, infos[0].Local)
			require.Equal(t, node == b, infos[1].Local)
			remote := infos[0]
			if node == a {
				remote = infos[1]
			}
			require.Zero(t, remote.RTT, "known on its own node only")
			require.Equal(t, []string{"room"}, remote.Topics)
			require.NotZero(t, remote.LastSeen)
		}
	})
}

func TestKeepLastSeen(t *testing.T) {
	for _, c := range []struct {
		name string
		keep time.Duration
		user string
		kept bool
	}{
		{"named", 0, "ann", true},
		{"named, not kept", -1, "ann", false},
		{"anonymous", 0, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, presence.Options{KeepLastSeen: c.keep}, nil, func(t *testing.T, b *bubble) {
				s := b.user(c.user)
				wait(30 * time.Second)
				left := time.Now()
				s.Disconnect(presence.Reason{})
				wait(time.Minute)
				st := b.status(s.User())
				require.Equal(t, presence.Offline, st.State)
				if !c.kept {
					require.Zero(t, st.LastSeen)
					return
				}
				require.WithinDuration(t, left, st.LastSeen, time.Second)
				wait(25 * time.Hour)
				require.Zero(t, b.status(s.User()).LastSeen, "forgotten after 24 h")
			})
		})
	}
}

func TestIdentityOfARequest(t *testing.T) {
	meta := json.RawMessage(`{"device":"phone"}`)
	topics := []string{"b", "a", "b", ""}
	o := presence.Options{Identify: func(*http.Request) (presence.Identity, error) {
		return presence.Identity{User: "ann", Topics: topics, Meta: meta}, nil
	}}
	inBubble(t, o, nil, func(t *testing.T, b *bubble) {
		b.dial("/")
		topics[0], meta[0] = "changed", 'X' // the app's slices are its own
		info := b.all("ann")[0]
		require.Equal(t, []string{"a", "b"}, info.Topics)
		require.Equal(t, `{"device":"phone"}`, string(info.Meta))
		for m, err := range b.p.Members(t.Context(), "a", "") {
			require.NoError(t, err)
			require.Equal(t, `{"device":"phone"}`, string(m.Metas[0]))
		}
		require.Equal(t, 2, strings.Count(fmt.Sprint(b.count("a"), b.count("b")), "{1 1 0}"))
	})
}
