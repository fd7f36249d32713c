package node

import "github.com/a4cafe1a/presence/store"

// held is the set of sessions that the store has acknowledged under a lease,
// by their digests, as a Summary describes them.
type held struct {
	m      map[uint64]struct{}
	digest uint64
}

func (h *held) add(session string) {
	d := store.Digest(session)
	if _, ok := h.m[d]; ok {
		return
	}
	if h.m == nil {
		h.m = map[uint64]struct{}{}
	}
	h.m[d] = struct{}{}
	h.digest ^= d
}

func (h *held) remove(session string) {
	d := store.Digest(session)
	if _, ok := h.m[d]; ok {
		delete(h.m, d)
		h.digest ^= d
	}
}

func (h *held) has(session string) bool {
	_, ok := h.m[store.Digest(session)]
	return ok
}

func (h *held) count() int { return len(h.m) }
