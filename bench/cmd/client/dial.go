package main

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func launch() {
	if connDone {
		return
	}
	for launched < want && nInflight < inflight && (rate == 0 || float64(launched) <= float64(now()-connT0)/1e9*rate) {
		dial(launched)
		launched++
	}
	if launched == want && nInflight == 0 {
		connDone = true
		_, p50, mx, _ := stats(lat)
		p99 := 0.0
		if len(lat) > 0 {
			p99 = lat[len(lat)*99/100]
		}
		say(map[string]any{"ok": nOpen, "fail": nFail, "why": failWhy, "secs": float64(connLast-connT0) / 1e9, "p50ms": p50, "p99ms": p99, "maxms": mx})
	}
}

func dial(i int) {
	source := [4]byte{127, 0, 0, byte(2 + i%*sources)}
	if *useTLS {
		nInflight++
		go dialTLS(source)
		return
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		fail(-1, "socket "+err.Error())
		return
	}
	unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: source}); err != nil {
		unix.Close(fd)
		fail(-1, "bind "+err.Error())
		return
	}
	conns[fd] = conn{state: connecting, start: now()}
	nInflight++
	err = unix.Connect(fd, serverSA)
	if err != nil && err != unix.EINPROGRESS {
		fail(fd, "connect "+err.Error())
		return
	}
	ev := uint32(unix.EPOLLOUT | unix.EPOLLIN)
	if err == nil {
		ev = unix.EPOLLIN | unix.EPOLLRDHUP
	}
	unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: ev, Fd: int32(fd)})
	if err == nil {
		hello(fd)
	}
}

func hello(fd int) {
	c := &conns[fd]
	c.state = handshaking
	req := reqPre + strings.ReplaceAll(*path, "{i}", strconv.Itoa(fd)) + reqPost
	write(int32(fd), c, []byte(req))
}

func fail(fd int, why string) {
	nFail++
	failWhy[why]++
	if fd >= 0 {
		nInflight--
		conns[fd] = conn{}
		unix.Close(fd)
	}
	connLast = now()
}

func opened(fd int32, c *conn) {
	c.state = open
	nOpen++
	nInflight--
	t := now()
	connLast = t
	lat = append(lat, float64(t-c.start)/1e6)
	if *mode == "wsping" || *mode == "text" {
		queue = append(queue, due{fd, t + int64(*interval)})
	}
}
