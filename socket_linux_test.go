package presence_test

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// smallReceive gives a socket a small receive buffer and the segments of an
// Ethernet, before it connects.
func smallReceive(raw syscall.RawConn, size int) (err error) {
	e := raw.Control(func(fd uintptr) {
		if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, size); err == nil {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, 1440)
		}
	})
	if e != nil {
		return e
	}
	return err
}
