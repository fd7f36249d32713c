package main

import (
	"crypto/tls"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// A TLS connection shakes hands on a goroutine, then goes on in the loop: its tls.Conn reads and writes the bare descriptor.
type dialed struct {
	fd    int
	tls   *tls.Conn
	start int64
	err   error
}

var dialedTLS = make(chan dialed, 1024)

// descriptor is a non-blocking one as a net.Conn. While Conn is set, that is asked.
type descriptor struct {
	net.Conn
	fd int
}

// later is what reading from an empty socket says. Being temporary, it does not spoil the tls.Conn.
type later struct{}

func (later) Error() string   { return "nothing there" }
func (later) Timeout() bool   { return true }
func (later) Temporary() bool { return true }

func (d *descriptor) Read(b []byte) (int, error) {
	if d.Conn != nil {
		return d.Conn.Read(b)
	}
	switch n, err := unix.Read(d.fd, b); {
	case err == unix.EAGAIN:
		return 0, later{}
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	default:
		return n, nil
	}
}

func (d *descriptor) Write(b []byte) (int, error) {
	if d.Conn != nil {
		return d.Conn.Write(b)
	}
	return unix.Write(d.fd, b)
}

func dialTLS(source [4]byte) {
	d := dialed{start: now()}
	if d.err = d.dial(source); d.err != nil && d.fd > 0 {
		unix.Close(d.fd)
	}
	dialedTLS <- d
}

func (d *dialed) dial(source [4]byte) error {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: source[:]}}
	nc, err := dialer.Dial("tcp", *target)
	if err != nil {
		return err
	}
	defer nc.Close()
	below := &descriptor{Conn: nc}
	d.tls = tls.Client(below, &tls.Config{InsecureSkipVerify: true})
	if err := d.tls.Handshake(); err != nil {
		return err
	}
	raw, err := nc.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	dup := error(nil)
	if err := raw.Control(func(fd uintptr) { d.fd, dup = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return err
	}
	below.fd, below.Conn = d.fd, nil
	return dup
}

// arrived takes over connections whose handshake is done.
func arrived() {
	for {
		select {
		case d := <-dialedTLS:
			if d.err != nil {
				nInflight--
				fail(-1, "tls "+d.err.Error())
				continue
			}
			conns[d.fd] = conn{state: connecting, start: d.start, tls: d.tls}
			unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, d.fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: int32(d.fd)})
			hello(d.fd)
		default:
			return
		}
	}
}

// read fills b: unix.EAGAIN when nothing is there, 0 at the end.
func (c *conn) read(fd int32, b []byte) (int, error) {
	if c.tls == nil {
		return unix.Read(int(fd), b)
	}
	n, err := c.tls.Read(b)
	if _, ok := err.(later); ok {
		err = unix.EAGAIN
	}
	return n, err
}

func (c *conn) write(fd int32, b []byte) (int, error) {
	if c.tls == nil {
		return unix.Write(int(fd), b)
	}
	return c.tls.Write(b)
}
