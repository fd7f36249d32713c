package redisstore_test

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/redisstore"
)

// calls returns how often each command was called by clients, not by scripts.
func calls(t testing.TB, c *redis.Client) map[string]int {
	info, err := c.Info(ctx, "commandstats").Result()
	require.NoError(t, err)
	m := map[string]int{}
	for _, x := range regexp.MustCompile(`cmdstat_([^:]+):calls=(\d+)`).FindAllStringSubmatch(info, -1) {
		m[x[1]], _ = strconv.Atoi(x[2])
	}
	return m
}

// roundTrips are the commands that this package sends.
func roundTrips(m map[string]int) int {
	n := 0
	for _, c := range []string{"eval", "evalsha", "exec", "ssubscribe", "sunsubscribe", "ping", "script|load"} {
		n += m[c]
	}
	return n
}

func sessionID(i int) string { return fmt.Sprintf("%016x", uint64(i)*0x9E3779B97F4A7C15+1) }

// TestIdleCostsNothing: what Redis sees while nothing happens is the same for
// 100 sessions and for 5,000.
func TestIdleCostsNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("watches for some seconds")
	}
	t.Parallel()
	const lease = 900 * time.Millisecond
	rate := map[int]float64{} // in three leases
	for _, sessions := range []int{100, 5000} {
		server := newServer(t)
		admin := server.client(t)
		a := newProcess(t, server.client(t), "a", redisstore.Options{Lease: lease})
		b := newProcess(t, server.client(t), "b", redisstore.Options{Lease: lease})
		for i := range sessions {
			op := add(fmt.Sprint("u", i), sessionID(i), "room-"+strconv.Itoa(i/20))
			a.mu.Lock()
			a.held[op.Session] = op
			a.mu.Unlock()
			a.n.Do(op, nil)
		}
		require.NoError(t, a.n.Flush(ctx))
		require.NoError(t, b.n.Flush(ctx))
		a.follow("room-1")
		time.Sleep(2 * lease) // the hold of a new namespace, and what follows it
		require.NoError(t, admin.ConfigResetStat(ctx).Err())
		begun := time.Now()
		time.Sleep(3 * lease)
		stats := calls(t, admin)
		took := time.Since(begun)
		rate[sessions] = float64(roundTrips(stats)) * float64(3*lease) / float64(took)
		t.Logf("%d sessions: %d round trips in %v by 2 nodes: %v", sessions, roundTrips(stats), took, stats)
		total, err := b.s.Count(ctx, "")
		require.NoError(t, err)
		require.Equal(t, sessions, total.Sessions)
	}
	// 9 renewals each, and what lies on the edges.
	require.InDelta(t, 18, rate[100], 9)
	require.LessOrEqual(t, rate[5000], 2*rate[100])
}

// TestStorm: joins are committed in groups, at most 100 round trips a second
// for a node, and 10 for all else.
func TestStorm(t *testing.T) {
	server := newServer(t)
	admin := server.client(t)
	p := newProcess(t, server.client(t), "a", redisstore.Options{})
	require.NoError(t, p.n.Flush(ctx))
	require.NoError(t, admin.ConfigResetStat(ctx).Err())
	logAll(t, admin)
	const joins = 10_000
	begun := time.Now()
	for i := range joins {
		p.n.Do(add(fmt.Sprint("u", i), sessionID(i), "room-"+strconv.Itoa(i/20), "hall-"+strconv.Itoa(i/200)), nil)
		if i%500 == 499 {
			time.Sleep(time.Millisecond) // so that not all are there at once
		}
	}
	require.NoError(t, p.n.Flush(ctx))
	took := time.Since(begun)
	trips := roundTrips(calls(t, admin))
	t.Logf("%d joins into 3 topics: %d round trips in %v", joins, trips, took.Round(time.Millisecond))
	require.LessOrEqual(t, float64(trips), 110*took.Seconds()+10)
	requireShort(t, admin, joins)
}

// perScript is what one script does at most. Then none takes 10 ms on a machine
// of its own; on a shared one Redis counts the time in which others ran, so that
// times are only told.
const perScript = 200

// requireShort fails if so many things were done by too few scripts.
func requireShort(t testing.TB, admin *redis.Client, things int) {
	log, err := admin.SlowLogGet(ctx, -1).Result()
	require.NoError(t, err)
	var took []time.Duration
	for _, l := range log {
		if len(l.Args) > 0 && strings.HasPrefix(l.Args[0], "eval") {
			took = append(took, l.Duration)
		}
	}
	slices.Sort(took)
	n := len(took)
	require.NotZero(t, n)
	t.Logf("%d scripts: half took up to %v, nine of ten %v, the longest %v", n, took[n/2], took[n*9/10], took[n-1])
	require.GreaterOrEqual(t, n, things/perScript, "scripts do too much at once")
}

// logAll makes Redis remember how long each command took.
func logAll(t testing.TB, admin *redis.Client) {
	require.NoError(t, admin.ConfigSet(ctx, "slowlog-log-slower-than", "0").Err())
	require.NoError(t, admin.ConfigSet(ctx, "slowlog-max-len", "100000").Err())
	require.NoError(t, admin.Do(ctx, "slowlog", "reset").Err())
}

// TestSweepOfMany: 20,000 sessions of a dead node are swept in 2 s, in slices
// that hold nobody up.
func TestSweepOfMany(t *testing.T) {
	server := newServer(t)
	client := server.client(t)
	s := frozen(t, client, "p")
	past(t, s, lease, s.Advance)
	dead, l := register(t, s, "a"), register(t, s, "b")
	const n = 20_000
	for i := 0; i < n; i += 200 {
		var ops []store.Op
		for j := i; j < i+200; j++ {
			ops = append(ops, add(fmt.Sprint("u", j), sessionID(j), "room-"+strconv.Itoa(j/20)))
		}
		commit(t, s, dead, ops...)
	}
	for range 4 {
		s.Advance(lease / 3)
		renew(t, s, l, true)
	}
	logAll(t, client)
	begun, calls := time.Now(), 0
	for more := true; more; calls++ {
		r, err := s.Sweep(ctx, l, 0)
		require.NoError(t, err)
		more = r.More
	}
	took := time.Since(begun)
	t.Logf("%d sessions swept in %v, %d slices", n, took.Round(time.Millisecond), calls)
	// The promise is 2 s, with 5 ms of pause between slices, on a machine of its
	// own.
	requireShort(t, client, n)
	keys, err := client.Keys(ctx, "{p:0}:*").Result()
	require.NoError(t, err)
	for _, k := range keys {
		require.NotContains(t, []string{"{p:0}:u", "{p:0}:k", "{p:0}:d", "{p:0}:x", "{p:0}:i:2"}, k, "something is left behind")
		require.NotContains(t, k, ":t:", "something is left behind")
	}
}

// TestKeysHaveOneTag: in a Cluster a partition lives in one slot. A key with
// another tag would work as long as its slot is on the same master.
func TestKeysHaveOneTag(t *testing.T) {
	server := newServer(t)
	client := server.client(t)
	s, err := redisstore.NewFrozen(client, redisstore.Options{Namespace: "p", Partitions: 3, Lease: lease})
	require.NoError(t, err)
	defer s.Close()
	past(t, s, lease, s.Advance)
	for shard := range s.Shards() {
		l, err := s.Register(ctx, shard, store.Node{ID: "n", KeepLastSeen: time.Hour})
		require.NoError(t, err)
		for i := range 100 {
			u := fmt.Sprint("{other}u", i)
			if s.ShardOf(u) != shard {
				continue
			}
			op := add(u, sessionID(i), "{else}room", "hall")
			op.Meta, op.Limit, op.WhenFull = []byte("1"), 1, store.ReplaceOldest
			next := op
			next.Session = sessionID(1000 + i)
			commit(t, s, l, op, next)
			if i%2 == 0 {
				commit(t, s, l, store.Op{Kind: store.OpRemove, User: u, Session: next.Session, Grace: time.Second})
			}
			if i%3 == 0 {
				commit(t, s, l, store.Op{Kind: store.OpEndGrace, User: u})
			}
		}
		_, err = s.Disconnect(ctx, "{other}u1", "", 4403, "")
		require.NoError(t, err)
	}
	keys, err := client.Keys(ctx, "*").Result()
	require.NoError(t, err)
	require.Greater(t, len(keys), 3*8)
	for _, k := range keys {
		require.Regexp(t, `^\{p:[012]\}:`, k)
	}
}

// The logger of go-redis is silent once there is a store.
func TestRedisLogIsSilent(t *testing.T) {
	said := &recorder{}
	redis.SetLogger(said)
	defer logging.Disable()
	c := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1, DialerRetries: 1})
	defer c.Close()
	require.Error(t, c.Ping(ctx).Err())
	require.NotZero(t, said.lines.Load(), "the logger of go-redis does not print any more: drop what silences it")
	s, err := redisstore.New(c, redisstore.Options{KeepRedisLog: true})
	require.NoError(t, err, "Redis need not be there yet")
	require.NoError(t, s.Close())
	said.lines.Store(0)
	s, err = redisstore.New(c, redisstore.Options{})
	require.NoError(t, err)
	defer s.Close()
	said.lines.Store(0)
	_, err = s.Lookup(ctx, nil, []string{"u"})
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.Zero(t, said.lines.Load())
}

// A question is one round trip per partition, whatever its size, and never
// walks over everything that Redis holds.
func TestQuestionsAreOneRoundTrip(t *testing.T) {
	for _, partitions := range []int{1, 3} {
		server := newServer(t)
		admin := server.client(t)
		s, err := redisstore.NewFrozen(server.client(t), redisstore.Options{Partitions: partitions, Lease: lease})
		require.NoError(t, err)
		defer s.Close()
		past(t, s, lease, s.Advance)
		var users []string
		ops := make([][]store.Op, partitions)
		for i := range 1000 {
			u := fmt.Sprint("u", i)
			users = append(users, u)
			op := add(u, sessionID(i), "room")
			op.Meta = []byte("1")
			ops[s.ShardOf(u)] = append(ops[s.ShardOf(u)], op)
		}
		for shard := range partitions {
			l, err := s.Register(ctx, shard, store.Node{ID: "a"})
			require.NoError(t, err)
			commit(t, s, l, ops[shard]...)
		}
		ask := map[string]func() error{
			"Lookup": func() error {
				rs, err := s.Lookup(ctx, nil, users)
				if err == nil && (rs[999].State != store.Online || string(rs[0].Sessions[0].Meta) != "1") {
					err = fmt.Errorf("it found %+v", rs[999])
				}
				return err
			},
			"Count": func() error { _, err := s.Count(ctx, "room"); return err },
			"Members": func() error {
				p, err := s.Members(ctx, "room", "", 1000)
				if err == nil && len(p.Members) != 1000 {
					err = fmt.Errorf("it found %d", len(p.Members))
				}
				return err
			},
		}
		for name, f := range ask {
			require.NoError(t, f()) // the scripts are there, and metadata is expected
			require.NoError(t, admin.ConfigResetStat(ctx).Err())
			require.NoError(t, f())
			stats := calls(t, admin)
			require.Equal(t, partitions, roundTrips(map[string]int{"evalsha": stats["evalsha"] - stats["exec"], "exec": stats["exec"]}),
				"%s in %d partitions: %v", name, partitions, stats)
			require.LessOrEqual(t, stats["hgetall"], partitions, "the leases, and nothing else")
			for _, all := range []string{"keys", "scan", "hscan", "sscan", "zscan", "smembers", "hkeys", "hvals"} {
				require.Zero(t, stats[all], "%s: %s", name, all)
			}
		}
	}
}
