// Package rarely bounds what is logged of things that happen often.
package rarely

import (
	"sync/atomic"
	"time"
)

// Every is how often a log says the same at most.
const Every = 30 * time.Second

// Line is one message of a log. The zero value has not been logged. Its method
// may be called concurrently.
type Line struct{ last atomic.Pointer[time.Time] }

// Now says whether the message may be logged now. Who is told so logs it.
func (l *Line) Now() bool {
	last := l.last.Load()
	if last != nil && time.Since(*last) < Every {
		return false
	}
	now := time.Now()
	return l.last.CompareAndSwap(last, &now)
}
