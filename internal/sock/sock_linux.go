package sock

import (
	"errors"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const supported = true

// scratch is where the kernel writes its answers. It lives in the pooled call,
// so that it need not be allocated.
type scratch struct {
	info unix.TCPInfo
	mem  [unix.SK_MEMINFO_VARS]uint32
	poll [1]unix.PollFd
}

func (c *call) run(fd uintptr) {
	switch c.op {
	case opRead:
		c.read(fd)
	case opWrite:
		c.write(fd)
	case opPending:
		c.ioctl(fd, unix.SIOCINQ)
	case opRoom:
		if c.memory(fd, unix.SK_MEMINFO_WMEM_QUEUED) {
			c.n = max(0, int64(c.mem[unix.SK_MEMINFO_SNDBUF])-int64(c.mem[unix.SK_MEMINFO_WMEM_QUEUED]))
		}
	case opUnacked:
		c.ioctl(fd, unix.SIOCOUTQ)
	case opAcked:
		if c.tcpInfo(fd, unsafe.Offsetof(c.info.Bytes_acked)+unsafe.Sizeof(c.info.Bytes_acked)) {
			c.n = int64(c.info.Bytes_acked)
		}
	case opReceived:
		if c.tcpInfo(fd, unsafe.Offsetof(c.info.Bytes_received)+unsafe.Sizeof(c.info.Bytes_received)) {
			c.n = int64(c.info.Bytes_received)
		}
	case opSinceReceived:
		if c.tcpInfo(fd, unsafe.Offsetof(c.info.Last_data_recv)+unsafe.Sizeof(c.info.Last_data_recv)) {
			c.n = int64(c.info.Last_data_recv)
		}
	case opReceiveFull:
		c.receiveFull(fd)
	case opReset:
		c.err = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	case opHungUp:
		c.poll[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLRDHUP}
		if _, c.err = unix.Poll(c.poll[:], 0); c.err == nil {
			c.n = int64(c.poll[0].Revents)
		}
	case opIsTCP:
		if !isTCP(fd) {
			c.err = errors.ErrUnsupported
		}
	}
}

// read and write pass MSG_DONTWAIT although Go's sockets are non-blocking: the
// flag belongs to the open file, and File().Fd() on a duplicate clears it for
// all.
func (c *call) read(fd uintptr) {
	if len(c.buf) == 0 {
		return
	}
	n, errno := c.transferAt(unix.SYS_RECVFROM, fd, unix.MSG_DONTWAIT)
	switch {
	case errno == unix.EAGAIN:
		c.err = ErrAgain
	case errno != 0:
		c.err = os.NewSyscallError("recv", errno)
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
	n, errno := c.transferAt(unix.SYS_SENDTO, fd, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	switch {
	case errno == unix.EAGAIN:
		c.err = ErrAgain
	case errno != 0:
		c.err = os.NewSyscallError("send", errno)
	default:
		c.n = int64(n)
		if n < len(c.buf) {
			c.err = ErrAgain
		}
	}
}

// brief is how much is copied so quickly that Go's scheduler need not be told of
// the call. Telling costs more than it gains: a sixth of a heartbeat's CPU.
const brief = 4 << 10

// transferAt calls recv or send, which must not block. The wrappers of x/sys
// are not used: theirs for send drops the count, and that of recv wants an
// address.
func (c *call) transferAt(trap, fd, flags uintptr) (int, unix.Errno) {
	size := uintptr(len(c.buf))
	for {
		// The conversions stand in the calls, so that the buffer stays where it is.
		var n uintptr
		var errno unix.Errno
		if size <= brief {
			n, _, errno = unix.RawSyscall6(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(c.buf))), size, flags, 0, 0)
		} else {
			n, _, errno = unix.Syscall6(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(c.buf))), size, flags, 0, 0)
		}
		if errno == unix.EINTR {
			continue
		}
		return int(n), errno
	}
}

func (c *call) ioctl(fd uintptr, req uint) {
	n, err := unix.IoctlGetUint32(int(fd), req)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.IoctlGetUint32(int(fd), req)
	}
	c.n, c.err = int64(n), err
}

// tcpInfo asks for TCP_INFO and reports whether the kernel filled the field
// that ends at need: older kernels know fewer.
func (c *call) tcpInfo(fd, need uintptr) bool {
	size, err := getsockopt(fd, unix.IPPROTO_TCP, unix.TCP_INFO, unsafe.Pointer(&c.info), unsafe.Sizeof(c.info))
	if err == nil && size < need {
		err = errors.ErrUnsupported
	}
	c.err = err
	return err == nil
}

// memory asks for SO_MEMINFO and reports whether the kernel filled the field.
func (c *call) memory(fd, field uintptr) bool {
	size, err := getsockopt(fd, unix.SOL_SOCKET, unix.SO_MEMINFO, unsafe.Pointer(&c.mem), unsafe.Sizeof(c.mem))
	if err == nil && size < unsafe.Sizeof(c.mem[0])*(field+1) {
		err = errors.ErrUnsupported
	}
	c.err = err
	return err == nil
}

func (c *call) receiveFull(fd uintptr) {
	// An older kernel leaves the field alone, and the pool may hand out what
	// the last call found.
	c.info.Rcv_wnd = windowUnknown
	if !c.tcpInfo(fd, 1) {
		return
	}
	if !c.memory(fd, unix.SK_MEMINFO_RCVBUF) {
		return
	}
	if !receiveFull(c.mem[unix.SK_MEMINFO_RMEM_ALLOC], c.mem[unix.SK_MEMINFO_RCVBUF], c.info.Rcv_wnd) {
		return
	}
	// Segments that wait for a lost one fill the buffer too, and no reader
	// could take them out. Only then is there nothing to read.
	if c.ioctl(fd, unix.SIOCINQ); c.n > 0 {
		c.n = 1
	}
}

// windowUnknown cannot be a real window: 2^30 is the largest (RFC 7323).
const windowUnknown = 1<<32 - 1

// receiveFull decides by the memory that unread data occupies, the memory it
// may occupy, and the window last offered to the peer.
//
// With the window known, it decides: measured over segments from 6 bytes to
// 64 KiB and buffers from 2 KiB up, a sender that cannot go on always sees 0,
// and the memory is then at 80 % or more. Memory at 100 % alone means nothing,
// because the kernel enlarges the buffer while small segments come. Half the
// memory is still asked for, so that a system which leaves the field 0 without
// meaning it is not believed.
func receiveFull(used, limit, window uint32) bool {
	return uint64(used)*2 >= uint64(limit) && (window == 0 || window == windowUnknown)
}

// isTCP reports whether fd is a plain TCP socket. On a multipath one (Go
// listens for MPTCP by default) TCP_INFO tells of the first path only, which
// may be dead while the connection lives.
func isTCP(fd uintptr) bool {
	proto, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL)
	return err == nil && proto == unix.IPPROTO_TCP
}

func getsockopt(fd uintptr, level, name int, p unsafe.Pointer, size uintptr) (uintptr, error) {
	n := uint32(size)
	for {
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, uintptr(level), uintptr(name),
			uintptr(p), uintptr(unsafe.Pointer(&n)), 0)
		switch errno {
		case 0:
			return uintptr(n), nil
		case unix.EINTR:
			continue
		}
		return 0, errno
	}
}
