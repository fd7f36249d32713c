// gws: lxzan/gws as in its README (go socket.ReadLoop(), the CLIENT pings, OnPing moves the
// deadline and answers); with -serverping one shared wheel pings and OnPong moves the deadline.
package main

import (
	"flag"
	"net/http"
	"time"

	"github.com/a4cafe1a/presence/bench/srv"
	"github.com/lxzan/gws"
)

var serverPing = flag.Bool("serverping", false, "the server pings, from one shared wheel")

type handler struct{ w *srv.Wheel[*gws.Conn] }

func (h *handler) alive(c *gws.Conn) { _ = c.SetDeadline(time.Now().Add(*srv.Timeout)) }
func (h *handler) OnOpen(c *gws.Conn) {
	h.alive(c)
	if h.w != nil {
		h.w.Add(c)
	}
}
func (h *handler) OnClose(c *gws.Conn, err error) {
	if h.w != nil {
		h.w.Del(c)
	}
}
func (h *handler) OnPing(c *gws.Conn, p []byte)          { h.alive(c); _ = c.WritePong(nil) }
func (h *handler) OnPong(c *gws.Conn, p []byte)          { h.alive(c) }
func (h *handler) OnMessage(c *gws.Conn, m *gws.Message) { m.Close() }

func main() {
	srv.Start()
	h := &handler{}
	if *serverPing {
		h.w = srv.NewWheel(func(c *gws.Conn) { c.WritePing(nil) })
	}
	up := gws.NewUpgrader(h, &gws.ServerOption{ParallelEnabled: true, Recovery: gws.Recovery})
	srv.Serve(func(w http.ResponseWriter, r *http.Request) {
		c, err := up.Upgrade(w, r)
		if err != nil {
			return
		}
		go c.ReadLoop()
	})
}
