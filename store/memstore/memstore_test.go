package memstore_test

import (
	"context"
	"os"
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

// The same with a clock that nobody moves, as other stores are tested.
func TestStoreRealClock(t *testing.T) {
	if os.Getenv("PRESENCE_FAULTS") == "" {
		t.Skip("its leases of 300 ms need a quiet machine: make test-faults")
	}
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		t.Parallel()
		s := memstore.New(memstore.Options{Lease: 300 * time.Millisecond, Log: 512})
		return storetest.Harness{Store: s, Lease: 300 * time.Millisecond, Log: 512, Advance: time.Sleep}
	})
}

func TestModel(t *testing.T) {
	storemodel.Run(t, func(o storemodel.Options) storemodel.Store {
		return memstore.NewStill(memstore.Options{Lease: o.Lease, Log: o.Log})
	})
}
