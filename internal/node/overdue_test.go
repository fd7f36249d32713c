package node_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/memstore"
)

// A grace that another node left behind, and did not live to end, is ended by
// whoever renews next: it was due before that, and nobody had told of it.
func TestOverdueGraceOfAnotherNode(t *testing.T) {
	bubble(t, memstore.Options{}, func(t *testing.T, at *trouble) {
		ctx := context.Background()
		r := start(t, at, setup{name: "a"})
		defer r.close()
		time.Sleep(11 * time.Second) // nothing is in sight
		sweeps := at.count("sweep")
		other, err := at.store().Register(ctx, 0, store.Node{ID: "other"})
		require.NoError(t, err)
		_, err = at.store().Commit(ctx, other, []store.Op{
			{Kind: store.OpAdd, User: "u", Session: "s"},
			{Kind: store.OpRemove, User: "u", Session: "s", Grace: 100 * time.Millisecond, Cause: store.CauseLost},
		})
		require.NoError(t, err)
		require.Equal(t, store.Grace, lookup(t, at, "u").State)
		time.Sleep(3400 * time.Millisecond) // a renewal, and no end of a lease
		require.Equal(t, store.Offline, lookup(t, at, "u").State)
		require.Equal(t, sweeps+1, at.count("sweep"))
	})
}
