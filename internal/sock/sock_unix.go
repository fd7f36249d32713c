//go:build unix && !linux

package sock

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Reading and writing work on every Unix. The questions have no common answer
// there, so they are not asked.
const supported = true

type scratch struct{}

func (c *call) run(fd uintptr) {
	switch c.op {
	case opRead:
		c.read(fd)
	case opWrite:
		c.write(fd)
	case opReset:
		c.err = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	default:
		c.err = errors.ErrUnsupported
	}
}

func (c *call) read(fd uintptr) {
	if len(c.buf) == 0 {
		return
	}
	n, err := unix.Read(int(fd), c.buf)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Read(int(fd), c.buf)
	}
	switch {
	case errors.Is(err, unix.EAGAIN):
		c.err = ErrAgain
	case err != nil:
		c.err = os.NewSyscallError("read", err)
	case n == 0:
		c.err = io.EOF
	default:
		c.n = int64(n)
	}
}

func (c *call) write(fd uintptr) {
	if len(c.buf) == 0 {
		return
	}
	n, err := unix.Write(int(fd), c.buf)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Write(int(fd), c.buf)
	}
	switch {
	case errors.Is(err, unix.EAGAIN):
		c.err = ErrAgain
	case err != nil:
		c.err = os.NewSyscallError("write", err)
	default:
		c.n = int64(n)
		if n < len(c.buf) {
			c.err = ErrAgain
		}
	}
}
