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
	// events writes the n-th stream, from 1, and ends it by returning.
	events func(ctx context.Context, send func(kind string, v any), n int)

	mu    sync.Mutex
	dials map[string]int // by user
	asked map[string]int // GET /online/{user}
}

func newFake(t *testing.T) *fake {
	f := &fake{ws: stay, dials: map[string]int{}, asked: map[string]int{}}
	f.events = func(ctx context.Context, send func(string, any), _ int) {
		send("snapshot", snapshot())
		<-ctx.Done()
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, filepath.Join(root, "chi_example", "page.html"))
	})
	mux.HandleFunc("GET /ws", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		user := r.URL.Query().Get("user")
		f.ws(r.Context(), c, user, f.count(f.dials, user))
	})
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		f.events(r.Context(), func(kind string, v any) {
			data, _ := json.Marshal(v)
			fmt.Fprintf(w, "event: %s\ndata: %s\n\n", kind, data)
			_ = http.NewResponseController(w).Flush()
		}, f.count(f.dials, "events"))
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
	return map[string]any{"user": user, "state": "online", "away": away, "sessions": 1, "since": time.Now()}
}

func snapshot(members ...map[string]any) map[string]any {
	return map[string]any{"at": time.Now(), "members": append([]map[string]any{}, members...)}
}

func change(member map[string]any) map[string]any {
	return map[string]any{"at": time.Now(), "member": member}
}

// stay reads, and answers empty messages, until the client goes.
func stay(ctx context.Context, c *websocket.Conn, _ string, _ int) {
	for {
		_, msg, err := c.Read(ctx)
		if err != nil {
			return
		}
		if len(msg) == 0 && c.Write(ctx, websocket.MessageText, nil) != nil {
			return
		}
	}
}
