package redisstore

import (
	"encoding/binary"
	"errors"
	"math"
)

// The scripts pack what they keep with cmsgpack. Here is as much of MessagePack
// (https://github.com/msgpack/msgpack/blob/master/spec.md) as they use: arrays,
// strings and integers.

var errPacked = errors.New("redisstore: malformed record")

func packArray(b []byte, n int) []byte {
	switch {
	case n < 16:
		return append(b, 0x90|byte(n))
	case n < 1<<16:
		return append(b, 0xdc, byte(n>>8), byte(n))
	default:
		return binary.BigEndian.AppendUint32(append(b, 0xdd), uint32(n))
	}
}

func packString[T ~string | ~[]byte](b []byte, s T) []byte {
	switch n := len(s); {
	case n < 32:
		b = append(b, 0xa0|byte(n))
	case n < 1<<8:
		b = append(b, 0xd9, byte(n))
	case n < 1<<16:
		b = append(b, 0xda, byte(n>>8), byte(n))
	default:
		b = binary.BigEndian.AppendUint32(append(b, 0xdb), uint32(n))
	}
	return append(b, s...)
}

func packInt(b []byte, v int64) []byte {
	if v >= 0 && v < 128 {
		return append(b, byte(v))
	}
	return binary.BigEndian.AppendUint64(append(b, 0xd3), uint64(v))
}

func packBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// reader takes a packed value apart. Strings it returns are parts of it. After
// the first mistake bad is set and everything is zero.
type reader struct {
	s   string
	bad bool
}

func (r *reader) fail() {
	r.s, r.bad = "", true
}

// take returns the next n bytes.
func (r *reader) take(n int) string {
	if n < 0 || n > len(r.s) {
		r.fail()
		return ""
	}
	t := r.s[:n]
	r.s = r.s[n:]
	return t
}

func (r *reader) uint(n int) (v uint64) {
	t := r.take(n)
	for i := 0; i < len(t); i++ {
		v = v<<8 | uint64(t[i])
	}
	return v
}

func (r *reader) head() byte {
	if len(r.s) == 0 {
		r.fail()
		return 0xc0
	}
	c := r.s[0]
	r.s = r.s[1:]
	return c
}

// array returns how many values follow. It is never more than what is left
// could hold.
func (r *reader) array() int {
	n := 0
	switch c := r.head(); {
	case c&0xf0 == 0x90:
		n = int(c & 0x0f)
	case c == 0xdc:
		n = int(r.uint(2))
	case c == 0xdd:
		n = int(r.uint(4))
	default:
		r.fail()
	}
	if n > len(r.s) {
		r.fail()
		return 0
	}
	return n
}

func (r *reader) string() string {
	switch c := r.head(); {
	case c&0xe0 == 0xa0:
		return r.take(int(c & 0x1f))
	case c == 0xd9:
		return r.take(int(r.uint(1)))
	case c == 0xda:
		return r.take(int(r.uint(2)))
	case c == 0xdb:
		return r.take(int(r.uint(4)))
	}
	r.fail()
	return ""
}

func (r *reader) int() int64 {
	switch c := r.head(); {
	case c < 0x80:
		return int64(c)
	case c >= 0xe0:
		return int64(int8(c))
	case c == 0xcc:
		return int64(r.uint(1))
	case c == 0xcd:
		return int64(r.uint(2))
	case c == 0xce:
		return int64(r.uint(4))
	case c == 0xcf, c == 0xd3:
		return int64(r.uint(8))
	case c == 0xd0:
		return int64(int8(r.uint(1)))
	case c == 0xd1:
		return int64(int16(r.uint(2)))
	case c == 0xd2:
		return int64(int32(r.uint(4)))
	case c == 0xcb: // a number that is no integer: cut off
		return int64(math.Float64frombits(r.uint(8)))
	case c == 0xca:
		return int64(math.Float32frombits(uint32(r.uint(4))))
	}
	r.fail()
	return 0
}

// skip passes over one value.
func (r *reader) skip() {
	for left := 1; left > 0 && !r.bad; left-- {
		if len(r.s) == 0 {
			r.fail()
			return
		}
		switch c := r.s[0]; {
		case c&0xf0 == 0x90 || c == 0xdc || c == 0xdd:
			left += r.array()
		case c&0xe0 == 0xa0 || c == 0xd9 || c == 0xda || c == 0xdb:
			r.string()
		default:
			r.int()
		}
	}
}
