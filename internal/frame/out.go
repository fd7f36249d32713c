package frame

// Out follows the frames that a WebSocket library sends, to know where something
// may be put between them. Only what the library writes is scanned, not what is
// put between.
type Out struct {
	remaining  uint64 // payload of the current frame that is still to come
	messages   uint32
	pings      uint32
	head       [maxServer]byte // header of the current frame
	have       uint8           // bytes of head; 0 again once the first byte of payload was seen
	fragmented bool            // between the first and the last frame of a message
	closing    bool
	opaque     bool
	code       uint16
}

// Scan reads b, which follows what was scanned before. It never fails: whatever
// is not a plain server frame makes Out opaque, because then nobody knows where
// the next one begins. Bytes after a close frame are not looked at.
func (o *Out) Scan(b []byte) {
	for len(b) > 0 && !o.opaque {
		if o.remaining == 0 {
			if o.closing {
				return
			}
			b = b[o.scanHead(b):]
			continue
		}
		o.have = 0
		n := int(min(o.remaining, uint64(len(b))))
		if o.closing {
			o.scanCode(b[:n])
		}
		o.remaining -= uint64(n)
		b = b[n:]
	}
}

// Gap reports whether the last byte scanned ended a frame (or none was scanned),
// nothing odd and no close frame was seen: a control frame may be written now.
// RFC 6455 section 5.4 allows one between the frames of a message.
func (o *Out) Gap() bool {
	return o.remaining == 0 && o.have == 0 && !o.closing && !o.opaque
}

// BetweenMessages reports whether there is a [Out.Gap] outside of a fragmented
// message: a text frame may be written now.
func (o *Out) BetweenMessages() bool { return o.Gap() && !o.fragmented }

// HeadOnly returns how many bytes of the current frame were scanned, if they are
// all header and the frame is not complete; else 0. Such a small beginning (at
// most 10 bytes) can be held back and sent in one packet with the payload that
// follows it.
func (o *Out) HeadOnly() (bytes int) {
	if o.opaque {
		return 0
	}
	return int(o.have)
}

// CloseSent returns the code of the close frame once that is complete, 1005 if it
// has none. The code is not checked: it may be one that RFC 6455 section 7.4
// forbids.
func (o *Out) CloseSent() (code int, ok bool) {
	if !o.closing || o.remaining > 0 {
		return 0, false
	}
	return int(o.code), true
}

// Closing reports whether the header of a close frame was seen. Nothing may be
// written after that (RFC 6455 section 5.5.1).
func (o *Out) Closing() bool { return o.closing }

// Messages returns how many data messages have begun, counted at the end of
// their first header. It wraps.
func (o *Out) Messages() uint32 { return o.messages }

// Pings returns how many pings without a payload have begun, counted at the end
// of their header: the pong of one with a payload names it. It wraps.
func (o *Out) Pings() uint32 { return o.pings }

// Opaque reports whether the frames can no longer be followed. That is for good.
func (o *Out) Opaque() bool { return o.opaque }

// SetOpaque gives up following, for a reason that cannot be seen in the bytes,
// such as a write that failed half way.
func (o *Out) SetOpaque() { o.opaque = true }

// scanHead takes bytes of a header from b and returns how many. The header is
// collected, since it may come in pieces.
func (o *Out) scanHead(b []byte) (n int) {
	if o.have < 2 {
		n = copy(o.head[o.have:2], b)
		o.have += uint8(n)
		if o.have < 2 {
			return n
		}
	}
	b0, b1 := o.head[0], o.head[1]
	if b1&maskBit != 0 || checkStart(b0, b1, o.fragmented) != faultNone {
		o.opaque = true
		return n
	}
	size := headSize(b1)
	if int(o.have) < size {
		m := copy(o.head[o.have:size], b[n:])
		o.have += uint8(m)
		n += m
		if int(o.have) < size {
			return n
		}
	}
	length, f := payloadLen(o.head[:size])
	if f != faultNone {
		o.opaque = true
		return n
	}
	o.begin(b0, length)
	return n
}

// begin notes a frame whose header is complete.
func (o *Out) begin(b0 byte, length uint64) {
	switch op := Op(b0 & opBits); op {
	case Close:
		switch length {
		case 0:
			o.code = noStatus
		case 1:
			o.opaque = true
			return
		}
		o.closing = true
	case Ping:
		if length == 0 {
			o.pings++
		}
	case Pong:
	default:
		o.fragmented = b0&finBit == 0
		if op != Continuation {
			o.messages++
		}
	}
	o.remaining = length
	if length == 0 {
		o.have = 0
	}
}

// scanCode collects the first two bytes of a close payload, of which b is the next
// part.
func (o *Out) scanCode(b []byte) {
	at := int(o.head[1]&lenBits) - int(o.remaining)
	for ; at < 2 && len(b) > 0; at++ {
		o.code = o.code<<8 | uint16(b[0])
		b = b[1:]
	}
}
