// presence: this package with default options, apart from interval and timeout. With -echo it sends every message,
// of up to 2 MiB, back.
package main

import (
	"context"
	"flag"
	"net/http"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/bench/srv"
)

var (
	style    = flag.String("style", "parked", "parked: Callback(nil); blocking: Handler with a read loop")
	echo     = flag.Bool("echo", false, "Handler that sends every message back")
	sessions = flag.Int("sessions", 0, "Limits.Sessions; 0: the default, nine tenths of the open files")
)

func main() {
	srv.Start()
	p, err := presence.New(presence.Options{
		HeartbeatInterval: *srv.Interval,
		HeartbeatTimeout:  *srv.Timeout,
		Limits:            presence.Limits{Sessions: *sessions},
		Identify: func(r *http.Request) (presence.Identity, error) {
			return presence.Identity{User: r.URL.Query().Get("user")}, nil
		},
	})
	srv.Check(err)
	handler := p.Callback(nil)
	switch {
	case *echo:
		handler = p.At(presence.Route{ReadLimit: 2 << 20}).Handler(func(ctx context.Context, c *presence.Conn) error {
			for {
				t, b, err := c.Read(ctx)
				if err == nil {
					err = c.Write(ctx, t, b)
				}
				if err != nil {
					return err
				}
			}
		})
	case *style == "blocking":
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
