package presence_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/memstore"
	"github.com/stretchr/testify/require"
)

// Lookups use each other's memory again, and never while it is in use. Those
// of one user go through the same memory as those of many.
func TestLookupsAtOnce(t *testing.T) {
	p, err := presence.New(presence.Options{})
	require.NoError(t, err)
	defer p.Shutdown(context.Background())
	const askers, each = 8, 8
	var users [askers][]string
	for a := range users {
		for i := range each {
			u := fmt.Sprintf("%d-%d", a, i)
			if users[a] = append(users[a], u); a%2 == 0 {
				_, err := p.Open(context.Background(), presence.Identity{User: u})
				require.NoError(t, err)
			}
		}
	}
	var group sync.WaitGroup
	for a := range users {
		group.Go(func() {
			want := presence.Offline
			if a%2 == 0 {
				want = presence.Online
			}
			for range 200 {
				all, err := p.Lookup(context.Background(), users[a]...)
				if err != nil || len(all) != each {
					t.Error(len(all), err)
					return
				}
				for i, st := range all {
					if st.User != users[a][i] || st.State != want {
						t.Error("asked for", users[a][i], want, "got", st)
						return
					}
				}
				if ok, err := p.Online(context.Background(), users[a][0]); err != nil || ok != (want == presence.Online) {
					t.Error(users[a][0], ok, err)
					return
				}
			}
		})
	}
	group.Wait()
}

// Many are looked up some at a time where the store is memory of this process,
// else all at once. Either way each is told of in its place.
func TestLookupOfMany(t *testing.T) {
	m := memstore.New(memstore.Options{})
	for name, s := range map[string]store.Store{"near": m, "far": struct{ store.Store }{m}} {
		t.Run(name, func(t *testing.T) {
			var nodes []*presence.Presence
			for range 2 {
				p, err := presence.New(presence.Options{Store: s})
				require.NoError(t, err)
				t.Cleanup(func() {
					ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
					defer cancel()
					_ = p.Shutdown(ctx)
				})
				nodes = append(nodes, p)
			}
			here := nodes[0]
			var users []string
			var opening sync.WaitGroup
			for i := range 300 {
				user := name + strconv.Itoa(i)
				users = append(users, user)
				for n, p := range nodes {
					if i%7>>n&1 != 0 { // nobody, one, the other, both
						opening.Go(func() { _, _ = p.Open(context.Background(), presence.Identity{User: user}) })
					}
				}
			}
			opening.Wait()
			all, err := here.Lookup(context.Background(), users...)
			require.NoError(t, err)
			require.Len(t, all, len(users))
			for i, st := range all {
				want := []int{0, 1, 1, 2}[i%7&3]
				there := !st.Since.IsZero() && !st.LastSeen.IsZero()
				if st.User != users[i] || st.Sessions != want || (st.State == presence.Online) != (want > 0) || there != (want > 0) || st.AsOf.IsZero() {
					t.Fatalf("%d sessions of %s: %+v", want, users[i], st)
				}
			}
			_, err = here.Lookup(context.Background(), append(users, "")...)
			require.ErrorIs(t, err, presence.ErrLimit)
		})
	}
}
