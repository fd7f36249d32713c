package redisstore_test

import (
	"fmt"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/redisstore"
)

func batch(from, n int, topics ...string) []store.Op {
	ops := make([]store.Op, n)
	for i := range ops {
		ops[i] = add("user-"+strconv.Itoa(from+i), sessionID(from+i), topics...)
	}
	return ops
}

func bench(b testing.TB) (*redis.Client, *redisstore.Store, store.Lease) {
	client := newServer(b).client(b)
	s, err := redisstore.NewFrozen(client, redisstore.Options{Lease: lease, Log: 64})
	require.NoError(b, err)
	b.Cleanup(func() { _ = s.Close() })
	past(b, s, lease, s.Advance)
	return client, s, register(b, s, "node-1")
}

// Bounds: a look-up of 1,000 users of 100,000 takes less than 3 times as long
// as a bare MGET of 1,000 keys, which is what one has who keeps a key per user.
func BenchmarkLookup1000(b *testing.B) {
	client, s, l := bench(b)
	const users = 100_000
	names, keys := make([]string, users), make([]string, users)
	for i := 0; i < users; i += 200 {
		commit(b, s, l, batch(i, 200)...)
	}
	var pairs []any
	for i := range users {
		names[i], keys[i] = "user-"+strconv.Itoa(i), "k"+strconv.Itoa(i)
		pairs = append(pairs, keys[i], sessionID(i))
		if len(pairs) == 2000 {
			require.NoError(b, client.MSet(ctx, pairs...).Err())
			pairs = pairs[:0]
		}
	}
	b.Run("Lookup", func(b *testing.B) {
		b.ReportAllocs()
		var dst []store.UserRecord
		i := 0
		for b.Loop() {
			var err error
			dst, err = s.Lookup(ctx, dst[:0], names[i:i+1000])
			if err != nil || dst[999].State != store.Online {
				b.Fatal(err, dst[999])
			}
			i = (i + 1000) % users
		}
	})
	b.Run("MGET", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			if _, err := client.MGet(ctx, keys[i:i+1000]...).Result(); err != nil {
				b.Fatal(err)
			}
			i = (i + 1000) % users
		}
	})
	b.Run("Lookup1", func(b *testing.B) {
		b.ReportAllocs()
		var dst []store.UserRecord
		for b.Loop() {
			dst, _ = s.Lookup(ctx, dst[:0], names[:1])
		}
	})
}

// Bounds: a batch of 200 joins holds everybody up for less than 10 ms.
func BenchmarkJoin200(b *testing.B) {
	for _, topics := range [][]string{nil, {"room", "hall"}} {
		b.Run(fmt.Sprintf("topics=%d", len(topics)+1), func(b *testing.B) {
			_, s, l := bench(b)
			i := 0
			for b.Loop() {
				commit(b, s, l, batch(i, 200, topics...)...)
				i += 200
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(i), "µs/join")
		})
	}
}

// Bounds: a slice of 200 sessions of a dead node takes less than 10 ms.
func BenchmarkSweep200(b *testing.B) {
	_, s, l := bench(b)
	slices := 0
	for b.Loop() {
		b.StopTimer()
		dead := register(b, s, "dead")
		commit(b, s, dead, batch(0, 200, "room")...)
		require.NoError(b, s.End(ctx, dead, 0, store.CauseNodeLost))
		b.StartTimer()
		r, err := s.Sweep(ctx, l, 200)
		if err != nil || r.Done != 200 {
			b.Fatal(r, err)
		}
		slices++
	}
}

// TestMemory bounds what Redis keeps, as package redisstore's comment says.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("fills a Redis")
	}
	const users = 20_000
	client, m, l := bench(t)
	commit(t, m, l, add("first", "first")) // keys that are there once
	used := func(c *redis.Client) int {
		info, err := c.Info(ctx, "memory").Result()
		require.NoError(t, err)
		n, err := strconv.Atoi(regexp.MustCompile(`used_memory_dataset:(\d+)`).FindStringSubmatch(info)[1])
		require.NoError(t, err)
		return n
	}
	for _, x := range []struct {
		name  string
		bound int
		op    func(i int) store.Op
	}{
		{"a user with one session", 320, func(i int) store.Op { return add("user-"+strconv.Itoa(i), sessionID(i)) }},
		{"a second session", 60, func(i int) store.Op { return add("user-"+strconv.Itoa(i), sessionID(users+i)) }},
		{"a room of 20", 110, func(i int) store.Op {
			return store.Op{Kind: store.OpJoin, User: "user-" + strconv.Itoa(i), Session: sessionID(i), Topics: []string{"room-" + strconv.Itoa(i/20)}}
		}},
		{"a room of 2", 180, func(i int) store.Op {
			return store.Op{Kind: store.OpJoin, User: "user-" + strconv.Itoa(i), Session: sessionID(i), Topics: []string{"pair-" + strconv.Itoa(i/2)}}
		}},
		{"a room of all", 180, func(i int) store.Op {
			return store.Op{Kind: store.OpJoin, User: "user-" + strconv.Itoa(i), Session: sessionID(i), Topics: []string{"hall"}}
		}},
		{"metadata of 40 bytes", 200, func(i int) store.Op {
			return store.Op{Kind: store.OpMeta, User: "user-" + strconv.Itoa(i), Session: sessionID(i), Meta: make([]byte, 40)}
		}},
	} {
		before := used(client)
		var ops []store.Op
		for i := range users {
			if ops = append(ops, x.op(i)); len(ops) == 200 {
				commit(t, m, l, ops...)
				ops = ops[:0]
			}
		}
		// Tables that grow are there twice until they are moved.
		per := 1 << 30
		for end := time.Now().Add(700 * time.Millisecond); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			per = min(per, (used(client)-before)/users)
		}
		t.Logf("%s: %d B", x.name, per)
		require.LessOrEqual(t, per, x.bound, x.name)
	}
}
