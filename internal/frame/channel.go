package frame

import (
	"encoding/binary"
	"math/bits"
)

const (
	// MaxChannel is the longest payload of a message of the channel, in bytes.
	MaxChannel = 16 << 10

	mark = 1 // U+0001, the first byte of a message of the channel
)

// channelled takes out a frame whose message begins with U+0001. It is not held:
// its payload goes to the Receiver as it comes. size is that of its header.
func (s *In) channelled(b []byte, size int, length uint64, fin bool, r Receiver) (int, verdict) {
	text := Op(b[0]&opBits) == Text
	first := text || s.blank
	s.blank = first && !fin
	if !first || length == 0 || b[0]&rsvBits != 0 {
		return 0, pass
	}
	if len(b) == size {
		s.blank = !text // looked at again with the next byte
		return 0, wait
	}
	s.blank = false
	if b[size]^b[size-4] != mark {
		return 0, pass
	}
	switch {
	case !fin || !text:
		return s.failed(faultChannelFragment)
	case length > MaxChannel:
		return s.failed(faultChannelLong)
	}
	r.Data()
	s.channel, s.remaining = true, length
	s.key = binary.LittleEndian.Uint32(b[size-4:])
	return size, drop
}

// pass hands on a part of a message of the channel.
func (s *In) pass(part []byte, r Receiver) {
	mask(part, s.key)
	s.key = bits.RotateLeft32(s.key, -8*(len(part)&3))
	s.channel = s.remaining > 0
	r.Channel(part, !s.channel)
}
