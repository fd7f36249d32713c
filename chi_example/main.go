// Who's online, on a chi router: a page, a WebSocket, and an API to ask.
package main

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/a4cafe1a/presence"
)

type config struct {
	addr                     string
	interval, timeout, grace time.Duration
	away                     time.Duration
	redis, node              string
	lease                    time.Duration
}

func main() {
	var c config
	flag.StringVar(&c.addr, "addr", ":8080", "address to listen on")
	flag.DurationVar(&c.interval, "interval", 25*time.Second, "heartbeat after so long without a byte")
	flag.DurationVar(&c.timeout, "timeout", 55*time.Second, "give up after so long without a byte")
	flag.DurationVar(&c.grace, "grace", 5*time.Second, "keep a user for so long after the last session was lost; 0: not at all")
	flag.StringVar(&c.redis, "redis", "", "join the cluster in this Redis, as redis://host:port/0; empty: this process alone")
	flag.StringVar(&c.node, "node", "", "name of this node, shown on the page")
	flag.DurationVar(&c.lease, "lease", 10*time.Second, "with -redis: a node not heard of for so long is dead; the same on all nodes")
	flag.DurationVar(&c.away, "away", 5*time.Minute, "show a user as away after so long without a message")
	flag.Parse()
	if err := run(c); err != nil {
		slog.Error(err.Error())
		os.Exit(1)
	}
}

func run(c config) error {
	if c.grace == 0 {
		c.grace = -1 // in Options, 0 is the default
	}
	s, closeStore, err := openStore(c.redis, c.lease)
	if err != nil {
		return err
	}
	defer closeStore()
	p, err := presence.New(presence.Options{
		Store:             s,
		NodeName:          c.node,
		Identify:          identify,
		Authorize:         func(*presence.Session, presence.Ask) error { return nil }, // a demo: all may see and join all
		HeartbeatInterval: c.interval,
		HeartbeatTimeout:  c.timeout,
		LeaveGrace:        c.grace,
		AwayAfter:         c.away,
		Logger:            slog.Default(),
		OnConnect: func(s *presence.Session) {
			slog.Info("connected", "user", s.User(), "session", s.ID())
		},
		OnDisconnect: func(s *presence.Session, e presence.End) {
			slog.Info("disconnected", "user", s.User(), "session", s.ID(),
				"cause", string(e.Cause), "code", e.Code, "quiet", e.Quiet.Round(time.Millisecond))
		},
	})
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: routes(p), ReadHeaderTimeout: 10 * time.Second}
	ln, err := net.Listen("tcp", c.addr)
	if err != nil {
		return err
	}
	slog.Info("serving", "url", "http://"+visible(ln.Addr().String()))
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()

	stop, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	select {
	case err := <-failed:
		return err
	case <-stop.Done():
	}
	cancel() // a second Ctrl-C ends the process
	slog.Info("shutting down")
	ctx, done := context.WithTimeout(context.Background(), 10*time.Second)
	defer done()
	// In this order: http.Server.Shutdown neither closes nor awaits WebSockets,
	// and it waits for event streams, which end with p.Shutdown.
	return errors.Join(p.Shutdown(ctx), srv.Shutdown(ctx))
}

// visible makes an address that a browser takes.
func visible(addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
