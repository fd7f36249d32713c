// client: one lean process that holds N WebSocket connections from a single epoll loop, over TLS if asked to.
//
// Modes: wspong (answers the server's pings), wsping (sends a masked ping every interval), text (sends a small text message every
// interval), centrifuge (connect command, answers "{}"). Commands come as lines on stdin, answers go as JSON lines to stdout.
package main

import (
	"bufio"
	"crypto/tls"
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
	useTLS   = flag.Bool("tls", false, "over TLS; the certificate is not checked")
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
	tls    *tls.Conn // nil: none
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

func say(v any) { j, _ := json.Marshal(v); fmt.Printf("%s\n", j) }

func main() {
	flag.Parse()
	runtime.GOMAXPROCS(1)
	if *useTLS {
		runtime.GOMAXPROCS(2) // handshakes, and the loop
	}
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
		arrived()
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
		for _, e := range evs[:max(n, 0)] {
			event(e.Fd, e.Events)
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
