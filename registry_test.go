package presence

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/store"
)

// TestRegistry compares with lists, newest first, while sessions of few users
// come and go in any order.
func TestRegistry(t *testing.T) {
	r := newRegistry()
	rng := rand.New(rand.NewPCG(1, 2))
	want := map[string][]*Session{}
	for id := range uint64(20_000) {
		user := strconv.Itoa(rng.IntN(50))
		if all := want[user]; rng.IntN(2) == 0 && len(all) > 0 {
			i := rng.IntN(len(all))
			s := all[i]
			want[user] = slices.Delete(slices.Clone(all), i, i+1)
			require.True(t, r.remove(s))
			require.False(t, r.remove(s), "again")
			require.Nil(t, r.byID(s.id))
		} else {
			s := &Session{id: id + 1, user: user}
			want[user] = append([]*Session{s}, all...)
			r.add(s)
			require.Same(t, s, r.byID(s.id))
		}
		all := want[user]
		require.True(t, slices.Equal(all, r.byUser(user)))
		require.Equal(t, len(all) > 0, r.online(user))
		oldest, n := r.oldest(user)
		require.Equal(t, len(all), n)
		if n > 0 {
			require.Same(t, all[n-1], oldest)
		}
	}
	n := 0
	r.all(func(s *Session) {
		n++
		require.Contains(t, want[s.user], s)
	})
	for _, all := range want {
		n -= len(all)
	}
	require.Zero(t, n)
}

// TestRegistryIsReadWithoutALock: whoever asks while tabs of a user come and go
// finds the tab that stays, and the user online. Few users with few tabs make it
// likely that a tab goes under the reader's feet.
func TestRegistryIsReadWithoutALock(t *testing.T) {
	for _, n := range []int{1, 40} {
		t.Run(strconv.Itoa(n), func(t *testing.T) { readWithoutALock(t, n) })
	}
}

func readWithoutALock(t *testing.T, n int) {
	r := newRegistry()
	users, stays := make([]store.UserRecord, n), make([]*Session, n)
	for i := range users {
		users[i].User = strconv.Itoa(i)
		stays[i] = &Session{id: uint64(i + 1), user: users[i].User}
		r.add(stays[i])
	}
	var done atomic.Bool
	var reader sync.WaitGroup
	reader.Go(func() {
		newest := make([]*Session, n)
		for !done.Load() && !t.Failed() {
			r.find(newest, users)
			for i := range users {
				user := users[i].User
				oldest, _ := r.oldest(user)
				if !r.online(user) || newest[i] == nil || newest[i].user != user || oldest != stays[i] || r.byID(stays[i].id) != stays[i] {
					t.Errorf("user %s is lost", user)
				}
			}
		}
	})
	rng := rand.New(rand.NewPCG(3, 4))
	var others []*Session
	for id := range uint64(200_000) {
		if len(others) > 8*n || rng.IntN(2) == 0 && len(others) > 0 {
			i := rng.IntN(len(others))
			require.True(t, r.remove(others[i]))
			others = slices.Delete(others, i, i+1)
			continue
		}
		s := &Session{id: id + 1000, user: strconv.Itoa(rng.IntN(2 * n))}
		r.add(s)
		others = append(others, s)
	}
	done.Store(true)
	reader.Wait()
}
