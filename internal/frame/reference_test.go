package frame_test

import (
	"fmt"
	"regexp"
	"slices"
	"unicode/utf8"
)

// What is here says the rules a second time, as simply as it can: over a whole
// stream, with no state kept from one call to the next.

// piece is one frame of a stream, or what there is of the last one.
type piece struct {
	raw    []byte // as far as it is there
	head   int    // length of the header, 0 if that is not complete
	length uint64
}

// pieces cuts a stream into frames and judges nothing.
func pieces(b []byte) []piece {
	if len(b) < 2 {
		if len(b) == 0 {
			return nil
		}
		return []piece{{raw: b}}
	}
	extra := map[byte]int{126: 2, 127: 8}[b[1]%128]
	head := 2 + extra + int(b[1]/128)*4
	if len(b) < head {
		return []piece{{raw: b}}
	}
	length := uint64(b[1] % 128)
	if extra > 0 {
		length = 0
		for _, c := range b[2 : 2+extra] {
			length = length*256 + uint64(c)
		}
	}
	end := len(b)
	if length < uint64(end-head) {
		end = head + int(length)
	}
	return append([]piece{{b[:end], head, length}}, pieces(b[end:])...)
}

func (p piece) op() int        { return int(p.raw[0] % 16) }
func (p piece) fin() bool      { return p.raw[0] >= 128 }
func (p piece) masked() bool   { return p.raw[1] >= 128 }
func (p piece) complete() bool { return p.head > 0 && uint64(len(p.raw)-p.head) == p.length }

// illegal judges what there is of a frame.
func (p piece) illegal(inMessage, fromClient bool) bool {
	if len(p.raw) < 2 {
		return false
	}
	op, reserved, l := p.op(), p.raw[0]/16%8, p.raw[1]%128
	control := op > 7
	return p.masked() != fromClient ||
		!slices.Contains([]int{0, 1, 2, 8, 9, 10}, op) ||
		reserved%4 != 0 ||
		control && (reserved != 0 || !p.fin() || l > 125) ||
		!control && inMessage != (op == 0) ||
		p.head > 0 && (l == 126 && p.length < 126 || l == 127 && (p.length < 65536 || p.length >= 1<<63))
}

// payload returns the payload, unmasked.
func (p piece) payload() []byte {
	data := slices.Clone(p.raw[p.head:])
	if p.masked() {
		for i := range data {
			data[i] ^= p.raw[p.head-4+i%4]
		}
	}
	return data
}

// inResult is what comes of scanning a client's stream.
type inResult struct {
	Out    []byte
	Events []string
	Held   []byte
	Left   uint64
	Failed bool
}

func referenceIn(stream []byte, limit int) inResult {
	return referencePieces(pieces(stream), false, limit)
}

func referencePieces(todo []piece, inMessage bool, limit int) (res inResult) {
	if len(todo) == 0 {
		return res
	}
	p := todo[0]
	if p.illegal(inMessage, true) {
		return inResult{Failed: true}
	}
	if p.head == 0 {
		return inResult{Held: p.raw}
	}
	single := p.raw[0] == 0x81 && limit >= 0 && p.length <= uint64(limit)
	if !p.complete() && (single || p.op() == 8 || p.op() == 10) {
		return inResult{Held: p.raw}
	}

	out := p.raw
	data := p.payload()
	switch op := p.op(); {
	case op == 8 && len(data) > 0:
		if len(data) == 1 {
			return inResult{Failed: true}
		}
		code := int(data[0])*256 + int(data[1])
		if !legalCode(code) || !utf8.Valid(data[2:]) {
			return inResult{Failed: true}
		}
		res.Events = []string{"control 8", fmt.Sprintf("close %d %q", code, data[2:])}
	case op == 8:
		res.Events = []string{"control 8", `close 1005 ""`}
	case op == 9:
		res.Events = []string{"control 9"}
	case op == 10:
		res.Events = []string{"control 10", fmt.Sprintf("pong %q", data)}
		if ours(data) {
			out = nil
		}
	case single:
		res.Events = []string{fmt.Sprintf("message %q", data)}
		if ours(data) {
			out = nil
		} else {
			res.Events = append(res.Events, "data")
		}
	case op > 0:
		res.Events = []string{"data"}
	}
	if p.op() < 8 {
		inMessage = !p.fin()
	}

	var rest inResult
	if p.op() == 8 {
		for _, q := range todo[1:] {
			rest.Out = append(rest.Out, q.raw...)
		}
	} else {
		rest = referencePieces(todo[1:], inMessage, limit)
	}
	rest.Out = append(slices.Clone(out), rest.Out...)
	rest.Events = append(res.Events, rest.Events...)
	if !p.complete() {
		rest.Left = p.length - uint64(len(p.raw)-p.head)
	}
	return rest
}

func legalCode(code int) bool {
	return slices.Contains([]int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014}, code) ||
		code/1000 == 3 || code/1000 == 4
}

// ours is what the receivers of these tests call their own.
func ours(payload []byte) bool { return len(payload)%2 == 0 }

// outState is all that an Out says of itself.
type outState struct {
	Gap, Between, Closing, Opaque bool
	HeadOnly                      int
	Code                          int
	Sent                          bool
	Messages, Pings               uint32
}

func referenceOut(stream []byte) (s outState) {
	inMessage := false
	for _, p := range pieces(stream) {
		if s.Closing {
			return s
		}
		if p.illegal(inMessage, false) || p.head > 0 && p.op() == 8 && p.length == 1 {
			s.Opaque = true
			return s
		}
		if p.head == 0 {
			s.HeadOnly = len(p.raw)
			return s
		}
		switch p.op() {
		case 1, 2:
			s.Messages++
		case 8:
			s.Closing = true
		case 9:
			if p.length == 0 {
				s.Pings++
			}
		}
		if p.op() < 8 {
			inMessage = !p.fin()
		}
		if !p.complete() {
			if len(p.raw) == p.head {
				s.HeadOnly = p.head
			}
			return s
		}
		if p.op() == 8 {
			s.Sent, s.Code = true, 1005
			if data := p.payload(); len(data) > 0 {
				s.Code = int(data[0])*256 + int(data[1])
			}
		}
	}
	s.Gap = !s.Closing
	s.Between = s.Gap && !inMessage
	return s
}

var (
	statusLine = regexp.MustCompile(`^HTTP/1\.[0-9] ([1-9][0-9][0-9])[ \r\n]`)
	headEnd    = regexp.MustCompile(`\n\r?\n`)
)

func referenceHead(stream []byte) (n int, done bool, status int) {
	const model = "HTTP/1.1 101 "
	for i := 1; i <= min(len(stream), len(model)); i++ {
		if !statusLine.MatchString(string(stream[:i]) + model[i:]) {
			return i - 1, true, -1
		}
	}
	if m := statusLine.FindSubmatch(stream); m != nil {
		for _, digit := range m[1] {
			status = status*10 + int(digit-'0')
		}
	}
	if end := headEnd.FindIndex(stream); end != nil && end[1] <= 65536 {
		return end[1], true, status
	}
	if len(stream) > 65536 {
		return 65536, true, -1
	}
	return len(stream), false, status
}

// clientFrame builds a masked frame, as a client sends it.
func clientFrame(b0 byte, payload string) []byte {
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	b := serverFrame(b0, payload)
	b[1] |= 0x80
	head := len(b) - len(payload)
	data := slices.Clone(b[head:])
	for i := range data {
		data[i] ^= key[i%4]
	}
	return slices.Concat(b[:head], key[:], data)
}

// serverFrame builds a frame without a mask, as a server sends it.
func serverFrame(b0 byte, payload string) []byte {
	n := len(payload)
	head := []byte{b0, byte(n)}
	switch {
	case n > 65535:
		head = []byte{b0, 127, 0, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
	case n > 125:
		head = []byte{b0, 126, byte(n >> 8), byte(n)}
	}
	return append(head, payload...)
}

// status is the payload of a close frame.
func status(code int, reason string) string {
	return string([]byte{byte(code >> 8), byte(code)}) + reason
}

// chunks cuts b into pieces of the given sizes, over and over.
func chunks(b []byte, sizes ...int) (list [][]byte) {
	for i := 0; len(b) > 0; i++ {
		n := min(sizes[i%len(sizes)], len(b))
		list = append(list, b[:n])
		b = b[n:]
	}
	return list
}

// splits yields every way to cut b in two, b whole, and b byte by byte.
func splits(b []byte, yield func([][]byte)) {
	yield(chunks(b, 1))
	yield([][]byte{b})
	for i := 1; i < len(b); i++ {
		yield([][]byte{b[:i], b[i:]})
	}
}
