package frame

import (
	"encoding/binary"
	"strings"
	"unicode/utf8"
)

// AppendPing appends a ping frame (RFC 6455 section 5.5.2) to dst. Of the payload
// the first 125 bytes are sent.
func AppendPing(dst, payload []byte) []byte { return appendControl(dst, Ping, payload) }

// AppendPong appends a pong frame (RFC 6455 section 5.5.3) to dst. Of the payload
// the first 125 bytes are sent.
func AppendPong(dst, payload []byte) []byte { return appendControl(dst, Pong, payload) }

// AppendText appends a text message in one frame (RFC 6455 section 5.6) to dst.
// The message must be UTF-8.
func AppendText(dst, msg []byte) []byte {
	dst = append(dst, finBit|byte(Text))
	switch n := len(msg); {
	case n < 126:
		dst = append(dst, byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, 126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 127), uint64(n))
	}
	return append(dst, msg...)
}

// AppendClose appends a close frame (RFC 6455 section 5.5.1) to dst. Code 0 and
// 1005 stand for no status: the payload is empty and reason is not sent. Else
// the code must be one that may be sent. The reason is cut to 123 bytes, never
// inside a character, and what is not UTF-8 in it is replaced.
func AppendClose(dst []byte, code int, reason string) []byte {
	if code == 0 || code == noStatus {
		return appendControl(dst, Close, nil)
	}
	reason = cut(strings.ToValidUTF8(reason, "\uFFFD"), maxControl-2)
	dst = append(dst, finBit|byte(Close), byte(2+len(reason)))
	dst = binary.BigEndian.AppendUint16(dst, uint16(code))
	return append(dst, reason...)
}

func appendControl(dst []byte, op Op, payload []byte) []byte {
	payload = payload[:min(len(payload), maxControl)]
	dst = append(dst, finBit|byte(op), byte(len(payload)))
	return append(dst, payload...)
}

// cut shortens s, which is UTF-8, to at most n bytes.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
