package presence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/a4cafe1a/presence/internal/link"
	"github.com/a4cafe1a/presence/internal/mirror"
	"github.com/a4cafe1a/presence/internal/node"
	"github.com/a4cafe1a/presence/internal/park"
	"github.com/a4cafe1a/presence/internal/rarely"
	"github.com/a4cafe1a/presence/internal/wheel"
	"github.com/a4cafe1a/presence/internal/work"
	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/memstore"
)

// Presence keeps connections under heartbeat and knows who is online. One
// process usually has one; several that share a store form a cluster. All
// methods may be called concurrently.
type Presence struct {
	opts     Options
	log      *slog.Logger
	tick     time.Duration
	wheel    *wheel.Wheel
	links    link.Config
	registry *registry
	store    store.Store
	own      bool // the store was made here
	near     bool // the store is memory of this process
	node     store.Node
	member   *node.Node // of the cluster
	mirrors  *mirror.Hub
	follows  *follows
	mounts   settings // of the methods of Presence itself

	lot     atomic.Pointer[park.Lot] // of quiet Callback connections and of goodbyes, once there was one
	lotOnce sync.Once

	slow     work.Pool // what may block for a moment
	hooks    work.Pool // OnDisconnect
	goodbyes *link.Goodbyes

	sessions  atomic.Int64 // admitted and not yet released
	verifying atomic.Int64

	refused4xx atomic.Uint64 // requests
	refused5xx atomic.Uint64
	noRoom     atomic.Uint64            // newcomers
	ended      map[Cause]*atomic.Uint64 // live sessions; the map never changes
	unverified atomic.Uint64            // upgrades without a proof of life
	unanswered atomic.Int64             // until when it is known from a query that the store is away

	gate     sync.RWMutex // held for reading while something begins
	draining bool
	running  sync.WaitGroup // connections, serve functions
	pending  sync.Map       // *Session: upgrades
	kicks    kicks

	down     sync.Once
	downDone chan struct{}
	downErr  error

	told sync.Map // what has been logged once

	saidNoRoom, saidOrigin, saidIdentity, saidProtocol, saidStripped rarely.Line
}

// New checks the options, all at once, and starts the scheduler and the lease
// in the store. The error is ErrOptions and names each rule that broke. It does
// not wait for the store: one that is away is no error, and the node serves.
//
// Without Shutdown a Presence keeps its sessions, and three goroutines even if
// there are none. When the process ends without it, other nodes show its users
// until its lease has ended.
func New(o Options) (*Presence, error) {
	anonymous := o.Identify == nil
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	kept := "memory"
	if o.Store != nil {
		kept = fmt.Sprintf("%T", o.Store)
	}
	p := &Presence{opts: o, log: o.Logger, store: o.Store, registry: newRegistry(), downDone: make(chan struct{})}
	p.ended = make(map[Cause]*atomic.Uint64, len(causes))
	for _, cause := range causes {
		p.ended[cause] = new(atomic.Uint64)
	}
	if p.store == nil {
		p.store, p.own = memstore.New(memstore.Options{}), true
	}
	_, p.near = p.store.(*memstore.Store)
	p.tick = o.tick()
	p.wheel = wheel.New(p.tick)
	p.slow.Max = 16 * runtime.GOMAXPROCS(0)
	p.hooks.Max = 64
	p.goodbyes = link.NewGoodbyes(2*runtime.GOMAXPROCS(0), p.parking)
	p.links = link.Config{
		Clock: p.wheel, Slow: &p.slow, Goodbyes: p.goodbyes, ControlFrames: o.Limits.ControlFramesPerSecond,
	}
	p.mounts = p.settings(Route{})
	p.node = store.Node{
		ID: fmt.Sprintf("%016x", p.newID()), Name: o.NodeName,
		LeaveGrace: o.LeaveGrace, KeepLastSeen: o.KeepLastSeen,
	}
	if p.node.Name == "" {
		p.node.Name = p.node.ID
	}
	p.mirrors = mirror.New(p.store, mirror.Limits{
		SubscriberEvents: o.Limits.SubscriberEvents, SnapshotMembers: o.Limits.SnapshotMembers,
	}, p.log)
	p.follows = newFollows(p)
	p.log.Info("presence: started", "node", p.node.Name, "store", kept, "partitions", p.store.Shards(),
		"max_sessions", o.Limits.Sessions, "interval", o.HeartbeatInterval, "timeout", o.HeartbeatTimeout,
		"leave_grace", o.LeaveGrace)
	if anonymous {
		p.log.Info("presence: Options.Identify is nil: everybody is anonymous, a user of its own, unless a Route says who it is")
	}
	p.member = node.Start(node.Config{
		Store: p.store, Node: p.node, Logger: p.log,
		Held: p.held, Order: p.order, Added: p.added,
	})
	return p, nil
}

// tick is the grain of the scheduler: fine enough for the shortest wait.
func (o *Options) tick() time.Duration {
	tick := 50 * time.Millisecond
	for _, d := range []time.Duration{o.HeartbeatInterval, o.HeartbeatTimeout - o.HeartbeatInterval} {
		if d > 0 {
			tick = min(tick, d/8)
		}
	}
	return max(tick, time.Millisecond)
}

// parking is made when the first Callback connection comes, or the first
// goodbye is said over a socket; nil where the system has none. Its goroutines
// only read, which is a small part of what a message costs: one for every four
// CPUs is enough, and fewer are woken.
func (p *Presence) parking() *park.Lot {
	p.lotOnce.Do(func() { p.lot.Store(park.New((runtime.GOMAXPROCS(0) + 3) / 4)) })
	return p.lot.Load()
}

// rhythm is what the options say about one kind of session.
func (o *Options) rhythm() rhythm {
	return rhythm{
		interval: o.HeartbeatInterval, timeout: o.HeartbeatTimeout,
		download: o.DownloadTimeout, idle: o.IdleTimeout, away: o.AwayAfter,
	}
}

// admit counts a session in, or says why it cannot be. What was admitted is
// given back by release.
func (p *Presence) admit(s *Session) error {
	p.gate.RLock()
	defer p.gate.RUnlock()
	if p.draining {
		return RetryAfter(failed("open", ErrUnavailable, ErrClosed), max(p.opts.DrainGrace/3, time.Second))
	}
	if p.opts.RequireStore && p.member.Away() {
		return p.full("the store is away")
	}
	if p.sessions.Add(1) > int64(p.opts.Limits.Sessions) {
		p.sessions.Add(-1)
		return p.full(fmt.Sprintf("%d sessions, which is Limits.Sessions", p.opts.Limits.Sessions))
	}
	if p.verifying.Add(1) > int64(p.opts.Limits.Verifying) {
		p.verifying.Add(-1)
		p.sessions.Add(-1)
		return p.full(fmt.Sprintf("%d upgrades under way, which is Limits.Verifying", p.opts.Limits.Verifying))
	}
	return nil
}

// full refuses a newcomer for a reason that is this node's.
func (p *Presence) full(why string) error {
	n := p.noRoom.Add(1)
	if p.saidNoRoom.Now() {
		p.log.Warn("presence: no room: newcomers are refused", "reason", why, "no_room", n)
	}
	return RetryAfter(fmt.Errorf("%w: %s", ErrUnavailable, why), retryFull)
}

const (
	retryFull = 5 * time.Second
	retryUser = 10 * time.Second
)

// verified gives back the place among the upgrades.
func (s *Session) verified() {
	if s.marks.set(markVerified) {
		s.p.verifying.Add(-1)
	}
}

// release gives back what admit counted.
func (s *Session) release() {
	if s.marks.set(markReleased) {
		s.verified() // it may be on its way at the same moment
		s.p.sessions.Add(-1)
	}
}

// commit sends a change to the store and waits for it, for CommitWait at most.
// What is late follows by itself, also when the store is away and comes back.
func (p *Presence) commit(ctx context.Context, what string, op store.Op) error {
	if p.opts.CommitWait == 0 || p.member.Away() {
		p.member.Do(op, nil)
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, p.opts.CommitWait)
	defer cancel()
	res, err := p.member.Await(waiting, op)
	switch {
	case errors.Is(err, node.ErrPending), waiting.Err() != nil && ctx.Err() == nil:
		return nil // it is queued, and follows
	case errors.Is(err, node.ErrClosed):
		return failed(what, ErrClosed)
	case err != nil:
		return storeError(what, err)
	case res.Status == store.TooLarge:
		return failed(what, fmt.Errorf("%w: the metadata of all sessions of one user", ErrLimit))
	case res.Status == store.Missing:
		return failed(what, ErrEnded)
	}
	return nil
}

// held lists the sessions of a shard, for a store that forgot them.
func (p *Presence) held(shard int) []store.Op {
	var ops []store.Op
	p.registry.all(func(s *Session) {
		if p.store.ShardOf(s.user) == shard {
			if op, ok := s.heldOp(); ok {
				ops = append(ops, op)
			}
		}
	})
	return ops
}

// order carries out what another node asked for.
func (p *Presence) order(o store.Order) {
	s := p.registry.byID(parseID(o.Session))
	if s == nil || s.user != o.User {
		if o.Kind == store.Kick {
			// It has just ended by itself, perhaps into a grace.
			p.member.Do(store.Op{Kind: store.OpEndGrace, User: o.User}, nil)
		}
		return
	}
	switch o.Kind {
	case store.Kick:
		s.end(Reason{o.Code, o.Text}.end())
	case store.Replaced:
		s.unlist()
		s.end(End{Cause: CauseReplaced, Code: codeReplaced, Text: "replaced"})
	case store.Challenge:
		s.challenge()
	}
}

// added hears what the store said of a session that waits no longer.
func (p *Presence) added(id string, r store.Result) {
	if s := p.registry.byID(parseID(id)); s != nil {
		s.decided(r)
	}
}

// once says whether this is the first time for the key: for logs.
func (p *Presence) once(key string) bool {
	_, before := p.told.LoadOrStore(key, true)
	return !before
}

func isLimit(err error) bool { return errors.Is(err, ErrLimit) }
