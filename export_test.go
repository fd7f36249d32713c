package presence

import "github.com/a4cafe1a/presence/store"

// WithDefaults shows tests what New makes of options.
func WithDefaults(o Options) Options { return o.withDefaults() }

// PlacesTaken shows what admission has counted and not given back.
func (p *Presence) PlacesTaken() (sessions, verifying int64) {
	return p.sessions.Load(), p.verifying.Load()
}

// StoreOf is the store in use.
func StoreOf(p *Presence) store.Store { return p.store }
