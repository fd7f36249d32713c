// centrifuge: centrifugal/centrifuge, JSON over WebSocket, memory presence on one personal
// channel per connection (server-side subscription), app-level ping and pong.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"

	"github.com/a4cafe1a/presence/bench/srv"
	"github.com/centrifugal/centrifuge"
)

func main() {
	srv.Start()
	node, err := centrifuge.New(centrifuge.Config{LogLevel: centrifuge.LogLevelNone})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var seq atomic.Int64
	node.OnConnecting(func(ctx context.Context, e centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		id := strconv.FormatInt(seq.Add(1), 10)
		return centrifuge.ConnectReply{
			Credentials:   &centrifuge.Credentials{UserID: id},
			Subscriptions: map[string]centrifuge.SubscribeOptions{"personal:#" + id: {EmitPresence: true}},
		}, nil
	})
	node.OnConnect(func(c *centrifuge.Client) {})
	if err := node.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	h := centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{
		ReadBufferSize: 1024, UseWriteBufferPool: true,
		PingPongConfig: centrifuge.PingPongConfig{PingInterval: *srv.Interval, PongTimeout: *srv.Timeout - *srv.Interval},
	})
	srv.Serve(h.ServeHTTP)
}
