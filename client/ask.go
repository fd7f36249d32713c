package client

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/coder/websocket"
)

// request is a message to the server, but for its mark and id.
type request map[string]any

// asking is a request without an answer.
type asking struct {
	answer  chan error
	follows *Topic // nil: it is no follow
}

// ask makes one request on the connection there is, and waits for the answer.
// compose is called with the lock held; nil: there is nothing to ask any more.
func (w *wired) ask(ctx context.Context, compose func() request) error {
	select {
	case w.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	w.mu.Lock()
	ws, foreign, m := w.ws, w.foreign, compose()
	if ws == nil || m == nil {
		w.mu.Unlock()
		<-w.turn
		switch {
		case m == nil:
			return ErrReplaced
		case foreign:
			return ErrNoPresence
		}
		return errDown
	}
	w.lastID++
	m["id"] = w.lastID
	id, answer := w.lastID, make(chan error, 1)
	q := asking{answer: answer}
	if m["t"] == "follow" {
		q.follows = w.topics[m["topic"].(string)]
	}
	w.asked[id] = q
	w.mu.Unlock()
	data, err := json.Marshal(m)
	if err == nil {
		err = ws.Write(ctx, websocket.MessageText, append([]byte{mark}, data...))
	}
	<-w.turn
	if err != nil {
		w.mu.Lock()
		delete(w.asked, id)
		w.mu.Unlock()
		return err
	}
	select {
	case err = <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// passes says that the server will give another answer later.
func passes(err error) bool {
	var no *RequestError
	return errors.As(err, &no) && (no.Code == "rate" || no.Code == "unavailable")
}

// persist asks until there is an answer, over reconnects.
func (w *wired) persist(ctx context.Context, compose func() request) error {
	for {
		w.mu.Lock()
		up := w.up
		w.mu.Unlock()
		select {
		case <-up:
		case <-w.c.ctx.Done():
			return context.Cause(w.c.ctx)
		case <-ctx.Done():
			return ctx.Err()
		}
		err := w.ask(ctx, compose)
		var refused *RequestError
		if err == nil || errors.Is(err, ErrReplaced) || errors.Is(err, ErrNoPresence) || errors.As(err, &refused) && !passes(err) {
			return err
		}
		pause := time.NewTimer(time.Second)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		case <-w.c.ctx.Done():
			pause.Stop()
			return context.Cause(w.c.ctx)
		}
	}
}
