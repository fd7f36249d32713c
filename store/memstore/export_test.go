package memstore

// NewStill is New with a clock that only Advance moves. A model that counts in
// steps must not be overtaken by a busy machine.
func NewStill(o Options) *Store {
	s := New(o)
	s.still = true
	return s
}
