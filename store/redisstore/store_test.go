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

// A log that holds no users, so that feeds ask for each, tells the same.
func TestStoreAsking(t *testing.T) {
	client := sharedServer(t).client(t)
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		const lease = 10 * time.Second
		s, err := redisstore.NewAsking(client, redisstore.Options{Namespace: namespace(), Lease: lease, Log: 512})
		require.NoError(t, err)
		past(t, s, lease, s.Advance)
		return storetest.Harness{Store: s, Lease: lease, Log: 512, Advance: s.Advance}
	})
}

// The scripts as they are shipped, on Redis's own clock. They differ from those
// above in nothing else, so that the cases in which time decides are enough.
func TestStoreRealClock(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for real leases")
	}
	t.Parallel()
	client := sharedServer(t).client(t)
	cases := []string{
		"GraceThenLeft", "BackWithinGrace", "DeadAtOnce", "LeaveGraceOfTheDead", "EndWithGrace", "FrozenNode",
		"RenewKeepsAlive", "NextTellsWhenALeaseEnds", "ReplaceOldest", "Bell", "HoldSaysUnknown", "HoldSavesLeases",
		"HoldEndsEarly", "HoldEndsByItself", "HoldDoesNotRaiseTheDead", "NoHoldWhileHeard", "Next", "CloseFeed",
	}
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		if !slices.Contains(cases, path.Base(t.Name())) {
			t.Skip("runs with a clock that is moved")
		}
		t.Parallel()
		const lease = 4 * time.Second // some ten calls must do with it, on a busy machine too
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
