package hashset_test

import (
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
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
			var s hashset.Set[thing]
			want := map[int]*thing{}
			asked, right := 0, 0
			for step := range 20_000 {
				k := r.IntN(400)
				match := func(e *thing) bool { return e.key == k }
				known, ok := want[k]
				require.Same(t, known, s.Get(hash(k), match))
				if spot := s.Spot(hash(k)); ok {
					spot.Touch()
					asked++
					if spot.Guess(hash(k)) == known {
						right++
					}
				}
				growing := step/2000%2 == 0
				switch {
				case ok && r.IntN(3) == 0:
					want[k] = &thing{k, step}
					s.Replace(hash(k), known, want[k])
				case growing == (r.IntN(8) > 0):
					if !ok {
						want[k] = &thing{k, step}
						s.Add(want[k], of)
					}
				default:
					if !ok {
						known = &thing{k, step}
					}
					require.Equal(t, ok, s.Delete(known, of))
					delete(want, k)
				}
				require.Equal(t, len(want), s.Len())
				if step%500 == 0 {
					got := map[int]*thing{}
					for e := range s.All() {
						got[e.key] = e
					}
					require.Equal(t, want, got)
				}
			}
			if name == "good" {
				require.Greater(t, right, asked*9/10, "guesses are to be right, or who trusts them waits for memory twice")
			}
		})
	}
}

func things(n int) []*thing {
	all := make([]*thing, n)
	for i := range all {
		all[i] = &thing{i, i}
	}
	return all
}

func keyOf(e *thing) uint64 { return uint64(e.key) }

func TestAllStops(t *testing.T) {
	var s hashset.Set[thing]
	for _, e := range things(10) {
		s.Add(e, keyOf)
	}
	n := 0
	for range s.All() {
		if n++; n == 3 {
			break
		}
	}
	require.Equal(t, 3, n)
	require.Len(t, slices.Collect(s.All()), 10)
}

// TestRoom: what has left gives its memory back.
func TestRoom(t *testing.T) {
	var s hashset.Set[thing]
	all := things(10_000)
	for _, e := range all {
		s.Add(e, keyOf)
	}
	require.LessOrEqual(t, s.Room(), 16384)
	for _, e := range all[:9_990] {
		require.True(t, s.Delete(e, keyOf))
	}
	require.LessOrEqual(t, s.Room(), 128)
}

// TestReadersNeedNoLock: while others come and go, and tables with them, a
// reader finds what stays, and nothing that was never in.
func TestReadersNeedNoLock(t *testing.T) {
	for name, hash := range map[string]func(*thing) uint64{
		"good": keyOf,
		"few":  func(e *thing) uint64 { return uint64(e.key % 5) },
	} {
		t.Run(name, func(t *testing.T) {
			var s hashset.Set[thing]
			all := things(300)
			stays, others, never := all[:20], all[20:299], all[299]
			for _, e := range stays {
				s.Add(e, hash)
			}
			var done atomic.Bool
			var readers sync.WaitGroup
			for range 2 {
				readers.Go(func() {
					for !done.Load() {
						for _, e := range stays {
							if s.Get(hash(e), func(other *thing) bool { return other.key == e.key }) == nil {
								t.Error("what stays was not found")
								return
							}
						}
						if s.Get(hash(never), func(other *thing) bool { return other.key == never.key }) != nil {
							t.Error("what was never in was found")
						}
						n := 0
						for e := range s.All() {
							if e.key < len(stays) {
								n++
							}
						}
						if n != len(stays) {
							t.Errorf("%d of %d that stay", n, len(stays))
							return
						}
					}
				})
			}
			for round := range 100 {
				for i, e := range others {
					s.Add(e, hash)
					stay := stays[(round+i)%len(stays)]
					s.Replace(hash(stay), stay, stay)
				}
				for _, e := range others {
					require.True(t, s.Delete(e, hash))
				}
			}
			done.Store(true)
			readers.Wait()
		})
	}
}

// BenchmarkGet bounds a search: found, and not found.
func BenchmarkGet(b *testing.B) {
	seed := maphash.MakeSeed()
	hash := func(e *thing) uint64 { return maphash.Comparable(seed, e.key) }
	var s hashset.Set[thing]
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
				if e := s.Get(maphash.Comparable(seed, k), func(e *thing) bool { return e.key == k }); (e != nil) != (from == 0) {
					b.Fatal(k)
				}
			}
		})
	}
}
