package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/a4cafe1a/presence/internal/rarely"
	"github.com/a4cafe1a/presence/store"
)

var (
	// ErrPending: the change was not committed by itself, because the queue
	// grew too long. It is made known when all sessions are asserted again.
	ErrPending = errors.New("node: to be made known with the next assertion")

	// ErrClosed: the node was closed, and the change may be unknown to the store.
	ErrClosed = errors.New("node: closed")
)

// Config says who the node is and who acts for it. None of the functions may
// block, and none is called with a lock of this package held. They may call
// Do.
type Config struct {
	Store  store.Store
	Node   store.Node
	Logger *slog.Logger // not nil

	// Held returns every session of the shard that this process holds, each
	// as an OpAdd of what it is now, with the Since of its first Result. A
	// change must show here before it is given to Do, and a session that was
	// removed must not show any more before its removal is.
	Held func(shard int) []store.Op

	// Order carries out an order of the store, once.
	Order func(store.Order)

	// Added says what became of an OpAdd nobody waited for: it was late, or
	// the session was asserted again. Full, Outdated and Stale mean that the
	// store does not have the session and it must end.
	Added func(session string, r store.Result)

	// Limit is how many changes may be queued per shard; 10,000 when 0, and
	// never less than the sessions the store knows from here.
	Limit int
}

// Node is a process in a store's cluster. Its methods may be called
// concurrently.
type Node struct {
	cfg    Config
	base   time.Time // what atomic times count from
	shards []*shard
	stats  counters

	calm atomic.Uint64 // failures when the store last was not away

	heldSince atomic.Pointer[time.Time] // since when there is a hold; nil: there is none
	saidHeld  atomic.Bool               // and the log has said so

	saidAway, saidLost, saidAgain, saidHold rarely.Line

	ctx    context.Context // of every store call
	cancel context.CancelFunc
	loops  sync.WaitGroup

	closing sync.Once
	closed  chan struct{}
	result  error
}

// Start registers the node in the background and returns at once.
func Start(cfg Config) *Node {
	if cfg.Limit <= 0 {
		cfg.Limit = 10_000
	}
	n := &Node{cfg: cfg, base: time.Now(), closed: make(chan struct{})}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.shards = make([]*shard, cfg.Store.Shards())
	for i := range n.shards {
		n.shards[i] = newShard(n, i)
	}
	for _, s := range n.shards {
		n.loops.Go(s.run)
	}
	return n
}

// Do queues a change and returns at once. done, unless it is nil, is called
// once, on a goroutine of the node, and must not block. The topics and
// metadata of op must not change any more.
//
// Metadata of one session is sent at most every 250 ms; the last one wins.
func (n *Node) Do(op store.Op, done func(store.Result, error)) {
	n.shardOf(op.User).put(&op, waiter{kind: op.Kind, done: done})
}

// Await is Do, and waits for the result. When ctx ends first the change
// stays queued, and what becomes of an OpAdd goes to Config.Added.
func (n *Node) Await(ctx context.Context, op store.Op) (store.Result, error) {
	c := n.begin(&op)
	select {
	case a := <-c.answer:
		return a.result, a.err
	case <-ctx.Done():
		return c.giveUp(ctx.Err())
	}
}

// AwaitFor is Await for at most so long. What is late is
// context.DeadlineExceeded.
func (n *Node) AwaitFor(d time.Duration, op store.Op) (store.Result, error) {
	timer := time.NewTimer(d) // a context would be five allocations
	defer timer.Stop()
	c := n.begin(&op)
	select {
	case a := <-c.answer:
		return a.result, a.err
	case <-timer.C:
		return c.giveUp(context.DeadlineExceeded)
	}
}

// begin queues a change that is waited for.
func (n *Node) begin(op *store.Op) *call {
	c := &call{answer: make(chan answer, 1)}
	n.shardOf(op.User).put(op, waiter{kind: op.Kind, call: c})
	return c
}

// Away says whether the store, or one of its shards, is known to be away: the
// last call failed, or one has been out for more than a second.
func (n *Node) Away() bool {
	for _, s := range n.shards {
		if s.isAway() {
			return true
		}
	}
	return false
}

// AwayFor is Away for the shard of one user.
func (n *Node) AwayFor(user string) bool { return n.shardOf(user).isAway() }

// Upsets counts what makes it doubtful what the store still knows, though it
// answers: leases that it forgot, and times all sessions were asserted again.
func (n *Node) Upsets() uint64 { return n.stats.lost.Load() + n.stats.reasserts.Load() }

// Valid says whether the node's lease in the shard still counts, as far as
// the node can know: until a TTL after it sent the last renewal.
func (n *Node) Valid(shard int) bool {
	return n.since() < n.shards[shard].validUntil.Load()
}

// Flush returns when everything queued before is committed, metadata that
// would have waited included.
func (n *Node) Flush(ctx context.Context) error {
	for _, s := range n.shards {
		b := s.barrier()
		select {
		case err := <-b:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Close commits what is queued, ends the leases so that what is left under
// them leaves after grace with cause shutdown, and returns when every
// goroutine has ended. It gives up when ctx ends, or after 10 s if ctx has no
// deadline; the error then says so, and the leases run out. A second Close
// waits for the first and returns the same.
func (n *Node) Close(ctx context.Context, grace time.Duration) error {
	n.closing.Do(func() {
		if _, ok := ctx.Deadline(); !ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
		}
		stop := context.AfterFunc(ctx, n.cancel)
		for _, s := range n.shards {
			s.close(grace)
		}
		n.loops.Wait()
		stop()
		n.cancel()
		for _, s := range n.shards {
			if s.err != nil {
				n.result = errors.Join(n.result, fmt.Errorf("shard %d: %w", s.id, s.err))
			}
		}
		close(n.closed)
	})
	<-n.closed
	return n.result
}

// Stats are counters since Start, and what is queued now.
type Stats struct {
	Commits   uint64 // that succeeded
	Ops       uint64 // in them
	Renewals  uint64
	Sweeps    uint64
	Failures  uint64 // calls that failed, those of Failed and no lost leases included
	Lost      uint64 // leases lost
	Reasserts uint64 // times all sessions were asserted again
	Dropped   uint64 // times the queue grew too long
	Queued    int
	Sessions  int // acknowledged by the store
}

type counters struct {
	commits, ops, renewals, sweeps, failures, lost, reasserts, dropped atomic.Uint64
}

// Failed counts a call of the store that somebody else has made in vain.
func (n *Node) Failed() { n.stats.failures.Add(1) }

// Stats returns the counters.
func (n *Node) Stats() Stats {
	c := &n.stats
	st := Stats{
		Commits: c.commits.Load(), Ops: c.ops.Load(), Renewals: c.renewals.Load(), Sweeps: c.sweeps.Load(),
		Failures: c.failures.Load(), Lost: c.lost.Load(), Reasserts: c.reasserts.Load(), Dropped: c.dropped.Load(),
	}
	for _, s := range n.shards {
		s.mu.Lock()
		st.Queued += s.queue.length + s.gates.held
		st.Sessions += s.held.count()
		s.mu.Unlock()
	}
	return st
}

func (n *Node) shardOf(user string) *shard { return n.shards[n.cfg.Store.ShardOf(user)] }

// since is the monotonic time since Start.
func (n *Node) since() int64 { return int64(time.Since(n.base)) }
