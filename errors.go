package presence

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/a4cafe1a/presence/internal/mirror"
	"github.com/a4cafe1a/presence/store"
)

// Identify returns one of these to refuse a request. The client gets the
// status and its text, nothing else. Any other error is a 500 and is logged. So
// is an Identity whose Meta is not JSON or that has more than
// Limits.TopicsPerSession, which is no fault of the client's; one whose names
// or metadata break a limit is a 400 that says so.
var (
	// ErrUnauthorized is answered with 401.
	ErrUnauthorized = errors.New("presence: unauthorized")
	// ErrForbidden is answered with 403.
	ErrForbidden = errors.New("presence: forbidden")
	// ErrTooMany is answered with 429 and Retry-After.
	ErrTooMany = errors.New("presence: too many")
	// ErrUnavailable is answered with 503 and Retry-After.
	ErrUnavailable = errors.New("presence: unavailable")
	// ErrUntracked says that the request is none of ours: Middleware passes
	// it on untouched, Handler and Callback answer 404.
	ErrUntracked = errors.New("presence: untracked")
)

// What methods return. All may be wrapped; use errors.Is.
var (
	// ErrClosed is returned after Shutdown, and when the store that Options
	// gave was closed, which is store.ErrClosed, too.
	ErrClosed = errors.New("presence: closed")
	// ErrEnded is returned by what needs a session that has not ended.
	ErrEnded = errors.New("presence: session ended")
	// ErrUnknown says that the answer cannot be known now. It is never
	// returned in place of "offline".
	ErrUnknown = errors.New("presence: cannot be known now")
	// ErrStoreUnavailable says that the store is out of reach. It is also
	// ErrUnknown.
	ErrStoreUnavailable = fmt.Errorf("%w: store unavailable", ErrUnknown)
	// ErrTooLarge is returned for a snapshot of more than
	// Limits.SnapshotMembers members. The message says how many there are.
	ErrTooLarge = errors.New("presence: topic too large")
	// ErrLimit is returned for what would exceed one of the Limits, and for
	// what can never be right: a name that is not UTF-8, metadata that is not
	// JSON, a close code outside 4000-4999. The message says which.
	ErrLimit = errors.New("presence: invalid or over a limit")
	// ErrSlow is returned by Peer.Send when its queue is full.
	ErrSlow = errors.New("presence: queue full")
	// ErrOptions is returned by New; the message names each rule that broke.
	ErrOptions = errors.New("presence: bad options")
)

var errStoreClosed = fmt.Errorf("%w: store closed", ErrClosed)

// RetryAfter wraps an error that Identify returns, so that the answer carries
// a Retry-After of d, rounded up to whole seconds. nil stays nil.
func RetryAfter(err error, d time.Duration) error {
	if err == nil {
		return nil
	}
	return &retryAfter{err, d}
}

type retryAfter struct {
	error
	after time.Duration
}

func (e *retryAfter) Unwrap() error { return e.error }

// storeError translates what a store returns.
func storeError(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrClosed):
		return failed(op, errStoreClosed, store.ErrClosed)
	case errors.Is(err, store.ErrUnknown):
		return failed(op, ErrUnknown, err)
	case errors.Is(err, store.ErrUnavailable):
		return failed(op, ErrStoreUnavailable, err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return failed(op, err)
	default:
		return failed(op, ErrStoreUnavailable, err)
	}
}

// failed is what an operation failed with: all of errs, the first the most
// general one.
func failed(op string, errs ...error) error { return &failure{op, errs} }

type failure struct {
	op   string
	errs []error
}

func (f *failure) Unwrap() []error { return f.errs }

// Error is one line and says nothing twice.
func (f *failure) Error() string {
	text := "presence: " + f.op
	for _, err := range f.errs {
		if words := news(err); words != "" {
			text += ": " + words
		}
	}
	return text
}

// news is the text of an error without what it begins with and has been said:
// whose it is, and the word of those below for what our own errors say too.
func news(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	for again := true; again; {
		again = false
		for _, words := range repeated {
			if rest, found := strings.CutPrefix(text+": ", words+": "); found {
				text, again = strings.TrimSuffix(rest, ": "), true
			}
		}
	}
	return text
}

var repeated = []string{
	"presence", store.ErrUnavailable.Error(), store.ErrUnknown.Error(), store.ErrClosed.Error(), mirror.ErrTooLarge.Error(),
}
