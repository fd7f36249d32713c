package redisstore_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/store"
)

// What was trimmed before it was read is a Reset, whether all of it is gone or
// only the beginning, and never a silence.
func TestTrimmedLog(t *testing.T) {
	for name, keep := range map[string]int64{"all": 0, "the beginning": 2} {
		t.Run(name, func(t *testing.T) {
			client := sharedServer(t).client(t)
			s := frozen(t, client, namespace())
			past(t, s, lease, s.Advance)
			l := register(t, s, "a")
			f, err := s.Watch(ctx, "room")
			require.NoError(t, err)
			defer f.Close()
			commit(t, s, l, add("u", "s", "room"))
			b, err := f.Poll(ctx)
			require.NoError(t, err)
			require.Len(t, b.Changes, 1)

			release := s.HoldFeeds(0)
			for i := range 5 {
				commit(t, s, l, add(fmt.Sprint("v", i), fmt.Sprint("t", i), "room"))
			}
			require.NoError(t, client.XTrimMaxLen(ctx, s.Tag(0)+"log", keep).Err())
			release()
			b, err = f.Poll(ctx)
			require.NoError(t, err)
			require.True(t, b.Reset)
			require.Empty(t, b.Changes)
			end, err := s.Position(ctx, 0)
			require.NoError(t, err)
			require.Equal(t, end, b.Spans[0].To)

			commit(t, s, l, add("w", "x", "room"))
			b, err = f.Poll(ctx)
			require.NoError(t, err)
			require.False(t, b.Reset)
			require.Len(t, b.Changes, 1)
			require.Equal(t, store.Joined, b.Changes[0].Kind)
		})
	}
}

// The log is bounded by the changes in it.
func TestLogIsBounded(t *testing.T) {
	client := sharedServer(t).client(t)
	s := frozen(t, client, namespace())
	past(t, s, lease, s.Advance)
	l := register(t, s, "a")
	for i := range 200 {
		var ops []store.Op
		for j := range 200 {
			ops = append(ops, add(fmt.Sprint("u", i, "-", j), fmt.Sprint("s", i, "-", j)))
		}
		commit(t, s, l, ops...)
	}
	list, err := client.XRange(ctx, s.Tag(0)+"log", "-", "+").Result()
	require.NoError(t, err)
	require.InDelta(t, 4*4096/200, len(list), 5)
}
