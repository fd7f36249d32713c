package presence

import (
	"fmt"
	"sync"
	"time"

	"github.com/a4cafe1a/presence/internal/wheel"
)

// kicks remembers whom DisconnectUser ended a moment ago: a request that was
// identified before that must not become a connection after it. Those that are
// past Identify are found in Presence.pending.
type kicks struct {
	mu        sync.Mutex
	last      map[string]wheel.Time
	tidyAbove int
}

// errKicked is what such a request is refused with.
var errKicked = fmt.Errorf("%w: disconnected meanwhile", ErrForbidden)

// kickKept is how long it remembers: far longer than Identify should take.
const kickKept = time.Minute

func (k *kicks) add(user string, now wheel.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.last == nil {
		k.last = map[string]wheel.Time{}
	}
	k.last[user] = now
	if len(k.last) <= k.tidyAbove {
		return
	}
	for user, at := range k.last {
		if now-at > wheel.Time(kickKept) {
			delete(k.last, user)
		}
	}
	k.tidyAbove = max(1024, 2*len(k.last))
}

// since says whether the user was kicked after an instant.
func (k *kicks) since(user string, t wheel.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	at, kicked := k.last[user]
	return kicked && at > t
}

// endPending ends the pending sessions that match, and says how many.
func (p *Presence) endPending(e End, match func(*Session) bool) (n int) {
	p.pending.Range(func(key, _ any) bool {
		s := key.(*Session)
		s.mu.Lock()
		found := s.ended.Load() == nil && match(s)
		s.mu.Unlock()
		if found {
			s.end(e)
			n++
		}
		return true
	})
	return n
}
