// Package sock asks the kernel about a TCP connection, and reads and writes
// it, without ever blocking.
//
// A heartbeat must not wait for a full socket and must not be stopped by a
// deadline that a WebSocket library left behind. Go's own Read, Write and
// RawConn.Read do both: they honour deadlines and park the goroutine. So every
// call here is one system call inside RawConn.Control, which does neither.
//
// What cannot be known is said so: the boolean of an answer is false on systems
// other than Linux, on a closed connection, and, where the question is about
// TCP, on other sockets. Multipath TCP is one of those: the kernel answers for
// one of its paths.
package sock

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

// ErrAgain says that the socket had no bytes to read, or no room for all the
// bytes to write. Nothing is wrong with the connection.
var ErrAgain = errors.New("sock: would block")

// maxDepth bounds the walk through wrappers, so that a wrapper which returns
// itself does not hang the caller.
const maxDepth = 16

// Sock is the kernel's side of a connection. It never blocks, ignores deadlines
// and allocates nothing per call. Safe for concurrent use. The zero Sock knows
// nothing.
//
// It does not own the connection: closing the connection ends it, and then Read
// and Write return an error that errors.Is finds as net.ErrClosed.
type Sock struct {
	raw syscall.RawConn
	tcp bool
}

// Of returns the socket below nc: that of nc itself if it has one
// (syscall.Conn, as *net.TCPConn does), else of what its NetConn method returns
// (*tls.Conn and other wrappers), at most 16 levels deep. It returns the zero
// Sock if no socket is found and on systems where nothing can be done with one.
func Of(nc net.Conn) Sock {
	if !supported {
		return Sock{}
	}
	for range maxDepth {
		if nc == nil {
			return Sock{}
		}
		if sc, ok := nc.(syscall.Conn); ok {
			if raw, err := sc.SyscallConn(); err == nil && raw != nil {
				s := Sock{raw: raw}
				_, s.tcp = s.ask(opIsTCP)
				return s
			}
		}
		outer, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			return Sock{}
		}
		nc = outer.NetConn()
	}
	return Sock{}
}

// Known reports whether there is a socket.
func (s Sock) Known() bool { return s.raw != nil }

// Direct reports whether the bytes of nc are the bytes of its socket, so that
// Read and Write of a Sock may stand in for those of nc. True for *net.TCPConn
// and *net.UnixConn only: TLS changes the bytes, and an unknown wrapper may
// change or count them.
func Direct(nc net.Conn) bool {
	switch nc.(type) {
	case *net.TCPConn, *net.UnixConn:
		return true
	}
	return false
}

// Read reads what has arrived, at most len(p) bytes. It returns ErrAgain if
// nothing has and io.EOF at the end of the stream. Below TLS it would steal
// ciphertext: see Direct.
func (s Sock) Read(p []byte) (n int, err error) {
	return s.transfer(opRead, p)
}

// Write writes as much of p as the socket has room for. A count below len(p)
// always comes with an error: ErrAgain if the socket is full, else the reason
// the connection cannot be written. Below TLS it would corrupt the stream: see
// Direct.
func (s Sock) Write(p []byte) (n int, err error) {
	return s.transfer(opWrite, p)
}

// Pending returns how many bytes have arrived and wait to be read.
func (s Sock) Pending() (bytes int, ok bool) {
	n, ok := s.ask(opPending)
	return int(n), ok
}

// HungUp reports whether the peer has shut its side, or the connection is
// broken. Bytes that arrived before may still wait to be read.
func (s Sock) HungUp() bool {
	n, ok := s.ask(opHungUp)
	return ok && n != 0
}

// Raw is for a poller. It is nil when there is no socket.
func (s Sock) Raw() syscall.RawConn { return s.raw }

// Room returns how much of the send buffer is free. A small write does not block
// while any is: the kernel lets the last one exceed the limit.
func (s Sock) Room() (bytes int, ok bool) {
	n, ok := s.askTCP(opRoom)
	return int(n), ok
}

// Unacked returns how many bytes were written and are not yet acknowledged by
// the peer's kernel, sent or not. On a Unix socket it counts the memory of what
// the peer has not read.
func (s Sock) Unacked() (bytes int, ok bool) {
	n, ok := s.ask(opUnacked)
	return int(n), ok
}

// Acked returns how many bytes the peer's kernel has acknowledged since the
// connection began. Only differences mean something: the count may include one
// for the SYN and one for the FIN.
func (s Sock) Acked() (bytes uint64, ok bool) {
	n, ok := s.askTCP(opAcked)
	return uint64(n), ok
}

// Received returns how many bytes of data the kernel has received since the
// connection began, read or not. Only differences mean something.
func (s Sock) Received() (bytes uint64, ok bool) {
	n, ok := s.askTCP(opReceived)
	return uint64(n), ok
}

// SinceReceived returns how long ago the kernel last received data from the
// peer, read or not, or how long the connection exists if it never did. The
// resolution is that of the kernel's timer, 1 to 10 ms. Data that the kernel
// had to drop and bare acknowledgements do not count.
func (s Sock) SinceReceived() (d time.Duration, ok bool) {
	n, ok := s.askTCP(opSinceReceived)
	return time.Duration(n) * time.Millisecond, ok
}

// ReceiveFull reports whether unread data fills the receive buffer, so that the
// kernel takes nothing more from the peer, pongs included.
//
// The kernel counts memory, not bytes, and makes the buffer larger while small
// segments come, so no count of unread bytes tells. What tells is that it has
// closed the window (Linux 6.2 and newer show it). On an older kernel a buffer
// of which half the memory is in use counts as full; SinceReceived then tells a
// peer that still gets through.
func (s Sock) ReceiveFull() (full, ok bool) {
	n, ok := s.askTCP(opReceiveFull)
	return n != 0, ok
}

// Reset makes the next Close of the connection a reset: what was not sent is
// discarded and the peer gets RST instead of FIN. It reports whether the socket
// accepted the setting.
func (s Sock) Reset() (ok bool) {
	_, ok = s.ask(opReset)
	return ok
}

// An op is one kind of call.
type op uint8

const (
	opRead op = iota
	opWrite
	opPending
	opRoom
	opUnacked
	opAcked
	opReceived
	opSinceReceived
	opReceiveFull
	opReset
	opHungUp
	opIsTCP
)

// A call is the arguments and results of one system call. It is pooled together
// with its bound function, because a closure per call would be an allocation
// per call.
type call struct {
	fn  func(fd uintptr)
	op  op
	buf []byte
	n   int64
	err error
	scratch
}

var calls = sync.Pool{New: func() any {
	c := new(call)
	c.fn = c.run
	return c
}}

func (s Sock) transfer(op op, p []byte) (int, error) {
	if s.raw == nil {
		return 0, errors.ErrUnsupported
	}
	n, err := s.do(op, p)
	return int(n), err
}

func (s Sock) ask(op op) (int64, bool) {
	if s.raw == nil {
		return 0, false
	}
	n, err := s.do(op, nil)
	if err != nil {
		return 0, false
	}
	return n, true
}

// askTCP asks what only a TCP socket can answer.
func (s Sock) askTCP(op op) (int64, bool) {
	if !s.tcp {
		return 0, false
	}
	return s.ask(op)
}

func (s Sock) do(op op, p []byte) (int64, error) {
	c := calls.Get().(*call)
	c.op, c.buf, c.n, c.err = op, p, 0, nil
	err := s.raw.Control(c.fn)
	n := c.n
	if err == nil {
		err = c.err
	}
	c.buf, c.err = nil, nil
	calls.Put(c)
	return n, err
}
