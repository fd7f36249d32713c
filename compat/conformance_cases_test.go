package compat

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// A conformanceCase is what a client may send, or must not, and what a server makes of it (RFC 6455). The list is this project's own.
type conformanceCase struct {
	name   string
	stream []byte
	want   []string // what the server makes of it: "text:...", "binary:...", "ping:...", "close:CODE reason"
	code   int      // it fails the connection with this code; 0: it does not
	// gobwas says why the reference lets it pass, or is stricter; what it makes of it is not compared then.
	gobwas string
	// compressed: the scanner lets it pass, since a library may have negotiated compression. The decoder has not.
	compressed bool
}

// conformanceLimit is the longest message of all cases.
const conformanceLimit = 1 << 17

// raw is a frame with any first byte and its mask in its shortest form, or not: form is 0 for that, 2 or 8 for as many bytes of length.
func raw(first byte, payload string, form int) []byte {
	b := []byte{first}
	switch {
	case form == 2:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(len(payload)))
	case form == 8:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(len(payload)))
	default:
		f := frame(false, 0, []byte(payload))
		f[0] = first
		return f
	}
	key := []byte{0xa1, 0xb2, 0xc3, 0xd4}
	b = append(b, key...)
	for i := range payload {
		b = append(b, payload[i]^key[i%4])
	}
	return b
}

// Frames of a client.
func fin(op byte, payload string) []byte  { return raw(0x80|op, payload, 0) }
func part(op byte, payload string) []byte { return raw(op, payload, 0) }
func closing(code int, reason string) []byte {
	return fin(opClose, string(binary.BigEndian.AppendUint16(nil, uint16(code)))+reason)
}

// inPieces is a text message in frames of n bytes.
func inPieces(text string, n int) (stream []byte) {
	op := byte(opText)
	for len(text) > n {
		stream = append(stream, part(op, text[:n])...)
		text, op = text[n:], opCont
	}
	return append(stream, fin(op, text)...)
}

func conformanceCases() (cases []conformanceCase) {
	add := func(name string, code int, want []string, frames ...[]byte) *conformanceCase {
		cases = append(cases, conformanceCase{name: name, stream: slices.Concat(frames...), want: want, code: code})
		return &cases[len(cases)-1]
	}
	good := func(name string, want []string, frames ...[]byte) { add(name, 0, want, frames...) }
	bad := func(name string, code int, frames ...[]byte) *conformanceCase { return add(name, code, nil, frames...) }
	one := func(s string) []string { return []string{s} }
	x := func(n int) string { return strings.Repeat("x", n) }

	// Messages and lengths, sections 5.2 and 5.6.
	for _, n := range []int{0, 1, 2, 125, 126, 127, 65535, 65536, conformanceLimit} {
		good(fmt.Sprintf("text of %d bytes", n), one("text:"+x(n)), fin(opText, x(n)))
		good(fmt.Sprintf("binary of %d bytes", n), one("binary:"+x(n)), fin(opBinary, x(n)))
	}
	good("two messages", []string{"text:a", "binary:b"}, fin(opText, "a"), fin(opBinary, "b"))
	good("binary that is no UTF-8", one("binary:\xff\xfe"), fin(opBinary, "\xff\xfe"))
	good("a mask of zeros", one("text:hello"), []byte("\x81\x85\x00\x00\x00\x00hello"))
	bad("no mask", 1002, []byte("\x81\x05hello"))
	bad("ping without mask", 1002, []byte("\x89\x00"))
	bad("7 bytes as 16 bits of length", 1002, raw(0x81, x(7), 2)).gobwas = "takes any form of a length"
	bad("125 bytes as 16 bits of length", 1002, raw(0x81, x(125), 2)).gobwas = "takes any form of a length"
	bad("7 bytes as 64 bits of length", 1002, raw(0x81, x(7), 8)).gobwas = "takes any form of a length"
	bad("65535 bytes as 64 bits of length", 1002, raw(0x81, x(65535), 8)).gobwas = "takes any form of a length"
	bad("length with its top bit set", 1002, []byte("\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00mask"))

	// Reserved bits and opcodes.
	for _, bit := range []byte{0x40, 0x20, 0x10, 0x70} {
		bad(fmt.Sprintf("reserved bits %#02x on a text", bit), 1002, raw(0x80|bit|opText, "hello", 0)).compressed = bit == 0x40
		bad(fmt.Sprintf("reserved bits %#02x on a ping", bit), 1002, raw(0x80|bit|opPing, "", 0))
		bad(fmt.Sprintf("reserved bits %#02x on a continuation", bit), 1002, part(opText, "he"), raw(0x80|bit|opCont, "llo", 0)).compressed = bit == 0x40
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		bad(fmt.Sprintf("reserved opcode %d", op), 1002, fin(op, ""))
		bad(fmt.Sprintf("reserved opcode %d inside a message", op), 1002, part(opText, "he"), fin(op, ""))
	}
	add("a good message, then a bad frame", 1002, one("text:hello"), fin(opText, "hello"), fin(3, ""))

	// Fragmentation, section 5.4.
	for _, n := range []int{1, 2, 3, 4, 5} {
		good(fmt.Sprintf("fragments of %d bytes", n), one("text:hello world"), inPieces("hello world", n))
	}
	good("binary in fragments", one("binary:hello"), part(opBinary, "he"), part(opCont, "l"), fin(opCont, "lo"))
	good("empty fragments", one("text:"), part(opText, ""), part(opCont, ""), fin(opCont, ""))
	good("empty first fragment", one("text:hello"), part(opText, ""), fin(opCont, "hello"))
	good("empty last fragment", one("text:hello"), part(opText, "hello"), fin(opCont, ""))
	good("a thousand fragments", one("text:"+x(1000)), inPieces(x(1000), 1))
	good("fragments of 64 KiB", one("text:"+x(conformanceLimit)), inPieces(x(conformanceLimit), 1<<16))
	good("fragments, then a whole message", []string{"text:hello", "text:again"}, inPieces("hello", 2), fin(opText, "again"))
	bad("continuation of nothing", 1002, fin(opCont, "x"))
	bad("continuation of nothing, to be continued", 1002, part(opCont, "x"))
	add("continuation of what is complete", 1002, one("text:hello"), fin(opText, "hello"), fin(opCont, "x"))
	bad("a text inside a text", 1002, part(opText, "a"), fin(opText, "b"))
	bad("a binary inside a text", 1002, part(opText, "a"), part(opBinary, "b"))
	bad("a text inside a binary", 1002, part(opBinary, "a"), fin(opText, "b"))

	// Control frames, section 5.5, and in between fragments.
	good("ping", one("ping:"), fin(opPing, ""))
	good("ping with a payload", one("ping:are you there"), fin(opPing, "are you there"))
	good("ping of 125 bytes", one("ping:"+x(125)), fin(opPing, x(125)))
	good("ping that is no UTF-8", one("ping:\xff"), fin(opPing, "\xff"))
	good("ten pings", slices.Repeat(one("ping:x"), 10), slices.Repeat(fin(opPing, "x"), 10))
	good("a pong nobody asked for", one("text:x"), fin(opPong, "hi"), fin(opText, "x"))
	good("ping between fragments", []string{"ping:p", "text:hello"}, part(opText, "he"), fin(opPing, "p"), fin(opCont, "llo"))
	good("pong between fragments", one("text:hello"), part(opText, "he"), fin(opPong, "p"), fin(opCont, "llo"))
	good("pings between all fragments", []string{"ping:1", "ping:2", "ping:3", "text:hello"},
		part(opText, "he"), fin(opPing, "1"), part(opCont, "l"), fin(opPing, "2"), fin(opPing, "3"), fin(opCont, "lo"))
	good("ping inside a character", []string{"ping:p", "text:\u20ac"}, part(opText, "\xe2"), fin(opPing, "p"), fin(opCont, "\x82\xac"))
	bad("ping of 126 bytes", 1002, fin(opPing, x(126)))
	bad("pong of 126 bytes", 1002, fin(opPong, x(126)))
	bad("ping in fragments", 1002, part(opPing, "x"))
	bad("pong in fragments", 1002, part(opPong, "x"))
	bad("close in fragments", 1002, part(opClose, ""))

	// UTF-8, sections 5.6 and 8.1.
	for _, s := range []string{"\u00e9", "\u20ac", "\U0001f600", "\ufeff", "\ufffe", "\uffff", "\U0010ffff", "\ufffd", "a\x00b", "\x7f", "\ud7ff\ue000"} {
		good(fmt.Sprintf("text %+q", s), one("text:"+s), fin(opText, s))
		for i := 1; i < len(s); i++ {
			good(fmt.Sprintf("text %+q cut at %d", s, i), one("text:"+s), part(opText, s[:i]), fin(opCont, s[i:]))
		}
		good(fmt.Sprintf("text %+q in single bytes", s), one("text:"+s), inPieces(s, 1))
	}
	for _, s := range []string{"\x80", "\xbf", "\xc0\x80", "\xc0\xaf", "\xc1\xbf", "\xe0\x80\xaf", "\xe0\x9f\xbf", "\xf0\x80\x80\xaf", "\xf0\x8f\xbf\xbf",
		"\xed\xa0\x80", "\xed\xbf\xbf", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80", "\xfe", "\xff", "ab\xffcd", "\u20ac\xe2\x28\xa1"} {
		bad(fmt.Sprintf("text %+q", s), 1007, fin(opText, s))
		bad(fmt.Sprintf("text %+q in single bytes", s), 1007, inPieces(s, 1))
		bad(fmt.Sprintf("text %+q, behind a good fragment", s), 1007, part(opText, "fine"), fin(opCont, s))
	}
	for _, s := range []string{"\xc3", "\xe2", "\xe2\x82", "\xf0\x9f", "\xf0\x9f\x98"} {
		bad(fmt.Sprintf("text that ends in %+q", s), 1007, fin(opText, "cut"+s))
		bad(fmt.Sprintf("fragments that end in %+q", s), 1007, part(opText, "cut"), fin(opCont, s))
		bad(fmt.Sprintf("fragments that end in %+q, the last empty", s), 1007, part(opText, "cut"+s), fin(opCont, ""))
	}
	bad("garbage in a text that never ends", 1007, part(opText, "ab\xff"))

	// Close, sections 5.5.1 and 7.4.
	good("close without a code", one("close:1005 "), fin(opClose, ""))
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} {
		good(fmt.Sprintf("close %d", code), one(fmt.Sprintf("close:%d bye", code)), closing(code, "bye"))
	}
	for _, code := range []int{1012, 1013, 1014} { // registered with IANA after the RFC
		add(fmt.Sprintf("close %d", code), 0, one(fmt.Sprintf("close:%d bye", code)), closing(code, "bye")).gobwas = "knows the codes of the RFC only"
	}
	for _, code := range []int{0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999} {
		bad(fmt.Sprintf("close %d", code), 1002, closing(code, ""))
	}
	for _, code := range []int{5000, 65535} {
		bad(fmt.Sprintf("close %d", code), 1002, closing(code, "")).gobwas = "takes any code from 3000 on"
	}
	bad("close with one byte", 1002, fin(opClose, "\x03")).gobwas = "takes it for none"
	good("close with the longest reason", one("close:1000 "+x(123)), closing(1000, x(123)))
	good("close with a reason in UTF-8", one("close:1000 \u20ac"), closing(1000, "\u20ac"))
	bad("close with too long a reason", 1002, closing(1000, x(124)))
	bad("close with a reason that is no UTF-8", 1002, closing(1000, "\xff"))
	good("nothing counts after a close", one("close:1000 "), closing(1000, ""), fin(opText, "late"), fin(3, ""))
	good("a message, a ping, a close", []string{"text:a", "ping:b", "close:1000 "}, fin(opText, "a"), fin(opPing, "b"), closing(1000, ""))
	good("close inside a message", one("close:1001 "), part(opText, "he"), closing(1001, ""))

	// Limits.
	bad("a message over the limit", 1009, fin(opBinary, x(conformanceLimit+1)))
	bad("fragments over the limit", 1009, part(opBinary, x(conformanceLimit)), fin(opCont, "x"))
	bad("many fragments over the limit", 1009, inPieces(x(conformanceLimit+1), 1000))
	bad("a frame that says it is over the limit", 1009, []byte("\x82\xff\x3f\xff\xff\xff\xff\xff\xff\xffmask"))
	good("pings do not count", append(slices.Repeat(one("ping:"+x(125)), 10), "text:"+x(conformanceLimit)),
		slices.Concat(part(opText, x(conformanceLimit/2)), slices.Concat(slices.Repeat([][]byte{fin(opPing, x(125))}, 10)...), fin(opCont, x(conformanceLimit/2))))
	return cases
}
