package store

import (
	"errors"
	"time"
)

var (
	// ErrLeaseLost: the lease has ended, was given by a generation that is
	// gone, or was never given. The call did nothing. Register again.
	ErrLeaseLost = errors.New("store: lease lost")

	// ErrClosed: the store or the feed was closed.
	ErrClosed = errors.New("store: closed")

	// ErrUnavailable: the store is out of reach. The call may have taken
	// effect. Wraps its reason.
	ErrUnavailable = errors.New("store: unavailable")

	// ErrUnknown: the store is there, but cannot tell now. Returned as a
	// *HoldError.
	ErrUnknown = errors.New("store: cannot be told now")

	// ErrShard: there is no such shard, or a user of another shard than the
	// lease's was in a Commit, which then did nothing.
	ErrShard = errors.New("store: no such shard")
)

// HoldError is the ErrUnknown of a hold.
type HoldError struct {
	For time.Duration // how long the hold may still last; it may end earlier or later
}

func (e *HoldError) Error() string {
	return ErrUnknown.Error() + ": hold for " + e.For.String()
}

// Is reports whether target is ErrUnknown.
func (e *HoldError) Is(target error) bool { return target == ErrUnknown }
