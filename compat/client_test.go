package compat

import (
	"bufio"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience bounds every wait. It is far more than anything here takes, so that a busy machine fails no test.
const patience = 45 * time.Second

// verifySoon is for clients that never prove themselves; nothing depends on how long it is.
const verifySoon = 200 * time.Millisecond

const (
	opCont   = 0x0
	opText   = 0x1
	opBinary = 0x2
	opClose  = 0x8
	opPing   = 0x9
	opPong   = 0xA
)

// A client speaks WebSocket frame by frame, without a library, so that a test sees what is on the wire.
// Its reader answers pings and close frames by itself.
type client struct {
	t    *testing.T
	nc   net.Conn
	cork *corked // below TLS
	res  *http.Response

	mu      sync.Mutex // one frame at a time
	bytes   bool       // write byte by byte
	pings   atomic.Int64
	unheard func(payload string) bool // pings that it does not answer

	messages chan message
	pongs    chan string   // to pings of its own
	done     chan struct{} // closed when reading ended
	code     int           // of the close frame, 0: none came
	err      error
}

// corked can hold back what is written, so that several TLS records leave as one packet.
type corked struct {
	net.Conn
	on   bool
	held []byte
}

func (c *corked) Write(b []byte) (int, error) {
	if c.on {
		c.held = append(c.held, b...)
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *corked) pull() error {
	c.on = false
	_, err := c.Conn.Write(c.held)
	return err
}

type message struct {
	op     byte
	data   []byte
	frames int
	pings  int64 // that came between its first and last frame
}

// request is the handshake. The Origin is that of the server, since some libraries insist on one.
func (s *site) request(query string, header http.Header) []byte {
	scheme := "http"
	if s.conf != nil {
		scheme = "https"
	}
	req := fmt.Sprintf("GET /?%s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: %s://%s\r\n", query, s.addr, scheme, s.addr)
	for k, vs := range header {
		for _, v := range vs {
			req += k + ": " + v + "\r\n"
		}
	}
	return []byte(req + "\r\n")
}

// dial connects without sending anything.
func (s *site) dial(t *testing.T) *client {
	t.Helper()
	nc, err := net.Dial("tcp", s.addr)
	require.NoError(t, err)
	cork := &corked{Conn: nc}
	if s.conf != nil {
		nc = tls.Client(cork, s.conf)
	}
	c := &client{t: t, nc: nc, cork: cork, messages: make(chan message, 256), pongs: make(chan string, 256), done: make(chan struct{})}
	t.Cleanup(func() { _ = nc.Close() })
	return c
}

// connect shakes hands as the user u and starts to read.
func (s *site) connect(t *testing.T, u string, prepare ...func(*client)) *client {
	t.Helper()
	c := s.dial(t)
	for _, f := range prepare {
		f(c)
	}
	require.NoError(t, c.write(s.request("user="+u, nil)))
	c.start()
	return c
}

// start reads the answer to the handshake, then frames.
func (c *client) start() {
	c.t.Helper()
	br := bufio.NewReader(c.nc)
	_ = c.nc.SetReadDeadline(time.Now().Add(patience))
	res, err := http.ReadResponse(br, nil)
	require.NoError(c.t, err)
	require.Equal(c.t, http.StatusSwitchingProtocols, res.StatusCode)
	_ = c.nc.SetReadDeadline(time.Time{})
	c.res = res
	go c.read(br)
}

func (c *client) write(b []byte) error {
	if !c.bytes {
		_, err := c.nc.Write(b)
		return err
	}
	for i := range b {
		if _, err := c.nc.Write(b[i : i+1]); err != nil {
			return err
		}
	}
	return nil
}

// frame is a masked frame.
func frame(fin bool, op byte, payload []byte) []byte {
	b := []byte{op}
	if fin {
		b[0] |= 0x80
	}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = append(b, 0x80|126)
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b = append(b, 0x80|127)
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	var mask [4]byte
	_, _ = rand.Read(mask[:])
	b = append(b, mask[:]...)
	for i, p := range payload {
		b = append(b, p^mask[i%4])
	}
	return b
}

func (c *client) sendFrame(fin bool, op byte, payload []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.write(frame(fin, op, payload))
}

func (c *client) send(op byte, payload []byte) {
	c.t.Helper()
	require.NoError(c.t, c.sendFrame(true, op, payload))
}

func (c *client) text(s string) { c.t.Helper(); c.send(opText, []byte(s)) }

// close sends a close frame.
func (c *client) close(code int, reason string) {
	c.t.Helper()
	c.send(opClose, append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...))
}

// receive is the next message.
func (c *client) receive() message {
	c.t.Helper()
	select {
	case m := <-c.messages:
		return m
	case <-c.done:
		select {
		case m := <-c.messages:
			return m
		default:
		}
		require.FailNow(c.t, "the connection ended", "code %d, %v", c.code, c.err)
	case <-time.After(patience):
		require.FailNow(c.t, "no message came")
	}
	return message{}
}

// ping sends a ping and waits for its pong.
func (c *client) ping(payload string) {
	c.t.Helper()
	c.send(opPing, []byte(payload))
	select {
	case p := <-c.pongs:
		require.Equal(c.t, payload, p)
	case <-c.done:
		require.FailNow(c.t, "the connection ended", "code %d, %v", c.code, c.err)
	case <-time.After(patience):
		require.FailNow(c.t, "no pong came")
	}
}

// beats waits until n more heartbeats, or pings of the app, have come.
func (c *client) beats(n int64) {
	c.t.Helper()
	require.Truef(c.t, c.morePings(n), "%d more pings should come, %d came in all; %v", n, c.pings.Load(), c.why())
}

// why says how the connection ended, if it did.
func (c *client) why() string {
	select {
	case <-c.done:
		return fmt.Sprintf("the connection ended with code %d, %v", c.code, c.err)
	default:
		return "the connection is open"
	}
}

// ended waits for the end of the connection and returns the code of its close frame.
func (c *client) ended() int {
	c.t.Helper()
	select {
	case <-c.done:
	case <-time.After(patience):
		require.FailNow(c.t, "the connection did not end")
	}
	return c.code
}

// morePings waits until n more pings have come, or the connection has ended. Any goroutine may call it.
func (c *client) morePings(n int64) bool {
	enough := c.pings.Load() + n
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for c.pings.Load() < enough {
		select {
		case <-tick.C:
		case <-c.done:
			return false
		case <-late:
			return false
		}
	}
	return true
}

func (c *client) read(br *bufio.Reader) {
	defer close(c.done)
	var m message
	var before int64
	for {
		fin, op, payload, err := readFrame(br)
		if err != nil {
			c.err = err
			return
		}
		switch op {
		case opPing:
			c.pings.Add(1)
			if c.unheard == nil || !c.unheard(string(payload)) {
				if err := c.sendFrame(true, opPong, payload); err != nil {
					c.err = err
				}
			}
		case opPong:
			c.pongs <- string(payload)
		case opClose:
			if len(payload) >= 2 {
				c.code = int(binary.BigEndian.Uint16(payload))
			}
			_ = c.sendFrame(true, opClose, payload)
			return
		default:
			if op != opCont {
				m, before = message{op: op}, c.pings.Load()
			}
			m.data = append(m.data, payload...)
			m.frames++
			if fin {
				m.pings = c.pings.Load() - before
				c.messages <- m
			}
		}
	}
}

func readFrame(br *bufio.Reader) (fin bool, op byte, payload []byte, err error) {
	var h [2]byte
	if _, err = io.ReadFull(br, h[:]); err != nil {
		return
	}
	if h[0]&0x70 != 0 || h[1]&0x80 != 0 {
		err = errors.New("a frame with reserved bits or a mask")
		return
	}
	n := uint64(h[1])
	switch n {
	case 126:
		var b [2]byte
		_, err = io.ReadFull(br, b[:])
		n = uint64(binary.BigEndian.Uint16(b[:]))
	case 127:
		var b [8]byte
		_, err = io.ReadFull(br, b[:])
		n = binary.BigEndian.Uint64(b[:])
	}
	if err != nil {
		return
	}
	if n > 4*megabyte {
		err = fmt.Errorf("a frame of %d bytes", n)
		return
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(br, payload)
	return h[0]&0x80 != 0, h[0] & 0xF, payload, err
}
