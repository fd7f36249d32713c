package redisstore_test

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/store/redisstore"
)

// TestMeasureChurn prints what joins and leaves cost Redis, for the table in
// docs/cluster.md. It judges nothing, and runs on demand only.
func TestMeasureChurn(t *testing.T) {
	if os.Getenv("PRESENCE_MEASURE") == "" {
		t.Skip("measures, with PRESENCE_MEASURE=1")
	}
	const length = 4 * time.Second
	t.Log("| nodes | changes/s | calls/s | changes in a call | CPU of Redis | a process watches: CPU |")
	for _, nodes := range []int{1, 3} {
		for _, rate := range []int{0, 100, 1000, 5000} {
			var row [2]float64
			var trips, done float64
			for watched := range 2 {
				server := newServer(t)
				admin := server.client(t)
				var ps []*process
				for i := range nodes {
					ps = append(ps, newProcess(t, server.client(t), fmt.Sprint("n", i), redisstore.Options{}))
				}
				if watched == 1 {
					ps[0].follow("room")
				}
				for _, p := range ps {
					require.NoError(t, p.n.Flush(ctx))
				}
				require.NoError(t, admin.ConfigResetStat(ctx).Err())
				before, begun, n := cpu(t, admin), time.Now(), 0
				for time.Since(begun) < length {
					for ; float64(n) < float64(rate)*time.Since(begun).Seconds(); n++ {
						k := n / 2
						if n%2 == 1 {
							k -= rate / 4 // stays for half a second
						}
						u := fmt.Sprintf("user-%07d", k)
						switch p := ps[(k+rate)%nodes]; {
						case n%2 == 0:
							p.n.Do(add(u, sessionID(k), "room"), nil)
						case k >= 0:
							p.leave(u, sessionID(k), 0)
						}
					}
					time.Sleep(time.Millisecond)
				}
				for _, p := range ps {
					require.NoError(t, p.n.Flush(ctx))
				}
				took := time.Since(begun).Seconds()
				row[watched] = (cpu(t, admin) - before) / took * 100
				if watched == 0 {
					trips, done = float64(roundTrips(calls(t, admin)))/took, float64(n)/took
				}
				for _, p := range ps {
					p.stop()
				}
				server.kill()
			}
			t.Logf("| %d | %.0f | %.1f | %.1f | %.1f %% | %.1f %% |", nodes, done, trips, done/max(trips, 1), row[0], row[1])
		}
	}
}

// cpu is how many seconds a server has computed.
func cpu(t testing.TB, c *redis.Client) (s float64) {
	info, err := c.Info(ctx, "cpu").Result()
	require.NoError(t, err)
	for _, m := range regexp.MustCompile(`used_cpu_(?:sys|user):([\d.]+)`).FindAllStringSubmatch(info, -1) {
		v, err := strconv.ParseFloat(m[1], 64)
		require.NoError(t, err)
		s += v
	}
	return s
}
