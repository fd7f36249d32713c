// Package link is the connection between a client and a WebSocket library.
//
// A Conn stands below the library. It counts every byte as life, follows the
// frames of both directions, answers and takes out what belongs to heartbeats,
// and writes heartbeats into the gaps between the library's frames. It decides
// nothing: when to beat and when to give up is the owner's business.
package link

import (
	"container/list"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/a4cafe1a/presence/internal/frame"
	"github.com/a4cafe1a/presence/internal/park"
	"github.com/a4cafe1a/presence/internal/sock"
	"github.com/a4cafe1a/presence/internal/wheel"
	"github.com/a4cafe1a/presence/internal/work"
)

// Owner is told what a connection finds. Its methods are called on the
// goroutine that reads, writes or looks. They may call Finish, and must not
// block nor call anything else of the Conn, except Upgraded.
type Owner interface {
	// Upgraded is called once, when the library has written its 101 through
	// the connection. It may verify. An error fails the library's Write.
	Upgraded() error
	// Refused: the library answered something else. The connection is its own.
	Refused()
	// ClosedBy: a close frame arrived.
	ClosedBy(code int, reason string)
	// Closing: the library has sent a close frame.
	Closing(code int)
	// Lost: the client ended the connection, or the network did.
	Lost(err error)
	// Violated: the client broke the protocol. Lost follows, when the library has
	// read what the client sent before.
	Violated(err error)
	// Flooded: more control frames in a second than allowed.
	Flooded()
	// Roused: the client sent a message, after Rouse.
	Roused()
	// LibraryClosed: the library closed the connection.
	LibraryClosed()
	// Gone is called once, when the socket is closed.
	Gone()
}

// Dialect is a convention for heartbeats made of messages. See the root
// package, which exports the same interface.
type Dialect interface {
	MaxLen() int
	Answer(dst, msg []byte) (reply []byte, ok bool)
	Beat(dst []byte, heard bool) (msg []byte, ok bool)
}

// Config is what all connections of one kind share. It is not changed after
// the first use.
type Config struct {
	Clock         *wheel.Wheel
	Slow          *work.Pool // for connections the kernel cannot serve without blocking
	Goodbyes      *Goodbyes  // for Finish
	ControlFrames int        // a second

	dialects []Dialect
	eager    bool  // one of them beats before the client has used it
	longest  int32 // message of any of them, in bytes; -1: there are none
}

// With is a Config with these dialects, for Upgrade.
func (c Config) With(dialects ...Dialect) *Config {
	c.dialects, c.eager, c.longest = dialects, false, -1
	for _, d := range dialects {
		c.longest = max(c.longest, int32(min(d.MaxLen(), 256)))
		if _, ok := d.Beat(nil, false); ok {
			c.eager = true
		}
	}
	return &c
}

// What the bytes of a connection are.
const (
	handshake int32 = iota // the library has yet to write its answer
	frames                 // WebSocket frames
	plain                  // anything: no heartbeat can be sent
)

// Bits of Conn.due.
const (
	duePing uint32 = 1 << iota
	dueMessages
	dueReplies
	dueRest
)

const (
	keepMax  = 4 << 10  // what a look reads ahead for the library
	earlyMax = 64 << 10 // what is kept of bytes that came before the proof
	headMax  = 64       // an incomplete frame head held back for its payload
	minRead  = 512      // smaller reads of the library go through a buffer
	replyMax = 4 << 10  // queued answers: as many of the longest pongs as there may be pings in a second, by default
)

// Conn is a net.Conn for a WebSocket library. Reading and writing may happen
// at the same time; everything else is safe for concurrent use.
//
// There is one for each session, so what most do without most of the time is
// behind pointers. Each paragraph is a line of the cache: what hardly changes,
// what a look needs beside it, what comes in, what goes out, the rest. A message
// may be dealt with by another CPU than the one before, which waits for each
// line that was written meanwhile.
type Conn struct {
	nc      net.Conn
	cfg     *Config
	owner   Owner
	over    atomic.Pointer[ending]
	stage   atomic.Int32
	due     atomic.Uint32
	heardBy atomic.Uint32 // bit i: the client has used dialect i
	direct  bool          // the bytes of nc are the bytes of the socket; never changes
	bye     bool          // the client's close frame has arrived; under rmu

	last     atomic.Int64  // wheel.Time of the last byte received
	vouched  atomic.Int64  // when it began, or the app last saw life itself
	dated    int64         // value of last that the kernel was asked about
	lastData atomic.Int64  // of the last message of the client's own
	lastOut  atomic.Int64  // of the last message to the client
	pinged   atomic.Int64  // when the latest unanswered ping of ours was written
	sent     atomic.Int64  // when the earliest unanswered heartbeat was written
	target   atomic.Uint64 // what the kernel must have acknowledged for all data ahead of it; 0: none

	rmu   sync.Mutex // of what comes in
	in    frame.In
	proof *proof // until the client is verified
	stash *stash // nil: nothing was read ahead
	rerr  *fault // what ended the stream
	flags atomic.Uint32
	since uint32 // milliseconds of the clock, which come round in 49 days

	wmu       sync.Mutex // of what goes out
	out       frame.Out
	unsent    *unsent // nil: nothing
	msgs      uint32
	libPings  atomic.Uint32 // pings the library has sent
	closing   bool          // the library has sent a close frame
	settled   bool          // only pings of ours went out since all else was acknowledged
	readOurs  bool          // our deadline is in force; under mu
	writeOurs bool          // under mu
	control   int32         // control frames of the second that began at since; under rmu

	sock     sock.Sock
	ch       *channel      // nil: none
	rtt      atomic.Uint32 // microseconds
	pings    atomic.Int32  // of ours, without a payload and unanswered
	beatBy   atomic.Uint32 // bit i: a beat of dialect i is unanswered
	libPongs uint32        // value of libPings at the last pong passed on; under rmu
	mu       sync.Mutex    // of aside and the deadlines
	aside    *aside        // nil: nothing
}

// fault is an error that was met.
type fault struct {
	error
	violation bool // by the client, and what it sent before may not be read yet
}

// Bits of Conn.flags.
const (
	flagRouse uint32 = 1 << iota // tell the owner of the next message
	flagSlow                     // a task of ours waits on the pool
)

// ending is how a connection ends.
type ending struct {
	conn *Conn
	err  error
	gone atomic.Bool

	until time.Time     // how long its goodbye may take; zero: it says none
	place *list.Element // among those who wait; under Goodbyes.mu, as is ref
	ref   park.Ref
}

// proof is what a connection knows before its client is verified.
type proof struct {
	early    []byte // came with the handshake, before the 101
	stale    int    // bytes in the kernel that are older than the 101
	received uint64 // by the kernel until the 101
	insist   bool   // only the pong is proof
	tokened  bool
	again    bool // the second ping is out
	token    [8]byte
	given    bool
	answer   frame.Head // of the library
	told     func(answer []byte)
}

// stash is what was read before the library asked for it.
type stash struct {
	kept []byte // for the library, before anything from nc
	off  int    // what it has taken
	held []byte // the beginning of an undecided frame
}

// unsent is what was to be written and is not.
type unsent struct {
	head []byte // an incomplete frame head, held back
	rest []byte // of a heartbeat that was sent in part; at first an owed 101
}

// Upgrade wraps the connection of a WebSocket handshake. early is what the
// client had sent beyond its request; switched says that the 101 is out, or
// owed: then it is sent before all else, with the ping of Verify.
func Upgrade(nc net.Conn, cfg *Config, owner Owner, early []byte, switched bool, owed []byte) *Conn {
	c := newConn(nc, cfg, owner)
	c.in.MaxMessage = cfg.longest
	c.proof = &proof{early: early}
	if owed != nil {
		c.unsent = &unsent{rest: owed}
	}
	if switched {
		c.startFrames()
	}
	return c
}

// OnAnswer has f called with what the library writes of its 101, or the last of it
// where it writes that in parts. It is called before Upgraded, and not where the
// 101 was sent before.
func (c *Conn) OnAnswer(f func(answer []byte)) { c.proof.told = f }

// Plain wraps a connection of any protocol. Nothing is read or added.
func Plain(nc net.Conn, cfg *Config, owner Owner) *Conn {
	c := newConn(nc, cfg, owner)
	c.stage.Store(plain)
	return c
}

func newConn(nc net.Conn, cfg *Config, owner Owner) *Conn {
	c := &Conn{nc: nc, cfg: cfg, owner: owner, sock: sock.Of(nc)}
	c.direct = c.sock.Known() && sock.Direct(nc)
	c.Begin()
	return c
}

// Begin starts all waiting anew: the coarse clock may have stood still until
// the connection was in the wheel.
func (c *Conn) Begin() {
	now := int64(c.cfg.Clock.Exact())
	c.last.Store(now)
	c.vouched.Store(now)
	c.lastData.Store(now)
	c.lastOut.Store(now)
}

// startFrames begins to follow frames. What the kernel holds at this moment
// may be older than the 101 and proves nothing.
func (c *Conn) startFrames() {
	if !c.direct {
		c.drain()
	}
	if n, ok := c.sock.Pending(); ok && n > 0 {
		if c.direct {
			c.proof.stale = n
		} else {
			c.proof.insist = true
			c.proof.received, _ = c.sock.Received()
		}
	}
	c.stage.Store(frames)
}

// drain takes what a layer above the socket, such as TLS, has read from it
// already. The kernel does not know of it, and it is older than the 101.
func (c *Conn) drain() {
	c.takeRead(time.Unix(1, 0))
	defer c.giveRead()
	pooled := buffers.Get().(*[]byte)
	defer buffers.Put(pooled)
	for len(c.proof.early) <= earlyMax {
		n, err := c.nc.Read(*pooled)
		c.proof.early = append(c.proof.early, (*pooled)[:n]...)
		if err != nil {
			return
		}
	}
}

// LastByte is when the last byte arrived.
func (c *Conn) LastByte() wheel.Time { return wheel.Time(c.last.Load()) }

// LastMessage is when the client last sent a message of its own.
func (c *Conn) LastMessage() wheel.Time { return wheel.Time(c.lastData.Load()) }

// LastSent is when a message was last sent to the client.
func (c *Conn) LastSent() wheel.Time { return wheel.Time(c.lastOut.Load()) }

// RTT is the time between the latest answered ping and its pong, 0 if unknown.
func (c *Conn) RTT() time.Duration { return time.Duration(c.rtt.Load()) * time.Microsecond }

// Watches says that the client expects the beats of a dialect: it has used
// one, or one beats unasked.
func (c *Conn) Watches() bool {
	heard := c.heardBy.Load()
	if heard == 0 && !c.cfg.eager {
		return false
	}
	words := scratches.Get().(*scratch)
	defer scratches.Put(words)
	for i, d := range c.cfg.dialects {
		if _, ok := d.Beat(words.beat[:0], heard&(1<<i) != 0); ok {
			return true
		}
	}
	return false
}

// Touch counts as a sign of life that the app saw.
func (c *Conn) Touch() {
	now := int64(c.cfg.Clock.Now())
	c.vouched.Store(now)
	c.last.Store(now)
}

func (c *Conn) heard() { stamp(&c.last, c.cfg.Clock.Now()) }

// stamp is at.Store(now), which costs more than looking first: most come within
// one tick of the one before.
func stamp(at *atomic.Int64, now wheel.Time) {
	if at.Load() != int64(now) {
		at.Store(int64(now))
	}
}

// HeardAt counts as a byte that arrived then.
func (c *Conn) HeardAt(at wheel.Time) {
	for {
		last := c.last.Load()
		if int64(at) <= last || c.last.CompareAndSwap(last, int64(at)) {
			return
		}
	}
}

// Arrived is when the last byte arrived, as the kernel knows it, to within
// grain: an app that reads late makes old bytes look new. For the looks, not
// concurrently with itself.
func (c *Conn) Arrived(grain wheel.Time) wheel.Time {
	last := c.last.Load()
	if last == c.dated || last == c.vouched.Load() {
		return wheel.Time(last)
	}
	c.dated = last
	if ago, ok := c.SinceReceived(); ok {
		at := max(int64(c.cfg.Clock.Exact())-int64(ago), c.vouched.Load())
		if at+int64(grain) < last {
			c.dated = at
			c.last.CompareAndSwap(last, at)
			return wheel.Time(at)
		}
	}
	return wheel.Time(last)
}

// Warm touches what a look needs.
func (c *Conn) Warm() {
	c.over.Load()
	c.sent.Load()
	c.libPings.Load()
	if c.direct {
		c.nc.LocalAddr() // is kept beside the descriptor
	}
}

// Rouse asks for one call of Owner.Roused at the client's next message.
func (c *Conn) Rouse() { c.flags.Or(flagRouse) }

// Direct says that the kernel can be asked about this connection and written
// to without blocking.
func (c *Conn) Direct() bool { return c.direct }

// NetConn is the connection below. Some libraries set TCP options on it.
func (c *Conn) NetConn() net.Conn { return c.nc }

// LocalAddr and RemoteAddr are those of the connection below.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// RemoteAddr is the client's address.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }
