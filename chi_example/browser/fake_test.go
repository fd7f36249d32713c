package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// fake serves the page with the example's routes, and does what the example
// never or rarely does.
type fake struct {
	url string

	// ws is a connection's life, the n-th of its user, from 1.
	ws func(ctx context.Context, c *websocket.Conn, user string, n int)
	// room tells who is there after the n-th follow, from 1, and ends the connection by returning.
	room func(ctx context.Context, r *room, n int)
	// interval is the heartbeats', as the welcome tells it.
	interval time.Duration

	mu    sync.Mutex
	dials map[string]int // by user
	asked map[string]int // GET /online/{user}
}

func newFake(t *testing.T) *fake {
	f := &fake{interval: 25 * time.Second, dials: map[string]int{}, asked: map[string]int{}}
	f.ws = f.stay
	f.room = func(ctx context.Context, r *room, _ int) {
		r.snapshot()
		<-ctx.Done()
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, filepath.Join(root, "chi_example", "page.html"))
	})
	mux.HandleFunc("GET /ws", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"presence.v1"}})
		if err != nil {
			return
		}
		defer c.CloseNow()
		user := r.URL.Query().Get("user")
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		f.ws(ctx, c, user, f.count(f.dials, user))
	})
	mux.HandleFunc("GET /presence.js", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, filepath.Join(root, "client", "js", "presence.js"))
	})
	mux.HandleFunc("GET /online/{user}", func(w http.ResponseWriter, r *http.Request) {
		f.count(f.asked, r.PathValue("user"))
		fmt.Fprint(w, `{"sessions":[]}`)
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	t.Cleanup(srv.CloseClientConnections)
	f.url = srv.URL
	return f
}

func (f *fake) count(of map[string]int, user string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	of[user]++
	return of[user]
}

func (f *fake) counted(of map[string]int, user string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return of[user]
}

func member(user string, away bool) map[string]any {
	return map[string]any{"user": user, "state": "online", "away": away, "sessions": 1, "since": time.Now().UnixMilli()}
}

// room is what a connection is told of the topic it follows.
type room struct {
	tell    func(v map[string]any)
	topic   string
	version int
}

func (r *room) snapshot(members ...map[string]any) {
	const most = 100 // in a message
	r.version++
	for first := true; first || len(members) > 0; first = false {
		n := min(most, len(members))
		r.tell(map[string]any{
			"t": "snapshot", "topic": r.topic, "version": r.version,
			"first": first, "more": n < len(members), "members": append([]map[string]any{}, members[:n]...),
		})
		members = members[n:]
	}
}

func (r *room) change(kind string, member map[string]any) {
	r.version++
	r.tell(map[string]any{
		"t": "delta", "topic": r.topic, "version": r.version,
		"changes": []any{map[string]any{"k": kind, "member": member}},
	})
}

func (r *room) count(users, sessions int) {
	r.version++
	r.tell(map[string]any{"t": "count", "topic": r.topic, "version": r.version, "users": users, "sessions": sessions})
}

// stay is the server's side of presence.v1 until the client goes: it answers, and beats.
func (f *fake) stay(ctx context.Context, c *websocket.Conn, user string, _ int) {
	tell := func(v map[string]any) {
		data, _ := json.Marshal(v)
		_ = c.Write(ctx, websocket.MessageText, append([]byte{1}, data...))
	}
	tell(f.welcome(user))
	go func() {
		for beat := time.Tick(f.interval / 2); ; {
			select {
			case <-beat:
				_ = c.Write(ctx, websocket.MessageText, nil)
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		_, msg, err := c.Read(ctx)
		if err != nil {
			return
		}
		var ask struct {
			T, Topic string
			ID       int
		}
		switch {
		case len(msg) == 0:
			_ = c.Write(ctx, websocket.MessageText, nil)
		case msg[0] == 1 && json.Unmarshal(msg[1:], &ask) == nil:
			tell(map[string]any{"t": "ok", "id": ask.ID})
			if ask.T != "follow" {
				continue
			}
			go func() {
				f.room(ctx, &room{tell: tell, topic: ask.Topic}, f.count(f.dials, "follow"))
				_ = c.CloseNow()
			}()
		}
	}
}

func (f *fake) welcome(user string) map[string]any {
	return map[string]any{"t": "welcome", "v": 1, "user": user, "session": "1", "interval": f.interval.Milliseconds()}
}
