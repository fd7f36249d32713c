package message_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/a4cafe1a/presence/internal/frame"
	"github.com/a4cafe1a/presence/internal/message"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/stretchr/testify/require"
)

// recorder writes down what it is called with.
type recorder struct {
	calls []string
	fail  error
}

func (r *recorder) Message(op frame.Op, b []byte) error {
	r.calls = append(r.calls, fmt.Sprintf("%d:%s", op, b))
	return r.fail
}
func (r *recorder) Ping(b []byte) { r.calls = append(r.calls, "ping:"+string(b)) }
func (r *recorder) Close()        { r.calls = append(r.calls, "close") }

func masked(first byte, payload string) string { return string(wstest.Masked(first, []byte(payload))) }

const (
	fin  = 0x80
	text = wstest.Text
	bin  = wstest.Binary
	cont = wstest.Continuation
)

var streams = []struct {
	name   string
	stream string
	calls  []string
	err    error
}{
	{"text", masked(fin|text, "hello"), []string{"1:hello"}, nil},
	{"binary", masked(fin|bin, "\x00\xff"), []string{"2:\x00\xff"}, nil},
	{"empty", masked(fin|text, ""), []string{"1:"}, nil},
	{"two", masked(fin|text, "a") + masked(fin|bin, "b"), []string{"1:a", "2:b"}, nil},
	{"126 bytes", masked(fin|text, strings.Repeat("x", 126)), []string{"1:" + strings.Repeat("x", 126)}, nil},
	{"65536 bytes", masked(fin|bin, strings.Repeat("y", 1<<16)), []string{"2:" + strings.Repeat("y", 1<<16)}, nil},
	{"fragments", masked(text, "he") + masked(cont, "l") + masked(fin|cont, "lo"), []string{"1:hello"}, nil},
	{"empty fragments", masked(text, "") + masked(cont, "") + masked(fin|cont, ""), []string{"1:"}, nil},
	{"ping between fragments", masked(text, "he") + masked(fin|wstest.Ping, "p") + masked(fin|cont, "llo"), []string{"ping:p", "1:hello"}, nil},
	{"pong is nothing", masked(fin|wstest.Pong, "p") + masked(fin|text, "x"), []string{"1:x"}, nil},
	{"character over fragments", masked(text, "\xe2\x82") + masked(fin|cont, "\xac"), []string{"1:€"}, nil},
	{"nothing after close", masked(fin|wstest.Close, "\x03\xe8") + masked(fin|text, "late"), []string{"close"}, nil},
	{"close between fragments", masked(text, "he") + masked(fin|wstest.Close, ""), []string{"close"}, nil},
	{"text that is none", masked(fin|text, "\xff"), nil, message.ErrText},
	{"text cut off", masked(fin|text, "\xe2\x82"), nil, message.ErrText},
	{"bad text, early", masked(text, "ab\xff"), nil, message.ErrText},
	{"bad text over fragments", masked(text, "\xe2\x82") + masked(fin|cont, "x"), nil, message.ErrText},
	{"compressed", masked(fin|0x40|text, "x"), nil, message.ErrReserved},
	{"continuation of nothing", masked(fin|cont, "x"), nil, message.ErrSequence},
	{"message in a message", masked(text, "x") + masked(fin|text, "y"), nil, message.ErrSequence},
	{"too large", masked(fin|bin, strings.Repeat("z", limit+1)), nil, message.ErrTooLarge},
	{"too large in fragments", masked(bin, strings.Repeat("z", limit)) + masked(fin|cont, "z"), nil, message.ErrTooLarge},
}

const limit = 1 << 17

func TestStreamsAtEverySplit(t *testing.T) {
	for _, s := range streams {
		t.Run(s.name, func(t *testing.T) {
			feed := func(parts ...string) {
				var d message.Decoder
				r := &recorder{}
				var err error
				for _, p := range parts {
					if err = d.Feed([]byte(p), limit, r); err != nil {
						break
					}
				}
				require.ErrorIs(t, err, s.err)
				require.Equal(t, s.calls, r.calls)
				if err == nil { // after a close frame it remembers to ignore the rest
					require.Equal(t, !strings.Contains(s.name, "close"), d.Idle(), "nothing may be left")
				}
			}
			feed(s.stream)
			step := max(1, len(s.stream)/200)
			for i := 0; i < len(s.stream); i += step {
				feed(s.stream[:i], s.stream[i:])
			}
			if len(s.stream) < 1000 {
				feed(strings.Split(s.stream, "")...) // runes: uneven pieces
				var single []string
				for i := range len(s.stream) {
					single = append(single, s.stream[i:i+1])
				}
				feed(single...)
			}
		})
	}
}

func TestErrorOfTheHandlerStops(t *testing.T) {
	var d message.Decoder
	r := &recorder{fail: errors.New("enough")}
	err := d.Feed([]byte(masked(fin|text, "a")+masked(fin|text, "b")), 0, r)
	require.Equal(t, r.fail, err)
	require.Equal(t, []string{"1:a"}, r.calls)
}

func TestHeaderOfTheServer(t *testing.T) {
	for n, head := range map[int]string{
		0: "\x81\x00", 125: "\x81\x7d", 126: "\x81\x7e\x00\x7e", 65535: "\x81\x7e\xff\xff",
		65536: "\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00",
	} {
		require.Equal(t, head, string(message.AppendHeader(nil, frame.Text, n)))
	}
}

// FuzzDecoder compares with a decoder that sees the whole stream at once.
func FuzzDecoder(f *testing.F) {
	for i, s := range streams {
		if len(s.stream) < 1000 {
			f.Add([]byte(s.stream), uint64(i))
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		in := frame.In{MaxMessage: -1}
		n, _, _ := in.Scan(stream, refuser{})
		stream = stream[:n] // what is malformed never gets here
		want := &recorder{}
		wantErr := reference(bytes.Clone(stream), 64, want)
		rnd := rand.New(rand.NewPCG(seed, 1))
		var d message.Decoder
		got := &recorder{}
		var err error
		for rest := stream; len(rest) > 0 && err == nil; {
			n := min(len(rest), 1+rnd.IntN(9))
			err = d.Feed(bytes.Clone(rest[:n]), 64, got)
			rest = rest[n:]
		}
		if err == message.ErrText {
			// Noticed early, maybe in a message that never ends.
			require.Equal(t, len(got.calls), min(len(got.calls), len(want.calls)))
			for i, c := range got.calls {
				require.Equal(t, want.calls[i], c)
			}
			return
		}
		require.Equal(t, wantErr, err)
		require.Equal(t, want.calls, got.calls)
	})
}

// refuser takes nothing out.
type refuser struct{}

func (refuser) Data()                {}
func (refuser) Control(frame.Op)     {}
func (refuser) Pong([]byte) bool     { return false }
func (refuser) Close(int, []byte)    {}
func (refuser) Message([]byte) bool  { return false }
func (refuser) Channel([]byte, bool) {}

// reference decodes a whole stream, one frame after the other.
func reference(b []byte, limit int, r *recorder) error {
	var op frame.Op
	var msg []byte
	for len(b) >= 2 {
		size, at := int(b[1]&0x7f), 2
		switch size {
		case 126:
			if len(b) < 8 {
				return nil
			}
			size, at = int(b[2])<<8|int(b[3]), 4
		case 127:
			if len(b) < 14 {
				return nil
			}
			if b[2]|b[3]|b[4]|b[5] != 0 {
				size = 1 << 40
			} else {
				size = int(b[6])<<24 | int(b[7])<<16 | int(b[8])<<8 | int(b[9])
			}
			at = 10
		}
		if len(b) < at+4 {
			return nil
		}
		mask := b[at : at+4]
		at += 4
		code := frame.Op(b[0] & 15)
		if b[0]&0x70 != 0 {
			return message.ErrReserved
		}
		data := code < frame.Close
		if data {
			first := code == frame.Text || code == frame.Binary
			if first == (op != 0) || !first && code != frame.Continuation {
				if first || code == frame.Continuation {
					return message.ErrSequence
				}
			}
			if first {
				op = code
			}
			if (first || code == frame.Continuation) && len(msg)+size > limit {
				return message.ErrTooLarge
			}
		}
		if len(b)-at < size {
			return nil
		}
		payload := make([]byte, size)
		for i := range payload {
			payload[i] = b[at+i] ^ mask[i%4]
		}
		first := b[0]
		b = b[at+size:]
		switch {
		case code == frame.Ping:
			r.Ping(payload)
		case code == frame.Close:
			r.Close()
			return nil
		case data:
			msg = append(msg, payload...)
			if first&0x80 == 0 {
				continue
			}
			if op == frame.Text && !utf8.Valid(msg) {
				return message.ErrText
			}
			_ = r.Message(op, msg)
			op, msg = 0, nil
		}
	}
	return nil
}

// BenchmarkFeed bounds what reading a message costs a parked session beside
// the system call.
func BenchmarkFeed(b *testing.B) {
	for _, n := range []int{32, 1 << 10, 1 << 20} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			f := wstest.Masked(fin|bin, make([]byte, n))
			buf := make([]byte, len(f))
			var d message.Decoder
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				copy(buf, f)
				if err := d.Feed(buf, 0, nothing{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

type nothing struct{}

func (nothing) Message(frame.Op, []byte) error { return nil }
func (nothing) Ping([]byte)                    {}
func (nothing) Close()                         {}
