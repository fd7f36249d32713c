// presence: this package with default options, apart from interval and timeout.
package main

import (
	"context"
	"flag"
	"log"
	"net/http"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/bench/srv"
)

var style = flag.String("style", "parked", "parked: Callback(nil); blocking: Handler with a read loop")

func main() {
	srv.Start()
	p, err := presence.New(presence.Options{
		HeartbeatInterval: *srv.Interval,
		HeartbeatTimeout:  *srv.Timeout,
		Identify: func(r *http.Request) (presence.Identity, error) {
			return presence.Identity{User: r.URL.Query().Get("user")}, nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	handler := p.Callback(nil)
	if *style == "blocking" {
		handler = p.Handler(func(ctx context.Context, c *presence.Conn) error {
			for {
				if _, _, err := c.Read(ctx); err != nil {
					return err
				}
			}
		})
	}
	srv.Serve(handler.ServeHTTP)
}
