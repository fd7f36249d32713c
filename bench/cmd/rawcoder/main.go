// rawcoder: net/http and github.com/coder/websocket, one ping-loop goroutine and one read loop per connection. With -echo every
// message, of up to 2 MiB, is sent back.
package main

import (
	"context"
	"flag"
	"net/http"
	"time"

	"github.com/a4cafe1a/presence/bench/srv"
	"github.com/coder/websocket"
)

var echo = flag.Bool("echo", false, "send every message back")

func pingLoop(ctx context.Context, cancel func(), c *websocket.Conn) {
	t := time.NewTicker(*srv.Interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		pctx, stop := context.WithTimeout(ctx, *srv.Timeout-*srv.Interval)
		err := c.Ping(pctx)
		stop()
		if err != nil {
			c.CloseNow()
			cancel()
			return
		}
	}
}

func main() {
	srv.Start()
	srv.Serve(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		go pingLoop(ctx, cancel, c)
		if *echo {
			c.SetReadLimit(2 << 20)
		}
		for {
			t, b, err := c.Read(ctx)
			if err == nil && *echo {
				err = c.Write(ctx, t, b)
			}
			if err != nil {
				return
			}
		}
	})
}
