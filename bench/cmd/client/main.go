// client: one lean process that holds N WebSocket connections from a single epoll loop.
// Modes: wspong (answers the server's pings), wsping (sends a masked ping every interval),
// text (sends a small text message every interval), centrifuge (connect command, answers "{}").
// Commands come as lines on stdin, answers go as JSON lines to stdout.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

var (
	target   = flag.String("target", "127.0.0.1:20000", "server")
	path     = flag.String("path", "/", "request path; {i} is replaced by the connection's number")
	mode     = flag.String("mode", "wspong", "wspong, wsping, text or centrifuge")
	interval = flag.Duration("interval", 5*time.Second, "heartbeat interval (wsping, text)")
	timeout  = flag.Duration("timeout", 9*time.Second, "the server's timeout, for the overshoot")
	message  = flag.String("message", `{"type":"ping"}`, "text heartbeat")
	sources  = flag.Int("sources", 4, "source addresses 127.0.0.2 and up")
	maxLife  = flag.Duration("max", 5*time.Minute, "exit by itself after this time")
	subproto = flag.String("subproto", "", "Sec-WebSocket-Protocol")
)

const (
	free = iota
	connecting
	handshaking
	greeting // centrifuge: waiting for the connect reply
	open
	closed // the server closed it; kept for the report
)

type conn struct {
	state  uint8
	silent bool
	eof    bool
	start  int64 // ns, connect start
	sent   int64 // ns, last bytes sent
	sign   int64 // ns, first sign of the server's close (close frame, FIN or RST)
	eofAt  int64
	part   []byte
}

type due struct {
	fd int32
	at int64
}

var (
	conns            = make([]conn, 65536)
	ep               int
	t0               = time.Now()
	buf              = make([]byte, 65536)
	pongFrame        = []byte{0x8a, 0x80, 1, 2, 3, 4}
	pingFrame        = []byte{0x89, 0x80, 1, 2, 3, 4}
	textFrame        []byte
	cfPong           = mask(0x81, []byte("{}"))
	cfConnect        = mask(0x81, []byte(`{"connect":{},"id":1}`))
	queue            []due
	qhead            int
	nOpen, nFail     int
	nInflight        int
	nLost            int // closed by the server though not silent
	heartbeats       int64
	pongsSeen        int64
	otherFrames      int64
	shortWrites      int64
	lat              []float64
	failWhy          = map[string]int{}
	reqPre, reqPost  string
	serverSA         *unix.SockaddrInet4
	want, launched   int
	connT0, connLast int64
	rate             float64
	inflight         int
	connDone         = true
	nSilent          int
)

func now() int64 { return int64(time.Since(t0)) }

func mask(op byte, p []byte) []byte {
	k := [4]byte{1, 2, 3, 4}
	f := []byte{op, 0x80 | byte(len(p)), 1, 2, 3, 4}
	for i, c := range p {
		f = append(f, c^k[i&3])
	}
	return f
}

func say(v any) { j, _ := json.Marshal(v); fmt.Printf("%s\n", j) }

func main() {
	flag.Parse()
	runtime.GOMAXPROCS(1)
	time.AfterFunc(*maxLife, func() { os.Exit(3) })
	host, ps, _ := net.SplitHostPort(*target)
	port, _ := strconv.Atoi(ps)
	ip := net.ParseIP(host).To4()
	if ip == nil || ip[0] != 127 {
		fmt.Fprintln(os.Stderr, "loopback targets only")
		os.Exit(2)
	}
	serverSA = &unix.SockaddrInet4{Port: port}
	copy(serverSA.Addr[:], ip)
	reqPre = "GET "
	reqPost = " HTTP/1.1\r\nHost: " + *target + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	if *subproto != "" {
		reqPost += "Sec-WebSocket-Protocol: " + *subproto + "\r\n"
	}
	reqPost += "\r\n"
	textFrame = mask(0x81, []byte(*message))
	var err error
	ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		panic(err)
	}
	cmds := make(chan string, 8)
	go func() {
		s := bufio.NewScanner(os.Stdin)
		for s.Scan() {
			cmds <- s.Text()
		}
		close(cmds)
	}()
	evs := make([]unix.EpollEvent, 256)
	for {
		select {
		case c, ok := <-cmds:
			if !ok {
				quit()
			}
			command(c)
		default:
		}
		launch()
		t := now()
		for qhead < len(queue) && queue[qhead].at <= t {
			d := queue[qhead]
			qhead++
			c := &conns[d.fd]
			if c.state != open || c.silent {
				continue
			}
			if *mode == "wsping" {
				write(d.fd, c, pingFrame)
			} else {
				write(d.fd, c, textFrame)
				heartbeats++
			}
			queue = append(queue, due{d.fd, d.at + int64(*interval)})
		}
		if qhead > 65536 {
			queue = append(queue[:0], queue[qhead:]...)
			qhead = 0
		}
		n, err := unix.EpollWait(ep, evs, 2)
		if err != nil && err != unix.EINTR {
			panic(err)
		}
		for i := 0; i < n; i++ {
			event(evs[i].Fd, evs[i].Events)
		}
	}
}

func quit() {
	for fd := range conns {
		if s := conns[fd].state; s != free && !conns[fd].eof {
			unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			unix.Close(fd)
		}
	}
	os.Exit(0)
}

func command(line string) {
	f := strings.Fields(line)
	if len(f) == 0 {
		return
	}
	switch f[0] {
	case "connect": // connect N rate inflight ; rate 0: as fast as it goes
		want, _ = strconv.Atoi(f[1])
		rate, _ = strconv.ParseFloat(f[2], 64)
		inflight, _ = strconv.Atoi(f[3])
		launched, connDone, connT0 = 0, false, now()
	case "stat":
		say(map[string]any{"open": nOpen, "lost": nLost, "hb": heartbeats, "pongs": pongsSeen, "other": otherFrames, "short": shortWrites, "t": now()})
	case "silence": // silence K: K open connections, drawn at random, answer no more
		k, _ := strconv.Atoi(f[1])
		var o []int
		for fd := range conns {
			if conns[fd].state == open {
				o = append(o, fd)
			}
		}
		r := rand.New(rand.NewPCG(1, 2))
		r.Shuffle(len(o), func(i, j int) { o[i], o[j] = o[j], o[i] })
		for _, fd := range o[:min(k, len(o))] {
			conns[fd].silent = true
			nSilent++
		}
		say(map[string]any{"silenced": nSilent})
	case "silentstat":
		var over, eof []float64
		for fd := range conns {
			c := &conns[fd]
			if !c.silent {
				continue
			}
			if c.sign > 0 {
				over = append(over, float64(c.sign-c.sent-int64(*timeout))/1e6)
			}
			if c.eofAt > 0 {
				eof = append(eof, float64(c.eofAt-c.sent-int64(*timeout))/1e6)
			}
		}
		m, p50, mx, mn := stats(over)
		em, _, emx, _ := stats(eof)
		say(map[string]any{"silent": nSilent, "closed": len(over), "mean": m, "p50": p50, "max": mx, "min": mn, "eofmean": em, "eofmax": emx, "eofs": len(eof)})
	case "quit":
		quit()
	}
}

func stats(x []float64) (mean, p50, mx, mn float64) {
	if len(x) == 0 {
		return
	}
	sort.Float64s(x)
	for _, v := range x {
		mean += v
	}
	return mean / float64(len(x)), x[len(x)/2], x[len(x)-1], x[0]
}

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
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		fail(-1, "socket "+err.Error())
		return
	}
	unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	src := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, byte(2 + i%*sources)}}
	if err := unix.Bind(fd, src); err != nil {
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

func write(fd int32, c *conn, b []byte) {
	n, err := unix.Write(int(fd), b)
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
	n, err := unix.Read(int(fd), buf)
	if err == unix.EAGAIN {
		return
	}
	if n <= 0 {
		gone(fd, c, true)
		return
	}
	b := buf[:n]
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
	n, err := unix.Read(int(fd), buf)
	if err == unix.EAGAIN || n > 0 {
		return
	}
	c.eof, c.eofAt = true, now()
	unix.Close(int(fd))
}
