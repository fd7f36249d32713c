package presence

import "github.com/a4cafe1a/presence/store"

// WithDefaults shows tests what New makes of options.
func WithDefaults(o Options) Options { return o.withDefaults() }

// PlacesTaken shows what admission has counted and not given back.
func (p *Presence) PlacesTaken() (sessions, verifying int64) {
	return p.sessions.Load(), p.verifying.Load()
}

// Pending are the IDs of pending sessions, by user.
func Pending(p *Presence) map[string]string {
	ids := map[string]string{}
	p.pending.Range(func(key, _ any) bool {
		s := key.(*Session)
		ids[s.user] = s.ID()
		return true
	})
	return ids
}

// StoreOf is the store in use.
func StoreOf(p *Presence) store.Store { return p.store }

// SessionOf returns a live session by its ID.
func SessionOf(p *Presence, id string) *Session { return p.registry.byID(parseID(id)) }

// Lose ends a session as if its connection had broken.
func Lose(s *Session) { s.end(End{Cause: CauseLost}) }

// Followed is how many topics clients of presence.v1 follow.
func Followed(p *Presence) int {
	p.follows.mu.Lock()
	defer p.follows.mu.Unlock()
	return len(p.follows.topics)
}

// Sleeps says that a session of a Callback holds no goroutine just now.
func Sleeps(s *Session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peer != nil && s.peer.state.Load() == asleep
}
