package frame

// maxHead bounds a response head. What is longer is not one.
const maxHead = 64 << 10

// statusLine is what a status line looks like up to the byte after its code: d is
// a digit, c the first digit of the code, s what may follow the code.
const statusLine = "HTTP/1.d cdds"

// Head follows the head of an HTTP/1 response (RFC 9112 sections 2.1 and 4) that a
// library writes through the connection. It keeps the status code only.
type Head struct {
	seen   uint32 // bytes consumed
	code   int16  // digits of the status code so far
	status int16
	line   uint8
	done   bool
}

// What Head has seen of a line that is not finished.
const (
	lineText  uint8 = iota // part of it
	lineEmpty              // nothing
	lineCR                 // a carriage return and nothing else
)

// Scan reads b, which follows what was scanned before. It consumes up to and
// including the blank line that ends the head, and then reports done; b[n:] are
// then the first bytes of what follows. Lines may end in CRLF or in LF alone
// (RFC 9112 section 2.2).
//
// A head that is malformed, or longer than 64 KiB, is done too, with Status -1
// and n bytes before the one that was wrong. Once done, Scan consumes nothing.
func (h *Head) Scan(b []byte) (n int, done bool) {
	for n < len(b) && !h.done {
		c := b[n]
		if h.seen == maxHead || h.seen < uint32(len(statusLine)) && !h.statusByte(c) {
			h.status, h.done = -1, true
			break
		}
		h.seen++
		n++
		switch {
		case c == '\n':
			h.done = h.line != lineText
			h.line = lineEmpty
		case c == '\r' && h.line == lineEmpty:
			h.line = lineCR
		default:
			h.line = lineText
		}
	}
	return n, h.done
}

// Status returns the status code: 0 until it is known, -1 when what was scanned
// is not a response head. After a head with 101 (RFC 9110 section 15.2.2) the rest
// are frames.
func (h *Head) Status() int { return int(h.status) }

// statusByte takes the next byte of the status line and reports whether it fits.
func (h *Head) statusByte(c byte) bool {
	digit := c >= '0' && c <= '9'
	switch want := statusLine[h.seen]; want {
	case 'd', 'c':
		if !digit || want == 'c' && c == '0' {
			return false
		}
		if h.seen > 8 {
			h.code = h.code*10 + int16(c-'0')
		}
	case 's':
		if c != ' ' && c != '\r' && c != '\n' {
			return false
		}
		h.status = h.code
	default:
		return c == want
	}
	return true
}
