// An echo app on http.ServeMux and nhooyr.io/websocket, as many were written,
// with presence wrapped around it: see the line marked "one line".
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/a4cafe1a/presence"
	"nhooyr.io/websocket" // deprecated, and what this example is about: apps that still import it
)

// echo is the app from before. It knows nothing of heartbeats.
func echo(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered
	}
	defer c.CloseNow()
	for {
		kind, message, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if err := c.Write(r.Context(), kind, message); err != nil {
			return
		}
	}
}

func healthz(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }

// online answers who is there.
func online(p *presence.Presence) http.HandlerFunc {
	type member struct {
		User     string    `json:"user"`
		Sessions int       `json:"sessions"`
		Since    time.Time `json:"since"`
	}
	return func(w http.ResponseWriter, r *http.Request) {
		counts, err := p.Count(r.Context(), "")
		members := []member{}
		for m, e := range p.Members(r.Context(), "", "") {
			if err = cmp.Or(err, e); err != nil || len(members) == 1000 {
				break
			}
			members = append(members, member{m.User, m.Sessions, m.Since})
		}
		if err != nil {
			slog.Error("who is online", "error", err)
			http.Error(w, "cannot be told now", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"count": counts.Users, "members": members})
	}
}

// identify believes the query, because this is a demo. A real app looks at its
// session cookie or token here.
func identify(r *http.Request) (presence.Identity, error) {
	if r.URL.Path != "/ws" {
		return presence.Identity{}, presence.ErrUntracked
	}
	return presence.Identity{User: r.URL.Query().Get("user")}, nil
}

func main() {
	addr := flag.String("addr", ":8080", "address to listen on")
	interval := flag.Duration("interval", 25*time.Second, "heartbeat after so long without a byte")
	timeout := flag.Duration("timeout", 55*time.Second, "give up after so long without a byte")
	grace := flag.Duration("grace", 5*time.Second, "keep a user for so long after the last session was lost; 0: not at all")
	flag.Parse()
	if err := run(*addr, *interval, *timeout, *grace); err != nil {
		slog.Error(err.Error())
		os.Exit(1)
	}
}

func run(addr string, interval, timeout, grace time.Duration) error {
	if grace == 0 {
		grace = -1
	}
	p, err := presence.New(presence.Options{
		Identify:          identify,
		HeartbeatInterval: interval,
		HeartbeatTimeout:  timeout,
		LeaveGrace:        grace,
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
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ws", echo)
	mux.HandleFunc("GET /online", online(p))
	mux.HandleFunc("GET /healthz", healthz)

	srv := &http.Server{
		Handler:           p.Middleware(mux), // one line
		ReadHeaderTimeout: 10 * time.Second,
	}
	ln, err := net.Listen("tcp", addr)
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
	ctx, done := context.WithTimeout(context.Background(), 10*time.Second)
	defer done()
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
