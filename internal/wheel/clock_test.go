package wheel_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/wheel"
)

func TestNowIsTheEndOfTheTick(t *testing.T) {
	bubble(t, 0, func(t *testing.T, w *wheel.Wheel) {
		require.Positive(t, w.Exact(), "0 is never")
		w.Add(item(func(now wheel.Time) wheel.Time {
			require.Equal(t, now+at(tick), w.Now())
			return now + at(time.Second)
		}), at(time.Second))
		for d := time.Duration(0); d < 5*time.Second; d += 7 * time.Millisecond {
			until(w, d)
			require.Equal(t, at(d.Truncate(tick)+tick), w.Now(), "at %v", d)
			require.Equal(t, max(at(d), 1), w.Exact())
		}
	})
}

func TestNoTicksWithoutItems(t *testing.T) {
	bubble(t, 0, func(t *testing.T, w *wheel.Wheel) {
		r := w.Add(item(func(wheel.Time) wheel.Time { return 0 }), at(time.Hour))
		until(w, time.Minute)
		w.Remove(r)
		until(w, 2*time.Minute)
		still := w.Now()
		until(w, time.Hour)
		require.Equal(t, still, w.Now(), "asleep")

		d := time.Hour + 30*time.Millisecond
		until(w, d)
		var j journal
		w.Add(j.item("a"), 1)
		require.Equal(t, at(time.Hour+tick), w.Now(), "right before Add returns")
		require.Equal(t, at(d), w.Awake())
		until(w, d+time.Second)
		require.Equal(t, []string{"a 1h0m0.05s"}, j.read())
	})
}

func TestGap(t *testing.T) {
	for _, tc := range []struct {
		name       string
		gap, pause time.Duration
		awake      time.Duration
	}{
		{"none", 0, 940 * time.Millisecond, 1},
		{"default", 0, 5 * time.Second, 5100 * time.Millisecond},
		{"shorter than Gap", 10 * time.Second, 5 * time.Second, 1},
		{"longer than Gap", 100 * time.Millisecond, 150 * time.Millisecond, 250 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble(t, 1, func(t *testing.T, w *wheel.Wheel) {
				w.Gap = tc.gap
				w.Add(item(func(now wheel.Time) wheel.Time {
					require.Equal(t, at(1), w.Awake())
					time.Sleep(tc.pause) // as if the process were stopped
					return 0
				}), at(100*time.Millisecond))
				looked := false
				w.Add(item(func(now wheel.Time) wheel.Time {
					looked = true
					require.Equal(t, at(tc.awake), w.Awake(), "the first look after the gap knows")
					return 0
				}), at(150*time.Millisecond))
				until(w, time.Minute)
				require.True(t, looked)
			})
		})
	}
}

// All that came due in a gap is looked at in the tick after it, in the order in
// which it came due.
func TestAfterAGapInOrder(t *testing.T) {
	bubble(t, 1, func(t *testing.T, w *wheel.Wheel) {
		var j journal
		w.Add(item(func(wheel.Time) wheel.Time { time.Sleep(5*time.Minute + 1); return 0 }), at(time.Second))
		w.Add(j.item("4m", at(4*time.Minute)), at(4*time.Minute))
		w.Add(j.item("2s"), at(2*time.Second))
		w.Add(j.item("3m"), at(3*time.Minute))
		w.Add(j.item("6m"), at(6*time.Minute))
		w.Add(j.item("1.5s"), at(1500*time.Millisecond))
		until(w, time.Hour)
		require.Equal(t, []string{
			"1.5s 5m1.000000001s", "2s 5m1.000000001s", "3m 5m1.000000001s", "4m 5m1.000000001s",
			"4m 5m1.05s", // an answer that has passed is the next tick, not the same once more
			"6m 6m0s",
		}, j.read())
	})
}

// A long catching-up must not tell later looks the time at which it began.
func TestTimeGoesOnWhileCatchingUp(t *testing.T) {
	bubble(t, 1, func(t *testing.T, w *wheel.Wheel) {
		late := time.Duration(0)
		for range 1000 {
			w.Add(item(func(now wheel.Time) wheel.Time {
				late = max(late, time.Duration(w.Exact()-now))
				require.GreaterOrEqual(t, w.Now(), now)
				time.Sleep(time.Millisecond)
				return 0
			}), at(time.Second))
		}
		until(w, time.Minute)
		require.Less(t, late, 20*time.Millisecond)
		require.Equal(t, at(1), w.Awake(), "busy is not asleep")
	})
}

func TestGapBetween(t *testing.T) {
	for _, tc := range []struct {
		name            string
		monotonic, wall time.Duration
		want            bool
	}{
		{"on time", 50 * time.Millisecond, 50 * time.Millisecond, false},
		{"late", time.Second, time.Second, false},
		{"stopped", time.Second + 1, time.Second + 1, true},
		{"stopped, wall clock set back", 2 * time.Second, -time.Hour, true},
		{"machine slept", 50 * time.Millisecond, time.Minute, true},
		{"wall clock slewed", 50 * time.Millisecond, time.Second, false},
		{"wall clock set back", 50 * time.Millisecond, -time.Hour, false},
	} {
		require.Equal(t, tc.want, wheel.GapBetween(at(tc.monotonic), at(tc.wall), at(time.Second)), tc.name)
	}
}
