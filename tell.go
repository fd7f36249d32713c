package presence

import (
	"bytes"
	"encoding/json"
	"slices"
	"time"
)

// What followers are told: snapshots, deltas and counts, made once for all.

const (
	// coalesce is how long the changes of a large topic are gathered.
	coalesce = 100 * time.Millisecond
	// smallTopic has so many members at most: its changes go at once.
	smallTopic = 50
	// metasMax bounds the metadata of one member in a message.
	metasMax = 8 << 10
)

// soon sees to it that followers are sent what they lack: at once, or in a
// large topic together with what else comes. f.mu is held.
func (f *followed) soon() {
	if !f.known || f.followers == nil {
		return
	}
	wait := time.Until(f.sentAt.Add(coalesce))
	if len(f.members) <= smallTopic || wait <= 0 {
		f.flush()
	} else if f.timer == nil {
		f.later(wait)
	}
}

// later calls flush after a while. f.mu is held.
func (f *followed) later(wait time.Duration) {
	f.timer = time.AfterFunc(wait, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.timer = nil
		if f.followers != nil {
			f.flush()
		}
	})
}

// flush sends what is due, then more. A follower that has no room for them gets
// a new snapshot when it has. f.mu is held.
func (f *followed) flush(more ...[]byte) {
	f.sentAt = time.Now()
	msgs := append(f.deltas(), more...)
	behind := false
	for w, as := range f.followers {
		switch {
		case as.current:
			as.current = len(msgs) == 0 || w.s.conn.Inject(msgs...)
		case !f.awaits(w, as):
			as.current = w.s.conn.Inject(f.whole()...)
		}
		f.followers[w] = as
		behind = behind || !as.current
	}
	if behind && f.timer == nil {
		f.later(coalesce)
	}
}

// awaits says whether what is known is from before w came: its client would see
// its own user leave, or about to leave. f.mu is held.
func (f *followed) awaits(w *wire, as follower) bool {
	return !f.counting && !f.doubted && !f.members[w.s.user].online && f.sentAt.Before(as.patience)
}

// deltas makes messages of what was touched. A user that came and went since
// the last ones is not in them.
func (f *followed) deltas() [][]byte {
	if len(f.touched) == 0 {
		return nil
	}
	var out parts
	for user, t := range f.touched {
		m, is := f.members[user]
		switch {
		case is && t.was:
			out.add(`{"k":"update","member":`, m.text, `}`)
		case is:
			out.add(`{"k":"join","member":`, m.text, `}`)
		case t.was:
			name, _ := marshal(user)
			cause, _ := marshal(t.cause)
			out.add(`{"k":"leave","user":`, name, `,"cause":`+string(cause)+`}`)
		}
	}
	clear(f.touched)
	var msgs [][]byte
	for _, items := range out.lists {
		f.version++
		msgs = append(msgs, encode(struct {
			T       string          `json:"t"`
			Topic   string          `json:"topic"`
			Version uint64          `json:"version"`
			Changes json.RawMessage `json:"changes"`
		}{"delta", f.topic, f.version, list(items)}))
	}
	if msgs != nil {
		f.snapshot = nil
	}
	return msgs
}

// whole is what a new follower needs.
func (f *followed) whole() [][]byte {
	if f.snapshot == nil {
		f.compose()
	}
	if f.doubted {
		return append(slices.Clip(f.snapshot), f.notice("stale"))
	}
	return f.snapshot
}

// compose makes the snapshot.
func (f *followed) compose() {
	if f.counting {
		f.snapshot = [][]byte{encode(struct {
			T        string `json:"t"`
			Topic    string `json:"topic"`
			Version  uint64 `json:"version"`
			Users    int    `json:"users"`
			Sessions int    `json:"sessions"`
		}{"count", f.topic, f.version, f.counts.Users, f.counts.Sessions})}
		return
	}
	var out parts
	for _, m := range f.members {
		out.add("", m.text, "")
	}
	if len(out.lists) == 0 {
		out.lists = [][]byte{nil}
	}
	for i, items := range out.lists {
		f.snapshot = append(f.snapshot, encode(struct {
			T       string          `json:"t"`
			Topic   string          `json:"topic"`
			Version uint64          `json:"version"`
			First   bool            `json:"first,omitempty"`
			More    bool            `json:"more,omitempty"`
			Members json.RawMessage `json:"members"`
		}{"snapshot", f.topic, f.version, i == 0, i < len(out.lists)-1, list(items)}))
	}
}

// notice is a message that says no more than its type.
func (f *followed) notice(t string) []byte {
	return encode(struct {
		T     string `json:"t"`
		Topic string `json:"topic"`
	}{t, f.topic})
}

// parts are JSON values with commas between them, in lists that fit into a
// message each.
type parts struct{ lists [][]byte }

// partMax leaves room for the name of the topic and the rest of a message.
const partMax = 12 << 10

func (p *parts) add(before string, item []byte, after string) {
	n := len(before) + len(item) + len(after)
	if last := len(p.lists) - 1; last < 0 || len(p.lists[last])+1+n > partMax {
		p.lists = append(p.lists, nil)
	}
	last := &p.lists[len(p.lists)-1]
	if len(*last) > 0 {
		*last = append(*last, ',')
	}
	*last = append(append(append(*last, before...), item...), after...)
}

func list(items []byte) json.RawMessage {
	return append(append([]byte{'['}, items...), ']')
}

// encodeMember is a member as clients see it; nil if its name alone is too long
// for a message.
func encodeMember(m *Member) []byte {
	v := struct {
		User     string            `json:"user"`
		State    string            `json:"state"`
		Away     bool              `json:"away"`
		Sessions int               `json:"sessions"`
		Since    int64             `json:"since"`
		Metas    []json.RawMessage `json:"metas,omitempty"`
		Cut      bool              `json:"cut,omitempty"`
	}{User: m.User, State: m.State.String(), Away: m.Away, Sessions: m.Sessions, Since: m.Since.UnixMilli()}
	size := 0
	for _, meta := range m.Metas {
		if size += len(meta) + 1; size > metasMax {
			v.Cut = true
			break
		}
		v.Metas = append(v.Metas, meta)
	}
	b, err := marshal(v)
	if err != nil || len(b) > partMax {
		return nil
	}
	return b
}

// marshal is json.Marshal without the escapes for HTML, which may make names
// six times as long.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
