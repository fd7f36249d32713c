// gorilla: the shape of gorilla's chat example: readPump and writePump, a ticker and a
// send channel of 256 per connection, buffers of 1024.
package main

import (
	"flag"
	"net/http"
	"time"

	"github.com/a4cafe1a/presence/bench/srv"
	"github.com/gorilla/websocket"
)

var upgrader = websocket.Upgrader{ReadBufferSize: 1024, WriteBufferSize: 1024}
var sendBuf = flag.Int("sendbuf", 256, "send channel length (chat example: 256)")

type hub struct {
	clients              map[*client]bool
	register, unregister chan *client
	broadcast            chan []byte
}
type client struct {
	hub  *hub
	conn *websocket.Conn
	send chan []byte
}

func (h *hub) run() {
	for {
		select {
		case c := <-h.register:
			h.clients[c] = true
		case c := <-h.unregister:
			if h.clients[c] {
				delete(h.clients, c)
				close(c.send)
			}
		case <-h.broadcast:
		}
	}
}

func (c *client) readPump() {
	defer func() { c.hub.unregister <- c; c.conn.Close() }()
	c.conn.SetReadLimit(512)
	c.conn.SetReadDeadline(time.Now().Add(*srv.Timeout))
	c.conn.SetPongHandler(func(string) error {
		c.conn.SetReadDeadline(time.Now().Add(*srv.Timeout))
		return nil
	})
	for {
		_, m, err := c.conn.ReadMessage()
		if err != nil {
			return
		}
		c.hub.broadcast <- m
	}
}

func (c *client) writePump() {
	t := time.NewTicker(*srv.Interval)
	defer func() { t.Stop(); c.conn.Close() }()
	for {
		select {
		case m, ok := <-c.send:
			c.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
			if !ok {
				c.conn.WriteMessage(websocket.CloseMessage, nil)
				return
			}
			if c.conn.WriteMessage(websocket.TextMessage, m) != nil {
				return
			}
		case <-t.C:
			c.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
			if c.conn.WriteMessage(websocket.PingMessage, nil) != nil {
				return
			}
		}
	}
}

func main() {
	srv.Start()
	h := &hub{map[*client]bool{}, make(chan *client), make(chan *client), make(chan []byte)}
	go h.run()
	srv.Serve(func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		c := &client{h, conn, make(chan []byte, *sendBuf)}
		h.register <- c
		go c.writePump()
		go c.readPump()
	})
}
