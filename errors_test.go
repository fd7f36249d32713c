package presence_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/store"
	"github.com/stretchr/testify/require"
)

// brokenStore answers every question with an error.
type brokenStore struct {
	store.Store
	err error
}

func (s *brokenStore) Lookup(_ context.Context, dst []store.UserRecord, _ []string) ([]store.UserRecord, error) {
	return dst, s.err
}

func (s *brokenStore) Count(context.Context, string) (store.Counts, error) {
	return store.Counts{}, s.err
}

func (s *brokenStore) Members(context.Context, string, string, int) (store.Page, error) {
	return store.Page{}, s.err
}

func (s *brokenStore) Disconnect(context.Context, string, string, int, string) (int, error) {
	return 0, s.err
}

// What a question fails with reads as one line that says nothing twice, and is
// still everything that it was made of.
func TestErrorsReadWell(t *testing.T) {
	refused := fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
	for _, c := range []struct {
		err  error
		text string // after the operation
		is   []error
	}{
		{store.ErrUnavailable, "cannot be known now: store unavailable", []error{presence.ErrStoreUnavailable, presence.ErrUnknown}},
		{fmt.Errorf("%w: %w", store.ErrUnavailable, refused), "cannot be known now: store unavailable: dial: connection refused",
			[]error{presence.ErrStoreUnavailable, presence.ErrUnknown, syscall.ECONNREFUSED}},
		{fmt.Errorf("%w: %w", store.ErrUnavailable, fmt.Errorf("%w: %w", store.ErrUnavailable, refused)),
			"cannot be known now: store unavailable: dial: connection refused", []error{presence.ErrStoreUnavailable, syscall.ECONNREFUSED}},
		{errors.Join(errors.New("one"), errors.New("two")), "cannot be known now: store unavailable: one; two", []error{presence.ErrStoreUnavailable}},
		{fmt.Errorf("storehouse: %w", refused), "cannot be known now: store unavailable: storehouse: dial: connection refused", []error{syscall.ECONNREFUSED}},
		{&store.HoldError{For: time.Second}, "cannot be known now: hold for 1s", []error{presence.ErrUnknown}},
		{context.Canceled, "context canceled", nil},
	} {
		t.Run(c.err.Error(), func(t *testing.T) {
			inBubble(t, presence.Options{Store: &brokenStore{&lazyStore{}, c.err}}, nil, func(t *testing.T, b *bubble) {
				ctx := t.Context()
				check := func(op string, err error) {
					t.Helper()
					require.EqualError(t, err, "presence: "+op+": "+c.text)
					for _, target := range append(c.is, c.err) {
						require.ErrorIs(t, err, target)
					}
					var hold *store.HoldError
					require.Equal(t, errors.As(c.err, &hold), errors.As(err, &hold))
				}
				_, err := b.p.Online(ctx, "ann")
				check("online", err)
				_, err = b.p.Lookup(ctx, "ann")
				check("lookup", err)
				_, err = b.p.Sessions(ctx, "ann")
				check("sessions", err)
				_, err = b.p.Count(ctx, "")
				check("count", err)
				for _, err := range b.p.Members(ctx, "", "") {
					check("members", err)
				}
				_, err = b.p.DisconnectUser(ctx, "ann", presence.Reason{})
				check("disconnect", err)

				short, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				_, err = b.p.Subscribe(short, "room")
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorIs(t, err, presence.ErrUnknown)
				require.True(t, strings.HasPrefix(err.Error(), "presence: subscribe: cannot be known now: "), err)
				require.True(t, strings.HasSuffix(err.Error(), ": context deadline exceeded"), err)
				require.NotContains(t, err.Error(), "\n")
			})
		})
	}
	t.Run("what the caller got wrong", func(t *testing.T) {
		p := open(t, presence.Options{})
		_, err := p.DisconnectUser(t.Context(), "ann", presence.Reason{Code: 1000})
		require.EqualError(t, err, "presence: disconnect: invalid or over a limit: close code 1000 is not within 4000-4999")
		long := strings.Repeat("x", 257)
		for op, err := range map[string]error{
			"online":    second(p.Online(t.Context(), "")),
			"lookup":    second(p.Lookup(t.Context(), "")),
			"sessions":  second(p.Sessions(t.Context(), "")),
			"count":     second(p.Count(t.Context(), long)),
			"subscribe": second(p.Subscribe(t.Context(), long)),
		} {
			require.ErrorIs(t, err, presence.ErrLimit)
			require.Contains(t, err.Error(), "presence: "+op+": invalid or over a limit: ")
		}
		for _, err := range p.Members(t.Context(), long, "") {
			require.ErrorContains(t, err, "presence: members: invalid or over a limit: ")
		}
		s, err := p.Open(t.Context(), presence.Identity{User: "ann"})
		require.NoError(t, err)
		for text, err := range map[string]error{
			"join: invalid or over a limit: a topic name must be UTF-8":             s.Join(t.Context(), "\xff"),
			"set metadata: invalid or over a limit: metadata is at most 4096 bytes": s.SetMeta(t.Context(), long+strings.Repeat("x", 4000)),
			"set metadata: json: unsupported type: func()":                          s.SetMeta(t.Context(), func() {}),
		} {
			require.EqualError(t, err, "presence: "+text)
		}
		s.Disconnect(presence.Reason{})
		for op, err := range map[string]error{
			"join": s.Join(t.Context(), "room"), "leave": s.Leave(t.Context(), "room"), "set metadata": s.SetMeta(t.Context(), 1),
		} {
			require.EqualError(t, err, "presence: "+op+": session ended")
		}
		_, err = presence.New(presence.Options{VerifyTimeout: -1, LeaveGrace: time.Hour})
		require.EqualError(t, err, "presence: bad options: VerifyTimeout cannot be off; LeaveGrace 1h0m0s is more than 10m0s")
	})
}

func TestRetryAfterNothing(t *testing.T) { require.NoError(t, presence.RetryAfter(nil, time.Second)) }

func second[T any](_ T, err error) error { return err }

// A store that the app has closed is told as that, not as a Shutdown.
func TestClosedStore(t *testing.T) {
	s := &lazyStore{}
	inBubble(t, presence.Options{Store: s}, nil, func(t *testing.T, b *bubble) {
		ctx := t.Context()
		sub := b.subscribe("room")
		_ = pending(t, sub)
		b.dial("/?user=ann")
		require.NoError(t, s.Close())
		for op, ask := range map[string]func() error{
			"online":     func() error { _, err := b.p.Online(ctx, "ben"); return err },
			"lookup":     func() error { _, err := b.p.Lookup(ctx, "ben"); return err },
			"sessions":   func() error { _, err := b.p.Sessions(ctx, "ben"); return err },
			"count":      func() error { _, err := b.p.Count(ctx, ""); return err },
			"disconnect": func() error { _, err := b.p.DisconnectUser(ctx, "ben", presence.Reason{}); return err },
			"subscribe":  func() error { _, err := b.p.Subscribe(ctx, ""); return err },
		} {
			err := ask()
			require.EqualError(t, err, "presence: "+op+": closed: store closed")
			require.ErrorIs(t, err, presence.ErrClosed)
			require.ErrorIs(t, err, store.ErrClosed)
		}
		_, err := sub.Next(ctx)
		require.EqualError(t, err, "presence: subscribe: closed: store closed")
		online, err := b.p.Online(ctx, "ann")
		require.NoError(t, err, "its own users are answered")
		require.True(t, online)

		_, err = presence.New(presence.Options{Store: s})
		require.EqualError(t, err, "presence: bad options: Store is closed")
		require.ErrorIs(t, err, presence.ErrOptions)

		_ = b.p.Shutdown(ctx)
		_, err = b.p.Online(ctx, "ben")
		require.EqualError(t, err, "presence: online: closed")
		_, err = b.p.Subscribe(ctx, "")
		require.EqualError(t, err, "presence: subscribe: closed")
		b.p, _ = presence.New(presence.Options{}) // for the end of the bubble
	})
}
