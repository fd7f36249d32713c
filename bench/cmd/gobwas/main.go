// gobwas: gobwas/ws under net/http as in its README, one goroutine per connection that reads frames into its own small buffer;
// pings from one shared wheel, a read deadline moved by every pong.
package main

import (
	"io"
	"net"
	"net/http"
	"time"

	"github.com/a4cafe1a/presence/bench/srv"
	"github.com/gobwas/ws"
)

var ping = ws.MustCompileFrame(ws.NewPingFrame(nil))

func main() {
	srv.Start()
	wheel := srv.NewWheel(func(c net.Conn) { _, _ = c.Write(ping) })
	srv.Serve(func(w http.ResponseWriter, r *http.Request) {
		c, _, _, err := ws.UpgradeHTTP(r, w)
		if err != nil {
			return
		}
		wheel.Add(c)
		go read(c, wheel)
	})
}

func read(c net.Conn, wheel *srv.Wheel[net.Conn]) {
	defer func() { wheel.Del(c); _ = c.Close() }()
	for {
		_ = c.SetReadDeadline(time.Now().Add(*srv.Timeout))
		h, err := ws.ReadHeader(c)
		if err != nil || h.OpCode == ws.OpClose {
			return
		}
		if _, err := io.CopyN(io.Discard, c, h.Length); err != nil {
			return
		}
	}
}
