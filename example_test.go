package presence_test

import (
	"context"
	"encoding/json"
	"errors"
	"expvar"
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/coder/websocket"
)

// Refuse with a status, or say who it is and what is shown of it.
func ExampleOptions_identify() {
	_, _ = presence.New(presence.Options{
		Identify: func(r *http.Request) (presence.Identity, error) {
			cookie, err := r.Cookie("session")
			if errors.Is(err, http.ErrNoCookie) {
				return presence.Identity{}, presence.ErrUnauthorized
			}
			return presence.Identity{
				User:    cookie.Value,
				Topics:  []string{"room:" + r.URL.Query().Get("room")},
				Expires: time.Now().Add(time.Hour),
			}, nil
		},
		OnDisconnect: func(s *presence.Session, e presence.End) {
			log.Printf("%s is gone: %s after %v of silence", s.User(), e.Cause, e.Quiet)
		},
	})
}

// Wrap an app that upgrades with a library of its own.
func ExamplePresence_Middleware() {
	p, err := presence.New(presence.Options{})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux() // with the app's handlers
	log.Fatal(http.ListenAndServe(":8080", p.Middleware(mux)))
}

// A presence-only endpoint: nothing to read, nothing to write.
func ExamplePresence_Callback() {
	p, err := presence.New(presence.Options{})
	if err != nil {
		log.Fatal(err)
	}
	http.Handle("GET /viewing/{document}", p.Callback(func(r *http.Request, c *presence.Peer) (presence.Callbacks, error) {
		err := c.Join(r.Context(), "document:"+r.PathValue("document"))
		return presence.Callbacks{
			Message: func(ctx context.Context, t websocket.MessageType, b []byte) error {
				return c.Send(t, b)
			},
		}, err
	}))
}

// A line protocol over TCP: any byte is a sign of life.
func ExamplePresence_Attach() {
	p, err := presence.New(presence.Options{HeartbeatTimeout: 55 * time.Second})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:2347")
	if err != nil {
		log.Fatal(err)
	}
	for {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			conn, s, err := p.Attach(context.Background(), nc, func(nc net.Conn) (presence.Identity, error) {
				var user string
				_, err := fmt.Fscanln(nc, &user)
				return presence.Identity{User: user}, err
			})
			if err != nil {
				return
			}
			defer conn.Close()
			fmt.Fprintf(conn, "hello %s\n", s.User())
		}()
	}
}

// Health for a load balancer, figures for a monitor. A store that is away is so
// for all nodes: to take them all out of service would help nobody.
func ExamplePresence_Stats() {
	p, err := presence.New(presence.Options{})
	if err != nil {
		log.Fatal(err)
	}
	expvar.Publish("presence", expvar.Func(func() any { return p.Stats() })) // at /debug/vars
	http.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		st := p.Stats()
		w.Header().Set("Content-Type", "application/json")
		if st.Sessions >= st.MaxSessions {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(st)
	})
}

// Follow who comes and goes.
func ExamplePresence_Subscribe() {
	p, err := presence.New(presence.Options{})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	sub, err := p.Subscribe(ctx, "room:42")
	if err != nil {
		log.Fatal(err)
	}
	defer sub.Close()
	for e, err := range sub.All(ctx) {
		if err != nil {
			return
		}
		switch e.Kind {
		case presence.Snapshot:
			log.Printf("%d are here", len(e.Members))
		case presence.Join:
			log.Printf("%s came", e.Member.User)
		case presence.Leave:
			log.Printf("%s left: %s", e.Member.User, e.Cause)
		}
	}
}
