package presence_test

import (
	"context"
	"errors"
	"net"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence"
)

// BenchmarkBytes bounds what a live session costs in all of presence: the state
// of its connection, registry, scheduler, lease and the store's record. Each is
// that of a user of its own, without topics or metadata. The net.Conn is not
// counted.
func BenchmarkBytes(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			for b.Loop() {
				b.ReportMetric(float64(bytesPerSession(b, n)), "B/session")
			}
		})
	}
}

// bytesPerSession fills a Presence with n sessions and says what each holds.
func bytesPerSession(t testing.TB, n int) int {
	p, err := presence.New(presence.Options{HeartbeatInterval: time.Hour, Limits: presence.Limits{Sessions: n}})
	require.NoError(t, err)
	users, conns := make([]string, n), make([]silent, n)
	for i := range users {
		users[i] = "user-" + strconv.Itoa(i)
	}
	before := heap()
	const together = 400 // who comes waits for the store's group commit
	var all sync.WaitGroup
	for g := range together {
		all.Go(func() {
			for i := g; i < n; i += together {
				_, _, err := p.Attach(context.Background(), &conns[i], func(net.Conn) (presence.Identity, error) {
					return presence.Identity{User: users[i]}, nil
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	each := int(heap()-before) / n
	counts, err := p.Count(context.Background(), "")
	require.NoError(t, err)
	require.Equal(t, n, counts.Users)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second) // half of which ends are spread over
	defer cancel()
	_ = p.Shutdown(ctx)
	runtime.KeepAlive(conns)
	runtime.KeepAlive(users)
	return each
}

func heap() int64 {
	for range 3 { // pools take two collections to forget
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// silent is a connection over which nothing comes.
type silent struct{ _ byte }

func (*silent) Read([]byte) (int, error)         { return 0, errors.ErrUnsupported }
func (*silent) Write(b []byte) (int, error)      { return len(b), nil }
func (*silent) Close() error                     { return nil }
func (*silent) LocalAddr() net.Addr              { return nil }
func (*silent) RemoteAddr() net.Addr             { return nil }
func (*silent) SetDeadline(time.Time) error      { return nil }
func (*silent) SetReadDeadline(time.Time) error  { return nil }
func (*silent) SetWriteDeadline(time.Time) error { return nil }
