package main

import (
	"fmt"
	"time"

	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/redisstore"
	"github.com/redis/go-redis/v9"
)

// openStore joins the cluster that meets in the Redis of this URL. Without one
// it returns no store: then presence keeps its own in memory.
func openStore(url string, lease time.Duration) (s store.Store, closeAll func(), err error) {
	if url == "" {
		return nil, func() {}, nil
	}
	o, err := redis.ParseURL(url)
	if err != nil {
		return nil, nil, fmt.Errorf("-redis: %w", err)
	}
	// The store tries again by itself, and knows when it is too late.
	o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled = -1, 1, true
	client := redis.NewClient(o)
	if s, err = redisstore.New(client, redisstore.Options{Lease: lease}); err != nil {
		_ = client.Close()
		return nil, nil, fmt.Errorf("-redis: %w", err)
	}
	return s, func() { _ = s.Close(); _ = client.Close() }, nil
}
