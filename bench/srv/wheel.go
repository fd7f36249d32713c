package srv

import (
	"sync"
	"time"
)

// Wheel pings members from one goroutine: slot by slot, each member once per interval.
type Wheel[T comparable] struct {
	mu    sync.Mutex
	slots []map[T]struct{}
	where map[T]int
	cur   int
}

const wheelTick = 50 * time.Millisecond

// NewWheel starts a wheel that calls fire for each member once per interval.
func NewWheel[T comparable](fire func(T)) *Wheel[T] {
	n := max(1, int(*Interval/wheelTick))
	w := &Wheel[T]{slots: make([]map[T]struct{}, n), where: map[T]int{}}
	for i := range w.slots {
		w.slots[i] = map[T]struct{}{}
	}
	go func() {
		t := time.NewTicker(wheelTick)
		var due []T
		for range t.C {
			due = due[:0]
			w.mu.Lock()
			w.cur = (w.cur + 1) % n
			for k := range w.slots[w.cur] {
				due = append(due, k)
			}
			w.mu.Unlock()
			for _, k := range due {
				fire(k)
			}
			clear(due)
		}
	}()
	return w
}

// Add puts k into the present slot.
func (w *Wheel[T]) Add(k T) {
	w.mu.Lock()
	w.slots[w.cur][k] = struct{}{}
	w.where[k] = w.cur
	w.mu.Unlock()
}

// Del takes k out, if it is there.
func (w *Wheel[T]) Del(k T) {
	w.mu.Lock()
	if s, ok := w.where[k]; ok {
		delete(w.slots[s], k)
		delete(w.where, k)
	}
	w.mu.Unlock()
}
