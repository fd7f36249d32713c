package presence

// WithDefaults shows tests what New makes of options.
func WithDefaults(o Options) Options { return o.withDefaults() }

// PlacesTaken shows what admission has counted and not given back.
func (p *Presence) PlacesTaken() (sessions, verifying int64) {
	return p.sessions.Load(), p.verifying.Load()
}
