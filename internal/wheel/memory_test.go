package wheel_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/wheel"
)

func requireBounded(t *testing.T, w *wheel.Driven) {
	t.Helper()
	require.LessOrEqual(t, w.Footprint().Refs, 2*w.Len()+w.Shards()*wheel.Slack)
}

func TestHasteningOneItemAMillionTimes(t *testing.T) {
	w := wheel.NewDriven(1)
	r := w.Add(item(func(wheel.Time) wheel.Time { return 0 }), at(2_000_000*tick))
	for i := range 1_000_000 {
		w.Hasten(r, at(time.Duration(1_900_000-i)*tick)) // each a tick earlier
	}
	requireBounded(t, w)
	require.LessOrEqual(t, w.Footprint().Room, 4*wheel.Slack)
	for range 100_000 {
		w.Hasten(r, at(1_950_000*tick))
	}
	require.LessOrEqual(t, w.Footprint().Room, 4*wheel.Slack)
}

// Items that are put far away and hastened every tick leave a reference in a
// far slot each time.
func TestChurnLeavesABoundedRest(t *testing.T) {
	w := wheel.NewDriven(1)
	const n = 500
	var refs []wheel.Ref
	for range n {
		refs = append(refs, w.Add(item(func(now wheel.Time) wheel.Time { return now + at(50*time.Second) }), at(tick)))
	}
	for i := range 2000 {
		now := at(time.Duration(i+1) * tick)
		w.Advance(now)
		requireBounded(t, w)
		for _, r := range refs {
			w.Hasten(r, now)
		}
	}
	require.Equal(t, n, w.Len())
	require.LessOrEqual(t, w.Footprint().Room, 4*(2*n+wheel.Slack))
}

func TestMemoryIsGivenBackAfterABurst(t *testing.T) {
	w := wheel.NewDriven(2)
	r := rand.New(rand.NewPCG(1, 1))
	every := func(d time.Duration) item {
		return func(now wheel.Time) wheel.Time { return now + at(d) }
	}
	var burst []wheel.Ref
	for range 200_000 {
		burst = append(burst, w.Add(every(25*time.Second), at(time.Duration(r.Int64N(int64(25*time.Second))))))
	}
	for range 1000 {
		w.Add(every(25*time.Second), at(time.Duration(r.Int64N(int64(25*time.Second)))))
	}
	i := 0
	run := func(d time.Duration) {
		for range d / tick {
			i++
			w.Advance(at(time.Duration(i) * tick))
		}
	}
	run(time.Minute)
	f := w.Footprint()
	require.LessOrEqual(t, f.Pages, 201_000/wheel.PageSize+4, "dense")
	require.Equal(t, 201_000, f.Refs)
	require.LessOrEqual(t, f.Room, 2*201_000)

	for _, ref := range burst {
		w.Remove(ref)
		if r.IntN(1000) == 0 {
			requireBounded(t, w)
		}
	}
	require.Equal(t, 1000, w.Len())
	requireBounded(t, w)
	run(time.Minute)
	f = w.Footprint()
	require.LessOrEqual(t, f.Refs, 1000+2*wheel.Slack)
	require.LessOrEqual(t, f.Room, 20_000)
	require.LessOrEqual(t, f.Pages, 12, "what stayed was added last, and is together")
}

// One item that comes and goes must not allocate a page each time.
func TestOneItemComesAndGoes(t *testing.T) {
	w := wheel.NewDriven(1)
	it := item(func(wheel.Time) wheel.Time { return 0 })
	w.Remove(w.Add(it, 1))
	require.Zero(t, testing.AllocsPerRun(1000, func() { w.Remove(w.Add(it, 0)) }))
	require.Equal(t, 1, w.Footprint().Pages)
}

func TestPlacesAreUsedAgain(t *testing.T) {
	w := wheel.NewDriven(1)
	it := item(func(wheel.Time) wheel.Time { return 0 })
	var refs []wheel.Ref
	for range 100_000 {
		refs = append(refs, w.Add(it, 0))
	}
	pages := w.Footprint().Pages
	for range 3 {
		for i := 0; i < len(refs); i += 2 {
			w.Remove(refs[i])
		}
		for i := 0; i < len(refs); i += 2 {
			refs[i] = w.Add(it, 0)
		}
		require.LessOrEqual(t, w.Footprint().Pages, pages+1)
	}
	require.Equal(t, 100_000, w.Len())
}

// What is beyond the far end is moved once per turn of the ring, not per tick.
func TestFarItemsCostLittle(t *testing.T) {
	w := wheel.NewDriven(1)
	w.Add(item(func(wheel.Time) wheel.Time { return 0 }), at(10*wheel.Slots*tick))
	for i := range 10 * wheel.Slots {
		require.Equal(t, 1, w.Len())
		w.Advance(at(time.Duration(i+1) * tick))
	}
	require.Zero(t, w.Len())
	require.LessOrEqual(t, w.Placed(), 11)
}

// cold notes how many items were warmed since the last look at one.
type cold struct {
	warmed, looked *int
	t              *testing.T
}

func (c cold) Warm() { *c.warmed++ }

func (c cold) Look(wheel.Time) wheel.Time {
	*c.looked++
	require.GreaterOrEqual(c.t, *c.warmed, *c.looked, "a look at a cold item")
	require.LessOrEqual(c.t, *c.warmed, *c.looked+wheel.WarmAhead, "cold again by the time of its look")
	return 0
}

func TestItemsAreWarmedShortlyBeforeTheirLooks(t *testing.T) {
	w := wheel.NewDriven(1)
	var warmed, looked int
	for range 100 {
		w.Add(cold{&warmed, &looked, t}, at(tick))
	}
	w.Advance(at(2 * tick))
	require.Equal(t, 100, looked)
	require.Equal(t, 100, warmed)
}
