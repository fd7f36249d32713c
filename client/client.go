package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// Options say how to connect. The zero value of each field is its default.
type Options struct {
	// Header is sent with each dial.
	Header http.Header
	// Auth is called before each dial, because tokens expire: it may set a
	// header, or change the URL. ErrStop ends the Conn with 4401; with any
	// other error it is tried again later.
	Auth func(ctx context.Context, r *http.Request) error
	// Subprotocols of the app, best first.
	Subprotocols []string
	// HTTPClient does the handshake. Default: http.DefaultClient.
	HTTPClient *http.Client
	// Interval is the heartbeat interval of the server. Default 25 s, until
	// the server tells its own. Negative: the server is not watched. That is for
	// endpoints that do not answer empty messages, as where Middleware wraps an
	// app and its Route has no dialect EmptyMessage: the app would get the one
	// that is sent first, and a connection over which nothing comes for two
	// intervals would be given up.
	Interval time.Duration
	// MinDelay is the first bound of the random wait before a reconnect. It
	// doubles with each try, up to MaxDelay. Default 2 s and 30 s.
	MinDelay, MaxDelay time.Duration
	// StableAfter: a connection that lasted so long resets the bound.
	// Default 10 s.
	StableAfter time.Duration
	// DialTimeout bounds one handshake. Default 15 s.
	DialTimeout time.Duration
	// Outbox is how many messages, and OutboxBytes how many bytes, Write keeps
	// while there is no connection. Default 256 and 1 MiB.
	Outbox, OutboxBytes int
	// ReadLimit of a message in bytes. Default 32 KiB, at least 16 KiB.
	ReadLimit int64
	// OnOpen and OnDown are told of each connection and each loss, one at a
	// time, on the goroutine that dials: they must not wait for the Conn.
	OnOpen func()
	OnDown func(Down)
	// OnRefused is told when the server does not let the client have again,
	// after a reconnect, what Join or SetMeta had got: err wraps the
	// *RequestError. A topic that cannot be followed any more has it in
	// Topic.Err. It is called on a goroutine of its own.
	OnRefused func(err error)
}

// Down is a loss that will be made up for.
type Down struct {
	Code    int // of the close frame, 1006 without one
	Reason  string
	RetryIn time.Duration // negative: at the next Write, or Active
	// Err is why there was no connection: the error of the dial, or that of
	// Options.Auth. An answer of the server that is no upgrade, such as a 404,
	// is in Reason, too: "HTTP 404". nil: there was a connection, and it was
	// lost.
	Err error
}

// CloseError is how a Conn ended for good. A server that refuses the upgrade
// with 401 or 403 ends it with 4401 or 4403 and the Reason "HTTP 401" or "HTTP
// 403".
type CloseError struct {
	Code   int
	Reason string
}

// Error says reason and code, such as "client: closed: kicked (4403)".
func (e *CloseError) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("client: closed (%d)", e.Code)
	}
	return fmt.Sprintf("client: closed: %s (%d)", e.Reason, e.Code)
}

var (
	// ErrStop is returned by Options.Auth to give up.
	ErrStop = errors.New("client: not signed in")
	// ErrFull is returned by Write when the outbox is full.
	ErrFull = errors.New("client: the outbox is full")
	// ErrNoPresence is returned by Join, Leave, SetMeta and Active, and is the
	// Err of a Topic, while the connection is to an endpoint that does not speak
	// presence.v1. Those made with Handler and Callback of package presence do,
	// what Middleware wraps does not. The app's messages come and go all the
	// same.
	ErrNoPresence = errors.New("client: the endpoint does not speak presence.v1")
)

// Conn is a connection that comes back. All methods may be called
// concurrently; Read by one goroutine at a time.
type Conn struct {
	url    *url.URL
	o      Options
	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{} // the goroutine has ended
	failed error         // the last dial's; of that goroutine
	inbox  chan message
	wake   chan struct{} // ends a wait for a Write or for Active

	heardAt  atomic.Int64 // by the wall clock, in nanoseconds
	interval atomic.Int64

	mu     sync.Mutex
	ws     *websocket.Conn // nil: down
	outbox []message
	own    string // the subprotocol of the app
	wired  wired
}

type message struct {
	kind websocket.MessageType
	data []byte
}

// Dial connects, and returns when there is a connection, or no use in waiting
// for one. ctx is for that only: failures are made up for like later ones, so
// give it a deadline where a server that is not there must be noticed. The
// error then has the last failure, too. rawURL is ws://host/path or wss://, or
// the same with http and https.
func Dial(ctx context.Context, rawURL string, o Options) (*Conn, error) {
	at, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if !slices.Contains([]string{"ws", "wss", "http", "https"}, at.Scheme) || at.Host == "" {
		return nil, fmt.Errorf("client: %q is no URL like ws://host/path", rawURL)
	}
	o = o.withDefaults()
	c := &Conn{url: at, o: o, done: make(chan struct{}), inbox: make(chan message, 256), wake: make(chan struct{}, 1)}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.interval.Store(int64(max(0, o.Interval)))
	c.wired.init(c)
	open := make(chan struct{})
	var once sync.Once
	told := c.o.OnOpen
	c.o.OnOpen = func() {
		once.Do(func() { close(open) })
		if told != nil {
			told()
		}
	}
	go c.run()
	select {
	case <-open:
		return c, nil
	case <-c.ctx.Done():
		<-c.done
		return nil, context.Cause(c.ctx)
	case <-ctx.Done():
		c.end(1006, "given up")
		<-c.done
		if c.failed != nil {
			return nil, fmt.Errorf("client: %w; the last failure: %w", ctx.Err(), c.failed)
		}
		return nil, ctx.Err()
	}
}

func (o Options) withDefaults() Options {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&o.Interval, 25 * time.Second},
		{&o.MinDelay, 2 * time.Second},
		{&o.MaxDelay, 30 * time.Second},
		{&o.StableAfter, 10 * time.Second},
		{&o.DialTimeout, 15 * time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if o.Outbox == 0 {
		o.Outbox = 256
	}
	if o.OutboxBytes == 0 {
		o.OutboxBytes = 1 << 20
	}
	if o.ReadLimit == 0 {
		o.ReadLimit = 32 << 10
	}
	o.ReadLimit = max(o.ReadLimit, 16<<10)
	return o
}

// Read waits for the next message of the app, over reconnects. Call it all the
// time: beyond 256 messages the connection is not read, and the server takes
// the client for dead. The error is *CloseError, or ctx's, which loses nothing.
func (c *Conn) Read(ctx context.Context) (websocket.MessageType, []byte, error) {
	select {
	case m := <-c.inbox:
		return m.kind, m.data, nil
	default:
	}
	select {
	case m := <-c.inbox:
		return m.kind, m.data, nil
	case <-c.ctx.Done():
		return 0, nil, context.Cause(c.ctx)
	case <-ctx.Done():
		return 0, nil, ctx.Err()
	}
}

// Write sends a message, or keeps it for the next connection: ErrFull when
// there are too many. What was sent just before a loss may be lost.
func (c *Conn) Write(ctx context.Context, kind websocket.MessageType, data []byte) error {
	if err := context.Cause(c.ctx); err != nil {
		return err
	}
	c.mu.Lock()
	ws := c.ws
	if ws == nil {
		defer c.mu.Unlock()
		size := len(data)
		for _, m := range c.outbox {
			size += len(m.data)
		}
		if len(c.outbox) >= c.o.Outbox || size > c.o.OutboxBytes {
			return ErrFull
		}
		c.outbox = append(c.outbox, message{kind, append([]byte(nil), data...)})
		c.rouse()
		return nil
	}
	c.mu.Unlock()
	return ws.Write(ctx, kind, data)
}

// rouse ends the wait of an idle Conn.
func (c *Conn) rouse() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Subprotocol is the app's own, "" without one.
func (c *Conn) Subprotocol() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.own
}

// Close says goodbye and ends the Conn.
func (c *Conn) Close() error {
	c.end(1000, "")
	<-c.done
	return nil
}

// Done is closed when the Conn has ended for good; Err then says why.
func (c *Conn) Done() <-chan struct{} { return c.ctx.Done() }

// Err is nil, or the *CloseError of a Conn that has ended.
func (c *Conn) Err() error { return context.Cause(c.ctx) }

func (c *Conn) refused(err error) {
	if c.o.OnRefused != nil {
		c.o.OnRefused(err)
	}
}

func (c *Conn) end(code int, reason string) {
	c.cancel(&CloseError{Code: code, Reason: reason})
}
