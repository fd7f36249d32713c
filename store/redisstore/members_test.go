package redisstore_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/redisstore"
)

// together is a hook that lets no script after the first one go before as many
// are under way as are expected to be asked at once.
type together struct {
	mu    sync.Mutex
	waves []int // how many come at once, one after the other
	here  int
	calls int
	next  chan struct{}
	late  bool
}

func (g *together) expect(waves ...int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waves, g.here, g.calls, g.late, g.next = waves, 0, 0, false, make(chan struct{})
}

func (g *together) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (g *together) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (g *together) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "evalsha" {
			g.wait()
		}
		return next(ctx, cmd)
	}
}

func (g *together) wait() {
	g.mu.Lock()
	g.calls++
	if len(g.waves) == 0 {
		g.mu.Unlock()
		return
	}
	g.here++
	all := g.next
	if g.here == g.waves[0] {
		g.waves, g.here, g.next = g.waves[1:], 0, make(chan struct{})
		close(all)
	}
	g.mu.Unlock()
	select {
	case <-all:
	case <-time.After(20 * time.Second):
		g.mu.Lock()
		g.late = true
		g.mu.Unlock()
	}
}

// Partitions that have little of a topic are asked at once, not one after the
// other, and no more of them than a page needs.
func TestMembersAsksAtOnce(t *testing.T) {
	const partitions = 40
	client := sharedServer(t).client(t)
	s, err := redisstore.NewFrozen(client, redisstore.Options{Namespace: namespace(), Partitions: partitions, Lease: time.Minute})
	require.NoError(t, err)
	defer s.Close()
	past(t, s, time.Minute, s.Advance)
	hook := &together{}
	client.AddHook(hook)
	var everybody []string
	ops := make([][]store.Op, partitions)
	for i := range 600 {
		u := fmt.Sprint("u", i)
		everybody = append(everybody, u)
		topics := []string{"large"}
		if i < 30 {
			topics = append(topics, "small")
		}
		shard := s.ShardOf(u)
		ops[shard] = append(ops[shard], add(u, u, topics...))
	}
	for shard := range partitions {
		l, err := s.Register(ctx, shard, store.Node{ID: "a"})
		require.NoError(t, err)
		commit(t, s, l, ops[shard]...)
	}
	order := func(users []string) []string {
		users = slices.Clone(users)
		slices.SortFunc(users, func(a, b string) int {
			if x, y := s.ShardOf(a), s.ShardOf(b); x != y {
				return x - y
			}
			return slices.Index([]bool{a < b, a == b, a > b}, true) - 1
		})
		return users
	}
	_, err = s.Members(ctx, "nobody", "", 1)
	require.NoError(t, err)

	// One alone, then sixteen, then those that are left.
	hook.expect(1, 16, 16, 7)
	page, err := s.Members(ctx, "nobody", "", 100)
	require.NoError(t, err)
	require.False(t, page.More)
	require.Empty(t, page.Members)
	require.False(t, hook.late, "partitions are asked one after the other")
	require.Equal(t, partitions, hook.calls)

	// A page of a large topic comes from few of them.
	hook.expect()
	page, err = s.Members(ctx, "large", "", 100)
	require.NoError(t, err)
	require.True(t, page.More)
	require.Len(t, page.Members, 100)
	require.Less(t, hook.calls, 14, "15 in each: seven have the page")

	for topic, users := range map[string][]string{"large": everybody, "small": everybody[:30]} {
		for _, limit := range []int{1, 7, 29, 30, 100, 599, 600, 1000} {
			var seen []string
			for after := ""; ; {
				page, err := s.Members(ctx, topic, after, limit)
				require.NoError(t, err)
				require.LessOrEqual(t, len(page.Members), limit)
				for _, m := range page.Members {
					seen = append(seen, m.User)
				}
				if after = page.Next; !page.More {
					break
				}
			}
			require.Equal(t, order(users), seen, "%s, pages of %d", topic, limit)
		}
	}
}
