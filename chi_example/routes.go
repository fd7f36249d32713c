package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
)

// identify believes the query, because this is a demo. A real app looks at its
// session cookie or token here and never at what the client claims.
func identify(r *http.Request) (presence.Identity, error) {
	q := r.URL.Query()
	id := presence.Identity{User: q.Get("user")}
	if topic := q.Get("topic"); topic != "" {
		id.Topics = []string{topic}
	}
	return id, nil
}

func routes(p *presence.Presence) http.Handler {
	a := api{p}
	r := chi.NewRouter()
	r.Use(middleware.Logger, middleware.Recoverer, middleware.Compress(5))
	r.Method(http.MethodGet, "/presence.js", p.ClientJS())
	r.Get("/events", a.events) // a stream outlives any Timeout
	r.Group(func(r chi.Router) {
		r.Use(middleware.Timeout(10 * time.Second)) // presence drops it for /ws
		r.Method(http.MethodGet, "/ws", p.Handler(serve))
		r.Get("/online", a.list)
		r.Get("/online/{user}", a.show)
		r.Delete("/online/{user}", a.kick)
		r.Get("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
		r.Get("/", page)
	})
	return r
}

// serve is the app's side of a WebSocket. This one lets its user set a status.
func serve(ctx context.Context, c *presence.Conn) error {
	for {
		var msg struct {
			Status *string `json:"status"`
		}
		kind, data, err := c.Read(ctx)
		if err != nil {
			return err
		}
		if kind != websocket.MessageText || json.Unmarshal(data, &msg) != nil || msg.Status == nil {
			continue
		}
		err = c.SetMeta(ctx, map[string]string{"status": *msg.Status})
		if errors.Is(err, presence.ErrLimit) {
			err = wsjson.Write(ctx, c.Conn, map[string]string{"error": "that status is too long"})
		}
		if err != nil {
			return err
		}
	}
}

// api answers who is online.
type api struct{ p *presence.Presence }

// list is GET /online?topic=T&limit=N&after=USER.
func (a api) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	limit := 100
	if v := q.Get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > 1000 {
			writeError(w, http.StatusBadRequest, "limit is a number from 1 to 1000")
			return
		}
		limit = n
	}
	counts, err := a.p.Count(r.Context(), q.Get("topic"))
	if err != nil {
		fail(w, err)
		return
	}
	answer := struct {
		Count   int               `json:"count"`
		Members []presence.Member `json:"members"`
		Next    string            `json:"next,omitempty"`
	}{Count: counts.Users, Members: []presence.Member{}}
	for m, err := range a.p.Members(r.Context(), q.Get("topic"), q.Get("after")) {
		if err != nil {
			fail(w, err)
			return
		}
		if len(answer.Members) == limit {
			answer.Next = answer.Members[limit-1].User
			break
		}
		answer.Members = append(answer.Members, m)
	}
	writeJSON(w, http.StatusOK, answer)
}

type sessionJSON struct {
	ID     string          `json:"id"`
	Node   string          `json:"node"`
	Local  bool            `json:"local"`
	Topics []string        `json:"topics"`
	Meta   json.RawMessage `json:"meta,omitempty"`
	Away   bool            `json:"away"`
	Since  time.Time       `json:"since"`
	Seen   time.Time       `json:"last_seen"`
	RTT    float64         `json:"rtt_ms,omitempty"`
}

// show is GET /online/{user}.
func (a api) show(w http.ResponseWriter, r *http.Request) {
	user, ok := userParam(w, r)
	if !ok {
		return
	}
	type userJSON struct {
		User     string        `json:"user"`
		Online   *bool         `json:"online"`
		State    string        `json:"state"`
		Away     bool          `json:"away"`
		Sessions []sessionJSON `json:"sessions"`
		LastSeen *time.Time    `json:"last_seen"`
		Partial  bool          `json:"partial,omitempty"` // other nodes may have more sessions
	}
	all, err := a.p.Lookup(r.Context(), user)
	if err != nil && !errors.Is(err, presence.ErrUnknown) {
		fail(w, err)
		return
	}
	st := all[0]
	if st.State == presence.Unknown {
		writeJSON(w, http.StatusServiceUnavailable, map[string]any{
			"user": user, "online": nil, "state": "unknown", "error": "it cannot be told now",
		})
		return
	}
	online := st.State != presence.Offline
	answer := userJSON{User: user, Online: &online, State: st.State.String(), Away: st.Away, Sessions: []sessionJSON{}}
	if !st.LastSeen.IsZero() {
		answer.LastSeen = &st.LastSeen
	}
	infos, err := a.p.Sessions(r.Context(), user)
	if err != nil && !errors.Is(err, presence.ErrUnknown) {
		fail(w, err)
		return
	}
	answer.Partial = err != nil
	for _, s := range infos {
		answer.Sessions = append(answer.Sessions, sessionJSON{
			s.ID, s.Node, s.Local, append([]string{}, s.Topics...), s.Meta, s.Away, s.Since, s.LastSeen,
			float64(s.RTT.Microseconds()) / 1000,
		})
	}
	writeJSON(w, http.StatusOK, answer)
}

// kick is DELETE /online/{user}.
func (a api) kick(w http.ResponseWriter, r *http.Request) {
	user, ok := userParam(w, r)
	if !ok {
		return
	}
	told, err := a.p.DisconnectUser(r.Context(), user, presence.Reason{Text: "kicked"})
	if err != nil {
		fail(w, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]int{"disconnected": told})
}

// userParam is the user of the path. chi matches the escaped path when there is
// one.
func userParam(w http.ResponseWriter, r *http.Request) (string, bool) {
	user := chi.URLParam(r, "user")
	if r.URL.RawPath != "" {
		var err error
		if user, err = url.PathUnescape(user); err != nil {
			writeError(w, http.StatusBadRequest, "the user's name is not escaped properly")
			return "", false
		}
	}
	return user, true
}

// fail answers with what an error of presence means to the one who asked.
func fail(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, presence.ErrUnknown):
		writeError(w, http.StatusServiceUnavailable, "it cannot be told now")
	case errors.Is(err, presence.ErrLimit):
		writeError(w, http.StatusBadRequest, "a name is too long or not valid")
	case errors.Is(err, presence.ErrTooLarge):
		writeError(w, http.StatusRequestEntityTooLarge, "the topic is too large to follow")
	case errors.Is(err, presence.ErrClosed):
		writeError(w, http.StatusServiceUnavailable, "shutting down")
	default:
		slog.Error("query failed", "error", err)
		writeError(w, http.StatusInternalServerError, http.StatusText(http.StatusInternalServerError))
	}
}

func writeError(w http.ResponseWriter, code int, text string) {
	writeJSON(w, code, map[string]string{"error": text})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}

//go:embed page.html
var pageHTML []byte

func page(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(pageHTML)
}
