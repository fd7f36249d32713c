package redisstore_test

import (
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/redisstore"
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

// Another generation is a Reset, also where nothing else shows it: the new log
// ends where the old one did, goes on behind it without a gap, or still has
// all that the feed has not read.
func TestFeedNoticesAnotherGeneration(t *testing.T) {
	wipe := func(t *testing.T, c *redis.Client, s *redisstore.Store) {
		keys, err := c.Keys(ctx, s.Tag(0)+"*").Result()
		require.NoError(t, err)
		for _, k := range keys {
			if k != s.Tag(0)+"ahead" {
				require.NoError(t, c.Del(ctx, k).Err())
			}
		}
	}
	for name, c := range map[string]struct {
		lose  func(t *testing.T, c *redis.Client, s *redisstore.Store)
		after int // changes of users that the feed has not seen
	}{
		"ends at the same place": {wipe, 1},
		"goes on without a gap":  {wipe, 2},
		"another master": {func(t *testing.T, c *redis.Client, s *redisstore.Store) {
			require.NoError(t, c.HSet(ctx, s.Tag(0)+"m", "replid", "another").Err())
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			client := sharedServer(t).client(t)
			s := frozen(t, client, namespace())
			past(t, s, lease, s.Advance)
			l := register(t, s, "a")
			commit(t, s, l, add("first", "s", "room"))
			f, err := s.Watch(ctx, "room")
			require.NoError(t, err)
			defer f.Close()
			before, err := s.Position(ctx, 0)
			require.NoError(t, err)

			release := s.HoldFeeds(0)
			c.lose(t, client, s)
			next := register(t, s, "a")
			for i := range c.after {
				commit(t, s, next, add(fmt.Sprint("u", i), fmt.Sprint("s", i), "room"))
			}
			if c.after == 1 && name != "another master" {
				now, err := s.Position(ctx, 0)
				require.NoError(t, err)
				require.Equal(t, before.Sequence, now.Sequence, "the case is another")
			}
			release()
			b, err := f.Poll(ctx)
			require.NoError(t, err)
			require.True(t, b.Reset, "it goes on as if nothing had been lost: %+v", b)
			require.NotEqual(t, before.Generation, b.Spans[0].To.Generation)
			commit(t, s, next, add("last", "last", "room"))
			b, err = f.Poll(ctx)
			require.NoError(t, err)
			require.False(t, b.Reset)
			require.Len(t, b.Changes, 1)
		})
	}
}

// A replica that was promoted behind its master, and that no node has reached
// yet, ends earlier in the same generation.
func TestFeedNoticesAShorterLog(t *testing.T) {
	client := sharedServer(t).client(t)
	s := frozen(t, client, namespace())
	past(t, s, lease, s.Advance)
	l := register(t, s, "a")
	commit(t, s, l, add("u", "s", "room"))
	f, err := s.Watch(ctx, "room")
	require.NoError(t, err)
	defer f.Close()
	at, err := s.Position(ctx, 0)
	require.NoError(t, err)
	require.NoError(t, client.HSet(ctx, s.Tag(0)+"m", "seq", at.Sequence-1).Err())
	b, err := f.Poll(ctx)
	require.NoError(t, err)
	require.True(t, b.Reset)
}
