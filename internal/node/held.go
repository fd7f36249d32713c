package node

import (
	"github.com/a4cafe1a/presence/internal/hashset"
	"github.com/a4cafe1a/presence/store"
)

// held is the set of sessions that the store has acknowledged under a lease,
// by their digests, as a Summary describes them.
type held struct {
	parts  [16]hashset.Set[uint64] // so that none is long in growing
	length int
	digest uint64
}

func self(digest uint64) uint64 { return digest }

func (h *held) part(digest uint64) *hashset.Set[uint64] {
	return &h.parts[digest%uint64(len(h.parts))]
}

func (h *held) add(session string) {
	d := store.Digest(session)
	if h.hasDigest(d) {
		return
	}
	h.part(d).Add(d, self)
	h.length++
	h.digest ^= d
}

func (h *held) remove(session string) {
	d := store.Digest(session)
	if h.part(d).Delete(d, func(other uint64) bool { return other == d }, self) {
		h.length--
		h.digest ^= d
	}
}

func (h *held) has(session string) bool { return h.hasDigest(store.Digest(session)) }

func (h *held) hasDigest(d uint64) bool {
	return h.part(d).At(d, func(other uint64) bool { return other == d }) != nil
}

func (h *held) count() int { return h.length }
