package memstore

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/store"
)

// Beyond the bound those seen longest ago are forgotten first.
func TestSeenIsBounded(t *testing.T) {
	ctx := context.Background()
	s := New(Options{})
	s.maxSeen = 10
	l, err := s.Register(ctx, 0, store.Node{ID: "n", KeepLastSeen: time.Hour})
	require.NoError(t, err)
	for i := range 25 {
		u := fmt.Sprint("u", i)
		_, err := s.Commit(ctx, l, []store.Op{
			{Kind: store.OpAdd, User: u, Session: "s"},
			{Kind: store.OpRemove, User: u, Session: "s", Cause: store.CauseLost},
		})
		require.NoError(t, err)
	}
	r, err := s.Sweep(ctx, l, 6)
	require.NoError(t, err)
	require.Equal(t, 6, r.Done)
	require.True(t, r.More)
	r, err = s.Sweep(ctx, l, 100)
	require.NoError(t, err)
	require.False(t, r.More)
	for i := range 25 {
		rs, err := s.Lookup(ctx, nil, []string{fmt.Sprint("u", i)})
		require.NoError(t, err)
		require.Equal(t, i < 15, rs[0].LastSeen.IsZero(), "u%d", i)
	}
}
