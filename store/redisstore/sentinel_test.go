package redisstore_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/proctest"
	"github.com/a4cafe1a/presence/store/redisstore"
)

// TestSentinel kills a master under nodes, users and subscribers, and lets
// Sentinel put its replica in its place: one that has heard all, and one that
// has not heard the last moments. Nobody who is there may be called offline or
// leave, nothing may be told twice, and afterwards everything is right.
func TestSentinel(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a failover")
	}
	t.Parallel()
	for name, behind := range map[string]bool{"a replica that has heard all": false, "a replica that is behind": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const lease = 1500 * time.Millisecond
			master := newServer(t, "--repl-diskless-sync-delay", "0")
			way := newWay(t, master.addr)
			_, port, _ := net.SplitHostPort(way.addr)
			replica := newServer(t, "--replicaof", "127.0.0.1 "+port)
			old, new := master.client(t), replica.client(t)
			eventually(t, 20*time.Second, "the replica does not follow", func() bool {
				info, _ := new.Info(ctx, "replication").Result()
				return strings.Contains(info, "master_link_status:up")
			})
			sentinel := newSentinel(t, master.addr)

			var ps []*process
			for i := range 3 {
				client := redis.NewFailoverClient(&redis.FailoverOptions{
					MasterName: "presence", SentinelAddrs: []string{sentinel.addr},
					MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true, DialTimeout: time.Second,
				})
				t.Cleanup(func() { _ = client.Close() })
				ps = append(ps, newProcess(t, client, fmt.Sprint("n", i), redisstore.Options{Lease: lease}))
			}
			c := newCrowd(t, 45, ps...)
			ps[0].join("goes", "goes", "hall")
			ps[0].follow("hall")
			before, err := ps[1].s.Position(ctx, 0)
			require.NoError(t, err)

			if behind {
				way.cut.Store(true)
				ps[0].leave("goes", "goes", 0)
				ps[2].join("comes", "comes", "hall")
				time.Sleep(lease / 2) // and all others move, and reload
				require.Greater(t, offset(t, old), offset(t, new), "the replica is not behind")
			}
			master.kill()
			killed := time.Now()
			eventually(t, 20*time.Second, "Sentinel does not promote the replica", func() bool {
				info, _ := new.Info(ctx, "replication").Result()
				return strings.Contains(info, "role:master")
			})
			promoted := time.Now()
			watch := sentinel.client(t)
			_, port, _ = net.SplitHostPort(replica.addr)
			eventually(t, 20*time.Second, "Sentinel does not tell of the replica", func() bool {
				at, err := watch.Do(ctx, "sentinel", "get-master-addr-by-name", "presence").StringSlice()
				return err == nil && at[1] == port
			})
			told := time.Now()
			eventually(t, lease+4*time.Second, "it is not right after the failover", c.right)
			t.Logf("promoted %v after the master was killed, told to clients %v later; right %v after that", promoted.Sub(killed).Round(time.Millisecond),
				told.Sub(promoted).Round(time.Millisecond), time.Since(told).Round(time.Millisecond))
			after, err := ps[1].s.Position(ctx, 0)
			require.NoError(t, err)
			require.NotEqual(t, before.Generation, after.Generation, "two histories have one name")
			if behind {
				// A lost leave is no ghost, and a lost join is back.
				eventually(t, lease+4*time.Second, "what was lost is not repaired", func() bool {
					page, err := ps[1].s.Members(ctx, "hall", "", 0)
					return err == nil && len(page.Members) == 1 && page.Members[0].User == "comes"
				})
				ps[2].leave("comes", "comes", 0)
			} else {
				ps[0].leave("goes", "goes", 0)
			}
			c.end()
		})
	}
}

// offset is how much of the replication stream a server has.
func offset(t testing.TB, c *redis.Client) int {
	info, err := c.Info(ctx, "replication").Result()
	require.NoError(t, err)
	_, rest, _ := strings.Cut(info, "master_repl_offset:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	require.NoError(t, err)
	return n
}

// newSentinel starts a Sentinel, which is the same program, and waits until it
// knows the master and its replica.
func newSentinel(t testing.TB, master string) *server {
	host, port, _ := net.SplitHostPort(master)
	s := &server{dir: t.TempDir(), addr: "127.0.0.1:" + strconv.Itoa(proctest.FreePort(t))}
	conf := filepath.Join(s.dir, "sentinel.conf")
	require.NoError(t, os.WriteFile(conf, []byte(strings.Join([]string{
		"sentinel monitor presence " + host + " " + port + " 1",
		"sentinel down-after-milliseconds presence 500",
		"sentinel failover-timeout presence 5000",
		"",
	}, "\n")), 0o600))
	s.conf = conf
	s.start(t)
	t.Cleanup(s.kill)
	c := s.client(t)
	eventually(t, 20*time.Second, "Sentinel does not know the replica", func() bool {
		list, err := c.Do(ctx, "sentinel", "replicas", "presence").Slice()
		return err == nil && len(list) == 1
	})
	return s
}

// way is a TCP connection to a server that can be cut: then nothing arrives any
// more, and nobody is told.
type way struct {
	addr string
	cut  atomic.Bool
}

func newWay(t testing.TB, to string) *way {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	w := &way{addr: l.Addr().String()}
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", to)
			if err != nil {
				_ = from.Close()
				continue
			}
			go w.carry(from, there)
			go w.carry(there, from)
		}
	}()
	return w
}

// carry copies until one side ends; what comes while it is cut is lost.
func (w *way) carry(to, from net.Conn) {
	defer to.Close()
	b := make([]byte, 16<<10)
	for {
		n, err := from.Read(b)
		if n > 0 && !w.cut.Load() {
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
