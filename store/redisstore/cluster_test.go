package redisstore_test

import (
	"cmp"
	"fmt"
	"net"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/proctest"
	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/redisstore"
	"github.com/a4cafe1a/presence/store/storetest"
)

// newCluster starts three masters that share the slots.
func newCluster(t testing.TB) ([]*server, *redis.ClusterClient) {
	proctest.RedisServer(t)
	var servers []*server
	var addrs []string
	for range 3 {
		s := newServer(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", fmt.Sprint(proctest.FreePort(t)))
		servers, addrs = append(servers, s), append(addrs, s.addr)
	}
	first := servers[0].client(t)
	for i, s := range servers {
		c := s.client(t)
		require.NoError(t, c.Do(ctx, "cluster", "set-config-epoch", i+1).Err())
		require.NoError(t, c.Do(ctx, "cluster", "addslotsrange", i*16384/3, (i+1)*16384/3-1).Err())
		host, port, _ := net.SplitHostPort(s.addr)
		if i > 0 {
			bus := s.args[slices.Index(s.args, "--cluster-port")+1]
			require.NoError(t, first.Do(ctx, "cluster", "meet", host, port, bus).Err())
		}
	}
	for _, s := range servers {
		c := s.client(t)
		eventually(t, 20*time.Second, "the cluster does not come up", func() bool {
			info, _ := c.ClusterInfo(ctx).Result()
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3")
		})
	}
	client := redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: addrs, MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true, DisableIdentity: true,
	})
	t.Cleanup(func() { _ = client.Close() })
	return servers, client
}

// TestCluster runs the suite on three masters, with partitions on each.
func TestCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	servers, client := newCluster(t)
	for _, db := range []bool{false, true} {
		// Clients that may read from replicas must not do so here.
		if db {
			addrs := []string{}
			for _, s := range servers {
				addrs = append(addrs, s.addr)
			}
			client = redis.NewClusterClient(&redis.ClusterOptions{
				Addrs: addrs, ReadOnly: true, RouteRandomly: true, MaxRetries: -1, DialerRetries: 1, DisableIdentity: true,
			})
			t.Cleanup(func() { _ = client.Close() })
		}
		t.Run(map[bool]string{false: "plain", true: "reading"}[db], func(t *testing.T) {
			some := []string{"FirstInLastOut", "Bell", "NodeLost", "MembersInOrder", "SnapshotAndFold", "Next", "LookupInOrder", "DisconnectUser", "HoldSavesLeases"}
			storetest.Run(t, func(t *testing.T) storetest.Harness {
				if db && !slices.Contains(some, path.Base(t.Name())) {
					t.Skip("has run")
				}
				s, err := redisstore.NewMovable(client, redisstore.Options{Namespace: namespace(), Partitions: 8, Lease: lease, Log: 512})
				require.NoError(t, err)
				past(t, s, lease, s.Advance)
				return storetest.Harness{Store: s, Lease: lease, Log: 512, Advance: s.Advance}
			})
		})
	}
	t.Run("half a slot", func(t *testing.T) { halfASlot(t, servers, client) })
	used := 0
	for _, s := range servers {
		n, err := s.client(t).DBSize(ctx).Result()
		require.NoError(t, err)
		if n > 0 {
			used++
		}
	}
	require.Equal(t, 3, used, "the partitions do not spread over the masters")
}

// halfASlot commits while the slot of the partition is about to move. A script
// would fail at the first key that does not exist yet, after what it had
// written until then.
func halfASlot(t *testing.T, servers []*server, client *redis.ClusterClient) {
	s, err := redisstore.NewFrozen(client, redisstore.Options{Namespace: namespace(), Lease: lease})
	require.NoError(t, err)
	defer s.Close()
	past(t, s, lease, s.Advance)
	l := register(t, s, "a")
	commit(t, s, l, add("u", "s1", "room"))
	slot, err := client.ClusterKeySlot(ctx, s.Tag(0)+"m").Result()
	require.NoError(t, err)
	source, other := masters(t, servers, slot)
	id, err := other.Do(ctx, "cluster", "myid").Text()
	require.NoError(t, err)
	require.NoError(t, source.Do(ctx, "cluster", "setslot", slot, "migrating", id).Err())
	_, err = s.Commit(ctx, l, []store.Op{add("v", "s2", "another")})
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.NoError(t, source.Do(ctx, "cluster", "setslot", slot, "stable").Err())
	require.Equal(t, store.Offline, state(t, s, "v"), "a commit was applied by half")
	commit(t, s, l, add("v", "s2", "another"))
	n, err := s.Count(ctx, "another")
	require.NoError(t, err)
	require.Equal(t, store.Counts{Users: 1, Sessions: 1}, n)
	require.False(t, renew(t, s, l, true, "s1", "s2").Reassert)
}

// masters returns the master of a slot, and another.
func masters(t *testing.T, servers []*server, slot int64) (source, other *redis.Client) {
	for i, s := range servers {
		if first, next := int64(i*16384/3), int64((i+1)*16384/3); slot >= first && slot < next {
			return s.client(t), servers[(i+1)%3].client(t)
		}
	}
	t.Fatal("nobody has the slot")
	return nil, nil
}

// TestSlotMoves moves a partition to another master under nodes and feeds.
func TestSlotMoves(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	servers, client := newCluster(t)
	const lease = 2 * time.Second
	a := newProcess(t, client, "a", redisstore.Options{Partitions: 2, Lease: lease})
	b := newProcess(t, client, "b", redisstore.Options{Partitions: 2, Lease: lease})
	var users []string
	for i := range 40 {
		u := fmt.Sprint("u", i)
		users = append(users, u)
		[]*process{a, b}[i%2].join(u, u+"-s", "room")
	}
	all := func() bool {
		c, err := a.s.Count(ctx, "room")
		return err == nil && c.Users == len(users) && c.MaybeGone == 0
	}
	eventually(t, 10*time.Second, "the first hold does not end", all)
	seen := a.follow("room")

	slot, err := client.ClusterKeySlot(ctx, a.s.Tag(0)+"m").Result()
	require.NoError(t, err)
	source, target := masters(t, servers, slot)
	ids := map[*redis.Client]string{}
	for _, c := range []*redis.Client{source, target} {
		ids[c], err = c.Do(ctx, "cluster", "myid").Text()
		require.NoError(t, err)
	}
	require.NoError(t, target.Do(ctx, "cluster", "setslot", slot, "importing", ids[source]).Err())
	require.NoError(t, source.Do(ctx, "cluster", "setslot", slot, "migrating", ids[target]).Err())
	host, port, _ := net.SplitHostPort(target.Options().Addr)
	// Half of the keys are there already, half still here, and sessions come
	// and go in rooms that are new.
	var churn sync.WaitGroup
	stop := make(chan struct{})
	for i, p := range []*process{a, b} {
		churn.Go(func() {
			for k := 0; ; k++ {
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Millisecond):
				}
				u := fmt.Sprint("c", i, "-", k)
				op := add(u, u, fmt.Sprint("new-", i, "-", k), "all")
				p.mu.Lock()
				p.held[u] = op
				p.mu.Unlock()
				p.n.Do(op, nil)
				if k%2 == 1 {
					p.leave(u, u, 0)
				}
			}
		})
	}
	for begun := time.Now(); ; {
		keys, err := source.ClusterGetKeysInSlot(ctx, int(slot), 10_000).Result()
		require.NoError(t, err)
		if len(keys) == 0 {
			break
		}
		// Topics first: what every script reads stays for a while.
		slices.SortFunc(keys, func(a, b string) int {
			return cmp.Or(strings.Count(b, ":t:")-strings.Count(a, ":t:"), strings.Compare(a, b))
		})
		if keys = keys[:min(5, len(keys))]; !strings.Contains(keys[0], ":t:") && time.Since(begun) < lease {
			time.Sleep(lease / 3)
		}
		args := []any{"migrate", host, port, "", 0, 5000, "keys"}
		for _, k := range keys {
			args = append(args, k)
		}
		require.NoError(t, source.Do(ctx, args...).Err())
		time.Sleep(20 * time.Millisecond)
	}
	for _, s := range servers {
		_ = s.client(t).Do(ctx, "cluster", "setslot", slot, "node", ids[target]).Err()
	}
	time.Sleep(lease / 3)
	close(stop)
	churn.Wait()
	eventually(t, lease+6*time.Second, "it is not right after the move", all)
	eventually(t, 10*time.Second, "what came and went meanwhile is not committed", func() bool {
		return a.n.Flush(ctx) == nil && b.n.Flush(ctx) == nil
	})
	want := map[string]int{}
	for _, p := range []*process{a, b} {
		p.mu.Lock()
		for _, op := range p.held {
			for _, topic := range append(op.Topics, "") {
				want[topic]++
			}
		}
		p.mu.Unlock()
	}
	eventually(t, 10*time.Second, "the counts are wrong after the move", func() bool {
		for topic, n := range want {
			if c, err := a.s.Count(ctx, topic); err != nil || c != (store.Counts{Users: n, Sessions: n}) {
				t.Logf("%q: %+v, %v; not %d", topic, c, err, n)
				return false
			}
		}
		return true
	})
	rs, err := b.s.Lookup(ctx, nil, users)
	require.NoError(t, err)
	for _, r := range rs {
		require.Equal(t, store.Online, r.State, r.User)
	}
	for i := range 20 {
		a.join(fmt.Sprint("late", i), fmt.Sprint("late", i), "room")
	}
	eventually(t, 5*time.Second, "a subscriber hears nothing after the move", func() bool {
		seen.mu.Lock()
		defer seen.mu.Unlock()
		return len(seen.members) == len(users)+20
	})
	require.Empty(t, seen.left)
	require.Empty(t, seen.broken)
}
