package main

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// An echo is one message there and back, through Handler and through the bare library. Both servers stand side by side, and are driven
// in turn. CPU is the server's alone.
type echoCase struct {
	bytes int
	tls   bool
	must  float64 // of the bare library's speed
}

var echoCases = []echoCase{{32, false, 0.97}, {1 << 20, false, 0.97}, {32, true, 0.90}, {1 << 20, true, 0.90}}

const echoClients = 8

// echoes measures all cases and returns them as a Markdown table.
func echoes(servers []server) (string, error) {
	var b strings.Builder
	b.WriteString(method() + "\n\n")
	b.WriteString("| echo of | coder, us CPU per message | presence, Handler | speed | 95 % sure | at least | |\n|---|--:|--:|--:|--:|--:|---|\n")
	port := *basePort
	for _, c := range echoCases {
		took, err := c.measure(servers, &port)
		if err != nil {
			return "", fmt.Errorf("echo of %d bytes, TLS %t: %w", c.bytes, c.tls, err)
		}
		speeds := make([]float64, len(took[0]))
		for i := range speeds {
			speeds[i] = took[0][i] / took[1][i]
		}
		speed, low, high := middle(speeds)
		what, verdict := fmt.Sprintf("%d B", c.bytes), "met"
		if c.bytes == 1<<20 {
			what = "1 MiB"
		}
		if c.tls {
			what += ", TLS"
		}
		if speed < c.must {
			verdict = "**missed**"
		}
		coder, _, _ := middle(took[0])
		ours, _, _ := middle(took[1])
		fmt.Fprintf(&b, "| %s | %.1f | %.1f | %.2f x | %.2f to %.2f | %.2f x | %s |\n", what, coder*1e6, ours*1e6, speed, low, high, c.must, verdict)
	}
	return b.String(), nil
}

// middle sorts x and returns its median, and between what the true one is with 95 % certainty, whatever the distribution.
func middle(x []float64) (m, low, high float64) {
	slices.Sort(x)
	n := len(x)
	off := int(math.Sqrt(float64(n)))
	return (x[(n-1)/2] + x[n/2]) / 2, x[max(0, (n-1)/2-off)], x[min(n-1, n/2+off)]
}

// measure returns the CPU seconds per message of coder and of presence, round by round.
func (c echoCase) measure(servers []server, port *int) (took [2][]float64, err error) {
	var procs [2]*process
	var clients [2][]*echoClient
	for i, name := range []string{"rawcoder", "presence-blocking"} {
		if c.tls {
			name += "-tls"
		}
		at := slices.IndexFunc(servers, func(s server) bool { return s.name == name })
		if at < 0 {
			return took, fmt.Errorf("no server is called %s", name)
		}
		s, addr := servers[at], fmt.Sprintf("127.0.0.1:%d", *port)
		*port++
		s.cmd += " -echo"
		if procs[i], err = s.start(addr, echoClients); procs[i] != nil {
			defer procs[i].stop()
		}
		if err != nil {
			return took, err
		}
		for range echoClients {
			e, err := dialEcho(addr, c)
			if err != nil {
				return took, err
			}
			defer e.nc.Close()
			clients[i] = append(clients[i], e)
		}
	}
	for round := range *rounds + 1 {
		for k := range 2 {
			i := (k + round) % 2 // who comes first gains nothing
			cpu, err := driveEcho(procs[i], clients[i])
			if err != nil {
				return took, err
			}
			if round > 0 { // the first warms up
				took[i] = append(took[i], cpu)
			}
			if *verbose {
				fmt.Fprintf(os.Stderr, "%d B, TLS %t, round %d, %s: %.2f us\n", c.bytes, c.tls, round, []string{"coder", "presence"}[i], cpu*1e6)
			}
		}
	}
	return took, nil
}

// driveEcho lets all clients talk for a window, and returns the server's CPU seconds per message.
func driveEcho(p *process, clients []*echoClient) (float64, error) {
	var done atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	begun, used := time.Now(), p.cpu().clock
	for _, e := range clients {
		wg.Go(func() {
			for time.Since(begun) < *window {
				if err := e.echo(); err != nil {
					failed.Store(&err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return (p.cpu().clock - used) / float64(done.Load()), nil
}

type echoClient struct {
	nc      net.Conn
	r       *bufio.Reader
	message []byte // as a frame
	bytes   int
}

func dialEcho(addr string, c echoCase) (*echoClient, error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	if c.tls {
		nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	}
	e := &echoClient{nc: nc, r: bufio.NewReaderSize(nc, 64<<10), message: masked(0x82, make([]byte, c.bytes)), bytes: c.bytes}
	_, err = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: "+addr+"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	if err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(e.r, nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("answered %s", resp.Status)
	}
	return e, e.echo()
}

// masked is a frame of the client.
func masked(first byte, payload []byte) []byte {
	f := []byte{first}
	switch n := len(payload); {
	case n < 126:
		f = append(f, 0x80|byte(n))
	case n < 1<<16:
		f = binary.BigEndian.AppendUint16(append(f, 0x80|126), uint16(n))
	default:
		f = binary.BigEndian.AppendUint64(append(f, 0x80|127), uint64(n))
	}
	key := [4]byte{1, 2, 3, 4}
	f = append(f, key[:]...)
	for i, b := range payload {
		f = append(f, b^key[i&3])
	}
	return f
}

// echo sends the message and waits until all of it is back, in one frame or in several.
func (e *echoClient) echo() error {
	if _, err := e.nc.Write(e.message); err != nil {
		return err
	}
	for got := 0; ; {
		op, n, err := e.header()
		if err != nil {
			return err
		}
		if op&0x0f == 9 {
			payload := make([]byte, n)
			if _, err := io.ReadFull(e.r, payload); err != nil {
				return err
			}
			if _, err := e.nc.Write(masked(0x8a, payload)); err != nil {
				return err
			}
			continue
		}
		if op&0x0f > 2 {
			return fmt.Errorf("got a frame of kind %d", op&0x0f)
		}
		if _, err := e.r.Discard(n); err != nil {
			return err
		}
		if got += n; op&0x80 != 0 {
			if got != e.bytes {
				return fmt.Errorf("got %d bytes back of %d", got, e.bytes)
			}
			return nil
		}
	}
}

func (e *echoClient) header() (op byte, n int, err error) {
	var h [8]byte
	if _, err = io.ReadFull(e.r, h[:2]); err != nil {
		return 0, 0, err
	}
	op, n = h[0], int(h[1]&0x7f)
	switch n {
	case 126:
		_, err = io.ReadFull(e.r, h[:2])
		n = int(binary.BigEndian.Uint16(h[:]))
	case 127:
		_, err = io.ReadFull(e.r, h[:8])
		n = int(binary.BigEndian.Uint64(h[:]))
	}
	return op, n, err
}
