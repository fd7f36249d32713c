package memstore_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/storemodel"
	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/memstore"
	"github.com/a4cafe1a/presence/store/storetest"
)

var ctx = context.Background()

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		s := memstore.New(memstore.Options{Log: 512})
		return storetest.Harness{Store: s, Lease: 10 * time.Second, Log: 512, Advance: s.Advance}
	})
}

func TestModel(t *testing.T) {
	storemodel.Run(t, func(o storemodel.Options) storemodel.Store {
		return memstore.NewStill(memstore.Options{Lease: o.Lease, Log: o.Log})
	})
}

// Users are found by a few bits of a hash first, which many others share.
func TestLookupOfManyTakesNobodyForAnother(t *testing.T) {
	f := fill(20_000)
	var names []string
	for i, u := range f.users {
		names = append(names, u, "nobody-"+strconv.Itoa(i))
	}
	found, err := f.s.Lookup(ctx, nil, names)
	require.NoError(t, err)
	require.Len(t, found, len(names))
	for i, r := range found {
		require.Equal(t, names[i], r.User)
		require.Equal(t, i%2 == 0, r.State == store.Online)
	}
}
