package node

import "github.com/a4cafe1a/presence/store"

// held is the set of sessions that the store has acknowledged under a lease,
// by their digests, as a Summary describes them.
type held struct {
	digests map[uint64]struct{}
	digest  uint64 // of all
}

func (h *held) add(session string) {
	d := store.Digest(session)
	if _, ok := h.digests[d]; ok {
		return
	}
	if h.digests == nil {
		h.digests = map[uint64]struct{}{}
	}
	h.digests[d] = struct{}{}
	h.digest ^= d
}

func (h *held) remove(session string) {
	d := store.Digest(session)
	if _, ok := h.digests[d]; !ok {
		return
	}
	delete(h.digests, d)
	h.digest ^= d
	if len(h.digests) == 0 {
		h.digests = nil // a map never shrinks
	}
}

func (h *held) has(session string) bool {
	_, ok := h.digests[store.Digest(session)]
	return ok
}

func (h *held) count() int { return len(h.digests) }
