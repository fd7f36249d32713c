package hashset_test

import (
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/hashset"
)

type thing struct{ key, value int }

// TestLikeAMap compares with a map, through growth and shrinking, with good
// hashes and with such as collide nearly always.
func TestLikeAMap(t *testing.T) {
	seed := maphash.MakeSeed()
	for name, hash := range map[string]func(int) uint64{
		"good":         func(k int) uint64 { return maphash.Comparable(seed, k) },
		"low bits":     func(k int) uint64 { return uint64(k) },
		"high bits":    func(k int) uint64 { return uint64(k) << 48 },
		"few":          func(k int) uint64 { return uint64(k % 5) },
		"always equal": func(int) uint64 { return 0 },
	} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			of := func(e *thing) uint64 { return hash(e.key) }
			var s hashset.Set[*thing]
			want := map[int]int{}
			for step := range 20_000 {
				k := r.IntN(400)
				match := func(e *thing) bool { return e.key == k }
				at := s.At(hash(k), match)
				value, ok := want[k]
				require.Equal(t, ok, at != nil)
				if ok {
					require.Equal(t, thing{k, value}, **at)
				}
				if _, maybe := s.Guess(hash(k)); ok {
					require.True(t, maybe, "a guess must not miss what is there")
				}
				growing := step/2000%2 == 0
				switch {
				case ok && r.IntN(3) == 0:
					*at = &thing{k, step}
					want[k] = step
				case growing == (r.IntN(8) > 0):
					if !ok {
						s.Add(&thing{k, step}, of)
						want[k] = step
					}
				default:
					require.Equal(t, ok, s.Delete(hash(k), match, of))
					delete(want, k)
				}
				require.Equal(t, len(want), s.Len())
				if step%500 == 0 {
					got := map[int]int{}
					for e := range s.All() {
						got[e.key] = e.value
					}
					require.Equal(t, want, got)
				}
			}
		})
	}
}

func TestAllStops(t *testing.T) {
	var s hashset.Set[int]
	for i := range 10 {
		s.Add(i, func(e int) uint64 { return uint64(e) })
	}
	n := 0
	for range s.All() {
		if n++; n == 3 {
			break
		}
	}
	require.Equal(t, 3, n)
	all := slices.Sorted(s.All())
	require.Equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, all)
}

// TestRoom: what has left gives its memory back.
func TestRoom(t *testing.T) {
	hash := func(e int) uint64 { return uint64(e) }
	var s hashset.Set[int]
	for i := range 10_000 {
		s.Add(i, hash)
	}
	require.LessOrEqual(t, s.Room(), 16384)
	for i := range 9_990 {
		require.True(t, s.Delete(uint64(i), func(e int) bool { return e == i }, hash))
	}
	require.LessOrEqual(t, s.Room(), 128)
}

// BenchmarkAt bounds a search: found, and not found.
func BenchmarkAt(b *testing.B) {
	seed := maphash.MakeSeed()
	hash := func(e *thing) uint64 { return maphash.Comparable(seed, e.key) }
	var s hashset.Set[*thing]
	const n = 10_000
	for i := range n {
		s.Add(&thing{i, i}, hash)
	}
	for name, from := range map[string]int{"found": 0, "not found": n} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				k := from + i%n
				i++
				if at := s.At(maphash.Comparable(seed, k), func(e *thing) bool { return e.key == k }); (at != nil) != (from == 0) {
					b.Fatal(k)
				}
			}
		})
	}
}
