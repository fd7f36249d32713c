package client_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/client"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// rig is a network in a bubble, on which a server may come and go.
type rig struct {
	t  *testing.T
	mu sync.Mutex
	ln *wstest.Listener // nil: nobody listens
	at []time.Time      // of the dials
	up []net.Conn       // all that were made
}

func (r *rig) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	r.mu.Lock()
	r.at = append(r.at, time.Now())
	ln := r.ln
	r.mu.Unlock()
	if ln == nil {
		return nil, errors.New("connection refused")
	}
	nc, err := ln.Dial()
	if err != nil {
		return nil, err
	}
	b := &buffered{Conn: nc, out: make(chan []byte, 1024), closed: make(chan struct{})}
	go b.pump()
	r.mu.Lock()
	r.up = append(r.up, b)
	r.mu.Unlock()
	return b, nil
}

// crash breaks all connections, and nobody listens any more.
func (r *rig) crash() {
	r.mu.Lock()
	up := r.up
	r.ln, r.up = nil, nil
	r.mu.Unlock()
	for _, nc := range up {
		nc.Close()
	}
}

// buffered is a connection with a buffer, as a socket has: a pipe has none.
type buffered struct {
	net.Conn
	out    chan []byte
	closed chan struct{}
	once   sync.Once
}

func (b *buffered) pump() {
	for {
		select {
		case p := <-b.out:
			if _, err := b.Conn.Write(p); err != nil {
				return
			}
		case <-b.closed:
			return
		}
	}
}

func (b *buffered) Write(p []byte) (int, error) {
	select {
	case <-b.closed:
		return 0, net.ErrClosed
	case b.out <- append([]byte(nil), p...):
		return len(p), nil
	}
}

func (b *buffered) Close() error {
	b.once.Do(func() { close(b.closed) })
	return b.Conn.Close()
}

func (r *rig) dials() []time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at
}

// serve starts a server; stop ends it without a goodbye.
func (r *rig) serve(h http.Handler) (stop func()) {
	ln := wstest.Listen()
	srv := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go srv.Serve(ln)
	r.mu.Lock()
	r.ln = ln
	r.mu.Unlock()
	return func() {
		r.mu.Lock()
		if r.ln == ln {
			r.ln = nil
		}
		r.mu.Unlock()
		srv.Close()
	}
}

func (r *rig) options() client.Options {
	return client.Options{HTTPClient: &http.Client{Transport: &http.Transport{DialContext: r.dial, DisableKeepAlives: true}}}
}

// fake serves the n-th connection, from 1, as f says.
func (r *rig) fake(f func(ctx context.Context, n int, c *websocket.Conn)) {
	var mu sync.Mutex
	n := 0
	stop := r.serve(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		c, err := websocket.Accept(w, q, &websocket.AcceptOptions{Subprotocols: []string{"presence.v1"}})
		if err != nil {
			return
		}
		defer c.CloseNow()
		mu.Lock()
		n++
		m := n
		mu.Unlock()
		f(q.Context(), m, c)
	}))
	r.t.Cleanup(stop)
}

func inBubble(t *testing.T, f func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, &rig{t: t}) })
}

// node is a server with presence.
type node struct {
	p    *presence.Presence
	stop func()
}

func (r *rig) node(o presence.Options) *node {
	r.t.Helper()
	o.Identify = func(q *http.Request) (presence.Identity, error) {
		return presence.Identity{User: q.URL.Query().Get("user")}, nil
	}
	if o.Authorize == nil {
		o.Authorize = func(*presence.Session, presence.Ask) error { return nil }
	}
	p, err := presence.New(o)
	require.NoError(r.t, err)
	synctest.Wait()
	stop := r.serve(p.Handler(func(ctx context.Context, c *presence.Conn) error {
		for {
			kind, m, err := c.Read(ctx)
			if err != nil {
				return err
			}
			if err := c.Write(ctx, kind, m); err != nil {
				return err
			}
		}
	}))
	n := &node{p: p}
	var once sync.Once
	n.stop = func() {
		once.Do(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_ = p.Shutdown(ctx)
			stop()
		})
	}
	r.t.Cleanup(n.stop)
	return n
}

func (r *rig) client(path string, o client.Options) *client.Conn {
	r.t.Helper()
	c, err := client.Dial(r.t.Context(), "ws://example.com"+path, o)
	require.NoError(r.t, err)
	r.t.Cleanup(func() { c.Close() })
	return c
}

func TestStaysConnectedAndSurvivesARestart(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		n := r.node(presence.Options{})
		c := r.client("/?user=ann", r.options())
		echo := func(text string) {
			require.NoError(t, c.Write(t.Context(), websocket.MessageText, []byte(text)))
			_, m, err := c.Read(t.Context())
			require.NoError(t, err)
			require.Equal(t, text, string(m))
		}
		echo("hello")
		time.Sleep(time.Hour)
		require.Len(t, r.dials(), 1)
		echo("still here")
		n.stop()
		time.Sleep(time.Minute)
		require.NoError(t, c.Write(t.Context(), websocket.MessageText, []byte("kept")))
		r.node(presence.Options{})
		time.Sleep(time.Minute)
		_, m, err := c.Read(t.Context())
		require.NoError(t, err)
		require.Equal(t, "kept", string(m))
		echo("back")
	})
}

func TestPresence(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		n := r.node(presence.Options{})
		ann := r.client("/?user=ann", r.options())
		bob := r.client("/?user=bob", r.options())
		room := ann.Follow("room")
		require.Same(t, room, ann.Follow("room"))
		require.NoError(t, ann.Join(t.Context(), "room"))
		require.NoError(t, bob.Join(t.Context(), "room"))
		require.NoError(t, bob.SetMeta(t.Context(), map[string]string{"status": "busy"}))
		time.Sleep(time.Second)
		members, live := room.Members()
		require.True(t, live)
		require.Len(t, members, 2)
		require.JSONEq(t, `{"status":"busy"}`, string(members["bob"].Metas[0]))
		require.Equal(t, "ann", ann.User())
		require.Len(t, ann.Session(), 16)
		require.NoError(t, bob.Leave(t.Context(), "room"))
		time.Sleep(time.Second)
		require.Equal(t, 1, room.Users())
		require.NoError(t, bob.Join(t.Context(), "room"))

		// Another server: everybody is in the room again, with the status.
		n.stop()
		time.Sleep(time.Second)
		_, live = room.Members()
		require.False(t, live)
		r.node(presence.Options{})
		time.Sleep(2 * time.Minute)
		members, live = room.Members()
		require.True(t, live)
		require.Len(t, members, 2)
		require.JSONEq(t, `{"status":"busy"}`, string(members["bob"].Metas[0]))

		var mu sync.Mutex
		var kinds []string
		done := make(chan struct{})
		go func() {
			defer close(done)
			for e := range room.Events() {
				mu.Lock()
				kinds = append(kinds, e.Kind)
				mu.Unlock()
			}
		}()
		time.Sleep(time.Second)
		mu.Lock()
		kinds = nil
		mu.Unlock()
		require.NoError(t, bob.SetMeta(t.Context(), "free"))
		time.Sleep(time.Second)
		bob.Close()
		time.Sleep(time.Minute)
		room.Close()
		<-done
		require.Equal(t, []string{"update", "update", "leave"}, kinds, "grace comes before the leave")
	})
}

func TestRefusedRequest(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.node(presence.Options{Authorize: func(*presence.Session, presence.Ask) error { return errors.New("no") }})
		c := r.client("/?user=ann", r.options())
		var refused *client.RequestError
		require.ErrorAs(t, c.Join(t.Context(), "room"), &refused)
		require.Equal(t, "forbidden", refused.Code)
		room := c.Follow("room")
		time.Sleep(time.Second)
		require.ErrorAs(t, room.Err(), &refused)
	})
}

// A server that is frozen accepts, and says nothing any more.
func TestWatchesTheServer(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.fake(func(ctx context.Context, n int, c *websocket.Conn) {
			for i := 0; ; i++ { // reads, so that the kernel would acknowledge
				if _, m, err := c.Read(ctx); err != nil || n == 2 && c.Write(ctx, websocket.MessageText, m) != nil {
					return
				}
			}
		})
		o := r.options()
		downs := make(chan time.Time, 10)
		o.OnDown = func(client.Down) { downs <- time.Now() }
		began := time.Now()
		r.client("/", o)
		time.Sleep(50*time.Second - time.Millisecond)
		require.Empty(t, downs)
		time.Sleep(1100 * time.Millisecond)
		require.Len(t, downs, 1)
		require.WithinDuration(t, began.Add(50*time.Second), <-downs, 1100*time.Millisecond)
	})
}

// One that talks all the time and gets no answer is not reconnected, as long as
// the server beats.
func TestTalkingIsNoReasonToReconnect(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		n := r.node(presence.Options{})
		_ = n
		c := r.client("/?user=ann", r.options())
		go func() {
			for {
				if _, _, err := c.Read(context.Background()); err != nil {
					return
				}
			}
		}()
		for range 200 {
			time.Sleep(3 * time.Second)
			require.NoError(t, c.Write(t.Context(), websocket.MessageText, []byte("words")))
		}
		require.Len(t, r.dials(), 1)
	})
}

func TestCloseCodes(t *testing.T) {
	for _, test := range []struct {
		code     int
		reason   string
		auth     bool
		from, to time.Duration // until the next dial
		stops    bool
	}{
		{code: 1000, to: 2 * time.Second},
		{code: 1001, to: 2 * time.Second},
		{code: 1011, to: 2 * time.Second},
		{code: 1012, reason: "retry=12345", from: 12345 * time.Millisecond, to: 12345 * time.Millisecond},
		{code: 1013, reason: "retry=12345", from: 12345 * time.Millisecond, to: 12345 * time.Millisecond},
		{code: 1012, reason: "soon", to: 2 * time.Second},
		{code: 4401, stops: true},
		{code: 4401, auth: true},
		{code: 4429, from: 15 * time.Second, to: 30 * time.Second},
		{code: 4000, stops: true},
		{code: 4403, stops: true},
		{code: 4409, stops: true},
		{code: 4999, stops: true},
	} {
		t.Run(fmt.Sprint(test.code, test.reason, test.auth), func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.fake(func(ctx context.Context, n int, c *websocket.Conn) {
					if n <= 1 {
						time.Sleep(time.Second)
						_ = c.Close(websocket.StatusCode(test.code), test.reason)
						return
					}
					_, _, _ = c.Read(ctx)
					_, _, _ = c.Read(ctx)
				})
				o := r.options()
				o.Interval = -1
				if test.auth {
					o.Auth = func(context.Context, *http.Request) error { return nil }
				}
				c := r.client("/", o)
				closed := time.Now().Add(time.Second)
				time.Sleep(time.Minute)
				at := r.dials()
				if test.stops {
					require.Len(t, at, 1)
					var e *client.CloseError
					require.ErrorAs(t, c.Err(), &e)
					require.Equal(t, test.code, e.Code)
					_, _, err := c.Read(t.Context())
					require.ErrorAs(t, err, &e)
					return
				}
				require.Len(t, at, 2)
				wait := at[1].Sub(closed)
				require.GreaterOrEqual(t, wait, test.from)
				require.LessOrEqual(t, wait, test.to+50*time.Millisecond)
			})
		})
	}
}

// A server that closes each connection with retry=0, or a proxy that does, is
// not dialed in a circle: only the first time it is told is a wait exact, the
// least after that.
func TestAToldWaitIsExactOnceOnly(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		const lasts = 10 * time.Second
		var closed []time.Time
		r.fake(func(ctx context.Context, n int, c *websocket.Conn) {
			switch {
			case n == 20:
				time.Sleep(lasts)
			case n == 30:
				_, _, _ = c.Read(ctx)
				_, _, _ = c.Read(ctx)
				return
			}
			closed = append(closed, time.Now())
			_ = c.Close(1012, "retry="+strconv.Itoa(n/25*7000))
		})
		o := r.options()
		o.Interval = -1
		r.client("/", o)
		time.Sleep(time.Hour)
		at := r.dials()
		require.Len(t, at, 30)
		var sum time.Duration
		for i, end := range closed {
			wait := at[i+1].Sub(end)
			switch {
			case i == 0 || i == 19:
				require.Zero(t, wait, "the first is exact")
			case i < 19:
				require.LessOrEqual(t, wait, min(30*time.Second, 2*time.Second<<(i-1)))
				sum += wait
			case i >= 24:
				require.GreaterOrEqual(t, wait, 7*time.Second, "never sooner than told")
			}
		}
		require.Greater(t, sum, time.Minute, "18 waits at random")
	})
}

func Test4401OnceOnly(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.fake(func(ctx context.Context, n int, c *websocket.Conn) { _ = c.Close(4401, "expired") })
		o := r.options()
		tokens := 0
		o.Auth = func(_ context.Context, q *http.Request) error {
			tokens++
			q.Header.Set("Authorization", fmt.Sprint(tokens))
			return nil
		}
		c, err := client.Dial(t.Context(), "ws://example.com/", o)
		if err == nil {
			<-c.Done()
			err = c.Err()
		}
		var e *client.CloseError
		require.ErrorAs(t, err, &e)
		require.Equal(t, 4401, e.Code)
		require.Len(t, r.dials(), 2)
		require.Equal(t, 2, tokens)
	})
}

// Tokens expire: the session ends with 4401, and the next dial has a new one.
// When there is no new one, the upgrade is refused, and that is the end.
func TestTokensExpire(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		var issued, refused atomic.Int32
		const last = 5
		p, err := presence.New(presence.Options{Identify: func(q *http.Request) (presence.Identity, error) {
			n, err := strconv.Atoi(q.Header.Get("Authorization"))
			if err != nil || n > last {
				refused.Add(1)
				return presence.Identity{}, presence.ErrUnauthorized
			}
			return presence.Identity{User: "ann", Expires: time.Now().Add(time.Minute)}, nil
		}})
		require.NoError(t, err)
		defer p.Shutdown(t.Context())
		defer r.serve(p.Callback(nil))()
		o := r.options()
		o.Auth = func(_ context.Context, q *http.Request) error {
			q.Header.Set("Authorization", strconv.Itoa(int(issued.Add(1))))
			return nil
		}
		c := r.client("/", o)
		began := time.Now()
		<-c.Done()
		require.InDelta(t, last, time.Since(began).Minutes(), 0.1, "back at once each time")
		var e *client.CloseError
		require.ErrorAs(t, c.Err(), &e)
		require.Equal(t, 4401, e.Code)
		require.Equal(t, []int32{last + 1, 1}, []int32{issued.Load(), refused.Load()})
		require.Len(t, r.dials(), last+1)
	})
}

func TestIdleWaitsForAWrite(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		got := make(chan string, 1)
		r.fake(func(ctx context.Context, n int, c *websocket.Conn) {
			if n == 1 {
				_ = c.Close(4408, "idle")
				return
			}
			for {
				_, m, err := c.Read(ctx)
				if err != nil {
					return
				}
				if len(m) > 0 {
					got <- string(m)
				}
			}
		})
		c := r.client("/", r.options())
		time.Sleep(time.Hour)
		require.Len(t, r.dials(), 1)
		require.NoError(t, c.Write(t.Context(), websocket.MessageText, []byte("here")))
		require.Equal(t, "here", <-got)
	})
}

func TestActive(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		n := r.node(presence.Options{AwayAfter: time.Minute, IdleTimeout: 5 * time.Minute})
		c := r.client("/?user=ann", r.options())
		away := func() bool {
			all, err := n.p.Lookup(t.Context(), "ann")
			require.NoError(t, err)
			return all[0].Away
		}
		time.Sleep(2 * time.Minute)
		require.True(t, away())
		require.NoError(t, c.Active(t.Context()))
		time.Sleep(time.Second)
		require.False(t, away())
		time.Sleep(time.Hour)
		require.Len(t, r.dials(), 1, "idle")
		require.NoError(t, c.Active(t.Context()))
		time.Sleep(time.Second)
		require.Len(t, r.dials(), 2)
		require.False(t, away())
	})
}

func TestDialOfNoURL(t *testing.T) {
	for _, bad := range []string{"", "/ws", "localhost:1/ws", "127.0.0.1:1/ws", "ftp://localhost/ws", "ws:///ws"} {
		_, err := client.Dial(t.Context(), bad, client.Options{})
		require.Error(t, err, bad)
		require.NotErrorIs(t, err, client.ErrStop, bad)
	}
}

// A server that is not there, or that has something else at this path, is told by
// its error. A connection that was lost has none.
func TestDownSaysWhy(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		downs := make(chan client.Down, 100)
		noToken := errors.New("no token")
		auth := noToken
		o := r.options()
		o.OnDown = func(d client.Down) { downs <- d; auth = nil }
		o.Auth = func(context.Context, *http.Request) error { return auth }
		dialed := make(chan *client.Conn, 1)
		go func() {
			c, err := client.Dial(t.Context(), "ws://example.com/", o)
			if err == nil {
				dialed <- c
			}
		}()
		require.ErrorIs(t, (<-downs).Err, noToken)
		require.ErrorContains(t, (<-downs).Err, "connection refused")
		stop := r.serve(http.NotFoundHandler())
		var d client.Down
		for d = <-downs; d.Reason == ""; d = <-downs {
		}
		require.Equal(t, "HTTP 404", d.Reason)
		require.EqualError(t, d.Err, "HTTP 404")
		stop()
		r.fake(func(context.Context, int, *websocket.Conn) {})
		c := <-dialed
		defer c.Close()
		for d = <-downs; d.Err != nil; d = <-downs {
		}
		require.Equal(t, 1006, d.Code)
	})
}

func TestTextsOfErrors(t *testing.T) {
	for text, err := range map[string]error{
		"client: not allowed (forbidden)":    &client.RequestError{Code: "forbidden", Text: "not allowed"},
		"client: closed: HTTP 401 (4401)":    &client.CloseError{Code: 4401, Reason: "HTTP 401"},
		"client: closed: you are out (4403)": &client.CloseError{Code: 4403, Reason: "you are out"},
		"client: closed (1000)":              &client.CloseError{Code: 1000},
	} {
		require.EqualError(t, err, text)
	}
}

func TestRefusedUpgrades(t *testing.T) {
	for _, test := range []struct {
		status   int
		after    string
		from, to time.Duration
		stops    int
	}{
		{status: 401, stops: 4401},
		{status: 403, stops: 4403},
		{status: 429, after: "20", from: 20 * time.Second, to: 22 * time.Second},
		{status: 503, after: "20", from: 20 * time.Second, to: 22 * time.Second},
		{status: 503, to: 2 * time.Second},
		{status: 426, to: 2 * time.Second},
		{status: 500, to: 2 * time.Second},
	} {
		t.Run(fmt.Sprint(test.status, test.after), func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				stop := r.serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Retry-After", test.after)
					w.WriteHeader(test.status)
				}))
				defer stop()
				ctx, cancel := context.WithTimeout(t.Context(), test.to+time.Second)
				defer cancel()
				_, err := client.Dial(ctx, "ws://example.com/", r.options())
				if test.stops != 0 {
					var e *client.CloseError
					require.ErrorAs(t, err, &e)
					require.Equal(t, test.stops, e.Code)
					return
				}
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorContains(t, err, fmt.Sprint("got ", test.status))
				at := r.dials()
				require.GreaterOrEqual(t, len(at), 2)
				require.GreaterOrEqual(t, at[1].Sub(at[0]), test.from)
				require.LessOrEqual(t, at[1].Sub(at[0]), test.to)
			})
		})
	}
}

// A server that says nothing of how long to wait, and 0 says nothing, is asked
// ever more rarely, as one that does not answer.
func TestRefusedWithoutAWait(t *testing.T) {
	for _, after := range []string{"", "0", "-1", "soon", "Thu, 01 Jan 1970 00:00:00 GMT"} {
		t.Run(after, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				defer r.serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Retry-After", after)
					w.WriteHeader(http.StatusServiceUnavailable)
				}))()
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				_, err := client.Dial(ctx, "ws://example.com/", r.options())
				require.ErrorIs(t, err, context.DeadlineExceeded)
				at := r.dials()
				require.Less(t, len(at), 400, "15 s apart on average")
				require.Greater(t, len(at), 120, "30 s at most")
				for i, dialed := range at[1:] {
					require.LessOrEqual(t, dialed.Sub(at[i]), min(30*time.Second, 2*time.Second<<min(i, 4)))
				}
			})
		})
	}
}

func TestOutboxIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		n := r.node(presence.Options{})
		o := r.options()
		o.Outbox, o.OutboxBytes = 3, 10
		c := r.client("/?user=ann", o)
		n.stop()
		time.Sleep(time.Second)
		require.ErrorIs(t, c.Write(t.Context(), websocket.MessageText, make([]byte, 11)), client.ErrFull)
		require.NoError(t, c.Write(t.Context(), websocket.MessageText, make([]byte, 8)))
		require.ErrorIs(t, c.Write(t.Context(), websocket.MessageText, []byte("abc")), client.ErrFull)
		for range 2 {
			require.NoError(t, c.Write(t.Context(), websocket.MessageText, []byte("a")))
		}
		require.ErrorIs(t, c.Write(t.Context(), websocket.MessageText, []byte("a")), client.ErrFull)
		require.NoError(t, c.Close())
		require.Error(t, c.Write(t.Context(), websocket.MessageText, []byte("a")))
	})
}
