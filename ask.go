package presence

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"
)

// Ask is what a client of presence.v1 asks for.
type Ask struct {
	Kind  AskKind
	Topic string          // of all but AskSet
	Meta  json.RawMessage // of AskSet; nil: none any more
}

// AskKind says what an Ask is about.
type AskKind uint8

const (
	// AskFollow: to be told who is in a topic, now and from now on.
	AskFollow AskKind = iota + 1
	// AskJoin: to be in a topic.
	AskJoin
	// AskLeave: not to be in it any more.
	AskLeave
	// AskSet: to replace the metadata of the session.
	AskSet
)

// String returns "follow", "join", "leave" or "set".
func (k AskKind) String() string {
	switch k {
	case AskFollow:
		return "follow"
	case AskJoin:
		return "join"
	case AskLeave:
		return "leave"
	case AskSet:
		return "set"
	}
	return "kind?"
}

var (
	errBad       = errors.New("not understood")
	errForbidden = errors.New("not allowed")
)

// explain says what a client is told of an error.
func explain(err error) (code, text string) {
	switch {
	case errors.Is(err, errBad):
		return "bad-request", "not understood"
	case errors.Is(err, errForbidden):
		return "forbidden", "not allowed"
	case errors.Is(err, ErrLimit):
		return "limit", "a name, the number of topics or the metadata breaks a limit"
	}
	return "unavailable", "not now"
}

// askWait bounds how long a request may wait for the store.
const askWait = 5 * time.Second

func (w *wire) carryOut(q *request) error {
	s := w.s
	a := Ask{Meta: q.Meta}
	switch q.T {
	case "follow":
		a.Kind = AskFollow
	case "active":
		if q.Topic != nil || q.Meta != nil {
			return errBad
		}
		return nil // that it came is all it is for
	case "unfollow":
		if q.Topic == nil {
			return errBad
		}
		delete(w.follows, *q.Topic)
		s.p.follows.unfollow(w, *q.Topic)
		return nil
	case "join":
		a.Kind = AskJoin
	case "leave":
		a.Kind = AskLeave
	case "set":
		a.Kind = AskSet
	default:
		return errBad
	}
	if a.Kind == AskSet {
		if q.Meta == nil || q.Topic != nil {
			return errBad
		}
		if string(q.Meta) == "null" {
			a.Meta = nil
		}
	} else {
		if q.Topic == nil || q.Meta != nil || *q.Topic == "" && a.Kind != AskFollow {
			return errBad
		}
		a.Topic = *q.Topic
		if err := s.p.opts.Limits.checkName("topic", a.Topic); err != nil {
			return err
		}
		if len(a.Topic) > topicMax {
			return ErrLimit
		}
	}
	if !w.allowed(a) {
		return errForbidden
	}
	ctx, cancel := context.WithTimeout(s.Context(), askWait)
	defer cancel()
	switch a.Kind {
	case AskFollow:
		if !w.follows[a.Topic] && len(w.follows) >= s.p.opts.Limits.TopicsPerSession {
			return ErrLimit
		}
		w.follows[a.Topic] = true
	case AskJoin:
		if err := s.Join(ctx, a.Topic); err != nil {
			return err
		}
		w.joined[a.Topic] = true
	case AskLeave:
		if err := s.Leave(ctx, a.Topic); err != nil {
			return err
		}
		delete(w.joined, a.Topic)
	case AskSet:
		if err := s.SetMeta(ctx, a.Meta); err != nil {
			return err
		}
		w.meta = s.own().meta
	}
	return nil
}

// allowed asks the app, or applies what is safe without it: see
// Options.Authorize.
func (w *wire) allowed(a Ask) bool {
	s := w.s
	if f := s.p.opts.Authorize; f != nil {
		defer s.recovered("Authorize")
		err := f(s, a)
		if err != nil {
			s.p.log.Debug("presence: not authorized", "session", s.ID(), "user", s.user, "ask", a.Kind.String(), "topic", a.Topic, "reason", err)
		}
		return err == nil
	}
	switch a.Kind {
	case AskFollow:
		return s.in(a.Topic)
	case AskLeave:
		return w.joined[a.Topic]
	case AskSet:
		now := s.own().meta
		return now == nil || string(now) == string(w.meta)
	}
	return false
}

// in says whether the session was put into the topic.
func (s *Session) in(topic string) bool {
	_, found := slices.BinarySearch(s.own().topics, topic)
	return found
}

// left: without Authorize only those in a topic may follow it. The client is
// told, or it would go on to show what it knew.
func (s *Session) left(topics []string) {
	if s.wire == nil || s.p.opts.Authorize != nil {
		return
	}
	for _, t := range topics {
		if s.p.follows.unfollow(s.wire, t) {
			s.wire.send(encode(struct {
				T     string `json:"t"`
				Topic string `json:"topic"`
			}{"unfollowed", t}))
		}
	}
}
