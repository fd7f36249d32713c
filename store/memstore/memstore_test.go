package memstore_test

import (
	"context"
	"testing"
	"time"

	"github.com/a4cafe1a/presence/internal/storemodel"
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
