package redisstore_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/redisstore"
)

// Redis loses something in these tests, and its clock stands still meanwhile
// but for Advance, so that how long it takes decides nothing.
const lease = 10 * time.Second

func frozen(t testing.TB, client redis.UniversalClient, namespace string) *redisstore.Store {
	s, err := redisstore.NewFrozen(client, redisstore.Options{Namespace: namespace, Lease: lease, Timeout: 3 * time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func register(t testing.TB, s *redisstore.Store, id string) store.Lease {
	l, err := s.Register(ctx, 0, store.Node{ID: id, Name: id})
	require.NoError(t, err)
	return l
}

func add(user, session string, topics ...string) store.Op {
	return store.Op{Kind: store.OpAdd, User: user, Session: session, Topics: topics}
}

func commit(t testing.TB, s *redisstore.Store, l store.Lease, ops ...store.Op) []store.Result {
	t.Helper()
	r, err := s.Commit(ctx, l, ops)
	require.NoError(t, err)
	return r
}

// renew renews a lease that holds these sessions.
func renew(t testing.TB, s *redisstore.Store, l store.Lease, complete bool, sessions ...string) store.Orders {
	t.Helper()
	o, err := s.Renew(ctx, l, summary(complete, sessions...))
	require.NoError(t, err)
	return o
}

func summary(complete bool, sessions ...string) store.Summary {
	sum := store.Summary{Sessions: len(sessions), Complete: complete}
	for _, id := range sessions {
		sum.Digest ^= store.Digest(id)
	}
	return sum
}

func state(t testing.TB, s *redisstore.Store, user string) store.State {
	t.Helper()
	r, err := s.Lookup(ctx, nil, []string{user})
	require.NoError(t, err)
	return r[0].State
}

// A memory that is gone: who is not found is unknown, for the first reader as
// for all after the first node, until a lease has passed. Old leases are
// refused although their numbers are given again.
func TestWiped(t *testing.T) {
	server := newServer(t)
	client := server.client(t)
	s := frozen(t, client, "p")
	past(t, s, lease, s.Advance)
	l := register(t, s, "a")
	since := commit(t, s, l, add("u", "s", "room"))[0].Since
	feed, err := s.Watch(ctx, "room")
	require.NoError(t, err)
	before, err := s.Position(ctx, 0)
	require.NoError(t, err)
	require.Equal(t, store.Offline, state(t, s, "v"))

	ahead, err := client.Get(ctx, s.Tag(0)+"ahead").Result()
	require.NoError(t, err)
	require.NoError(t, client.FlushAll(ctx).Err())
	require.NoError(t, client.Set(ctx, s.Tag(0)+"ahead", ahead, 0).Err())

	require.Equal(t, store.Unknown, state(t, s, "u"))
	require.Equal(t, store.Unknown, state(t, s, "v"))
	_, err = s.Members(ctx, "room", "", 0)
	require.ErrorIs(t, err, store.ErrUnknown)
	_, err = s.Count(ctx, "room")
	require.ErrorIs(t, err, store.ErrUnknown)
	_, err = s.Disconnect(ctx, "u", "", 4403, "")
	require.ErrorIs(t, err, store.ErrUnknown)
	_, err = s.Commit(ctx, l, []store.Op{add("w", "x")})
	require.ErrorIs(t, err, store.ErrLeaseLost)

	other := register(t, s, "b") // takes numbers that were given before
	next := register(t, s, "a")
	require.NotEqual(t, l.Token, next.Token)
	_, err = s.Commit(ctx, l, []store.Op{add("w", "x")})
	require.ErrorIs(t, err, store.ErrLeaseLost, "the old lease is taken for one with its number")
	commit(t, s, next, store.Op{Kind: store.OpAdd, User: "u", Session: "s", Topics: []string{"room"}, Since: since})
	require.Equal(t, store.Online, state(t, s, "u"))
	require.Equal(t, store.Unknown, state(t, s, "v"))

	// Nobody knows how many nodes there were: it does not end early.
	require.Positive(t, renew(t, s, next, true, "s").Hold)
	require.Positive(t, renew(t, s, other, true).Hold)
	require.Equal(t, store.Unknown, state(t, s, "v"))
	s.Advance(lease / 3)
	renew(t, s, next, true, "s")
	s.Advance(lease / 3)
	renew(t, s, next, true, "s")
	s.Advance(lease/3 + time.Second)
	renew(t, s, next, true, "s")
	require.Equal(t, store.Offline, state(t, s, "v"))
	require.Equal(t, store.Online, state(t, s, "u"))

	b, err := feed.Poll(ctx)
	require.NoError(t, err)
	require.True(t, b.Reset, "a feed goes on as if nothing had been lost")
	after, err := s.Position(ctx, 0)
	require.NoError(t, err)
	require.NotEqual(t, before.Generation, after.Generation)
	p, err := s.Members(ctx, "room", "", 0)
	require.NoError(t, err)
	require.Len(t, p.Members, 1)
	require.True(t, p.Members[0].Since.Equal(since))
}

// lost makes a Redis that has forgotten its last moments, each in its own way.
// It returns the server to go on with.
var lost = map[string]func(t *testing.T, from *server, moments func()) *server{
	"restarted from an older dump": func(t *testing.T, from *server, moments func()) *server {
		c := from.client(t)
		require.NoError(t, c.Save(ctx).Err())
		dump, err := os.ReadFile(filepath.Join(from.dir, "dump.rdb"))
		require.NoError(t, err)
		moments()
		from.kill()
		require.NoError(t, os.WriteFile(filepath.Join(from.dir, "dump.rdb"), dump, 0o600))
		from.start(t)
		return from
	},
	"promoted behind its master": func(t *testing.T, from *server, moments func()) *server {
		_, port, _ := net.SplitHostPort(from.addr)
		replica := newServer(t, "--replicaof", "127.0.0.1 "+port)
		c := replica.client(t)
		synced := func() bool {
			a, _ := from.client(t).Get(ctx, "{p:0}:ahead").Result()
			b, _ := c.Get(ctx, "{p:0}:ahead").Result()
			return a != "" && a == b
		}
		eventually(t, 20*time.Second, "the replica has not caught up", synced)
		// The first replica gave the master a new id. That is no loss, but
		// looks like one: let the hold pass.
		s := frozen(t, from.client(t), "p")
		z := register(t, s, "z")
		for range 4 {
			s.Advance(lease / 3)
			renew(t, s, z, true)
		}
		require.NoError(t, s.End(ctx, z, 0, store.CauseShutdown))
		eventually(t, 20*time.Second, "the replica has not caught up", synced)
		// Cut off, it keeps what it has.
		require.NoError(t, c.Do(ctx, "replicaof", "127.0.0.1", "1").Err())
		moments()
		from.kill()
		require.NoError(t, c.Do(ctx, "replicaof", "no", "one").Err())
		return replica
	},
}

// A memory whose end is gone: a lost join is noticed by its digest, a lost
// leave too, a lost node by its lease. Until a lease has passed nobody who is
// not found is called offline.
func TestLostTail(t *testing.T) {
	for name, lose := range lost {
		t.Run(name, func(t *testing.T) {
			first := newServer(t, "--repl-diskless-sync-delay", "0")
			s := frozen(t, first.client(t), "p")
			past(t, s, lease, s.Advance)
			l := register(t, s, "a")
			commit(t, s, l, add("u", "s1", "room"), add("v", "s2", "room"))
			var fresh, kept store.Lease
			var position store.Version
			after := lose(t, first, func() {
				// The hold that a first replica began may have ended l.
				if _, err := s.Renew(ctx, l, summary(true, "s1", "s2")); err != nil {
					l = register(t, s, "a")
					commit(t, s, l, add("u", "s1", "room"), add("v", "s2", "room"))
				}
				kept = register(t, s, "c")
				fresh = register(t, s, "b")
				commit(t, s, l, add("w", "s3"), store.Op{Kind: store.OpRemove, User: "v", Session: "s2", Cause: store.CauseLost})
				commit(t, s, fresh, add("x", "s4", "room"))
				commit(t, s, kept, add("y", "s5"))
				var err error
				position, err = s.Position(ctx, 0)
				require.NoError(t, err)
			})

			r := frozen(t, after.client(t), "p")
			for _, user := range []string{"w", "x", "nobody"} {
				require.Equal(t, store.Unknown, state(t, r, user), "the first reader back says that %s is not there", user)
			}
			_, err := r.Count(ctx, "room")
			require.ErrorIs(t, err, store.ErrUnknown)

			// Others take the numbers of the leases that were lost.
			one, two := register(t, r, "d"), register(t, r, "e")
			for _, gone := range []store.Lease{fresh, kept} {
				_, err = r.Commit(ctx, gone, []store.Op{add("x", "s4", "room")})
				require.ErrorIs(t, err, store.ErrLeaseLost, "a lost lease is taken for another")
			}
			o, err := r.Renew(ctx, l, summary(true, "s1", "s3"))
			if err == nil {
				require.True(t, o.Reassert, "a lost join and a lost leave are not noticed")
				require.Positive(t, o.Hold)
			} else {
				require.ErrorIs(t, err, store.ErrLeaseLost)
			}
			again := register(t, r, "a")
			commit(t, r, again, add("u", "s1", "room"), add("w", "s3"))
			require.NoError(t, r.End(ctx, l, 0, store.CauseNodeLost))
			for range 4 {
				for _, d := range []store.Lease{one, two} {
					require.False(t, renew(t, r, d, true).Work, "something is to be swept in a hold")
				}
				require.False(t, renew(t, r, again, true, "s1", "s3").Reassert)
				require.Equal(t, store.Unknown, state(t, r, "x"))
				sw, err := r.Sweep(ctx, one, 0)
				require.NoError(t, err)
				require.Zero(t, sw.Done)
				r.Advance(lease / 4)
			}
			r.Advance(time.Second)
			for range 3 {
				_, err = r.Sweep(ctx, one, 0)
				require.NoError(t, err)
			}
			require.Equal(t, store.Online, state(t, r, "u"))
			require.Equal(t, store.Online, state(t, r, "w"))
			require.Equal(t, store.Offline, state(t, r, "v"))
			require.Equal(t, store.Offline, state(t, r, "x"))
			c, err := r.Count(ctx, "room")
			require.NoError(t, err)
			require.Equal(t, store.Counts{Users: 1, Sessions: 1}, c)
			now, err := r.Position(ctx, 0)
			require.NoError(t, err)
			require.NotEqual(t, position.Generation, now.Generation, "two histories have one name")
		})
	}
}

// Another master may not know of nodes that the old one knew. So the hold lasts
// a lease although all nodes it knows have said everything, also when a hold
// before it, in which nothing was lost, could end early.
func TestAnotherMasterForgot(t *testing.T) {
	client := sharedServer(t).client(t)
	s := frozen(t, client, namespace())
	past(t, s, lease, s.Advance)
	l := register(t, s, "a")
	commit(t, s, l, add("u", "s"))
	s.Advance(lease * 6 / 10) // nobody was heard
	require.Zero(t, renew(t, s, l, true, "s").Hold, "nothing was lost, and all nodes have told")
	require.Equal(t, store.Offline, state(t, s, "v"))

	require.NoError(t, client.HSet(ctx, s.Tag(0)+"m", "replid", "another").Err())
	for range 3 {
		require.Positive(t, renew(t, s, l, true, "s").Hold)
		require.Equal(t, store.Unknown, state(t, s, "v"), "a node may hold it that this master never heard of")
		require.Equal(t, store.Online, state(t, s, "u"))
		s.Advance(lease / 3)
	}
	s.Advance(time.Second)
	require.Zero(t, renew(t, s, l, true, "s").Hold)
	require.Equal(t, store.Offline, state(t, s, "v"))
}

// What was given up and arrives later than what came after it is refused.
func TestLateCommit(t *testing.T) {
	s := frozen(t, sharedServer(t).client(t), namespace())
	past(t, s, lease, s.Advance)
	l := register(t, s, "a")
	old := []store.Op{add("u", "s")}
	commit(t, s, l, old...)
	commit(t, s, l, store.Op{Kind: store.OpRemove, User: "u", Session: "s", Cause: store.CauseLost})
	require.ErrorIs(t, s.CommitAs(l, 1, 0, old), store.ErrUnavailable)
	require.Equal(t, store.Offline, state(t, s, "u"))
	require.False(t, renew(t, s, l, true).Reassert)
}

// A clock that goes back stands still: no dead lease rises, and the youngest
// session stays the youngest.
func TestClockGoesBack(t *testing.T) {
	s := frozen(t, sharedServer(t).client(t), namespace())
	past(t, s, lease, s.Advance)
	dead, l := register(t, s, "a"), register(t, s, "b")
	commit(t, s, dead, add("u", "s1"))
	for range 4 {
		s.Advance(lease / 3)
		renew(t, s, l, true)
	}
	require.Equal(t, store.Offline, state(t, s, "u"))
	was := commit(t, s, l, add("v", "s2"))[0].Since
	s.Advance(-time.Hour)
	require.Equal(t, store.Offline, state(t, s, "u"))
	require.Equal(t, store.Online, state(t, s, "v"))
	require.True(t, commit(t, s, l, add("v", "s3"))[0].Since.After(was))
	_, err := s.Commit(ctx, dead, nil)
	require.ErrorIs(t, err, store.ErrLeaseLost)
	commit(t, s, l, store.Op{Kind: store.OpRemove, User: "v", Session: "s2"}, store.Op{
		Kind: store.OpRemove, User: "v", Session: "s3", Grace: time.Second, Cause: store.CauseLost})
	s.Advance(2 * time.Second)
	renew(t, s, l, true)
	_, err = s.Sweep(ctx, l, 0)
	require.NoError(t, err)
	require.Equal(t, store.Offline, state(t, s, "v"), "time does not go on")
}

// Every session gets a time of its own, although the clock stands still.
func TestSinceGrowsWithoutTime(t *testing.T) {
	s := frozen(t, sharedServer(t).client(t), namespace())
	past(t, s, lease, s.Advance)
	l := register(t, s, "a")
	var last time.Time
	for i := range 5 {
		since := commit(t, s, l, add("u", fmt.Sprint("s", i)))[0].Since
		require.True(t, since.After(last))
		last = since
	}
	op := add("u", "new")
	op.Limit, op.WhenFull = 5, store.ReplaceOldest
	r := commit(t, s, l, op)[0]
	require.Equal(t, store.Done, r.Status)
	require.Equal(t, "s0", r.Replaced[0].ID)
}

// A sweep that took long to arrive says that the store stood still, and that
// others, who come back to what is due, may be right behind.
func TestStalled(t *testing.T) {
	t.Parallel()
	server := newServer(t)
	client := server.client(t)
	s, err := redisstore.New(client, redisstore.Options{Lease: 30 * time.Second})
	require.NoError(t, err)
	defer s.Close()
	l := register(t, s, "a")
	// The hold of a new namespace would do the same.
	require.NoError(t, client.HSet(ctx, s.Tag(0)+"m", "hold", 0).Err())
	commit(t, s, l, add("u", "s"), store.Op{
		Kind: store.OpRemove, User: "u", Session: "s", Grace: 100 * time.Millisecond, Cause: store.CauseLost})
	server.pause(t)
	late := make(chan store.SweepResult, 1)
	go func() {
		r, _ := s.Sweep(ctx, l, 0)
		late <- r
	}()
	time.Sleep(500 * time.Millisecond)
	server.resume(t)
	r := <-late
	require.Zero(t, r.Done, "a Left that was due while the store stood still was written at once")
	require.False(t, r.More)
	require.InDelta(t, time.Second, r.Next, float64(100*time.Millisecond))
	require.Equal(t, store.Grace, state(t, s, "u"))
	time.Sleep(r.Next + time.Millisecond)
	r, err = s.Sweep(ctx, l, 0)
	require.NoError(t, err)
	require.Equal(t, 1, r.Done)
	require.Equal(t, store.Offline, state(t, s, "u"))
}
