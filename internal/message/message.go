// Package message puts the frames of a WebSocket client together to messages
// (RFC 6455 sections 5 and 6), from bytes as they come. It keeps nothing but
// what is incomplete: between messages a Decoder holds no buffer.
package message

import (
	"encoding/binary"
	"errors"
	"slices"
	"unicode/utf8"

	"github.com/a4cafe1a/presence/internal/frame"
)

// Errors of Feed; each comes with the close code of RFC 6455 section 7.4.1.
var (
	ErrTooLarge = errors.New("message too large")  // 1009
	ErrText     = errors.New("text is not UTF-8")  // 1007
	ErrReserved = errors.New("reserved bit set")   // 1002: no extension was negotiated
	ErrSequence = errors.New("frame out of order") // 1002
)

// Handler gets what Feed completes. Payloads are valid until return.
type Handler interface {
	// Message is called with each whole message.
	Message(op frame.Op, payload []byte) error
	// Ping is called with each ping, which wants a pong with its payload.
	Ping(payload []byte)
	// Close is called with the close frame. What follows it is ignored.
	Close()
}

// Decoder follows one client. The zero value is ready. The stream is to have
// passed a frame.In, which refuses what is malformed.
type Decoder struct {
	buf    []byte // of the message under way, and of a control frame in pieces
	head   [14]byte
	headN  uint8
	op     frame.Op // of the message under way; 0: none
	frame  frame.Op // of the frame under way
	fin    bool
	inside bool // in the payload of a frame
	closed bool
	mask   [4]byte
	maskAt uint8
	left   uint64 // payload to come
	split  int    // of a control frame: where in buf it begins
	checkd int    // how much of a text has been checked
}

// Idle says that nothing is under way: the Decoder holds no buffer, and what
// comes next may as well be fed to another one.
func (d *Decoder) Idle() bool { return d.headN == 0 && !d.inside && d.op == 0 && !d.closed }

// Feed takes the next bytes, unmasks them in place and calls h for what they
// complete. limit is the longest message in bytes; 0 or less: none. It returns
// the error of h, or one of the package, and is not to be called again then.
func (d *Decoder) Feed(b []byte, limit int64, h Handler) error {
	for !d.closed {
		if !d.inside {
			n, ok := d.header(b)
			b = b[n:]
			if !ok {
				return nil
			}
			if err := d.begin(limit); err != nil {
				return err
			}
		}
		n := int(min(uint64(len(b)), d.left))
		part := b[:n:n]
		b = b[n:]
		d.unmask(part)
		d.left -= uint64(n)
		if err := d.payload(part, h); err != nil {
			return err
		}
		if d.left > 0 {
			return nil
		}
	}
	return nil
}

// header collects a frame header and says whether it is complete.
func (d *Decoder) header(b []byte) (n int, ok bool) {
	for {
		need := uint8(2)
		if d.headN >= 2 {
			switch d.head[1] & 0x7f {
			case 126:
				need = 4
			case 127:
				need = 10
			}
			need += 4 // the mask
		}
		if d.headN >= 2 && d.headN == need {
			return n, true
		}
		if n == len(b) {
			return n, false
		}
		k := copy(d.head[d.headN:need], b[n:])
		d.headN += uint8(k)
		n += k
	}
}

// begin takes over a complete header.
func (d *Decoder) begin(limit int64) error {
	first, at := d.head[0], 2
	d.left = uint64(d.head[1] & 0x7f)
	switch d.left {
	case 126:
		d.left = uint64(binary.BigEndian.Uint16(d.head[2:]))
		at = 4
	case 127:
		d.left = binary.BigEndian.Uint64(d.head[2:])
		at = 10
	}
	copy(d.mask[:], d.head[at:at+4])
	d.maskAt, d.headN, d.inside = 0, 0, true
	d.fin, d.frame = first&0x80 != 0, frame.Op(first&15)
	if first&0x70 != 0 {
		return ErrReserved
	}
	switch d.frame {
	case frame.Text, frame.Binary:
		if d.op != 0 {
			return ErrSequence
		}
		d.op = d.frame
	case frame.Continuation:
		if d.op == 0 {
			return ErrSequence
		}
	default:
		d.split = len(d.buf)
		return nil
	}
	if limit > 0 && uint64(len(d.buf))+d.left > uint64(limit) {
		return ErrTooLarge
	}
	return nil
}

func (d *Decoder) unmask(b []byte) {
	key := uint64(binary.LittleEndian.Uint32(d.mask[:]))
	if d.maskAt != 0 {
		key = uint64(uint32(key)>>(8*d.maskAt) | uint32(key)<<(32-8*d.maskAt))
	}
	key |= key << 32
	d.maskAt = uint8((int(d.maskAt) + len(b)) & 3)
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^key)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= byte(key >> (8 * i))
	}
}

// payload takes an unmasked part of the current frame.
func (d *Decoder) payload(part []byte, h Handler) error {
	done := d.left == 0
	if d.frame >= frame.Close {
		return d.control(part, done, h)
	}
	last := done && d.fin
	if !last || len(d.buf) > 0 {
		if d.left > 0 && cap(d.buf)-len(d.buf) < len(part)+int(min(d.left, 64<<10)) {
			d.buf = slices.Grow(d.buf, len(part)+int(min(d.left, 64<<10)))
		}
		d.buf = append(d.buf, part...)
		part = d.buf
	}
	if d.op == frame.Text && !d.valid(part, last) {
		return ErrText
	}
	if done {
		d.inside = false
	}
	if !last {
		return nil
	}
	op := d.op
	d.op, d.buf, d.checkd = 0, nil, 0
	return h.Message(op, part)
}

func (d *Decoder) control(part []byte, done bool, h Handler) error {
	if !done {
		d.buf = append(d.buf, part...)
		return nil
	}
	if len(d.buf) > d.split {
		d.buf = append(d.buf, part...)
		part = d.buf[d.split:]
	}
	d.inside = false
	switch d.frame {
	case frame.Ping:
		h.Ping(part)
	case frame.Close:
		d.closed = true
		h.Close()
	}
	if d.buf = d.buf[:d.split]; d.op == 0 {
		d.buf = nil
	}
	return nil
}

// valid checks a text as it comes, so that a client which sends garbage hears
// of it early (RFC 6455 section 8.1).
func (d *Decoder) valid(text []byte, last bool) bool {
	rest := text[d.checkd:]
	if last {
		return utf8.Valid(rest)
	}
	// All but a character that may still be under way.
	n := len(rest)
	for i := 1; i <= min(3, n); i++ {
		if utf8.RuneStart(rest[n-i]) {
			if !utf8.FullRune(rest[n-i:]) {
				n -= i
			}
			break
		}
	}
	d.checkd += n
	return utf8.Valid(rest[:n])
}

// AppendHeader appends the header of an unfragmented frame of the server.
func AppendHeader(dst []byte, op frame.Op, n int) []byte {
	dst = append(dst, 0x80|byte(op))
	switch {
	case n < 126:
		return append(dst, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, 126), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(dst, 127), uint64(n))
	}
}
