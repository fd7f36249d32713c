//go:build unix

package faults_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/proctest"
)

const (
	patience = time.Minute
	lease    = 2 * time.Second
	grace    = time.Second
)

// node is a process of the example. Its address changes with every start.
type node struct {
	name string
	wire *wire

	mu   sync.Mutex
	proc *proctest.Process

	takes   atomic.Bool  // clients and watchers may come
	answers atomic.Bool  // it can be asked
	sick    atomic.Int64 // odd: the others may take its users for gone
}

func (n *node) url() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.proc.URL
}

// rig is the whole cluster, its users and those who watch.
type rig struct {
	t         *testing.T
	ctx       context.Context
	bin       string
	args      []string
	redis     *redisServer
	nodes     []*node
	clients   []*client
	followers []*follower
	api       http.Client
	streams   http.Client
	dials     chan struct{} // bounds what goes on at a time
	looks     chan struct{} // the same for what users ask: it may take long
	pace      time.Duration // between two questions of a sampler

	calm   atomic.Bool // nobody reloads
	visits int

	online, unknown, failed, ends, reloads, joins, leaves atomic.Int64

	mu     sync.Mutex
	wrongs []string
}

// newRig starts three nodes with users on each, and waits until all know of
// all.
func newRig(t *testing.T, users int, args ...string) *rig {
	ctx, cancel := context.WithCancel(context.Background())
	r := &rig{
		t: t, ctx: ctx, args: args, redis: startRedis(t), bin: proctest.Build(t, ".."),
		dials: make(chan struct{}, 32), looks: make(chan struct{}, 32), pace: 5 * time.Millisecond,
		api:     http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}},
		streams: http.Client{Transport: &http.Transport{DisableCompression: true}},
	}
	for i := range 3 {
		n := &node{name: fmt.Sprint("node-", i), wire: newWire(t, r.redis.socket)}
		r.nodes = append(r.nodes, n)
		r.start(n)
	}
	var running sync.WaitGroup
	for i := range users {
		c := &client{r: r, name: fmt.Sprintf("u%04d", i), at: away, restless: i%25 == 24}
		c.want.Store(int32(i % 3))
		r.clients = append(r.clients, c)
	}
	for k := range r.nodes {
		f := &follower{r: r, k: k}
		r.followers = append(r.followers, f)
		running.Go(f.run)
	}
	for _, c := range r.clients {
		running.Go(c.run)
		if c.restless {
			running.Go(c.reload)
		}
	}
	t.Cleanup(func() {
		cancel()
		running.Wait()
		r.api.CloseIdleConnections()
		r.streams.CloseIdleConnections()
	})
	took := r.settle(patience)
	t.Logf("%d users on 3 nodes: there after %v", users, took.Round(time.Millisecond))
	for k := range r.nodes {
		for range 3 {
			running.Go(func() { r.sample(k) })
		}
	}
	return r
}

func (r *rig) start(n *node) {
	args := append([]string{"-addr", "127.0.0.1:0", "-redis", "redis://" + n.wire.addr + "/0", "-node", n.name,
		"-lease", lease.String(), "-grace", grace.String(), "-interval", "2s", "-timeout", "8s"}, r.args...)
	p := proctest.Start(r.t, r.bin, args...)
	n.mu.Lock()
	n.proc = p
	n.mu.Unlock()
	n.takes.Store(true)
	n.answers.Store(true)
}

// gone takes a node out of use before it is harmed.
func (n *node) gone() {
	n.takes.Store(false)
	n.answers.Store(false)
	n.sick.Add(1)
}

type state string

const (
	online  state = "online"
	unknown state = "unknown"
	offline state = "offline"
)

// lookup asks a node for a user.
func (r *rig) lookup(k int, user string) (state, error) {
	var a struct{ Online *bool }
	code, err := r.get(k, "/online/"+user, &a)
	switch {
	case err != nil:
		return "", err
	case code == http.StatusServiceUnavailable:
		return unknown, nil
	case code != http.StatusOK || a.Online == nil:
		r.wrong(fmt.Sprintf("status %d for %s", code, user))
		return "", fmt.Errorf("status %d", code)
	case *a.Online:
		return online, nil
	}
	return offline, nil
}

func (r *rig) get(k int, path string, into any) (int, error) {
	req, err := http.NewRequestWithContext(r.ctx, http.MethodGet, r.nodes[k].url()+path, nil)
	if err != nil {
		return 0, err
	}
	resp, err := r.api.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return resp.StatusCode, json.NewDecoder(resp.Body).Decode(into)
}

func (r *rig) wrong(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.wrongs) < 20 {
		r.wrongs = append(r.wrongs, what)
	}
}

// members are those who shall be there.
func (r *rig) members() map[string]bool {
	all := map[string]bool{}
	for _, c := range r.clients {
		if want := c.want.Load(); want != away && (c.moves.Load() || r.nodes[want].takes.Load()) {
			all[c.name] = true
		}
	}
	return all
}

// lists says whether a node lists exactly these, and counts them.
func (r *rig) lists(k int, users map[string]bool) string {
	n, after := 0, ""
	for {
		var l struct {
			Count   int
			Members []struct{ User string }
			Next    string
		}
		code, err := r.get(k, "/online?topic=room&limit=1000&after="+url.QueryEscape(after), &l)
		if err != nil || code != http.StatusOK {
			return fmt.Sprintf("status %d, %v", code, err)
		}
		if l.Count != len(users) {
			return fmt.Sprintf("it counts %d, not %d", l.Count, len(users))
		}
		for _, m := range l.Members {
			if !users[m.User] {
				return m.User + " is a ghost"
			}
			n++
		}
		if after = l.Next; after == "" {
			break
		}
	}
	if n != len(users) {
		return fmt.Sprintf("it lists %d of %d", n, len(users))
	}
	return ""
}

// settle waits until all that can be asked list who shall be there, every user
// is known to be, and the watchers were told.
func (r *rig) settle(within time.Duration) time.Duration {
	r.t.Helper()
	users := r.members()
	r.calm.Store(true)
	defer r.calm.Store(false)
	took := r.right(within, users)
	r.until(within, func() string {
		for _, c := range r.clients {
			if _, _, seen := c.state(); seen != users[c.name] {
				return fmt.Sprintf("%s: known to be connected: %v", c.name, seen)
			}
		}
		return ""
	})
	r.catchUp()
	r.until(within, func() string {
		for k, f := range r.followers {
			if r.nodes[k].answers.Load() && !f.holds(users) {
				return fmt.Sprintf("the events of node %d do not lead to the membership", k)
			}
		}
		return ""
	})
	return took
}

// catchUp returns when the watchers were told of everything up to now: a
// visitor comes and goes, and events have an order.
func (r *rig) catchUp() {
	r.t.Helper()
	r.visits++
	name := fmt.Sprint(visitor, r.visits)
	told := func(there bool) {
		r.until(patience, func() string {
			for k, f := range r.followers {
				if r.nodes[k].answers.Load() && f.has(name) != there {
					return fmt.Sprintf("%s is told to be there by node %d: %v", name, k, !there)
				}
			}
			return ""
		})
	}
	for k, n := range r.nodes {
		if !n.takes.Load() {
			continue
		}
		conn, err := r.connect(k, name)
		require.NoError(r.t, err)
		conn.CloseRead(r.ctx) // it answers pings
		told(true)
		require.NoError(r.t, conn.Close(websocket.StatusGoingAway, ""))
		told(false)
		return
	}
}

// right waits until the nodes that can be asked list exactly these.
func (r *rig) right(within time.Duration, users map[string]bool) time.Duration {
	r.t.Helper()
	begun := time.Now()
	r.until(within, func() string {
		for k, n := range r.nodes {
			if n.answers.Load() {
				if bad := r.lists(k, users); bad != "" {
					return fmt.Sprintf("node %d: %s", k, bad)
				}
			}
		}
		return ""
	})
	return time.Since(begun)
}

// until waits for f to have no complaint. Only what it began to look at in
// time counts.
func (r *rig) until(within time.Duration, f func() string) {
	r.t.Helper()
	end := time.Now().Add(within)
	for bad := "nobody looked in time"; ; {
		if time.Now().After(end) {
			r.report()
			r.t.Fatalf("after %v: %s", within, bad)
		}
		if bad = f(); bad == "" {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// of are the users who want to be on a node.
func (r *rig) of(k int) (all []*client) {
	for _, c := range r.clients {
		if int(c.want.Load()) == k {
			all = append(all, c)
		}
	}
	return all
}

func (r *rig) marks() (at []int) {
	for _, f := range r.followers {
		at = append(at, f.mark())
	}
	return at
}

// stay makes users belong where they are now. Who is on the way belongs where
// they were meant to be.
func (r *rig) stay(users []*client) {
	for _, c := range users {
		if at, _, _ := c.state(); at != away {
			c.want.Store(int32(at))
		}
		c.moves.Store(false)
	}
}

// quiet requires that no watcher was told anything, but of these, and of those
// who took longer to reload than their grace, on a busy machine.
func (r *rig) quiet(marks []int, but map[string]bool) {
	r.t.Helper()
	for k, f := range r.followers {
		all, _ := f.since(marks[k])
		for user := range but {
			delete(all, user)
		}
		for _, c := range r.clients {
			if c.restless && c.slow() {
				delete(all, c.name)
			}
		}
		for user, v := range all {
			for _, c := range r.clients {
				if c.name == user {
					r.t.Logf("node %d told of %s: %+v; reloads: %v, took up to %v", k, user, v, c.restless, c.gap)
				}
			}
		}
		require.Empty(r.t, all, "node %d told of joins and leaves", k)
	}
}

// once requires that a watcher was told of exactly so much for these users,
// and of nothing for others. Where a snapshot came in between, there may be
// less.
func (r *rig) once(k, mark int, want func(user string) (leaves, joins int)) {
	r.t.Helper()
	all, snapshots := r.followers[k].since(mark)
	for _, c := range r.clients {
		if c.restless {
			continue
		}
		got := all[c.name]
		leaves, joins := want(c.name)
		if snapshots > 0 {
			require.LessOrEqual(r.t, got.leaves, leaves, c.name)
			require.LessOrEqual(r.t, got.joins, joins, c.name)
		} else {
			require.Equal(r.t, []int{leaves, joins}, []int{got.leaves, got.joins}, "leaves and joins of %s at node %d", c.name, k)
		}
		for _, cause := range got.causes {
			require.Equal(r.t, "node-lost", cause, c.name)
		}
	}
}

// others is once for every node but k.
func (r *rig) others(k int, marks []int, want func(user string) (leaves, joins int)) {
	r.t.Helper()
	for i := range r.nodes {
		if i != k {
			r.once(i, marks[i], want)
		}
	}
}

// report prints the counters and fails if anybody was told wrong.
func (r *rig) report() {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.t.Logf("so far: answers online %d, unknown %d, wrong %d, requests failed %d; connections ended %d, reloads %d; joins told %d, leaves %d",
		r.online.Load(), r.unknown.Load(), len(r.wrongs), r.failed.Load(), r.ends.Load(), r.reloads.Load(), r.joins.Load(), r.leaves.Load())
	for _, w := range r.wrongs {
		r.t.Error(w)
	}
	r.wrongs = nil
	for k, f := range r.followers {
		f.mu.Lock()
		if len(f.broken) > 0 {
			r.t.Errorf("the events of node %d: %v", k, f.broken[:min(len(f.broken), 10)])
			f.broken = nil
		}
		f.mu.Unlock()
	}
}

// long skips what takes long.
func long(t *testing.T) {
	if os.Getenv("PRESENCE_FAULTS") == "" {
		t.Skip("takes long: make test-faults")
	}
}
