package presence_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/a4cafe1a/presence/store"
	"github.com/stretchr/testify/require"
)

// cutStore is a store behind a cable that was pulled: nothing comes back, and
// each call takes as long as its context lets it.
type cutStore struct {
	*awayStore
}

func (s *cutStore) Renew(ctx context.Context, l store.Lease, sum store.Summary) (store.Orders, error) {
	if s.away.Load() {
		return store.Orders{}, silence(ctx)
	}
	return s.awayStore.Renew(ctx, l, sum)
}

func (s *cutStore) Lookup(ctx context.Context, dst []store.UserRecord, users []string) ([]store.UserRecord, error) {
	if s.away.Load() {
		return dst, silence(ctx)
	}
	return s.awayStore.Lookup(ctx, dst, users)
}

func (s *cutStore) Disconnect(ctx context.Context, user, session string, code int, text string) (int, error) {
	if s.away.Load() {
		return 0, silence(ctx)
	}
	return s.awayStore.Disconnect(ctx, user, session, code, text)
}

func silence(ctx context.Context) error {
	late := time.NewTimer(3 * time.Second) // the store's own patience
	defer late.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-late.C:
		return store.ErrUnavailable
	}
}

// On a node that is cut off, its own users are described and kicked at once,
// and for all others the error does not take the store's timeout.
func TestCutOffAnswersAtOnce(t *testing.T) {
	s := &cutStore{&awayStore{Store: &lazyStore{}}}
	inBubble(t, presence.Options{Store: s}, nil, func(t *testing.T, b *bubble) {
		defer s.away.Store(false)
		ctx := t.Context()
		b.dial("/?user=ann&topic=room")
		s.away.Store(true)
		soon := func(what string, f func()) {
			t.Helper()
			begun := time.Now()
			f()
			require.LessOrEqual(t, time.Since(begun), 50*time.Millisecond, what)
		}
		// The first one finds out, before the node itself does.
		_, err := b.p.Online(ctx, "elsewhere")
		require.ErrorIs(t, err, presence.ErrStoreUnavailable)
		require.False(t, b.p.Stats().StoreAway)
		soon("the next", func() {
			_, err := b.p.Sessions(ctx, "ann")
			require.ErrorIs(t, err, presence.ErrStoreUnavailable)
		})
		wait(6 * time.Second)
		require.True(t, b.p.Stats().StoreAway)
		soon("Online", func() {
			online, err := b.p.Online(ctx, "ann")
			require.NoError(t, err)
			require.True(t, online)
		})
		soon("Lookup", func() {
			all, err := b.p.Lookup(ctx, "ann", "elsewhere")
			require.ErrorIs(t, err, presence.ErrStoreUnavailable, "not the caller's deadline")
			require.Equal(t, presence.Online, all[0].State)
			require.Equal(t, presence.Unknown, all[1].State)
		})
		soon("Sessions", func() {
			infos, err := b.p.Sessions(ctx, "ann")
			require.ErrorIs(t, err, presence.ErrStoreUnavailable)
			require.Len(t, infos, 1)
		})
		short, cancel := context.WithTimeout(ctx, time.Millisecond)
		_, err = b.p.Online(short, "elsewhere")
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded, "that was the caller's")
		require.NotErrorIs(t, err, presence.ErrUnknown)
		soon("DisconnectUser", func() {
			told, err := b.p.DisconnectUser(ctx, "ann", presence.Reason{})
			require.ErrorIs(t, err, presence.ErrStoreUnavailable)
			require.Equal(t, 1, told)
		})
		require.Equal(t, presence.CauseKicked, b.end("ann").Cause)
	})
}

// fullStore cannot be written to, but read: Redis that has no memory left.
type fullStore struct {
	*awayStore
}

func (s *fullStore) Commit(ctx context.Context, l store.Lease, ops []store.Op) ([]store.Result, error) {
	if s.away.Load() {
		return nil, fmt.Errorf("%w: out of memory", store.ErrUnavailable)
	}
	return s.awayStore.Commit(ctx, l, ops)
}

func (s *fullStore) Lookup(ctx context.Context, dst []store.UserRecord, users []string) ([]store.UserRecord, error) {
	time.Sleep(20 * time.Millisecond)
	return s.Store.Lookup(ctx, dst, users)
}

// What can be read is read, whatever else the store refuses.
func TestFullStoreIsRead(t *testing.T) {
	s := &fullStore{&awayStore{Store: &lazyStore{}}}
	inBubble(t, presence.Options{Store: s}, nil, func(t *testing.T, b *bubble) {
		defer s.away.Store(false)
		b.another(presence.Options{Store: s.Store}, nil).dial("/?user=remote")
		s.away.Store(true)
		b.dial("/?user=ann")
		wait(2500 * time.Millisecond)
		require.True(t, b.p.Stats().StoreAway)
		online, err := b.p.Online(t.Context(), "remote")
		require.NoError(t, err)
		require.True(t, online)
	})
}

// Failures are counted, and the log tells of them twice a minute at most,
// however many there are.
func TestStoreFailuresAreCountedAndLoggedRarely(t *testing.T) {
	log := &logbook{}
	withAway(t, presence.Options{Logger: log.logger()}, func(t *testing.T, b *bubble, s *awayStore) {
		b.dial("/?user=ann")
		require.Zero(t, b.p.Stats().StoreFailures)
		require.Equal(t, 1, b.p.Stats().Sessions)
		s.away.Store(true)
		wait(5 * time.Second)
		const n, pause = 10_000, 60 * time.Millisecond
		for range n {
			_, err := b.p.Online(t.Context(), "elsewhere")
			require.ErrorIs(t, err, presence.ErrStoreUnavailable)
			time.Sleep(pause)
		}
		st := b.p.Stats()
		require.True(t, st.StoreAway)
		require.GreaterOrEqual(t, st.StoreFailures, uint64(n+500), "queries, and the node's own calls once a second")
		away := log.lines("the store is away")
		require.LessOrEqual(t, len(away), int(n*pause/(30*time.Second))+2)
		require.Greater(t, len(away), 10)
		require.Contains(t, away[len(away)-1], "failures=")
		require.LessOrEqual(t, len(log.lines("")), len(away)+1, "nothing else is logged but the start")

		s.away.Store(false)
		wait(14 * time.Second)
		require.False(t, b.p.Stats().StoreAway)
		require.Len(t, log.lines("the store is back"), 1)
	})
}

// muteStore takes a renewal and never answers.
type muteStore struct {
	*awayStore
	mute atomic.Bool
}

func (s *muteStore) Renew(ctx context.Context, l store.Lease, sum store.Summary) (store.Orders, error) {
	if s.mute.Load() {
		<-ctx.Done()
		return store.Orders{}, ctx.Err()
	}
	return s.awayStore.Renew(ctx, l, sum)
}

// The log and Stats count the same failures, and the log says which call failed
// and how.
func TestLogAndStatsAgreeAboutFailures(t *testing.T) {
	log := &logbook{}
	s := &muteStore{awayStore: &awayStore{Store: &lazyStore{}}}
	inBubble(t, presence.Options{Store: s, Logger: log.logger()}, nil, func(t *testing.T, b *bubble) {
		var before uint64
		for outage, cut := range []*atomic.Bool{&s.away, &s.mute} {
			cut.Store(true)
			wait(10 * time.Second)
			s.away.Store(true) // for the queries
			for range 5 {
				_, err := b.p.Online(t.Context(), "elsewhere")
				require.ErrorIs(t, err, presence.ErrStoreUnavailable)
			}
			s.away.Store(false)
			cut.Store(false)
			wait(time.Minute)
			total := b.p.Stats().StoreFailures
			lines := log.lines("the store is back")
			require.Len(t, lines, outage+1)
			require.Contains(t, lines[outage], fmt.Sprintf("failures=%d failures_total=%d", total-before, total))
			require.GreaterOrEqual(t, total-before, uint64(5+2))
			before = total
		}
	})
	away := log.lines("the store is away")
	require.Len(t, away, 2)
	require.Contains(t, away[0], `call=renew error="store: unavailable" failures=1 failures_total=1`)
	require.Contains(t, away[1], `call=renew error="store: unavailable: no answer in 3s" failures=1 failures_total=`)
}

// downStore never answers a node, in any of many partitions.
type downStore struct {
	store.Store
}

func (s *downStore) Shards() int { return 64 }

func (s *downStore) Register(context.Context, int, store.Node) (store.Lease, error) {
	return store.Lease{}, store.ErrUnavailable
}

// Partitions do not multiply what is logged.
func TestPartitionsShareTheLog(t *testing.T) {
	log := &logbook{}
	synctest.Test(t, func(t *testing.T) {
		p, err := presence.New(presence.Options{Store: &downStore{&lazyStore{}}, Logger: log.logger()})
		require.NoError(t, err)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		require.GreaterOrEqual(t, p.Stats().StoreFailures, uint64(64*250))
		require.LessOrEqual(t, len(log.lines("the store is away")), 11)
		require.NoError(t, p.Shutdown(t.Context()))
	})
}

// commitCounter counts commits that carry something.
type commitCounter struct {
	store.Store
	commits int // one at a time
}

func (s *commitCounter) Commit(ctx context.Context, l store.Lease, ops []store.Op) ([]store.Result, error) {
	s.commits++
	time.Sleep(time.Millisecond) // a round trip
	return s.Store.Commit(ctx, l, ops)
}

// Thousands who are kicked at the same time share commits, and the wait for
// them.
func TestKicksShareCommits(t *testing.T) {
	s := &commitCounter{Store: &lazyStore{}}
	inBubble(t, presence.Options{Store: s}, nil, func(t *testing.T, b *bubble) {
		const n = 2000
		for i := range n {
			b.user(fmt.Sprint("u", i))
		}
		wait(time.Second)
		begun, before := time.Now(), s.commits
		done := make(chan error, n)
		for i := range n {
			go func() {
				_, err := b.p.DisconnectUser(t.Context(), fmt.Sprint("u", i), presence.Reason{})
				done <- err
			}()
		}
		for range n {
			require.NoError(t, <-done)
		}
		// 200 changes in each: the end of a session, and that of a grace.
		require.LessOrEqual(t, s.commits-before, 2*n/200+5)
		require.Less(t, time.Since(begun), 2*n/200*20*time.Millisecond, "one after the other it would be 20 s")
		require.Zero(t, b.count(""))
	})
}

func TestStatsCountEnds(t *testing.T) {
	inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
		require.Empty(t, b.p.Stats().Ended)
		for range 3 {
			b.dial("/?user=ann").Close()
		}
		silent := b.dial("/?user=ben")
		silent.Mute.Store(true)
		pending, err := wstest.Handshake(b.conn(), "/?user=cem")
		require.NoError(t, err)
		pending.Close()
		wait(2 * time.Minute)
		require.Equal(t, map[presence.Cause]uint64{presence.CauseLost: 3, presence.CauseSilent: 1}, b.p.Stats().Ended)
		text, err := json.Marshal(b.p.Stats())
		require.NoError(t, err)
		require.Contains(t, string(text), `"ended":{"lost":3,"silent":1}`)
	})
}
