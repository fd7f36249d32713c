package compat

import (
	"bytes"
	"io"
	"net/http"
	"sync"
	"time"
)

// An app is a small echo server, written as its library's documentation shows. It answers every message with the same message, except for
// the commands below.
type app struct {
	name  string
	build func(*witness, settings) http.Handler

	closes    int  // the code it closes with
	fragments bool // puts fragmented messages together
	drips     bool // can write a message in pieces
	pings     bool // can send a ping of its own when told to
	deflates  bool // can compress
	takeover  bool // can keep its compression context
	stays     bool // its handler returns and leaves goroutines behind
}

// The commands, as text messages.
const (
	cmdClose     = "close"      // close with app.closes and "enough"
	cmdPing      = "ping"       // send a ping; when its pong arrives, send sawPong
	cmdPingEmpty = "ping empty" // the same, with an empty ping where the library lets the app choose
	cmdDrip      = "drip"       // send dripped in pieces, with a pause between

	sawPong = "saw the pong"
)

// settings of one app.
type settings struct {
	deflate, takeover bool
	pause             func()        // between two pieces of a drip
	pingPeriod        time.Duration // melody: pings on its own
	pongWait          time.Duration // melody: how long it waits for a pong
}

// apps are the libraries, in the order of CONNECTION: the one that Handler uses comes first.
var apps = []app{
	{name: "coder", build: coderApp, closes: 4001, fragments: true, drips: true, pings: true, deflates: true, takeover: true},
	{name: "nhooyr", build: nhooyrApp, closes: 4001, fragments: true, drips: true, pings: true, deflates: true, takeover: true},
	{name: "gorilla", build: gorillaApp, closes: 4001, fragments: true, drips: true, pings: true, deflates: true},
	{name: "gobwas", build: gobwasApp, closes: 4001, fragments: true, drips: true, pings: true},
	{name: "gws", build: gwsApp, closes: 4001, fragments: true, drips: true, pings: true, deflates: true, takeover: true, stays: true},
	{name: "melody", build: melodyApp, closes: 4001, fragments: true},
	{name: "xnet", build: xnetApp, closes: 1000},
}

// A witness writes down what an app was shown.
type witness struct {
	mu       sync.Mutex
	opened   int
	messages []string
	pongs    []string
	err      error // of the last read
	returned int   // handlers that returned
}

func (w *witness) note(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *witness) open()             { w.note(func() { w.opened++ }) }
func (w *witness) message(b []byte)  { w.note(func() { w.messages = append(w.messages, string(b)) }) }
func (w *witness) pong(p string)     { w.note(func() { w.pongs = append(w.pongs, p) }) }
func (w *witness) readErr(err error) { w.note(func() { w.err = err }) }

func (w *witness) seen() (opened int, messages, pongs []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.opened, append([]string(nil), w.messages...), append([]string(nil), w.pongs...)
}

func (w *witness) lastErr() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// serve counts the handlers that returned.
func (w *witness) serve(h http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		defer w.note(func() { w.returned++ })
		h.ServeHTTP(rw, r)
	})
}

func (w *witness) handlersReturned() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.returned
}

const megabyte = 1 << 20

// pattern is n bytes that do not repeat for a long while: a lost, doubled or moved byte changes the hash.
func pattern(n int) []byte {
	b := make([]byte, n)
	x := uint32(2463534242)
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}

// pieces is what a drip sends, and dripped is their sum.
const pieces = 20

var dripped = pattern(megabyte)

// drip writes dripped to w in pieces.
func drip(w io.Writer, pause func()) error {
	for b := dripped; len(b) > 0; {
		n := min(len(b), megabyte/pieces+1)
		if _, err := w.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
		if pause != nil {
			pause()
		}
	}
	return nil
}

// dripReader is the same for libraries that take a reader.
type dripReader struct {
	r     bytes.Reader
	pause func()
	since int
}

func newDripReader(pause func()) *dripReader {
	d := &dripReader{pause: pause}
	d.r.Reset(dripped)
	return d
}

func (d *dripReader) Read(b []byte) (int, error) {
	if d.since > megabyte/pieces && d.pause != nil {
		d.since = 0
		d.pause()
	}
	n, err := d.r.Read(b[:min(len(b), megabyte/pieces+1)])
	d.since += n
	return n, err
}
