package presence_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/store"
	"github.com/stretchr/testify/require"
)

// awayStore is a store that may be out of reach.
type awayStore struct {
	store.Store
	away atomic.Bool
}

func (s *awayStore) reach() error {
	if s.away.Load() {
		return store.ErrUnavailable
	}
	return nil
}

func (s *awayStore) Register(ctx context.Context, shard int, n store.Node) (store.Lease, error) {
	if err := s.reach(); err != nil {
		return store.Lease{}, err
	}
	return s.Store.Register(ctx, shard, n)
}

func (s *awayStore) Renew(ctx context.Context, l store.Lease, sum store.Summary) (store.Orders, error) {
	if err := s.reach(); err != nil {
		return store.Orders{}, err
	}
	return s.Store.Renew(ctx, l, sum)
}

func (s *awayStore) Commit(ctx context.Context, l store.Lease, ops []store.Op) ([]store.Result, error) {
	if err := s.reach(); err != nil {
		return nil, err
	}
	return s.Store.Commit(ctx, l, ops)
}

func (s *awayStore) Sweep(ctx context.Context, l store.Lease, n int) (store.SweepResult, error) {
	if err := s.reach(); err != nil {
		return store.SweepResult{}, err
	}
	return s.Store.Sweep(ctx, l, n)
}

func (s *awayStore) Lookup(ctx context.Context, dst []store.UserRecord, users []string) ([]store.UserRecord, error) {
	if err := s.reach(); err != nil {
		return dst, err
	}
	return s.Store.Lookup(ctx, dst, users)
}

func (s *awayStore) Count(ctx context.Context, topic string) (store.Counts, error) {
	if err := s.reach(); err != nil {
		return store.Counts{}, err
	}
	return s.Store.Count(ctx, topic)
}

func (s *awayStore) Members(ctx context.Context, topic, after string, n int) (store.Page, error) {
	if err := s.reach(); err != nil {
		return store.Page{}, err
	}
	return s.Store.Members(ctx, topic, after, n)
}

func (s *awayStore) Disconnect(ctx context.Context, user, session string, code int, text string) (int, error) {
	if err := s.reach(); err != nil {
		return 0, err
	}
	return s.Store.Disconnect(ctx, user, session, code, text)
}

// withAway runs f with a store that goes away when told to.
func withAway(t *testing.T, o presence.Options, f func(t *testing.T, b *bubble, s *awayStore)) {
	t.Helper()
	s := &awayStore{Store: &lazyStore{}}
	o.Store = s
	inBubble(t, o, nil, func(t *testing.T, b *bubble) {
		defer s.away.Store(false) // or Shutdown cannot end the lease
		f(t, b, s)
	})
}

func TestStoreAway(t *testing.T) {
	withAway(t, presence.Options{}, func(t *testing.T, b *bubble, s *awayStore) {
		ctx := t.Context()
		ann := b.dial("/?user=ann&topic=room")
		b.dial("/?user=ben")
		s.away.Store(true)
		wait(5 * time.Second)

		online, err := b.p.Online(ctx, "ann")
		require.NoError(t, err, "its own users are answered")
		require.True(t, online)
		_, err = b.p.Online(ctx, "elsewhere")
		require.ErrorIs(t, err, presence.ErrStoreUnavailable, "never false")
		require.ErrorIs(t, err, presence.ErrUnknown)
		all, err := b.p.Lookup(ctx, "ann", "ben")
		require.NoError(t, err)
		require.Equal(t, presence.Online, all[1].State)
		all, err = b.p.Lookup(ctx, "ann", "elsewhere")
		require.ErrorIs(t, err, presence.ErrStoreUnavailable)
		require.Equal(t, presence.Online, all[0].State)
		require.Equal(t, presence.Unknown, all[1].State)
		infos, err := b.p.Sessions(ctx, "ann")
		require.ErrorIs(t, err, presence.ErrStoreUnavailable)
		require.Len(t, infos, 1)
		_, err = b.p.Count(ctx, "")
		require.ErrorIs(t, err, presence.ErrStoreUnavailable)
		for _, err := range b.p.Members(ctx, "", "") {
			require.ErrorIs(t, err, presence.ErrStoreUnavailable)
		}

		start := time.Now()
		cid := b.dial("/?user=cid") // a newcomer does not wait
		require.LessOrEqual(t, time.Since(start), 2*settle)
		here := presence.SessionOf(b.p, infos[0].ID)
		require.NoError(t, here.Join(ctx, "hall"))
		require.NoError(t, here.SetMeta(ctx, "m"))
		require.LessOrEqual(t, time.Since(start), 2*settle, "nor does a change")
		told, err := b.p.DisconnectUser(ctx, "ben", presence.Reason{})
		require.ErrorIs(t, err, presence.ErrStoreUnavailable)
		require.Equal(t, 1, told, "only here")
		require.Equal(t, presence.CauseKicked, b.end("ben").Cause)
		require.Empty(t, ann.Frames, "live connections stay")

		s.away.Store(false)
		wait(14 * time.Second) // a lease and 4 s
		require.Equal(t, presence.Counts{Users: 2, Sessions: 2}, b.count(""))
		require.Equal(t, presence.Counts{Users: 1, Sessions: 1}, b.count("hall"))
		require.Equal(t, presence.Offline, b.status("ben").State)
		require.Empty(t, cid.Frames)
	})
}

func TestRequireStore(t *testing.T) {
	withAway(t, presence.Options{RequireStore: true}, func(t *testing.T, b *bubble, s *awayStore) {
		ann := b.dial("/?user=ann")
		s.away.Store(true)
		wait(5 * time.Second)
		resp := b.refused("/?user=late", http.StatusServiceUnavailable)
		require.NotEmpty(t, resp.Header.Get("Retry-After"))
		_, err := b.p.Open(t.Context(), presence.Identity{User: "late"})
		require.ErrorIs(t, err, presence.ErrUnavailable)
		require.Empty(t, ann.Frames)
		s.away.Store(false)
		wait(14 * time.Second)
		b.dial("/?user=late")
		require.Equal(t, 1, b.sessions("late"))
	})
}

// slowStore answers commits late.
type slowStore struct {
	store.Store
	late time.Duration
}

func (s *slowStore) Commit(ctx context.Context, l store.Lease, ops []store.Op) ([]store.Result, error) {
	time.Sleep(s.late)
	return s.Store.Commit(ctx, l, ops)
}

func TestCommitWait(t *testing.T) {
	for _, c := range []struct {
		name       string
		wait, late time.Duration
		after      time.Duration
	}{
		{"in time", 0, 700 * time.Millisecond, 700 * time.Millisecond},
		{"too late", 0, 2 * time.Second, time.Second},
		{"a longer wait", 3 * time.Second, 2 * time.Second, 2 * time.Second},
		{"no wait", -1, 2 * time.Second, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := presence.Options{CommitWait: c.wait, Store: &slowStore{Store: &lazyStore{}, late: c.late}}
			inBubble(t, o, nil, func(t *testing.T, b *bubble) {
				start := time.Now()
				s := b.user("ann")
				require.Equal(t, c.after, time.Since(start))
				require.Equal(t, 1, len(b.all("ann")), "local queries see it")
				wait(3 * time.Second)
				require.Equal(t, presence.Counts{Users: 1, Sessions: 1}, b.count(""))
				require.NoError(t, s.Context().Err())
			})
		})
	}
	t.Run("a late no ends the session", func(t *testing.T) {
		shared := &lazyStore{}
		o := presence.Options{Store: shared, Limits: presence.Limits{PerUser: 1}}
		inBubble(t, o, nil, func(t *testing.T, a *bubble) {
			a.dial("/?user=ann")
			o := o
			o.Store = &slowStore{Store: shared, late: 2 * time.Second}
			b := a.another(o, nil)
			wait(3 * time.Second)
			c := b.dial("/?user=ann")
			wait(10 * time.Second)
			require.Equal(t, 4429, (<-c.Frames).Code())
			require.Len(t, a.all("ann"), 1)
		})
	})
}
