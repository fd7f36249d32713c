// Package wstest is a bare WebSocket client for tests: it shows every frame,
// answers pings only when told to, and can send what no library would.
package wstest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
)

// Opcodes of RFC 6455 section 5.2.
const (
	Continuation = 0
	Text         = 1
	Binary       = 2
	Close        = 8
	Ping         = 9
	Pong         = 10
)

// Frame is a frame as it came from the server.
type Frame struct {
	Op      byte
	Fin     bool
	RSV1    bool
	Payload []byte
}

// Code is the status of a close frame, 1005 without one.
func (f Frame) Code() int {
	if len(f.Payload) < 2 {
		return 1005
	}
	return int(binary.BigEndian.Uint16(f.Payload))
}

// Reason is the reason of a close frame.
func (f Frame) Reason() string { return string(f.Payload[min(2, len(f.Payload)):]) }

// Client is a connection after its handshake. Frames are read by a goroutine
// of its own until the connection ends.
type Client struct {
	net.Conn
	Response *http.Response
	Frames   chan Frame // all but pings; closed at the end
	Pings    atomic.Int64
	Mute     atomic.Bool // do not answer pings
	Err      error       // why Frames was closed; read after that

	mu sync.Mutex
	br *bufio.Reader
}

// Request is a handshake for path, with more headers, each "Name: value".
func Request(path string, headers ...string) string {
	lines := append([]string{
		"GET " + path + " HTTP/1.1", "Host: example.com", "Connection: Upgrade", "Upgrade: websocket",
		"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
	}, headers...)
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

// Dial does the handshake on nc and starts to read. An answer other than 101
// is an error, with Response set and its body unread.
func Dial(nc net.Conn, path string, headers ...string) (*Client, error) {
	c, err := Handshake(nc, path, headers...)
	if err == nil {
		go c.Read()
	}
	return c, err
}

// Handshake is Dial without starting to read. Mute may be set before Read.
func Handshake(nc net.Conn, path string, headers ...string) (*Client, error) {
	c := &Client{Conn: nc, Frames: make(chan Frame, 4096), br: bufio.NewReaderSize(nc, 4096)}
	if _, err := io.WriteString(nc, Request(path, headers...)); err != nil {
		return c, err
	}
	var err error
	if c.Response, err = http.ReadResponse(c.br, nil); err != nil {
		return c, err
	}
	if c.Response.StatusCode != http.StatusSwitchingProtocols {
		return c, fmt.Errorf("status %d", c.Response.StatusCode)
	}
	return c, nil
}

// Read reads frames until the connection ends.
func (c *Client) Read() {
	defer close(c.Frames)
	for {
		f, err := c.readFrame()
		if err != nil {
			c.Err = err
			return
		}
		if f.Op == Ping {
			c.Pings.Add(1)
			if !c.Mute.Load() {
				_ = c.Send(Pong, f.Payload)
			}
			continue
		}
		select {
		case c.Frames <- f:
		default:
			c.Err = errors.New("wstest: nobody takes the frames")
			return
		}
	}
}

func (c *Client) readFrame() (Frame, error) {
	var h [2]byte
	if _, err := io.ReadFull(c.br, h[:]); err != nil {
		return Frame{}, err
	}
	if h[1]&0x80 != 0 {
		return Frame{}, errors.New("wstest: the server masked a frame")
	}
	n := uint64(h[1] & 0x7f)
	var ext [8]byte
	switch n {
	case 126:
		if _, err := io.ReadFull(c.br, ext[:2]); err != nil {
			return Frame{}, err
		}
		n = uint64(binary.BigEndian.Uint16(ext[:2]))
	case 127:
		if _, err := io.ReadFull(c.br, ext[:]); err != nil {
			return Frame{}, err
		}
		n = binary.BigEndian.Uint64(ext[:])
	}
	f := Frame{Op: h[0] & 15, Fin: h[0]&0x80 != 0, RSV1: h[0]&0x40 != 0, Payload: make([]byte, n)}
	_, err := io.ReadFull(c.br, f.Payload)
	return f, err
}

// Send sends one whole masked frame.
func (c *Client) Send(op byte, payload []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.Write(Masked(0x80|op, payload))
	return err
}

// SendText sends one text message.
func (c *Client) SendText(s string) error { return c.Send(Text, []byte(s)) }

// SendClose sends a close frame.
func (c *Client) SendClose(code int, reason string) error {
	return c.Send(Close, append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...))
}

// Masked is a masked frame with the given first byte: FIN, RSV and opcode.
func Masked(first byte, payload []byte) []byte {
	mask := [4]byte{0x12, 0x34, 0x56, 0x78}
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	b = append(b, mask[:]...)
	for i, v := range payload {
		b = append(b, v^mask[i%4])
	}
	return b
}
