package wheel

import "math/bits"

// pageSize is how many entries are allocated at once. A table of pages grows
// without copying and gives memory back after a burst.
const pageSize = 256

// An entry is one item.
type entry struct {
	item Item
	due  int64  // the tick of the next look, or never
	gen  uint64 // of this use of the entry; 0 if it is free
	seq  uint32 // of its newest reference in a slot, 0 for none; next free entry + 1 if it is free
}

type page struct {
	entries [pageSize]entry
	used    int
	free    uint32 // first free entry + 1 among those that were used before, 0 for none
	fresh   uint32 // entries from here on were never used
}

// A table holds entries at fixed numbers. Low numbers are given out first, so
// that high pages run empty when there are fewer items.
type table struct {
	pages []*page  // nil where no entry is in use
	room  []uint64 // a bit per page that is not full
	from  int      // no word of room below this one has a bit set
	spare *page    // one empty page, so that an item that comes and goes does not allocate
	gen   uint64
	len   int
}

// put stores an item and returns its entry and number.
func (t *table) put(it Item) (*entry, uint32) {
	for t.from < len(t.room) && t.room[t.from] == 0 {
		t.from++
	}
	if t.from == len(t.room) {
		t.room = append(t.room, 1<<64-1)
		t.pages = append(t.pages, make([]*page, 64)...)
	}
	n := t.from*64 + bits.TrailingZeros64(t.room[t.from])
	p := t.pages[n]
	if p == nil {
		if p, t.spare = t.spare, nil; p == nil {
			p = new(page)
		}
		t.pages[n] = p
	}
	i := p.free
	if i != 0 {
		i--
		p.free = p.entries[i].seq
	} else {
		i = p.fresh
		p.fresh++
	}
	if p.used++; p.used == pageSize {
		t.room[n/64] &^= 1 << (n % 64)
	}
	t.len++
	t.gen++
	e := &p.entries[i]
	*e = entry{item: it, gen: t.gen}
	return e, uint32(n*pageSize) + i
}

// at returns the entry with a number, which may be free, or nil if its whole
// page is.
func (t *table) at(index uint32) *entry {
	n := int(index / pageSize)
	if n >= len(t.pages) || t.pages[n] == nil {
		return nil
	}
	return &t.pages[n].entries[index%pageSize]
}

// get returns the entry with a number if it is still in the use that gen names.
func (t *table) get(index uint32, gen uint64) *entry {
	if e := t.at(index); e != nil && e.gen == gen {
		return e
	}
	return nil
}

// drop frees an entry that is in use.
func (t *table) drop(index uint32) {
	n := int(index / pageSize)
	p := t.pages[n]
	p.entries[index%pageSize] = entry{seq: p.free}
	p.free = index%pageSize + 1
	t.room[n/64] |= 1 << (n % 64)
	t.from = min(t.from, n/64)
	t.len--
	if p.used--; p.used == 0 {
		// Generations are never given twice, so the page need not remember any.
		t.pages[n] = nil
		t.spare = p
	}
}
