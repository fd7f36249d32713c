package presence

import (
	"strconv"
	"testing"

	"github.com/a4cafe1a/presence/internal/wheel"
	"github.com/stretchr/testify/require"
)

func TestKicksAreForgotten(t *testing.T) {
	var k kicks
	const n = 10_000
	for i := range 5 * n {
		k.add(strconv.Itoa(i), wheel.Time(i)*wheel.Time(kickKept)/n)
	}
	require.Less(t, len(k.last), 4*n)
	now := wheel.Time(5*n-1) * wheel.Time(kickKept) / n
	require.True(t, k.since(strconv.Itoa(5*n-1), now-1))
	require.False(t, k.since(strconv.Itoa(5*n-1), now))
	require.True(t, k.since(strconv.Itoa(4*n), 0), "a minute ago")
	require.False(t, k.since("0", 0))
}
