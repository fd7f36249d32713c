package redisstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/store"
)

// What a change of a user takes in the log does not grow with the user's
// sessions, and a feed shows them all.
func TestUserWithManySessions(t *testing.T) {
	client := sharedServer(t).client(t)
	s := frozen(t, client, namespace())
	past(t, s, lease, s.Advance)
	l := register(t, s, "a")
	f, err := s.Watch(ctx, "room")
	require.NoError(t, err)
	defer f.Close()
	logged := func() int {
		v, err := client.XRevRangeN(ctx, s.Tag(0)+"log", "+", "-", 1).Result()
		require.NoError(t, err)
		return len(v[0].Values["c"].(string))
	}
	bytes := map[int]int{}
	for i := range 1000 {
		op := add("u", sessionID(i), "room")
		if i == 500 {
			op.Meta = []byte(`"described"`)
		}
		commit(t, s, l, op)
		bytes[i+1] = logged()
	}
	t.Logf("bytes in the log for one more session, with 10: %d, with 100: %d, with 1,000: %d", bytes[10], bytes[100], bytes[1000])
	for i, n := range bytes {
		require.Less(t, n, 1500, "with %d sessions", i)
	}
	require.LessOrEqual(t, bytes[1000], bytes[100]+8)

	b, err := f.Poll(ctx)
	require.NoError(t, err)
	require.Len(t, b.Changes, 1000)
	require.Equal(t, store.Joined, b.Changes[0].Kind)
	last := b.Changes[999].Member
	require.Len(t, last.Sessions, 1000)
	require.Equal(t, store.Online, last.State)
	require.Equal(t, `"described"`, string(last.Sessions[500].Meta))
	require.Equal(t, "a", last.Sessions[999].NodeName)
	page, err := s.Members(ctx, "room", "", 0)
	require.NoError(t, err)
	require.Equal(t, page.Members[0].Sessions, last.Sessions)
	require.True(t, page.Members[0].Since.Equal(last.Since))

	// A new incarnation takes the sessions over, which is no change. Then one
	// of them changes, and the others are still shown.
	next := register(t, s, "a")
	var ops []store.Op
	for _, x := range last.Sessions {
		op := add("u", x.ID, "room")
		op.Since, op.Meta = x.Since, x.Meta
		ops = append(ops, op)
	}
	commit(t, s, next, append(ops, store.Op{Kind: store.OpAway, User: "u", Session: sessionID(3), Away: true})...)
	b, err = f.Poll(ctx)
	require.NoError(t, err)
	require.NotEmpty(t, b.Changes)
	last = b.Changes[len(b.Changes)-1].Member
	require.Len(t, last.Sessions, 1000)
	require.True(t, last.Sessions[3].Away)
}

// A feed that reads late what a user with many sessions did long ago still
// sees each Joined before its Left, of a member each time.
func TestManySessionsReadLate(t *testing.T) {
	s := frozen(t, sharedServer(t).client(t), namespace())
	past(t, s, lease, s.Advance)
	l := register(t, s, "a")
	f, err := s.Watch(ctx, "room")
	require.NoError(t, err)
	defer f.Close()
	come := func(from int) (ops []store.Op) {
		for i := range 40 {
			ops = append(ops, add("u", sessionID(from+i), "room"))
		}
		return ops
	}
	leave := func(from int) (ops []store.Op) {
		for i := range 40 {
			ops = append(ops, store.Op{Kind: store.OpRemove, User: "u", Session: sessionID(from + i), Cause: store.CauseLost})
		}
		return ops
	}
	for _, last := range []string{"gone", "there", "in another topic"} {
		release := s.HoldFeeds(0)
		from := 0
		for range 3 {
			commit(t, s, l, come(from)...)
			s.Advance(time.Second)
			commit(t, s, l, leave(from)...)
			from += 100
		}
		if last != "gone" {
			commit(t, s, l, come(from)...)
		}
		if last == "in another topic" {
			for i := range 40 {
				commit(t, s, l, store.Op{Kind: store.OpLeave, User: "u", Session: sessionID(from + i), Topics: []string{"room"}})
			}
		}
		release()
		b, err := f.Poll(ctx)
		require.NoError(t, err)
		there := false
		for i, c := range b.Changes {
			what := fmt.Sprintf("%s: change %d of %d: %+v", last, i, len(b.Changes), c)
			require.Equal(t, c.Kind == store.Joined, !there, what)
			there = c.Kind != store.Left
			if there {
				require.GreaterOrEqual(t, c.Member.State, store.Grace, what)
				require.False(t, c.Member.Since.IsZero(), what)
				require.False(t, c.Member.AsOf.IsZero(), what)
			}
		}
		require.Equal(t, last == "there", there, last)
		if there {
			require.Len(t, b.Changes[len(b.Changes)-1].Member.Sessions, 40)
		}
		commit(t, s, l, leave(from)...)
		_, err = f.Poll(ctx)
		require.NoError(t, err)
	}
}

// A batch for one user with very many sessions holds everybody up hardly
// longer than one for many users: each of its operations is O(1).
func TestManySessionsBlockNobody(t *testing.T) {
	client := newServer(t).client(t)
	s := frozen(t, client, "p")
	past(t, s, lease, s.Advance)
	l := register(t, s, "a")
	took := func(ops []store.Op) float64 { // of CPU: others use this machine
		before := cpu(t, client)
		commit(t, s, l, ops...)
		return cpu(t, client) - before
	}
	batch := func(kind store.OpKind, from int, user func(i int) string) (ops []store.Op) {
		for i := from; i < from+200; i++ {
			op := add(user(i), sessionID(i), "room")
			op.Kind, op.Limit = kind, 1000
			ops = append(ops, op)
		}
		return ops
	}
	one := func(int) string { return "u" }
	each := func(i int) string { return fmt.Sprint("v", i) }
	for i := 0; i < 800; i += 200 {
		commit(t, s, l, batch(store.OpAdd, i, one)...)
	}
	few, many := 1e9, 1e9
	for range 5 {
		few = min(few, took(batch(store.OpAdd, 10_000, each)))
		commit(t, s, l, batch(store.OpRemove, 10_000, each)...)
		many = min(many, took(batch(store.OpAdd, 800, one)))
		commit(t, s, l, batch(store.OpRemove, 800, one)...)
	}
	t.Logf("200 joins: %.2f ms of 200 users, %.2f ms of one with 1,000 sessions", few*1e3, many*1e3)
	require.Less(t, many, 6*few)
}
