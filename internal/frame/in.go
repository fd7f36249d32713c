package frame

import "encoding/binary"

// Receiver is told what [In] finds. Its methods are called inside Scan, in the
// order of the stream. Payloads are unmasked, are part of the scanned slice,
// are valid until the method returns, and must not be changed.
type Receiver interface {
	// Data is called once per data message, when the first frame of it is known
	// not to be a heartbeat message of ours. After a close frame it is not called.
	Data()

	// Control is called for every valid control frame, before Pong or Close. It
	// is there for rate limits.
	Control(op Op)

	// Pong is called with the payload of a pong. True takes the frame out of the
	// stream.
	Pong(payload []byte) (ours bool)

	// Close is called with the status of a close frame (RFC 6455 section 7.1.5
	// and 7.1.6), which goes on to the library. Code is 1005 when the frame has
	// none.
	Close(code int, reason []byte)

	// Message is called with the payload of a text message that is short enough
	// to be a heartbeat message. True takes the frame out of the stream; false
	// makes it data.
	Message(payload []byte) (ours bool)

	// Channel is called with the payload of a message of the channel, in parts as
	// they come; last says that it is complete. It is taken out of the stream.
	// Data is called before the first part.
	Channel(part []byte, last bool)
}

// In follows the frames that a client sends. The zero value looks for empty
// heartbeat messages only.
type In struct {
	// MaxMessage is the longest payload, in bytes, of a text message that may be a
	// heartbeat message; negative means that none are looked for. It may be
	// changed between two calls of Scan.
	MaxMessage int32

	key        uint32 // mask of the current frame from here on, where it is the channel's
	remaining  uint64 // its payload that is still to come
	channel    bool   // it is the channel's
	blank      bool   // of a fragmented text there were empty frames only
	fault      fault
	partial    bool // the last Scan held something back
	fragmented bool // between the first and the last frame of a message
	closed     bool

	// HasChannel says that text messages which begin with U+0001 are not the
	// library's. Each must be one uncompressed frame of at most MaxChannel bytes:
	// another is a protocol error. Set it before the first call of Scan.
	HasChannel bool
}

// A verdict says what becomes of the bytes that In.next looked at.
type verdict uint8

const (
	pass verdict = iota
	drop
	wait // too few bytes to decide
	fail
)

// Scan reads b, which follows what was scanned before, takes out the frames
// that r calls its own and closes the holes in place.
//
// b[:n] is for the library. b[n:n+held] is the beginning of a frame that cannot
// be decided yet: the caller must put these bytes in front of what it reads next
// and scan both together. There are at most 13 more of them than the longest
// payload looked at, which is the larger of 125 and MaxMessage. The rest of b is
// garbage.
//
// The error is a *[ProtocolError]; b[:n] is then what came before the offending
// frame, which r is not told of. Every later call returns the same error and no
// bytes.
//
// Headers are always held until complete. So are pongs, closes, and single
// uncompressed text frames of up to MaxMessage bytes. All else streams: payload
// passes as it comes, and is moved only when something in front of it in b was
// taken out. After a close frame nothing is looked at and all passes.
func (s *In) Scan(b []byte, r Receiver) (n, held int, err error) {
	if s.fault != faultNone {
		return 0, 0, faults[s.fault]
	}
	s.partial = false
	for i := 0; i < len(b); {
		var size int
		v := pass
		switch {
		case s.closed:
			size = len(b) - i
		case s.remaining > 0:
			size = int(min(s.remaining, uint64(len(b)-i)))
			s.remaining -= uint64(size)
			if s.channel {
				s.pass(b[i:i+size:i+size], r)
				v = drop
			}
		default:
			size, v = s.next(b[i:], r)
		}
		switch v {
		case pass:
			n += move(b, n, i, size)
		case wait:
			s.partial = true
			return n, move(b, n, i, len(b)-i), nil
		case fail:
			return n, 0, faults[s.fault]
		}
		i += size
	}
	return n, 0, nil
}

// Boundary reports whether the scanner stands between two frames: nothing was
// held back, and no payload is to come. It may be the middle of a fragmented
// message. After an error it is false, after a close frame true.
func (s *In) Boundary() bool {
	return s.remaining == 0 && !s.partial && s.fault == faultNone
}

// Remaining returns how many payload bytes of the current frame are still to
// come. It is 0 while the frame is held, since nothing of it has passed.
func (s *In) Remaining() uint64 { return s.remaining }

// next looks at the frame that begins b. It returns how much of b it has
// decided: a whole frame, or only the header of one that streams.
func (s *In) next(b []byte, r Receiver) (size int, v verdict) {
	if len(b) < 2 {
		return 0, wait
	}
	b0, b1 := b[0], b[1]
	f := checkStart(b0, b1, s.fragmented)
	if f == faultNone && b1&maskBit == 0 {
		f = faultUnmasked // section 5.1
	}
	if f != faultNone {
		return s.failed(f)
	}
	size = headSize(b1)
	if len(b) < size {
		return 0, wait
	}
	length, f := payloadLen(b)
	if f != faultNone {
		return s.failed(f)
	}

	op, fin := Op(b0&opBits), b0&finBit != 0
	if s.HasChannel && op <= Text {
		if size, v := s.channelled(b, size, length, fin, r); v != pass {
			return size, v
		}
	}
	switch {
	case op == Ping:
		r.Control(Ping)
	case op == Pong || op == Close || s.candidate(b0, length):
		if uint64(len(b)-size) < length {
			return 0, wait
		}
		return s.whole(op, b[:size+int(length)], size, r)
	default:
		s.fragmented = !fin
		if op != Continuation {
			r.Data()
		}
	}
	s.remaining = length
	return size, pass
}

// candidate reports whether a data frame may be a heartbeat message: a whole,
// uncompressed, short text message. Other data frames cannot come inside a
// fragmented message, so that needs no look here.
func (s *In) candidate(b0 byte, length uint64) bool {
	return b0 == finBit|byte(Text) && s.MaxMessage >= 0 && length <= uint64(s.MaxMessage)
}

// whole decides a frame that is complete in b, with a header of size bytes.
func (s *In) whole(op Op, b []byte, size int, r Receiver) (int, verdict) {
	// The payload is unmasked where it is, and masked again if it goes on: a
	// buffer handed to an interface method would be an allocation.
	key := binary.LittleEndian.Uint32(b[size-4:])
	payload := b[size:len(b):len(b)]
	mask(payload, key)

	ours := false
	switch op {
	case Pong:
		r.Control(op)
		ours = r.Pong(payload)
	case Close:
		code, reason, f := closeStatus(payload)
		if f != faultNone {
			return s.failed(f)
		}
		s.closed = true
		r.Control(op)
		r.Close(code, reason)
	default:
		if ours = r.Message(payload); !ours {
			r.Data()
		}
	}
	if ours {
		return len(b), drop
	}
	mask(payload, key)
	return len(b), pass
}

func (s *In) failed(f fault) (int, verdict) {
	s.fault = f
	return 0, fail
}

// move moves size bytes of b from one offset down to another, and returns size.
func move(b []byte, to, from, size int) int {
	if to != from {
		copy(b[to:], b[from:from+size])
	}
	return size
}

// mask masks or unmasks b, RFC 6455 section 5.3. The key is the four bytes of the
// header in little-endian order, whatever the machine.
func mask(b []byte, key uint32) {
	k := uint64(key)<<32 | uint64(key)
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^k)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= byte(k >> (8 * i))
	}
}
