//go:build unix

package faults_test

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What is promised after a fault: that all is right by then. The promise is for
// a machine of its own, and a busy one gets three times that.
const (
	busy       = 3
	afterNode  = busy * (max(lease, grace) + 2*time.Second)
	afterStore = busy * (lease + 4*time.Second)
)

// TestQuick is the faults that are met most.
func TestQuick(t *testing.T) {
	r := newRig(t, 150)
	r.killNode(2)
	r.restartRedis()
	r.cutNode(1, (*wire).cut)
	r.everybodyLeaves()
}

func TestAllFaults(t *testing.T) {
	long(t)
	r := newRig(t, 300)
	for k := range r.nodes {
		r.killNode(k)
	}
	r.freezeNode(0)
	r.cutNode(1, (*wire).cut)
	r.cutNode(2, (*wire).breakOff)
	r.restartRedis()
	r.flushRedis()
	r.pauseRedis(5 * time.Second)
	r.pauseRedis(30 * time.Second)
	r.rollingRestart()
	r.everybodyLeaves()
}

// TestManySessions is what a cluster of 5,000 sessions promises.
func TestManySessions(t *testing.T) {
	long(t)
	r := newRig(t, 5000, "-interval", "5s", "-timeout", "30s")
	r.killNode(0)
	r.restartRedis()
	r.everybodyLeaves()
}

// killNode: a third of its users come back at once on other nodes, the others
// only when it runs again.
func (r *rig) killNode(k int) {
	r.t.Helper()
	n, users := r.nodes[k], r.of(k)
	lost, movers := map[string]bool{}, []*client{}
	for i, c := range users {
		if c.moves.Store(i%3 == 0); i%3 == 0 {
			movers = append(movers, c)
		} else {
			lost[c.name] = true
		}
	}
	marks := r.marks()
	killed := time.Now()
	n.gone()
	n.proc.Signal(os.Kill)
	_ = n.proc.Wait(patience)
	took := r.right(afterNode, r.members())
	r.settle(patience)
	// Who was back before the lease can have ended never left.
	late := map[string]bool{}
	for _, c := range movers {
		c.mu.Lock()
		if c.seenAt.Sub(killed) > lease*2/3-200*time.Millisecond {
			late[c.name] = true
		}
		c.mu.Unlock()
	}
	for i := range r.nodes {
		if i == k {
			continue
		}
		all, _ := r.followers[i].since(marks[i])
		r.once(i, marks[i], func(u string) (leaves, joins int) {
			switch {
			case lost[u]:
				return 1, 0
			case late[u] && all[u].leaves == 1:
				return 1, 1
			}
			return 0, 0
		})
	}
	r.t.Logf("killed a node with %d users: right after %v; %d moved, %d of them late",
		len(users), took.Round(time.Millisecond), len(movers), len(late))

	marks = r.marks()
	r.start(n)
	r.settle(patience)
	n.sick.Add(1)
	r.others(k, marks, func(u string) (leaves, joins int) {
		if lost[u] {
			return 0, 1
		}
		return 0, 0
	})
	r.stay(movers)
	r.report()
}

// storeAway waits until every node knows its own users, and no other.
func (r *rig) storeAway() {
	r.t.Helper()
	for k := range r.nodes {
		for i := range r.nodes {
			c := r.of(i)[0]
			want := unknown
			if i == k {
				want = online
			}
			r.until(patience, func() string {
				if a, err := r.lookup(k, c.name); err != nil || a != want {
					return "node " + r.nodes[k].name + " calls " + c.name + " " + string(a)
				}
				return ""
			})
		}
	}
}

func (r *rig) restartRedis() {
	r.t.Helper()
	marks := r.marks()
	r.redis.kill()
	r.storeAway()
	left := r.someLeave()
	r.redis.start(r.t)
	r.recovered("Redis was killed and is empty", marks, left)
}

func (r *rig) flushRedis() {
	r.t.Helper()
	marks := r.marks()
	_, err := r.redis.ask("FLUSHALL")
	require.NoError(r.t, err)
	r.recovered("Redis was flushed", marks, nil)
}

func (r *rig) pauseRedis(d time.Duration) {
	r.t.Helper()
	marks := r.marks()
	r.redis.signal(r.t, syscall.SIGSTOP)
	end := time.After(d)
	r.storeAway()
	left := r.someLeave()
	<-end
	r.redis.signal(r.t, syscall.SIGCONT)
	r.recovered("Redis slept for "+d.String(), marks, left)
}

// someLeave lets a few users of every node go while nobody can be told.
func (r *rig) someLeave() (left []*client) {
	r.t.Helper()
	for k := range r.nodes {
		for _, c := range r.of(k)[1:6] {
			if !c.restless {
				c.leave(away, false)
				left = append(left, c)
			}
		}
	}
	r.until(patience, func() string {
		for _, c := range left {
			if at, _, _ := c.state(); at != away {
				return c.name + " is still connected"
			}
		}
		return ""
	})
	return left
}

// recovered requires that all is right soon, and that nobody was told of it:
// only that these left, and then come back.
func (r *rig) recovered(what string, marks []int, left []*client) {
	r.t.Helper()
	ends := r.ends.Load()
	took := r.right(afterStore, r.members())
	r.settle(patience)
	gone := map[string]bool{}
	for _, c := range left {
		gone[c.name] = true
	}
	for k := range r.nodes {
		all, snapshots := r.followers[k].since(marks[k])
		for u := range gone {
			if snapshots == 0 || all[u].leaves > 0 { // else a snapshot may have told it
				require.Equal(r.t, 1, all[u].leaves, "leaves of %s at node %d", u, k)
			}
			require.Zero(r.t, all[u].joins, "joins of %s at node %d", u, k)
		}
	}
	r.quiet(marks, gone)
	require.Equal(r.t, ends, r.ends.Load(), "connections ended")
	for i, c := range left {
		c.want.Store(int32(i % len(r.nodes)))
	}
	r.settle(patience)
	r.t.Logf("%s: right after %v; %d left meanwhile", what, took.Round(time.Millisecond), len(left))
	r.report()
}

// cutNode takes the wire of a node away for longer than its lease.
func (r *rig) cutNode(k int, cut func(*wire)) {
	r.t.Helper()
	n := r.nodes[k]
	r.outlived(k, "cut off from Redis", func() {
		n.takes.Store(false)
		n.sick.Add(1)
		cut(n.wire)
	}, func() {
		n.wire.join()
		n.takes.Store(true)
	})
}

// freezeNode stops a node for longer than its lease.
func (r *rig) freezeNode(k int) {
	r.t.Helper()
	n := r.nodes[k]
	r.outlived(k, "frozen", func() {
		n.gone()
		n.proc.Signal(syscall.SIGSTOP)
	}, func() {
		n.proc.Signal(syscall.SIGCONT)
		n.takes.Store(true)
		n.answers.Store(true)
	})
}

// outlived: for the others, the users of a node that was away for longer than
// its lease leave once and join once. Their connections live on.
func (r *rig) outlived(k int, what string, harm, heal func()) {
	r.t.Helper()
	n := r.nodes[k]
	own := map[string]bool{}
	for _, c := range r.of(k) {
		own[c.name] = true
	}
	marks, ends, everybody := r.marks(), r.ends.Load(), r.members()
	rest := map[string]bool{}
	for u := range everybody {
		if !own[u] {
			rest[u] = true
		}
	}
	harm()
	begun := time.Now()
	r.until(afterNode, func() string {
		for i := range r.nodes {
			if i == k {
				continue
			}
			if bad := r.lists(i, rest); bad != "" {
				return r.nodes[i].name + ": " + bad
			}
			if !r.followers[i].holds(rest) {
				return "the events of " + r.nodes[i].name + " do not tell it"
			}
		}
		return ""
	})
	gone := time.Since(begun)
	heal()
	back := r.right(afterStore, everybody)
	r.settle(patience)
	n.sick.Add(1)
	r.others(k, marks, func(u string) (leaves, joins int) {
		if own[u] {
			return 1, 1
		}
		return 0, 0
	})
	require.Equal(r.t, ends, r.ends.Load(), "connections ended")
	r.t.Logf("a node with %d users was %s: they had left after %v, and were back %v after its return",
		len(own), what, gone.Round(time.Millisecond), back.Round(time.Millisecond))
	r.report()
}

// rollingRestart replaces one node after the other. Its users go elsewhere
// when they are told, and nobody sees them leave.
func (r *rig) rollingRestart() {
	r.t.Helper()
	for _, c := range r.clients {
		c.moves.Store(true)
	}
	marks := r.marks()
	for k, n := range r.nodes {
		ends := r.ends.Load()
		begun := time.Now()
		n.gone()
		n.proc.Interrupt()
		require.NoError(r.t, n.proc.Wait(patience))
		down := time.Since(begun)
		r.settle(patience)
		r.start(n)
		r.settle(patience)
		n.sick.Add(1)
		r.t.Logf("node %d was replaced: it took %v to stop; %d connections ended", k, down.Round(time.Millisecond), r.ends.Load()-ends)
	}
	r.quiet(marks, nil)
	r.stay(r.clients)
	r.report()
}

func (r *rig) everybodyLeaves() {
	r.t.Helper()
	for _, c := range r.clients {
		c.leave(away, false)
	}
	took := r.settle(busy * (grace + 4*time.Second))
	r.t.Logf("everybody left: empty after %v", took.Round(time.Millisecond))
	r.report()
}
