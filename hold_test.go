package presence_test

import (
	"errors"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/memstore"
	"github.com/stretchr/testify/require"
)

// While the store cannot tell who is absent, a health check sees it, the log
// says so once, and every question fails with the same words.
func TestHoldIsTold(t *testing.T) {
	shared, book := &lazyStore{}, &logbook{}
	inBubble(t, presence.Options{Store: shared, Logger: book.logger()}, nil, func(t *testing.T, b *bubble) {
		ctx := t.Context()
		other := &awayStore{Store: shared}
		defer other.away.Store(false)
		b.another(presence.Options{Store: other}, nil)
		require.Zero(t, b.p.Stats().Hold)

		other.away.Store(true) // the hold waits for what it holds
		shared.Store.(*memstore.Store).Advance(6 * time.Second)
		wait(4 * time.Second) // a renewal
		left := b.p.Stats().Hold
		require.Positive(t, left)
		lines := book.lines("holds")
		require.Len(t, lines, 1)
		require.Contains(t, lines[0], "level=INFO")
		require.Contains(t, lines[0], "at_most=10s")
		_, online := b.p.Online(ctx, "elsewhere")
		_, lookup := b.p.Lookup(ctx, "elsewhere")
		_, sessions := b.p.Sessions(ctx, "elsewhere")
		_, count := b.p.Count(ctx, "")
		for op, err := range map[string]error{"online": online, "lookup": lookup, "sessions": sessions, "count": count} {
			var hold *store.HoldError
			require.True(t, errors.As(err, &hold), "%s: %v", op, err)
			require.InDelta(t, left, hold.For, float64(2*time.Millisecond), op)
			require.EqualError(t, err, "presence: "+op+": cannot be known now: hold for "+hold.For.String())
		}
		require.Empty(t, book.lines("over"))

		wait(left + 10*time.Millisecond)
		require.Zero(t, b.p.Stats().Hold)
		require.Len(t, book.lines("the hold is over"), 1)
		_, err := b.p.Online(ctx, "elsewhere")
		require.NoError(t, err)
		wait(time.Minute)
		require.Len(t, book.lines("hold"), 2, "once each")
	})
}

// A hold ends early when every node has said what it holds.
func TestHoldMayEndEarly(t *testing.T) {
	shared, book := &lazyStore{}, &logbook{}
	inBubble(t, presence.Options{Store: shared, Logger: book.logger()}, nil, func(t *testing.T, b *bubble) {
		other := &awayStore{Store: shared}
		defer other.away.Store(false)
		b.another(presence.Options{Store: other}, nil)
		other.away.Store(true)
		shared.Store.(*memstore.Store).Advance(6 * time.Second)
		wait(4 * time.Second)
		require.Greater(t, b.p.Stats().Hold, 5*time.Second)
		other.away.Store(false)
		wait(5 * time.Second) // a renewal of each
		require.Zero(t, b.p.Stats().Hold)
		require.Len(t, book.lines("the hold is over"), 1)
	})
}
