//go:build unix

package faults_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"
)

// visitor begins the names of users who come only to see how far a stream is.
const visitor = "~visitor"

// change is an event of the stream.
type change struct{ kind, user, cause string }

// follower reads the event stream of one node and folds it. It begins anew
// when the stream ends.
type follower struct {
	r *rig
	k int

	mu      sync.Mutex
	fresh   bool // no snapshot came since the stream began
	members map[string]bool
	changes []change
	broken  []string
}

func (f *follower) run() {
	for f.r.ctx.Err() == nil {
		if f.r.nodes[f.k].takes.Load() {
			f.stream()
		}
		pause(f.r.ctx, 50*time.Millisecond)
	}
}

func (f *follower) stream() {
	req, err := http.NewRequestWithContext(f.r.ctx, http.MethodGet, f.r.nodes[f.k].url()+"/events?topic=room", nil)
	if err != nil {
		return
	}
	resp, err := f.r.streams.Do(req)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	f.mu.Lock()
	f.fresh, f.members = true, nil
	f.mu.Unlock()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 16<<20)
	var name string
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			name = v
		} else if v, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			f.event(name, v)
		}
	}
}

func (f *follower) event(name, data string) {
	var e struct {
		Cause   string
		Member  struct{ User string }
		Members []struct{ User string }
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := json.Unmarshal([]byte(data), &e); err != nil {
		f.broken = append(f.broken, "not understood: "+data)
		return
	}
	if name == "update" {
		return
	}
	u := e.Member.User
	f.changes = append(f.changes, change{name, u, e.Cause})
	switch name {
	case "snapshot":
		f.fresh, f.members = false, map[string]bool{}
		for _, m := range e.Members {
			f.members[m.User] = true
		}
		return
	case "join":
		if !strings.HasPrefix(u, visitor) {
			f.r.joins.Add(1)
		}
		if f.members[u] {
			f.broken = append(f.broken, u+" joined twice")
		}
		f.members[u] = true
	case "leave":
		if !strings.HasPrefix(u, visitor) {
			f.r.leaves.Add(1)
		}
		if !f.members[u] {
			f.broken = append(f.broken, u+" left twice")
		}
		delete(f.members, u)
	}
	if f.fresh {
		f.broken = append(f.broken, name+" before the snapshot")
	}
}

// mark is a point in the stream.
func (f *follower) mark() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.changes)
}

// told is what a user's watcher saw.
type told struct {
	leaves, joins int
	causes        []string
}

// has says whether a user is in the fold.
func (f *follower) has(user string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.members[user]
}

// since returns what came after mark, for each user but visitors, and how many
// snapshots there were: what they replaced cannot be counted.
func (f *follower) since(mark int) (all map[string]told, snapshots int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all = map[string]told{}
	for _, c := range f.changes[mark:] {
		if strings.HasPrefix(c.user, visitor) {
			continue
		}
		v := all[c.user]
		switch c.kind {
		case "snapshot":
			snapshots++
			continue
		case "join":
			v.joins++
		case "leave":
			v.leaves++
			v.causes = append(v.causes, c.cause)
		}
		all[c.user] = v
	}
	return all, snapshots
}

// holds says whether the fold is exactly these.
func (f *follower) holds(users map[string]bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fresh || len(f.members) != len(users) {
		return false
	}
	for u := range users {
		if !f.members[u] {
			return false
		}
	}
	return true
}
