package presence

import (
	"bytes"

	"github.com/a4cafe1a/presence/internal/link"
)

// Dialect is a convention by which clients and servers exchange heartbeats as
// text messages, for page code that cannot see ping frames. Its messages are
// taken out of the stream: neither library nor app sees them. All methods are
// called concurrently and must not keep the slices they are given.
type Dialect interface {
	// MaxLen is the longest heartbeat message in bytes, at most 256. Longer
	// messages are not looked at.
	MaxLen() int
	// Answer says whether msg is a heartbeat of this dialect, and what goes
	// back, appended to dst; nil: nothing.
	Answer(dst, msg []byte) (reply []byte, ok bool)
	// Beat is the message that the server sends when a heartbeat is due,
	// appended to dst. heard says that this client has used the dialect.
	// ok false: none.
	Beat(dst []byte, heard bool) (msg []byte, ok bool)
}

// link.Dialect is the same interface; this keeps it so.
var _ link.Dialect = Dialect(nil)

func linked(dialects []Dialect) []link.Dialect {
	all := make([]link.Dialect, len(dialects))
	for i, d := range dialects {
		all[i] = d
	}
	return all
}

var (
	// EmptyMessage: an empty text message is answered by an empty one, and
	// once a client has sent one it also gets one with every heartbeat. One
	// that follows an unanswered beat of ours counts as its answer.
	EmptyMessage Dialect = emptyMessage{}
	// PingPong: the text "ping" is answered by "pong", as common browser
	// helpers expect.
	PingPong Dialect = pingPong{}
	// JSONPingPong: the text {"type":"ping"} is answered by {"type":"pong"}, as
	// many hand-written clients and graphql-ws expect. White space around the
	// tokens is allowed, other members are not.
	JSONPingPong Dialect = jsonPingPong{}
)

type emptyMessage struct{}

func (emptyMessage) MaxLen() int { return 0 }

func (emptyMessage) Answer(dst, msg []byte) ([]byte, bool) {
	if len(msg) != 0 {
		return nil, false
	}
	return dst[:0:cap(dst)], true
}

func (emptyMessage) Beat(dst []byte, heard bool) ([]byte, bool) { return dst, heard }

type pingPong struct{}

func (pingPong) MaxLen() int { return len("ping") }

func (pingPong) Answer(dst, msg []byte) ([]byte, bool) {
	if string(msg) != "ping" {
		return nil, false
	}
	return append(dst, "pong"...), true
}

func (pingPong) Beat([]byte, bool) ([]byte, bool) { return nil, false }

type jsonPingPong struct{}

func (jsonPingPong) MaxLen() int { return 64 }

func (jsonPingPong) Answer(dst, msg []byte) ([]byte, bool) {
	for _, token := range [...]string{"{", `"type"`, ":", `"ping"`, "}"} {
		var ok bool
		if msg, ok = bytes.CutPrefix(bytes.TrimLeft(msg, " \t\r\n"), []byte(token)); !ok {
			return nil, false
		}
	}
	if len(bytes.TrimLeft(msg, " \t\r\n")) > 0 {
		return nil, false
	}
	return append(dst, `{"type":"pong"}`...), true
}

func (jsonPingPong) Beat([]byte, bool) ([]byte, bool) { return nil, false }
