//go:build !linux

package park

import "syscall"

// Lot is a set of parked sockets; there is none on this system.
type Lot struct{}

// New returns nil: this system keeps a goroutine per connection.
func New(int) *Lot { return nil }

// Add does nothing.
func (*Lot) Add(syscall.RawConn, Sleeper) (Ref, bool) { return Ref{}, false }

// TakeOver does nothing.
func (*Lot) TakeOver(syscall.RawConn, Sleeper) (Ref, bool) { return Ref{}, false }

// Remove does nothing.
func (*Lot) Remove(Ref) {}

// Close does nothing.
func (*Lot) Close() {}
