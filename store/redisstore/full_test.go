package redisstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/store"
)

// Redis that has no memory left renews and sweeps, and is read; only what
// makes it larger is refused, and goes in as soon as there is room.
func TestFullMemory(t *testing.T) {
	server := newServer(t, "--maxmemory-policy", "noeviction")
	client := server.client(t)
	s := frozen(t, client, "p")
	past(t, s, lease, s.Advance)
	l, dead := register(t, s, "a"), register(t, s, "b")
	f, err := s.Watch(ctx, "room")
	require.NoError(t, err)
	op := add("u", "s1", "room")
	op.Meta = []byte(`"m"`)
	commit(t, s, l, op)
	commit(t, s, dead, add("v", "s2", "room"))
	advance := func(by time.Duration) { // Advance itself would be refused
		require.NoError(t, client.ConfigSet(ctx, "maxmemory", "0").Err())
		s.Advance(by)
		require.NoError(t, client.ConfigSet(ctx, "maxmemory", "1").Err())
	}
	require.NoError(t, client.ConfigSet(ctx, "maxmemory", "1").Err())

	_, err = s.Commit(ctx, l, []store.Op{add("w", "s3", "room")})
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.ErrorContains(t, err, "OOM", "a reason to be found in a log")
	rs, err := s.Lookup(ctx, nil, []string{"w", "u", "v"})
	require.NoError(t, err)
	require.Equal(t, []store.State{store.Offline, store.Online, store.Online}, []store.State{rs[0].State, rs[1].State, rs[2].State})
	require.Equal(t, `"m"`, string(rs[1].Sessions[0].Meta))
	many := make([]string, 2500)
	for i := range many {
		many[i] = fmt.Sprint("nobody", i)
	}
	many[2300] = "u"
	rs, err = s.Lookup(ctx, nil, many)
	require.NoError(t, err)
	for i, r := range rs {
		require.Equal(t, i == 2300, r.State == store.Online, i)
	}
	b, err := f.Poll(ctx)
	require.NoError(t, err)
	require.Len(t, b.Changes, 2)
	require.Equal(t, `"m"`, string(b.Changes[0].Member.Sessions[0].Meta))
	for range 4 {
		advance(lease / 3)
		require.False(t, renew(t, s, l, true, "s1").Reassert)
	}
	r, err := s.Sweep(ctx, l, 0)
	require.NoError(t, err)
	require.Equal(t, 1, r.Done, "the dead are swept: that makes room")
	n, err := s.Count(ctx, "room")
	require.NoError(t, err)
	require.Equal(t, store.Counts{Users: 1, Sessions: 1}, n)
	page, err := s.Members(ctx, "room", "", 0)
	require.NoError(t, err)
	require.Len(t, page.Members, 1)
	b, err = f.Poll(ctx)
	require.NoError(t, err)
	require.Len(t, b.Changes, 1)
	require.Equal(t, store.Left, b.Changes[0].Kind)
	told, err := s.Disconnect(ctx, "u", "", 4403, "")
	require.NoError(t, err)
	require.Equal(t, 1, told)
	other := register(t, s, "c")
	require.NoError(t, s.End(ctx, other, 0, store.CauseShutdown))

	require.NoError(t, client.ConfigSet(ctx, "maxmemory", "0").Err())
	commit(t, s, l, add("w", "s3", "room"))
	require.Equal(t, store.Online, state(t, s, "w"))
}
