package redisstore

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/a4cafe1a/presence/store"
)

// tail reads the log of one partition, once for all feeds of this process. It
// reads on when the doorbell rings, when any other call shows that the log has
// grown, and now and then: the last ring of a burst leaves no gap to see.
type tail struct {
	s    *Store
	p    *shard
	wake chan struct{}
	rush chan struct{} // there is much to read
	turn chan struct{} // full while somebody reads

	fresh atomic.Int64 // when a call last showed where the log ends, ns
	used  atomic.Bool  // there are feeds

	mu     sync.Mutex // never held during a call
	at     store.Version
	topics map[string][]*part
	feeds  int
	stop   func() // the goroutine, and the doorbell
}

const (
	readEvery = 10 * time.Millisecond // at most; the first ring after a pause goes at once
	readMax   = 500                   // entries in one call
)

func (t *tail) init(s *Store, p *shard) {
	t.s, t.p = s, p
	t.wake, t.rush, t.turn = make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}, 1)
	t.topics = map[string][]*part{}
}

// heard notes where some call says that the log ends.
func (t *tail) heard(generation string, sequence int64) {
	if !t.used.Load() {
		return
	}
	t.mu.Lock()
	old := t.at.Generation == generation && t.at.Sequence >= uint64(sequence)
	t.mu.Unlock()
	if old {
		t.fresh.Store(time.Now().UnixNano())
		return
	}
	t.rouse()
}

// rang is heard, from the doorbell; "" says that rings may have been missed.
func (t *tail) rang(id string) {
	if seq, _, ok := strings.Cut(id, "-"); ok {
		n, _ := strconv.ParseUint(seq, 10, 64)
		t.mu.Lock()
		at := t.at.Sequence
		t.mu.Unlock()
		if at == n {
			return
		}
		if n > at && n-at > uint64(t.s.maxLog/8) {
			select {
			case t.rush <- struct{}{}:
			default:
			}
		}
	}
	t.rouse()
}

func (t *tail) rouse() {
	select {
	case t.wake <- struct{}{}:
	default: // awake already
	}
}

// lock waits for the turn to read.
func (t *tail) lock(ctx context.Context) error {
	select {
	case t.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-t.s.done:
		return store.ErrClosed
	}
}

func (t *tail) unlock() { <-t.turn }

// add begins to follow a topic for a feed.
func (t *tail) add(ctx context.Context, x *part) error {
	if err := t.lock(ctx); err != nil {
		return err
	}
	defer t.unlock()
	t.mu.Lock()
	first := t.feeds == 0
	t.mu.Unlock()
	if first {
		at, _, err := t.read(ctx, store.Version{Sequence: 1 << 62})
		if err != nil {
			return err
		}
		t.mu.Lock()
		t.at = at
		t.mu.Unlock()
	} else if err := t.sync(ctx); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	x.last = t.at
	t.topics[x.feed.topic] = append(t.topics[x.feed.topic], x)
	t.feeds++
	if first {
		t.used.Store(true)
		within, cancel := context.WithCancel(t.s.ctx)
		t.s.background(func() { t.run(within) })
		leave := t.p.bells.want(t.p.tag+"log", t.rang)
		t.stop = func() {
			cancel()
			leave()
		}
	}
	return nil
}

// remove ends that.
func (t *tail) remove(x *part) {
	t.mu.Lock()
	defer t.mu.Unlock()
	name := x.feed.topic
	list := t.topics[name]
	for i := range list {
		if list[i] != x {
			continue
		}
		list = append(list[:i:i], list[i+1:]...)
		if len(list) == 0 {
			delete(t.topics, name)
		} else {
			t.topics[name] = list
		}
		if t.feeds--; t.feeds == 0 {
			t.used.Store(false)
			t.stop()
		}
		return
	}
}

// run is the goroutine that keeps feeds awake.
func (t *tail) run(ctx context.Context) {
	every := t.s.lease / 3
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.wake:
		case <-tick.C:
			if time.Since(time.Unix(0, t.fresh.Load())) < every {
				continue // a renewal has told
			}
		}
		pause := readEvery
		if t.catchUp(ctx) != nil {
			pause = min(every, time.Second)
			t.rouse()
		}
		select {
		case <-ctx.Done():
			return
		case <-t.rush:
		case <-time.After(pause):
		}
	}
}

// catchUp reads the log to its end.
func (t *tail) catchUp(ctx context.Context) error {
	if err := t.lock(ctx); err != nil {
		return err
	}
	defer t.unlock()
	return t.sync(ctx)
}

// sync is catchUp when it is our turn.
func (t *tail) sync(ctx context.Context) error {
	t.mu.Lock()
	at := t.at
	t.mu.Unlock()
	for end := at; ; {
		now, entries, err := t.read(ctx, at)
		if err != nil {
			return err
		}
		if now.Generation != at.Generation || now.Sequence < at.Sequence {
			t.reset(now)
			return nil
		}
		end.Sequence = max(end.Sequence, now.Sequence)
		known := map[string]large{} // read after all of these entries were written
		for _, e := range entries {
			if e.from != at.Sequence {
				t.reset(at) // what lies between is gone
			}
			if err := t.dispatch(ctx, e, known, &at); err != nil {
				return err
			}
		}
		if at.Sequence >= end.Sequence {
			t.fresh.Store(time.Now().UnixNano())
			return nil
		}
		if len(entries) == 0 {
			t.reset(now)
			return nil
		}
	}
}

// entry is one entry of the log.
type entry struct {
	from, to uint64
	packed   string
}

// read returns where the log ends, and what is behind at.
func (t *tail) read(ctx context.Context, at store.Version) (store.Version, []entry, error) {
	type result struct {
		now     store.Version
		entries []entry
	}
	// A transaction, because those go to a master always.
	got, err := call(ctx, t.s, func(ctx context.Context) (result, error) {
		pipe := t.s.client.TxPipeline()
		end := pipe.HMGet(ctx, t.p.tag+"m", "gen", "seq")
		list := pipe.XRangeN(ctx, t.p.tag+"log", "("+strconv.FormatUint(at.Sequence, 10)+"-0", "+", readMax)
		if _, err := pipe.Exec(ctx); full(err) {
			now, entries, err := t.readFull(ctx, at)
			return result{now, entries}, err
		} else if err != nil {
			return result{}, err
		}
		r := result{now: store.Version{Shard: t.p.id}}
		if v := end.Val(); len(v) == 2 {
			r.now.Generation, _ = v[0].(string)
			seq, _ := v[1].(string)
			r.now.Sequence, _ = strconv.ParseUint(seq, 10, 64)
		}
		for _, m := range list.Val() {
			r.entries = append(r.entries, newEntry(m.ID, m.Values))
		}
		return r, nil
	})
	return got.now, got.entries, err
}

func newEntry(id string, fields map[string]any) entry {
	var e entry
	to, _, _ := strings.Cut(id, "-")
	e.to, _ = strconv.ParseUint(to, 10, 64)
	from, _ := fields["f"].(string)
	e.from, _ = strconv.ParseUint(from, 10, 64)
	e.packed, _ = fields["c"].(string)
	return e
}

// reset tells all feeds that something is missing.
func (t *tail) reset(at store.Version) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.at = at
	for _, parts := range t.topics {
		for _, x := range parts {
			x.drop()
		}
	}
}
