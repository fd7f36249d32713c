// netpollfloor: the floor. One thread, epoll, gobwas/ws only for the upgrade, 32 bytes of state
// per connection, no goroutine and no buffer per idle connection, a wheel of file descriptors.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/a4cafe1a/presence/bench/srv"
	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

type conn struct {
	seen int64 // ns of the last bytes
	next int32 // ring in the slot, by fd
	prev int32
	slot int32
	open bool // upgraded
	used bool
}

type rw struct {
	in []byte
	fd int
}

func (r *rw) Read(p []byte) (int, error) {
	if len(r.in) == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n := copy(p, r.in)
	r.in = r.in[n:]
	return n, nil
}
func (r *rw) Write(p []byte) (int, error) { return unix.Write(r.fd, p) }

const tick = 20 * time.Millisecond

func main() {
	srv.Start()
	runtime.LockOSThread()
	host, ps, _ := net.SplitHostPort(*srv.Addr)
	port, _ := strconv.Atoi(ps)
	lfd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	die(err)
	unix.SetsockoptInt(lfd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	sa := &unix.SockaddrInet4{Port: port}
	copy(sa.Addr[:], net.ParseIP(host).To4())
	die(unix.Bind(lfd, sa))
	die(unix.Listen(lfd, 4096))
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	die(err)
	die(unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, lfd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(lfd)}))

	conns := make([]conn, 1024)
	nslots := int(*srv.Interval / tick)
	heads := make([]int32, nslots)
	for i := range heads {
		heads[i] = -1
	}
	link := func(fd int32, s int) {
		c := &conns[fd]
		c.slot, c.prev, c.next = int32(s), -1, heads[s]
		if heads[s] >= 0 {
			conns[heads[s]].prev = fd
		}
		heads[s] = fd
	}
	drop := func(fd int32) {
		c := &conns[fd]
		if c.open {
			if c.prev >= 0 {
				conns[c.prev].next = c.next
			} else {
				heads[c.slot] = c.next
			}
			if c.next >= 0 {
				conns[c.next].prev = c.prev
			}
		}
		*c = conn{}
		unix.Close(int(fd))
	}
	buf := make([]byte, 65536)
	ping := []byte{0x89, 0}
	evs := make([]unix.EpollEvent, 256)
	partial := map[int32][]byte{}
	up := ws.Upgrader{}
	start := time.Now()
	cur := 0
	var done int64
	// A silent connection is looked for once per timeout-slack tick: each connection is
	// checked when its slot comes round AND by a sweep of its slot at timeout%interval later.
	lag := int((*srv.Timeout % *srv.Interval) / tick)
	for {
		now := int64(time.Since(start))
		for done < now/int64(tick) {
			done++
			cur = int(done % int64(nslots))
			for fd := heads[cur]; fd >= 0; {
				nx := conns[fd].next
				if now-conns[fd].seen >= int64(*srv.Timeout) {
					drop(fd)
				} else if _, err := unix.Write(int(fd), ping); err != nil {
					drop(fd)
				}
				fd = nx
			}
			for fd := heads[(cur-lag-1+2*nslots)%nslots]; fd >= 0; {
				nx := conns[fd].next
				if now-conns[fd].seen >= int64(*srv.Timeout) {
					drop(fd)
				}
				fd = nx
			}
		}
		wait := int((int64(tick)*(done+1) - int64(time.Since(start))) / 1e6)
		if wait < 0 {
			wait = 0
		}
		n, err := unix.EpollWait(ep, evs, wait+1)
		if err != nil && err != unix.EINTR {
			die(err)
		}
		now = int64(time.Since(start))
		for i := 0; i < n; i++ {
			fd := evs[i].Fd
			if int(fd) == lfd {
				for k := 0; k < 64; k++ {
					c, _, err := unix.Accept4(lfd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
					if err != nil {
						break
					}
					for c >= len(conns) {
						conns = append(conns, make([]conn, len(conns)/4)...)
					}
					conns[c] = conn{used: true, seen: now}
					unix.SetsockoptInt(c, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
					unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, c, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: int32(c)})
				}
				continue
			}
			c := &conns[fd]
			if !c.used {
				continue
			}
			m, err := unix.Read(int(fd), buf)
			if err == unix.EAGAIN {
				continue
			}
			if m <= 0 {
				drop(fd)
				continue
			}
			c.seen = now
			if !c.open {
				if _, err := up.Upgrade(&rw{buf[:m], int(fd)}); err != nil {
					drop(fd)
					continue
				}
				c.open = true
				link(fd, cur)
				continue
			}
			b := buf[:m]
			if p := partial[fd]; p != nil {
				b = append(p, b...)
				delete(partial, fd)
			}
			for len(b) >= 6 {
				l := int(b[1] & 127)
				if b[1]&128 == 0 || l > 125 || b[0]&15 == 8 {
					drop(fd)
					b = nil
					break
				}
				if len(b) < 6+l {
					break
				}
				b = b[6+l:]
			}
			if len(b) > 0 {
				partial[fd] = append([]byte(nil), b...)
			}
		}
	}
}

func die(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
