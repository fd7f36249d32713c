// nbio: lesismal/nbio nbhttp engine, IOModNonBlocking (epoll, no goroutine per connection),
// KeepaliveTime as the timeout, pings from one shared wheel.
package main

import (
	"fmt"
	"net/http"
	"os"

	"github.com/a4cafe1a/presence/bench/srv"
	"github.com/lesismal/nbio/logging"
	"github.com/lesismal/nbio/nbhttp"
	"github.com/lesismal/nbio/nbhttp/websocket"
)

func main() {
	srv.Start()
	logging.SetLevel(logging.LevelNone)
	wheel := srv.NewWheel(func(c *websocket.Conn) { c.WriteMessage(websocket.PingMessage, nil) })
	up := websocket.NewUpgrader()
	up.KeepaliveTime = *srv.Timeout
	up.OnOpen(func(c *websocket.Conn) { wheel.Add(c) })
	up.OnMessage(func(c *websocket.Conn, t websocket.MessageType, b []byte) {})
	up.OnClose(func(c *websocket.Conn, err error) { wheel.Del(c) })
	mux := &http.ServeMux{}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { up.Upgrade(w, r, nil) })
	e := nbhttp.NewEngine(nbhttp.Config{
		Network: "tcp", Addrs: []string{*srv.Addr}, MaxLoad: 1000000,
		ReleaseWebsocketPayload: true, Handler: mux, IOMod: nbhttp.IOModNonBlocking,
	})
	if err := e.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	select {}
}
