package redisstore

import (
	"context"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/a4cafe1a/presence/store"
)

// movableLua is clock.lua, and a key that moves it.
const movableLua = `
local function clock()
  local t = redis.call('TIME')
  local ahead = redis.call('GET', string.sub(KEYS[1], 1, -2) .. 'ahead') or 0
  return t[1] * 1000000 + t[2] + ahead
end`

// frozenLua is a clock that only the key moves.
const frozenLua = `
local function clock()
  return 1700000000000000 + (redis.call('GET', string.sub(KEYS[1], 1, -2) .. 'ahead') or 0)
end`

// NewFrozen makes a store with a clock that stands still but for Advance.
func NewFrozen(client redis.UniversalClient, o Options) (*Store, error) {
	return newStore(client, o, newScripts(frozenLua, userLua))
}

// NewAsking is NewMovable with a log that holds no user at all, as if each had
// very many sessions.
func NewAsking(client redis.UniversalClient, o Options) (*Store, error) {
	return newStore(client, o, newScripts(movableLua, strings.Replace(userLua, "LARGE, ASK = 128", "LARGE, ASK = 0", 1)))
}

// NewMovable makes a store with a clock that Advance moves.
func NewMovable(client redis.UniversalClient, o Options) (*Store, error) {
	return newStore(client, o, newScripts(movableLua, userLua))
}

// Advance moves the clock of every store that was made with NewMovable or
// NewFrozen in this namespace.
func (s *Store) Advance(d time.Duration) {
	for _, p := range s.shards {
		if err := s.client.IncrBy(context.Background(), p.tag+"ahead", d.Microseconds()).Err(); err != nil {
			panic(err)
		}
		p.clock.forget()
	}
}

// CommitAs is Commit with a number of the caller's own, as a call that comes
// late has an old one.
func (s *Store) CommitAs(lease store.Lease, call, over int64, ops []store.Op) error {
	p, number, nonce, err := s.holder(lease)
	if err != nil {
		return err
	}
	_, err = s.eval(context.Background(), s.scripts.commit, p, number, nonce, call, over, packOps(ops))
	return err
}

// Tag is what every key of a partition begins with.
func (s *Store) Tag(shard int) string { return s.shards[shard].tag }

// HoldFeeds keeps the log of a partition from being read until release.
func (s *Store) HoldFeeds(shard int) (release func()) {
	s.shards[shard].tail.turn <- struct{}{}
	return s.shards[shard].tail.unlock
}
