package memstore_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/memstore"
)

// In a bubble the store lives on the bubble's clock, and its feeds wake what
// waits there.
func TestBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New(memstore.Options{})
		defer s.Close()
		l, err := s.Register(ctx, 0, store.Node{ID: "n"})
		require.NoError(t, err)
		require.Equal(t, 10*time.Second, l.TTL)
		_, err = s.Commit(ctx, l, []store.Op{{Kind: store.OpAdd, User: "u", Session: "s"}})
		require.NoError(t, err)
		f, err := s.Watch(ctx, "")
		require.NoError(t, err)

		left := make(chan store.Change, 1)
		go func() {
			for {
				b, err := f.Next(ctx)
				if err != nil {
					return
				}
				if c := b.Changes[len(b.Changes)-1]; c.Kind == store.Left {
					left <- c
				}
			}
		}()
		start := time.Now()
		_, err = s.Commit(ctx, l, []store.Op{{Kind: store.OpRemove, User: "u", Session: "s", Grace: 4 * time.Second, Cause: store.CauseSilent}})
		require.NoError(t, err)
		for range 5 {
			time.Sleep(time.Second)
			_, err = s.Sweep(ctx, l, 0)
			require.NoError(t, err)
			synctest.Wait()
			if len(left) > 0 {
				break
			}
		}
		c := <-left
		require.Equal(t, 4*time.Second, c.At.Sub(start))
		require.Equal(t, store.CauseSilent, c.Cause)

		short, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		g, err := s.Watch(ctx, "quiet")
		require.NoError(t, err)
		_, err = g.Next(short)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

// Memory that nobody was in before has nothing to hold back.
func TestBornWithoutHold(t *testing.T) {
	s := memstore.New(memstore.Options{})
	s.Advance(time.Hour)
	rs, err := s.Lookup(ctx, nil, []string{"u"})
	require.NoError(t, err)
	require.Equal(t, store.Offline, rs[0].State)
	_, err = s.Count(ctx, "")
	require.NoError(t, err)
}
