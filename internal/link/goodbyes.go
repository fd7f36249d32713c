package link

import (
	"container/list"
	"net"
	"sync"
	"time"

	"github.com/a4cafe1a/presence/internal/park"
	"github.com/a4cafe1a/presence/internal/sock"
	"github.com/a4cafe1a/presence/internal/work"
)

// Goodbyes are said by the connections of a Config. Thousands may be told to go
// at once, and each waits for its client. So a few workers do what waits for
// nobody, a poller listens where there is one, and one timer cuts off all. Who
// has to wait on a goroutine is one whose socket is full or in use, or that the
// poller cannot watch.
type Goodbyes struct {
	workers work.Pool
	lot     func() *park.Lot

	mu      sync.Mutex
	waiting list.List // of *ending, in the order of until
	timer   *time.Timer
}

// NewGoodbyes has that many workers. lot gives the poller, or nil.
func NewGoodbyes(workers int, lot func() *park.Lot) *Goodbyes {
	return &Goodbyes{workers: work.Pool{Max: workers}, lot: lot}
}

// add sees to it that the connection is closed in time.
func (g *Goodbyes) add(e *ending) {
	g.mu.Lock()
	defer g.mu.Unlock()
	before := g.waiting.Back() // nearly always: all are given the same time
	for before != nil && before.Value.(*ending).until.After(e.until) {
		before = before.Prev()
	}
	if before != nil {
		e.place = g.waiting.InsertAfter(e, before)
		return
	}
	e.place = g.waiting.PushFront(e)
	if g.timer == nil {
		g.timer = time.AfterFunc(time.Until(e.until), g.cutOff)
	} else {
		g.timer.Reset(time.Until(e.until))
	}
}

// cutOff closes the connections whose time is over.
func (g *Goodbyes) cutOff() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for first := g.waiting.Front(); first != nil; first = g.waiting.Front() {
		e := first.Value.(*ending)
		if left := time.Until(e.until); left > 0 {
			g.timer.Reset(left)
			return
		}
		g.take(e)
		g.workers.Go(e.conn.shut)
	}
}

// take takes it off the list. g.mu is held.
func (g *Goodbyes) take(e *ending) {
	if e.place == nil {
		return
	}
	g.waiting.Remove(e.place)
	if e.place = nil; g.waiting.Len() == 0 {
		g.timer.Stop()
	}
}

// remove forgets a connection that is closed.
func (g *Goodbyes) remove(e *ending) {
	g.mu.Lock()
	g.take(e)
	ref := e.ref
	g.mu.Unlock()
	if lot := g.poller(e.conn); lot != nil {
		lot.Remove(ref)
	}
}

// listen has the poller wait for the client, and says whether it does.
func (g *Goodbyes) listen(e *ending) bool {
	lot := g.poller(e.conn)
	if lot == nil {
		return false
	}
	ref, ok := lot.TakeOver(e.conn.sock.Raw(), e)
	g.mu.Lock()
	e.ref = ref
	closed := e.place == nil // the client was quicker
	g.mu.Unlock()
	if closed {
		lot.Remove(ref)
	}
	return ok
}

// poller is nil for a connection that none can watch.
func (g *Goodbyes) poller(c *Conn) *park.Lot {
	if g.lot == nil || !c.sock.Known() {
		return nil
	}
	return g.lot()
}

// Warm does nothing: this is once for each connection.
func (e *ending) Warm() {}

// Readable is called by the poller.
func (e *ending) Readable(bool) { e.conn.cfg.Goodbyes.workers.Go(e.discard) }

// discard takes what has arrived from the socket, TLS or not, and closes it
// behind the last of it. A client that goes on sending has its turns.
func (e *ending) discard() {
	pooled := buffers.Get().(*[]byte)
	defer buffers.Put(pooled)
	for range 16 {
		n, err := again(e.conn.sock.Read(*pooled))
		switch {
		case err != nil:
			e.conn.shut()
			return
		case n == 0:
			return
		}
	}
	e.Readable(false)
}

// writeNow writes what is small, without waiting.
func (c *Conn) writeNow(b []byte) (int, error) {
	if c.direct {
		return c.sock.Write(b)
	}
	if room, ok := c.sock.Room(); !ok || room < keepMax {
		return 0, sock.ErrAgain // TLS adds to it, and its alert follows
	}
	return c.nc.Write(b)
}

// shutWriting is a FIN, after the alert of TLS: the poller does not see the
// client's.
func (c *Conn) shutWriting() error {
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok {
		return nil
	}
	err := half.CloseWrite()
	if tcp, ok := c.below().(*net.TCPConn); ok && err == nil && !c.direct {
		err = tcp.CloseWrite()
	}
	return err
}
