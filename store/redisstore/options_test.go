package redisstore_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/redisstore"
)

// recorder counts what go-redis logs.
type recorder struct{ lines atomic.Int64 }

func (r *recorder) Printf(context.Context, string, ...any) { r.lines.Add(1) }

func TestOptions(t *testing.T) {
	client := sharedServer(t).client(t)
	for name, o := range map[string]redisstore.Options{
		"brace":        {Namespace: "a{b"},
		"partitions":   {Partitions: -1},
		"short lease":  {Lease: time.Millisecond},
		"log":          {Log: -1},
		"long timeout": {Lease: 3 * time.Second, Timeout: 2 * time.Second},
	} {
		_, err := redisstore.New(client, o)
		require.ErrorIs(t, err, redisstore.ErrOptions, name)
	}
	_, err := redisstore.New(nil, redisstore.Options{})
	require.ErrorIs(t, err, redisstore.ErrOptions)
}

// Partitions and Lease are those that the namespace was begun with.
func TestOtherOptionsAreRefused(t *testing.T) {
	client := sharedServer(t).client(t)
	ns := namespace()
	s, err := redisstore.New(client, redisstore.Options{Namespace: ns, Partitions: 2})
	require.NoError(t, err)
	defer s.Close()
	early, err := redisstore.New(client, redisstore.Options{Namespace: ns, Partitions: 3})
	require.NoError(t, err, "nothing is stored yet")
	defer early.Close()
	for shard := range 2 {
		_, err = s.Register(ctx, shard, store.Node{ID: "n"})
		require.NoError(t, err)
	}
	for _, o := range []redisstore.Options{{Partitions: 1}, {Partitions: 3}, {Partitions: 2, Lease: time.Second}} {
		o.Namespace = ns
		_, err = redisstore.New(client, o)
		require.ErrorIs(t, err, redisstore.ErrOptions, "%+v", o)
	}
	_, err = early.Register(ctx, 0, store.Node{ID: "m"})
	require.ErrorIs(t, err, redisstore.ErrOptions)
	_, err = early.Lookup(ctx, nil, []string{"a", "b", "c", "d"})
	require.ErrorIs(t, err, redisstore.ErrOptions)
}

// A Redis that does not answer costs a call its timeout and no more, whatever
// the client's own timeouts are, and calls do not pile up behind it.
func TestTimeout(t *testing.T) {
	t.Parallel()
	server := newServer(t)
	client := redis.NewClient(&redis.Options{Addr: server.addr}) // as it comes: 3 retries of 3 s
	s, err := redisstore.New(client, redisstore.Options{Lease: 900 * time.Millisecond})
	require.NoError(t, err)
	l := register(t, s, "a")
	server.pause(t)
	for range 3 {
		begun := time.Now()
		_, err = s.Renew(ctx, l, store.Summary{})
		require.ErrorIs(t, err, store.ErrUnavailable)
		require.Less(t, time.Since(begun), 2500*time.Millisecond, "the timeout is 300 ms, and the client's own 3 s")
	}
	errs := make(chan error, 1000)
	for range cap(errs) {
		go func() {
			_, err := s.Lookup(ctx, nil, []string{"u"})
			errs <- err
		}()
	}
	for range cap(errs) {
		require.ErrorIs(t, <-errs, store.ErrUnavailable)
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	_, err = s.Lookup(short, nil, []string{"u"})
	require.Error(t, err)
	server.resume(t)
	eventually(t, 5*time.Second, "it does not come back", func() bool {
		_, err := s.Lookup(ctx, nil, []string{"u"})
		return err == nil
	})
	require.NoError(t, s.Close())
	_ = client.Close()
}
