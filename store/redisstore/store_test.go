package redisstore_test

import (
	"flag"
	"path"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/storemodel"
	"github.com/a4cafe1a/presence/store/redisstore"
	"github.com/a4cafe1a/presence/store/storetest"
)

func TestStore(t *testing.T) {
	for name, partitions := range map[string]int{"one": 1, "three": 3} {
		t.Run(name, func(t *testing.T) {
			client := sharedServer(t).client(t)
			storetest.Run(t, func(t *testing.T) storetest.Harness {
				const lease = 10 * time.Second
				s, err := redisstore.NewMovable(client, redisstore.Options{
					Namespace: namespace(), Partitions: partitions, Lease: lease, Log: 512,
				})
				require.NoError(t, err)
				past(t, s, lease, s.Advance)
				return storetest.Harness{Store: s, Lease: lease, Log: 512, Advance: s.Advance}
			})
		})
	}
}

// The same on Redis's own clock, with the scripts as they are shipped.
func TestStoreRealClock(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for real leases")
	}
	client := sharedServer(t).client(t)
	slots := make(chan struct{}, 16)
	// These make hundreds of calls in a lease, which only a machine that has
	// nothing else to do is fast enough for.
	busy := []string{
		"MembersInOrder", "MembersWhileChurning", "SnapshotAndFold", "QuietTopic", "Reset", "NewFeedBesideASlowOne",
		"NodeLost", "SweepIsBounded", "LimitUnderRaces",
	}
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		if slices.Contains(busy, path.Base(t.Name())) {
			t.Skip("runs with a clock that is moved")
		}
		t.Parallel()
		slots <- struct{}{}
		t.Cleanup(func() { <-slots })
		const lease = 600 * time.Millisecond
		s, err := redisstore.New(client, redisstore.Options{Namespace: namespace(), Lease: lease, Log: 512})
		require.NoError(t, err)
		past(t, s, lease, time.Sleep)
		return storetest.Harness{Store: s, Lease: lease, Log: 512, Advance: time.Sleep}
	})
}

func TestModel(t *testing.T) {
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		// Each step makes some ten calls.
		require.NoError(t, f.Value.Set("40"))
		defer func() { _ = f.Value.Set(f.DefValue) }()
	}
	client := sharedServer(t).client(t)
	storemodel.Run(t, func(o storemodel.Options) storemodel.Store {
		s, err := redisstore.NewFrozen(client, redisstore.Options{Namespace: namespace(), Lease: o.Lease, Log: o.Log})
		require.NoError(t, err)
		past(t, s, o.Lease, s.Advance)
		return s
	})
}
