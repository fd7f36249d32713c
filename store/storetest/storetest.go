// Package storetest is the suite that every store of package presence passes.
// A case is one rule of package store; a failure prints the rule it broke.
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) storetest.Harness {
//			s := memstore.New(memstore.Options{})
//			return storetest.Harness{Store: s, Lease: 10 * time.Second, Log: 4096, Advance: s.Advance}
//		})
//	}
package storetest

import (
	"testing"
	"time"

	"github.com/a4cafe1a/presence/store"
)

// Harness is a store to test, empty, out of any hold, and used by nobody else.
// The suite closes it.
type Harness struct {
	Store store.Store

	// Lease is the TTL of a lease. Stores that cannot move their clock want
	// a short one, but 300 ms or more: everything is measured in leases.
	Lease time.Duration

	// Log is at least the number of changes that the log of one topic keeps.
	Log int

	// Advance lets the store's clock go forward by d, or waits for so long.
	Advance func(d time.Duration)
}

// Run runs each case as a subtest of t, on a store of its own. open is called
// in the subtest, and may call its Parallel or skip it.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	for _, group := range [][]rule{
		membershipRules, graceRules, sessionRules, limitRules,
		leaseRules, mailRules, holdRules, readRules, feedRules, storeRules,
	} {
		for _, r := range group {
			t.Run(r.name, func(t *testing.T) {
				h := open(t)
				c := &cluster{T: t, Harness: h, rule: r.text}
				t.Cleanup(func() { _ = h.Store.Close() })
				r.test(c)
			})
		}
	}
}

// rule is one case.
type rule struct {
	name string
	text string
	test func(*cluster)
}
