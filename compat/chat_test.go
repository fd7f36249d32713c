package compat

import (
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"
)

// A chat is shaped like gorilla's example of that name: the handler starts two goroutines and returns; the hub sends what one client says to
// all; deadlines on both directions; pings of its own, whose pongs push the read deadline on.
type chat struct {
	pongWait, pingPeriod, writeWait time.Duration
	ping                            []byte // the payload of its pings; empty in the example

	mu      sync.Mutex
	clients map[*chatClient]bool
	pongs   int
	errs    []error
}

type chatClient struct {
	hub  *chat
	conn *websocket.Conn
	send chan []byte
}

func (h *chat) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	upgrader := websocket.Upgrader{ReadBufferSize: 1024, WriteBufferSize: 1024}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	c := &chatClient{hub: h, conn: conn, send: make(chan []byte, 256)}
	h.mu.Lock()
	if h.clients == nil {
		h.clients = map[*chatClient]bool{}
	}
	h.clients[c] = true
	h.mu.Unlock()
	go c.writePump()
	go c.readPump()
}

func (c *chatClient) readPump() {
	defer func() {
		c.hub.mu.Lock()
		delete(c.hub.clients, c)
		close(c.send)
		c.hub.mu.Unlock()
		_ = c.conn.Close()
	}()
	_ = c.conn.SetReadDeadline(time.Now().Add(c.hub.pongWait))
	c.conn.SetPongHandler(func(string) error {
		c.hub.mu.Lock()
		c.hub.pongs++
		c.hub.mu.Unlock()
		return c.conn.SetReadDeadline(time.Now().Add(c.hub.pongWait))
	})
	for {
		_, message, err := c.conn.ReadMessage()
		c.hub.mu.Lock()
		if err != nil {
			c.hub.errs = append(c.hub.errs, err)
			c.hub.mu.Unlock()
			return
		}
		for other := range c.hub.clients {
			other.send <- message
		}
		c.hub.mu.Unlock()
	}
}

func (c *chatClient) writePump() {
	ticker := time.NewTicker(c.hub.pingPeriod)
	defer func() {
		ticker.Stop()
		_ = c.conn.Close()
	}()
	for {
		select {
		case message, ok := <-c.send:
			_ = c.conn.SetWriteDeadline(time.Now().Add(c.hub.writeWait))
			if !ok {
				_ = c.conn.WriteMessage(websocket.CloseMessage, []byte{})
				return
			}
			w, err := c.conn.NextWriter(websocket.TextMessage)
			if err != nil {
				return
			}
			_, _ = w.Write(message)
			if err := w.Close(); err != nil {
				return
			}
		case <-ticker.C:
			_ = c.conn.SetWriteDeadline(time.Now().Add(c.hub.writeWait))
			if err := c.conn.WriteMessage(websocket.PingMessage, c.hub.ping); err != nil {
				return
			}
		}
	}
}

func (h *chat) seen() (pongs int, errs []error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pongs, append([]error(nil), h.errs...)
}

// A session lives on after ServeHTTP has returned, and ends with its connection.
func TestChat(t *testing.T) {
	t.Parallel()
	for _, w := range ways {
		t.Run(w.String(), func(t *testing.T) {
			t.Parallel()
			h, wit := &chat{pongWait: time.Minute, pingPeriod: 54 * time.Second, writeWait: 10 * time.Second}, &witness{}
			r := newRig(t, w, wit.serve(h))
			ann, bob := r.connect(t, "ann"), r.connect(t, "bob")
			eventually(t, func() bool { return wit.handlersReturned() == 2 }, "both handlers return")
			ann.beats(3)
			bob.beats(3)
			for range 3 {
				ann.text("hello, all")
				require.Equal(t, "hello, all", string(ann.receive().data))
				require.Equal(t, "hello, all", string(bob.receive().data))
				bob.beats(2)
			}
			require.Equal(t, 1, r.sessions("ann"))
			require.Equal(t, 1, r.sessions("bob"))
			bob.close(1001, "")
			end := r.end("bob")
			require.Equal(t, presence.CauseClientClosed, end.Cause)
			require.Equal(t, 1001, end.Code)
			ann.text("who is left?")
			require.Equal(t, "who is left?", string(ann.receive().data))
			require.Equal(t, 1, r.sessions("ann"))
			pongs, _ := h.seen()
			require.Zero(t, pongs, "pongs to heartbeats are not for the app")
		})
	}
}

// The library's own pings and deadlines mean what they mean without us.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	rare := func(o *presence.Options) { o.HeartbeatInterval, o.HeartbeatTimeout = time.Minute, 2*time.Minute }
	// The clients answer within milliseconds; what is shorter than that here are only the things that are meant to run out.
	long := 5 * time.Second
	for _, w := range direct {
		t.Run(w.String(), func(t *testing.T) {
			t.Parallel()
			t.Run("its pongs arrive", func(t *testing.T) {
				t.Parallel()
				h := &chat{pongWait: long, pingPeriod: 20 * time.Millisecond, writeWait: long}
				r := newRig(t, w, h, rare)
				r.connect(t, "ann")
				eventually(t, func() bool { n, _ := h.seen(); return n >= 50 }, "its pongs arrive")
				require.Equal(t, 1, r.sessions("ann"))
			})
			t.Run("its pongs arrive between heartbeats", func(t *testing.T) {
				t.Parallel()
				h := &chat{pongWait: long, pingPeriod: 25 * time.Millisecond, writeWait: long}
				r := newRig(t, w, h)
				ann := r.connect(t, "ann")
				eventually(t, func() bool { n, _ := h.seen(); return n >= 50 }, "its pongs arrive")
				ann.text("hello")
				require.Equal(t, "hello", string(ann.receive().data))
			})
			t.Run("its read deadline runs out though heartbeats are answered", func(t *testing.T) {
				t.Parallel()
				h := &chat{pongWait: 300 * time.Millisecond, pingPeriod: 50 * time.Millisecond, writeWait: long, ping: []byte("app")}
				r := newRig(t, w, h)
				ann := r.connect(t, "ann", func(c *client) { c.unheard = func(p string) bool { return p == "app" } })
				ann.ended()
				require.Equal(t, presence.CauseAppClosed, r.end("ann").Cause)
				_, errs := h.seen()
				require.Len(t, errs, 1)
				var timeout net.Error
				require.True(t, errors.As(errs[0], &timeout) && timeout.Timeout(), "a timeout, as without us, not %v", errs[0])
			})
			t.Run("an expired write deadline stops no heartbeat", func(t *testing.T) {
				t.Parallel()
				h := &chat{pongWait: time.Minute, pingPeriod: time.Minute, writeWait: 150 * time.Millisecond}
				r := newRig(t, w, h)
				ann := r.connect(t, "ann")
				for range 3 {
					ann.text("hello")
					require.Equal(t, "hello", string(ann.receive().data))
					start := time.Now()
					eventually(t, func() bool { return time.Since(start) > 2*h.writeWait }, "time goes on")
					ann.beats(5)
				}
				require.Equal(t, 1, r.sessions("ann"))
			})
		})
	}
}

// Melody pings on its own, with empty pings, and hangs up when their pongs stay away.
func TestMelodyPings(t *testing.T) {
	t.Parallel()
	for _, w := range direct {
		t.Run(w.String(), func(t *testing.T) {
			t.Parallel()
			wit := &witness{}
			r := newRig(t, w, melodyApp(wit, settings{pingPeriod: 25 * time.Millisecond, pongWait: 5 * time.Second}))
			ann := r.connect(t, "ann")
			eventually(t, func() bool { _, _, pongs := wit.seen(); return len(pongs) >= 50 }, "its pongs arrive between heartbeats")
			ann.text("hello")
			require.Equal(t, "hello", string(ann.receive().data))
			require.Equal(t, 1, r.sessions("ann"))
		})
	}
}
