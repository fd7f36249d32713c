package memstore

import (
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestIndex compares the index with a sorted slice, through splits and merges.
func TestIndex(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var x index
		var want []string
		names := func(from, n, step int, do func(string)) {
			for i := range n {
				do(strconv.Itoa(from + i*step))
			}
		}
		insert := func(name string) {
			at, ok := slices.BinarySearch(want, name)
			if ok {
				return
			}
			want = slices.Insert(want, at, name)
			x.insert(name, &member{user: &user{name: name}})
		}
		remove := func(name string) {
			at, ok := slices.BinarySearch(want, name)
			if !ok {
				return
			}
			want = slices.Delete(want, at, at+1)
			x.remove(name)
		}
		for range rapid.IntRange(1, 8).Draw(t, "rounds") {
			from := rapid.IntRange(0, 2000).Draw(t, "from")
			n := rapid.IntRange(0, 700).Draw(t, "n")
			step := rapid.SampledFrom([]int{-1, 1, 2, 7}).Draw(t, "step")
			if rapid.Bool().Draw(t, "insert") {
				names(from, n, step, insert)
			} else {
				names(from, n, step, remove)
			}
			require.Equal(t, len(want), x.size)
			cursor := strconv.Itoa(rapid.IntRange(0, 3000).Draw(t, "cursor"))
			for _, after := range []string{"", cursor} {
				var got []string
				x.after(after, func(m *member) bool {
					got = append(got, m.user.name)
					return true
				})
				at := 0
				for at < len(want) && after != "" && want[at] <= after {
					at++
				}
				require.Equal(t, len(want)-at, len(got))
				require.True(t, slices.Equal(want[at:], got))
			}
			for _, name := range want {
				require.Equal(t, name, x.get(name).user.name)
			}
			require.Nil(t, x.get("x"+cursor))
		}
	})
}
