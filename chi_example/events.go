package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/a4cafe1a/presence"
)

const (
	// A comment often enough that no proxy takes the stream for dead.
	keepAlive = 25 * time.Second
	// A reader that takes nothing for so long is cut off.
	writeWait = 10 * time.Second
	// How long a new reader waits for its snapshot.
	subscribeWait = 5 * time.Second
)

// events is GET /events?topic=T: server-sent events named snapshot, join,
// leave and update.
func (a api) events(w http.ResponseWriter, r *http.Request) {
	// While the store is away Subscribe waits; a reader rather asks again.
	ctx, cancel := context.WithTimeout(r.Context(), subscribeWait)
	sub, err := a.p.Subscribe(ctx, r.URL.Query().Get("topic"))
	cancel()
	if err != nil {
		fail(w, err)
		return
	}
	defer sub.Close()
	out := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no")
	for {
		ctx, cancel := context.WithTimeout(r.Context(), keepAlive)
		e, err := sub.Next(ctx)
		cancel()
		text := ": still here\n\n"
		switch {
		case err == nil:
			text = format(e)
		case errors.Is(err, context.DeadlineExceeded) && r.Context().Err() == nil:
		default:
			return // the reader has gone, or the server goes
		}
		_ = out.SetWriteDeadline(time.Now().Add(writeWait))
		if _, err := fmt.Fprint(w, text); err != nil {
			return
		}
		if err := out.Flush(); err != nil {
			return
		}
	}
}

// format writes an event as the HTML standard's event stream wants it.
func format(e presence.Event) string {
	data, err := json.Marshal(e)
	if err != nil {
		return ": an event could not be encoded\n\n"
	}
	return fmt.Sprintf("event: %s\ndata: %s\n\n", e.Kind, data)
}
