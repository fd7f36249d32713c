package main

import (
	"bytes"

	"golang.org/x/sys/unix"
)

func mask(op byte, p []byte) []byte {
	k := [4]byte{1, 2, 3, 4}
	f := []byte{op, 0x80 | byte(len(p)), 1, 2, 3, 4}
	for i, c := range p {
		f = append(f, c^k[i&3])
	}
	return f
}

func write(fd int32, c *conn, b []byte) {
	n, err := c.write(fd, b)
	if err != nil || n != len(b) {
		shortWrites++
	}
	c.sent = now()
}

func event(fd int32, ev uint32) {
	c := &conns[fd]
	switch c.state {
	case free, closed:
		if c.state == closed && !c.eof {
			drain(fd, c)
		}
		return
	case connecting:
		if ev&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
			e, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
			fail(int(fd), "connect "+unix.Errno(e).Error())
			return
		}
		if ev&unix.EPOLLOUT != 0 {
			unix.EpollCtl(ep, unix.EPOLL_CTL_MOD, int(fd), &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: fd})
			hello(int(fd))
		}
		return
	}
	for {
		n, err := c.read(fd, buf)
		if err == unix.EAGAIN {
			return
		}
		if n <= 0 {
			gone(fd, c, true)
			return
		}
		arrive(fd, c, buf[:n])
		if c.tls == nil || c.state == closed || c.state == free {
			return // epoll tells what the socket still holds, but not what a tls.Conn does
		}
	}
}

// arrive takes the next bytes of a connection.
func arrive(fd int32, c *conn, b []byte) {
	if c.part != nil {
		b = append(c.part, b...)
		c.part = nil
	}
	if c.state == handshaking {
		i := bytes.Index(b, []byte("\r\n\r\n"))
		if i < 0 {
			c.part = append([]byte(nil), b...)
			return
		}
		if !bytes.HasPrefix(b, []byte("HTTP/1.1 101")) || !bytes.Contains(b[:i], []byte("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")) {
			l, _, _ := bytes.Cut(b, []byte("\r\n"))
			fail(int(fd), "handshake "+string(l))
			return
		}
		b = b[i+4:]
		if *mode == "centrifuge" {
			c.state = greeting
			write(fd, c, cfConnect)
		} else {
			opened(fd, c)
		}
	}
	for len(b) >= 2 {
		l, h := int(b[1]&127), 2
		if l == 126 {
			if len(b) < 4 {
				break
			}
			l, h = int(b[2])<<8|int(b[3]), 4
		} else if l == 127 {
			gone(fd, c, false)
			return
		}
		if len(b) < h+l {
			break
		}
		frame(fd, c, b[0]&15, b[h:h+l])
		b = b[h+l:]
		if c.state == closed || c.state == free {
			return
		}
	}
	if len(b) > 0 {
		c.part = append([]byte(nil), b...)
	}
}

func frame(fd int32, c *conn, op byte, p []byte) {
	switch op {
	case 9:
		if c.silent {
			return
		}
		if len(p) == 0 {
			write(fd, c, pongFrame)
		} else {
			write(fd, c, mask(0x8a, p))
		}
		if *mode == "wspong" {
			heartbeats++
		}
	case 10:
		pongsSeen++
		if *mode == "wsping" {
			heartbeats++
		}
	case 8:
		if !c.silent {
			write(fd, c, []byte{0x88, 0x80, 1, 2, 3, 4})
		}
		gone(fd, c, false)
	case 1:
		if *mode != "centrifuge" {
			otherFrames++
			return
		}
		for _, line := range bytes.Split(p, []byte("\n")) {
			switch {
			case len(line) == 0:
			case bytes.Equal(line, []byte("{}")):
				if !c.silent && c.state == open {
					write(fd, c, cfPong)
					heartbeats++
				}
			case c.state == greeting && bytes.Contains(line, []byte(`"connect"`)):
				opened(fd, c)
			default:
				otherFrames++
			}
		}
	default:
		otherFrames++
	}
}

// gone: the server closed, by a close frame (eof false) or by FIN/RST (eof true).
func gone(fd int32, c *conn, eof bool) {
	if c.state == handshaking || c.state == greeting {
		fail(int(fd), "closed while opening")
		return
	}
	c.sign = now()
	c.state = closed
	nOpen--
	if !c.silent {
		nLost++
	}
	if eof {
		c.eof, c.eofAt = true, c.sign
		unix.Close(int(fd))
	}
}

func drain(fd int32, c *conn) {
	n, err := c.read(fd, buf)
	if err == unix.EAGAIN || n > 0 {
		return
	}
	c.eof, c.eofAt = true, now()
	unix.Close(int(fd))
}
