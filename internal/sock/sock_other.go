//go:build !unix

package sock

import "errors"

// Without support Of returns nil, and a nil Sock knows nothing.
const supported = false

type scratch struct{}

func (c *call) run(uintptr) { c.err = errors.ErrUnsupported }
