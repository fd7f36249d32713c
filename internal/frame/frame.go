package frame

import (
	"encoding/binary"
	"unicode/utf8"
)

// Op is the opcode of a frame (RFC 6455 section 5.2).
type Op byte

// The opcodes of RFC 6455 section 11.8. All others are reserved.
const (
	Continuation Op = 0
	Text         Op = 1
	Binary       Op = 2
	Close        Op = 8
	Ping         Op = 9
	Pong         Op = 10
)

// Bits of the first two header bytes, RFC 6455 section 5.2.
const (
	finBit  = 0x80 // first byte: last frame of its message
	rsv1    = 0x40 // first byte: compressed, where RFC 7692 was negotiated
	rsvBits = 0x70 // first byte: all three reserved bits
	opBits  = 0x0f // first byte: opcode
	ctlBit  = 0x08 // first byte: set in the opcode of control frames

	maskBit = 0x80 // second byte: payload is masked
	lenBits = 0x7f // second byte: length, or 126 or 127
)

const (
	maxControl = 125   // longest payload of a control frame, section 5.5
	noStatus   = 1005  // stands for an empty close payload, section 7.4.1
	maxServer  = 2 + 8 // longest header without a mask
)

// ProtocolError says how a client broke RFC 6455. Its connection is to be
// failed with close code 1002 (section 7.1.7).
type ProtocolError struct {
	// Reason is a short text in ASCII that fits into a close frame.
	// Errors are shared: it must not be changed.
	Reason string
}

// Error implements error.
func (e *ProtocolError) Error() string { return "websocket protocol error: " + e.Reason }

// A fault is an index into faults. Scanners keep this byte instead of a
// pointer.
type fault uint8

const (
	faultNone fault = iota
	faultUnmasked
	faultReserved
	faultOpcode
	faultControlFragment
	faultControlLong
	faultNoMessage
	faultInMessage
	faultLengthTop
	faultLengthLong
	faultClosePayload
	faultCloseCode
	faultCloseReason
	faultChannelFragment
	faultChannelLong
)

var faults = [...]*ProtocolError{
	faultUnmasked:        {"frame is not masked"},
	faultReserved:        {"reserved bit is set"},
	faultOpcode:          {"reserved opcode"},
	faultControlFragment: {"control frame is fragmented"},
	faultControlLong:     {"control frame is too long"},
	faultNoMessage:       {"continuation without a message"},
	faultInMessage:       {"new message inside a fragmented one"},
	faultLengthTop:       {"length has its top bit set"},
	faultLengthLong:      {"length is not in its shortest form"},
	faultClosePayload:    {"close payload of one byte"},
	faultCloseCode:       {"invalid close code"},
	faultCloseReason:     {"close reason is not UTF-8"},
	faultChannelFragment: {"presence message is fragmented"},
	faultChannelLong:     {"presence message is too long"},
}

// checkStart judges the first two bytes of a header, RFC 6455 sections 5.2,
// 5.4 and 5.5. The mask bit is left to the caller: it depends on the direction.
// RSV1 is allowed on every data frame, since only the library knows what was
// negotiated.
func checkStart(b0, b1 byte, fragmented bool) fault {
	op := Op(b0 & opBits)
	if b0&ctlBit != 0 {
		switch {
		case op > Pong:
			return faultOpcode
		case b0&rsvBits != 0:
			return faultReserved
		case b0&finBit == 0:
			return faultControlFragment
		case b1&lenBits > maxControl:
			return faultControlLong
		}
		return faultNone
	}
	switch {
	case op > Binary:
		return faultOpcode
	case b0&(rsvBits&^rsv1) != 0:
		return faultReserved
	case op == Continuation && !fragmented:
		return faultNoMessage
	case op != Continuation && fragmented:
		return faultInMessage
	}
	return faultNone
}

// headSize tells the length of a header from its second byte.
func headSize(b1 byte) int {
	size := 2
	switch b1 & lenBits {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if b1&maskBit != 0 {
		size += 4
	}
	return size
}

// payloadLen reads the payload length from a complete header.
func payloadLen(head []byte) (uint64, fault) {
	switch l := head[1] & lenBits; l {
	case 126:
		n := binary.BigEndian.Uint16(head[2:])
		if n < 126 {
			return 0, faultLengthLong
		}
		return uint64(n), faultNone
	case 127:
		n := binary.BigEndian.Uint64(head[2:])
		switch {
		case n>>63 != 0:
			return 0, faultLengthTop
		case n < 1<<16:
			return 0, faultLengthLong
		}
		return n, faultNone
	default:
		return uint64(l), faultNone
	}
}

// closeStatus reads an unmasked close payload, RFC 6455 section 5.5.1.
func closeStatus(payload []byte) (code int, reason []byte, f fault) {
	switch len(payload) {
	case 0:
		return noStatus, nil, faultNone
	case 1:
		return 0, nil, faultClosePayload
	}
	code, reason = int(binary.BigEndian.Uint16(payload)), payload[2:]
	switch {
	case !wireCode(code):
		return 0, nil, faultCloseCode
	case !utf8.Valid(reason):
		return 0, nil, faultCloseReason
	}
	return code, reason, faultNone
}

// wireCode reports whether a close frame may carry code: those that RFC 6455
// section 7.4.1 and the IANA registry (1012 to 1014) define for the wire, and the
// ranges for libraries and applications of section 7.4.2.
func wireCode(code int) bool {
	switch {
	case code < 1000 || code > 4999:
		return false
	case code >= 3000:
		return true
	case code > 1014:
		return false
	}
	return code < 1004 || code > 1006
}
