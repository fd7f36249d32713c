package wheel

// GapBetween is the rule for gaps: no test can stop the monotonic clock.
var GapBetween = gapBetween

// NewShards is New with so many shards.
func NewShards(n int) *Wheel {
	w := newWheel(0, n)
	w.run()
	return w
}

// Driven is a wheel without goroutines, on a clock that the test moves.
type Driven struct {
	*Wheel
	now Time
}

// NewDriven makes a wheel of so many shards.
func NewDriven(shards int) *Driven {
	d := &Driven{Wheel: newWheel(0, shards), now: 1}
	for _, s := range d.shards {
		s.refresh = func() Time { return d.now }
	}
	return d
}

// Advance does what the goroutines do at a tick at now, one shard after another.
func (d *Driven) Advance(now Time) {
	d.now = now
	for _, s := range d.shards {
		s.advance(now)
	}
}

// Shards returns how many shards there are.
func (d *Driven) Shards() int { return len(d.shards) }

// Placed returns how often an item was put into a slot.
func (d *Driven) Placed() (n int) {
	for _, s := range d.shards {
		n += int(s.seq)
	}
	return n
}

// Footprint is what a wheel holds in memory.
type Footprint struct {
	Refs  int // references in slots
	Room  int // for references, in allocated arrays
	Pages int // of the item table
}

func (w *Wheel) Footprint() (f Footprint) {
	for _, s := range w.shards {
		s.mu.Lock()
		refs := 0
		for i := range s.slots {
			refs += len(s.slots[i])
			f.Room += cap(s.slots[i])
		}
		if refs != s.refs {
			panic("wheel: miscounted references")
		}
		f.Refs += refs
		f.Room += cap(s.spare)
		for _, p := range s.items.pages {
			if p != nil {
				f.Pages++
			}
		}
		if s.items.spare != nil {
			f.Pages++
		}
		s.mu.Unlock()
	}
	return f
}

const (
	Slots     = slotCount
	Slack     = slack
	PageSize  = pageSize
	WarmAhead = warmAhead
)
