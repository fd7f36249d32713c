package presence_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/a4cafe1a/presence"
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
