package presence

import (
	"errors"
	"time"
)

// While the store is away, nobody can tell who is in a topic: changes of other
// nodes do not arrive, and those of this one are not decided. Nor can the store
// while it has a hold, because it has forgotten something. What followers know
// may be out of date, and they are told so.

const (
	// doubtEvery is how often it is looked at.
	doubtEvery = time.Second
	// calmLooks is for how many looks the store must have answered before
	// followers know what is: what happened meanwhile has reached them by then.
	calmLooks = 2
)

// watch tells followers when the store goes away or has forgotten something, and
// when it can tell again. It is one goroutine for all topics.
func (h *follows) watch() {
	ticker := time.NewTicker(doubtEvery)
	defer ticker.Stop()
	calm, upsets := calmLooks, h.p.member.Upsets()
	for {
		select {
		case <-ticker.C:
		case <-h.ctx.Done():
			return
		}
		if n := h.p.member.Upsets(); n != upsets {
			calm, upsets = 0, n
		}
		switch {
		case h.p.member.Away():
			calm = 0
			h.each(func(f *followed) { f.doubt(true) })
		case calm < calmLooks:
			_, err := h.p.Count(h.ctx, "")
			if err != nil {
				calm = 0
			} else if calm++; calm == calmLooks {
				h.each(func(f *followed) { f.doubt(false) })
			}
			if errors.Is(err, ErrUnknown) { // away again, or a hold
				h.each(func(f *followed) { f.doubt(true) })
			}
		}
	}
}

// doubt says that what is known may be out of date, or is how it is again.
func (f *followed) doubt(doubted bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.doubted == doubted || f.followers == nil {
		return
	}
	f.doubted = doubted
	if !f.known {
		return
	}
	if doubted {
		f.flush(f.notice("stale"))
	} else {
		f.flush(f.notice("live"))
	}
}
