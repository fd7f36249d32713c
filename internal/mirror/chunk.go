package mirror

import "sync/atomic"

// chunk is a link in the list of a topic's events. Whoever has read its events
// waits for more to be closed, and goes on with next.
type chunk struct {
	news   []news
	number uint64        // of news up to the end of this chunk
	more   chan struct{} // closed when there is a next, or never will be
	next   atomic.Pointer[chunk]
	cut    atomic.Bool // next is gone: who reads here has fallen behind
}

// list is the newest part of a topic's events. The topic's goroutine writes
// it under topic.mu; readers follow the links without.
type list struct {
	head, tail *chunk
	limit      uint64 // how many events a reader may be behind
}

func newList(limit int) list {
	c := &chunk{more: make(chan struct{})}
	return list{head: c, tail: c, limit: uint64(limit)}
}

// append adds news, wakes who waits for them, and cuts off who has fallen
// behind. The newest chunk is always kept: nobody had a chance to read it.
func (l *list) append(n []news) {
	c := &chunk{news: n, number: l.tail.number + uint64(len(n)), more: make(chan struct{})}
	last := l.tail
	l.tail = c
	last.next.Store(c)
	close(last.more)
	for l.head != last && l.tail.number-l.head.number > l.limit {
		old := l.head
		l.head = old.next.Load()
		old.cut.Store(true) // before next, which is read first
		old.next.Store(nil)
	}
}

// near says whether a reader at c would have room for half its events.
func (l *list) near(c *chunk) bool {
	return !c.cut.Load() && l.tail.number-c.number <= l.limit/2
}
