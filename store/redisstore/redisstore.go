package redisstore

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/a4cafe1a/presence/store"
)

// ErrOptions: the options are wrong, or others than the ones the namespace
// was begun with.
var ErrOptions = errors.New("redisstore: options")

// Options say where in Redis the store lives and how long things last. Zero
// means the default.
type Options struct {
	// Namespace begins every key, so that several stores can share a Redis;
	// "presence". It must not hold a brace.
	Namespace string

	// Partitions is over how many parts users are spread, each in a slot of
	// its own of a Redis Cluster; 1. On a single Redis more than one costs
	// calls and brings nothing. In a Cluster take 64 or more, so that they
	// spread evenly, and some 100,000 users for each. It is fixed for the life
	// of the namespace.
	Partitions int

	// Lease is how long a lease is good after a renewal; 10 s. It is fixed for
	// the life of the namespace, too.
	Lease time.Duration

	// Log is how many changes a feed may be behind; 4,096. Beyond it the feed
	// gets a Reset. In Redis each partition keeps 4 times as many, of all
	// topics, for feeds that cannot read for a moment. What one operation
	// brings to several topics counts once for each, and takes some 100 bytes
	// in all.
	Log int

	// Timeout bounds one call; a third of Lease, at most 3 s. It may not be
	// longer than a third of Lease.
	Timeout time.Duration

	// KeepRedisLog leaves the logger of go-redis alone. It is one for the whole
	// process and prints each failure to connect; New silences it, because the
	// package that uses the store reports failures itself.
	KeepRedisLog bool
}

// Store is a store.Store in Redis. Make one with New. It is safe for
// concurrent use.
type Store struct {
	client  redis.UniversalClient
	lease   time.Duration
	timeout time.Duration
	maxLog  int
	conf    string // what must be stored
	scripts scripts
	shards  []*shard

	stuck   atomic.Int64 // calls given up that have not returned
	checked atomic.Bool  // the stored options are ours

	mu     sync.Mutex // while done is closed, and loops start
	done   chan struct{}
	ctx    context.Context // of what runs in the background
	cancel context.CancelFunc
	loops  sync.WaitGroup
}

// shard is one partition, seen from here.
type shard struct {
	id    int
	tag   string // "{ns:p}:"
	keys  []string
	metas atomic.Bool // some user has metadata
	clock skew
	calls flight
	tail  tail
	bells bells
}

// New makes a store from a client, which stays the caller's. Redis need not be
// there yet: then only the calls fail. ErrOptions: o is wrong, or Redis is
// there and the namespace was begun with other Partitions or another Lease.
//
// The client must reach masters, not replicas. Its own retries and timeouts
// count within Options.Timeout; see the package comment for the settings that
// suit best.
func New(client redis.UniversalClient, o Options) (*Store, error) {
	return newStore(client, o, newScripts(clockLua, userLua))
}

func newStore(client redis.UniversalClient, o Options, run scripts) (*Store, error) {
	if o.Namespace == "" {
		o.Namespace = "presence"
	}
	if o.Partitions == 0 {
		o.Partitions = 1
	}
	if o.Lease == 0 {
		o.Lease = 10 * time.Second
	}
	if o.Log == 0 {
		o.Log = 4096
	}
	if o.Timeout == 0 {
		o.Timeout = min(o.Lease/3, 3*time.Second)
	}
	switch {
	case client == nil:
		return nil, fmt.Errorf("%w: no client", ErrOptions)
	case strings.ContainsAny(o.Namespace, "{}"):
		return nil, fmt.Errorf("%w: Namespace %q holds a brace", ErrOptions, o.Namespace)
	case o.Partitions < 1 || o.Partitions > 16384:
		return nil, fmt.Errorf("%w: %d Partitions", ErrOptions, o.Partitions)
	case o.Lease < 100*time.Millisecond:
		return nil, fmt.Errorf("%w: a Lease of %v is too short", ErrOptions, o.Lease)
	case o.Log < 1:
		return nil, fmt.Errorf("%w: a Log of %d", ErrOptions, o.Log)
	case o.Timeout < 0 || o.Timeout > o.Lease/3:
		return nil, fmt.Errorf("%w: a Timeout of %v with a Lease of %v; at most a third", ErrOptions, o.Timeout, o.Lease)
	}
	if !o.KeepRedisLog {
		logging.Disable()
	}
	s := &Store{
		client:  client,
		lease:   o.Lease.Truncate(time.Microsecond),
		timeout: o.Timeout,
		maxLog:  o.Log,
		scripts: run,
		done:    make(chan struct{}),
	}
	s.conf = strconv.Itoa(o.Partitions) + " " + strconv.FormatInt(s.lease.Microseconds(), 10)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for i := range o.Partitions {
		p := &shard{id: i, tag: "{" + o.Namespace + ":" + strconv.Itoa(i) + "}:"}
		p.keys = []string{p.tag + "m", p.tag + "none"}
		p.tail.init(s, p)
		p.bells.init(s, p)
		s.shards = append(s.shards, p)
	}
	if err := s.check(s.ctx); errors.Is(err, ErrOptions) {
		s.cancel()
		return nil, err
	}
	return s, nil
}

// check asks the first partition whether the namespace has our options. The
// others may be new, with fewer partitions than before.
func (s *Store) check(ctx context.Context) error {
	if s.checked.Load() {
		return nil
	}
	_, err := s.eval(ctx, s.scripts.look, s.shards[0])
	if err == nil {
		s.checked.Store(true)
	}
	return err
}

// Shards returns Options.Partitions.
func (s *Store) Shards() int { return len(s.shards) }

// ShardOf implements store.Store. It is FNV-1a of the user, so that other
// programs can find it, too.
func (s *Store) ShardOf(user string) int {
	if len(s.shards) == 1 {
		return 0
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(user))
	return int(h.Sum32() % uint32(len(s.shards)))
}

func (s *Store) shard(i int) (*shard, error) {
	if i < 0 || i >= len(s.shards) {
		return nil, store.ErrShard
	}
	return s.shards[i], nil
}

// Close implements store.Store. The client stays open.
func (s *Store) Close() error {
	s.mu.Lock()
	if !s.closed() {
		close(s.done)
		s.cancel()
	}
	s.mu.Unlock()
	for _, p := range s.shards {
		p.bells.close()
	}
	s.loops.Wait()
	return nil
}

// background starts a goroutine that Close waits for, unless it is too late.
func (s *Store) background(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed() {
		return false
	}
	s.loops.Go(f)
	return true
}

func (s *Store) closed() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// fromMicros is a time of the store.
func fromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

func micros(us int64) time.Duration { return time.Duration(us) * time.Microsecond }

var _ store.Store = (*Store)(nil)
