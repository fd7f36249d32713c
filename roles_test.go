//go:build unix

package presence_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
)

// crowd are plan.N clients that answer heartbeats. They do what they are asked:
//
//	beaten        say when each of them has been asked for a sign of life since
//	leave N       the first N close with 1000 and say when all have closed
//	told N CODE   say when N of them got a close frame with this code
func crowd(p plan, in *bufio.Scanner) {
	clients := make([]*clientInCrowd, p.N)
	var wg sync.WaitGroup
	room := make(chan struct{}, 64)
	for i := range clients {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			c, err := joinCrowd(p, i)
			if err != nil {
				fmt.Println("error", err)
				os.Exit(1)
			}
			clients[i] = c
		})
	}
	wg.Wait()
	fmt.Println("ready")
	for in.Scan() {
		word, rest, _ := strings.Cut(in.Text(), " ")
		var n, code int
		_, _ = fmt.Sscan(rest, &n, &code)
		switch word {
		case "beaten":
			for _, c := range clients {
				c.waitPing()
			}
		case "leave":
			for _, c := range clients[:n] {
				_, _ = c.nc.Write(wstest.Masked(0x80|wstest.Close, []byte{1000 >> 8, 1000 & 255}))
			}
			for _, c := range clients[:n] {
				<-c.over
			}
			clients = clients[n:]
		case "told":
			for got := 0; got < n; time.Sleep(5 * time.Millisecond) {
				got = 0
				for _, c := range clients {
					if c.code.Load() == int32(code) {
						got++
					}
				}
			}
		}
		fmt.Println(word)
	}
}

// clientInCrowd takes little memory and shows nothing but what is counted.
type clientInCrowd struct {
	nc    net.Conn
	pings chan struct{} // of the last ones, at most one
	code  atomic.Int32
	over  chan struct{}
}

func joinCrowd(p plan, i int) (*clientInCrowd, error) {
	nc, err := net.Dial("tcp", p.Addr)
	if err != nil {
		return nil, err
	}
	if p.TLS {
		nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	}
	path := p.Path
	if strings.Contains(path, "%d") {
		path = fmt.Sprintf(path, i)
	}
	if _, err := io.WriteString(nc, wstest.Request(path)); err != nil {
		return nil, err
	}
	br := bufio.NewReaderSize(nc, 512)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	c := &clientInCrowd{nc: nc, pings: make(chan struct{}, 1), over: make(chan struct{})}
	ready := make(chan struct{})
	go c.read(br, ready)
	<-ready
	return c, nil
}

// read answers until the end. ready is closed at the first heartbeat, which
// verifies the client.
func (c *clientInCrowd) read(br *bufio.Reader, ready chan struct{}) {
	defer close(c.over)
	defer c.nc.Close()
	verified := sync.OnceFunc(func() { close(ready) })
	defer verified()
	for {
		var h [2]byte
		if _, err := io.ReadFull(br, h[:]); err != nil {
			return
		}
		payload := make([]byte, h[1]&127) // longer ones are not sent to a crowd
		if _, err := io.ReadFull(br, payload); err != nil {
			return
		}
		switch f := (wstest.Frame{Op: h[0] & 15, Payload: payload}); f.Op {
		case wstest.Ping:
			if _, err := c.nc.Write(wstest.Masked(0x80|wstest.Pong, payload)); err != nil {
				return
			}
			verified()
			select {
			case c.pings <- struct{}{}:
			default:
			}
		case wstest.Close:
			c.code.Store(int32(f.Code()))
			_, _ = c.nc.Write(wstest.Masked(0x80|wstest.Close, payload))
		}
	}
}

// waitPing waits for a heartbeat that came after the last one it saw.
func (c *clientInCrowd) waitPing() {
	select {
	case <-c.pings:
	case <-c.over:
	}
}

// serverProcess is a server to be stopped and to be kept busy. It says its
// address and each end. Asked "busy", it is that for plan.Busy.
func serverProcess(p plan, in *bufio.Scanner) {
	var out sync.Mutex
	say := func(format string, args ...any) {
		out.Lock()
		defer out.Unlock()
		fmt.Printf(format+"\n", args...)
	}
	pr, err := presence.New(presence.Options{
		Identify: byQuery, HeartbeatInterval: p.Beat, HeartbeatTimeout: p.Silent,
		OnDisconnect: func(s *presence.Session, e presence.End) { say("end %s %s", s.User(), e.Cause) },
	})
	if err != nil {
		say("error %v", err)
		return
	}
	mux := http.NewServeMux()
	mux.Handle("/", pr.Handler(drop))
	mux.Handle("/deaf", pr.Handler(func(ctx context.Context, c *presence.Conn) error {
		<-ctx.Done()
		return context.Cause(ctx)
	}))
	srv := httptest.NewUnstartedServer(mux)
	if p.TLS {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	say("addr %s", srv.Listener.Addr())
	for in.Scan() {
		until := time.Now().Add(p.Busy)
		var wg sync.WaitGroup
		for range 16 * runtime.GOMAXPROCS(0) {
			wg.Go(func() {
				for time.Now().Before(until) {
					burn()
				}
			})
		}
		wg.Wait()
		say("idle")
	}
}

//go:noinline
func burn() {
	for x := 0; x < 1e6; x++ {
		_ = x * x
	}
}
