//go:build unix

package faults_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// away is where a user is who shall not be connected.
const away = -1

// client is one user with one tab, who comes back when the connection ends.
type client struct {
	r    *rig
	name string

	restless bool // reloads all the time

	// want is the node to go to, or away. moves: to another one if that is
	// not there.
	want  atomic.Int32
	moves atomic.Bool

	mu     sync.Mutex
	conn   *websocket.Conn
	at     int // the node of conn
	epoch  int // changes with conn
	seen   bool
	seenAt time.Time     // when another node first knew
	left   time.Time     // when the tab was closed last
	gap    time.Duration // the longest it took to be connected again
}

// state says on which node the user has been known to be since epoch.
func (c *client) state() (at, epoch int, seen bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at, c.epoch, c.seen
}

func (c *client) set(conn *websocket.Conn, at int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn, c.at, c.seen = conn, at, false
	c.epoch++
}

// back notes how long the user was without a connection.
func (c *client) back() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.left.IsZero() {
		c.gap = max(c.gap, time.Since(c.left))
		c.left = time.Time{}
	}
}

// leave closes the tab, if it is open, and sends the user elsewhere.
func (c *client) leave(want int, moves bool) {
	c.want.Store(int32(want))
	c.moves.Store(moves)
	c.closeTab()
}

func (c *client) closeTab() {
	c.mu.Lock()
	conn := c.conn
	c.left = time.Now()
	c.mu.Unlock()
	if conn != nil {
		_ = conn.Close(websocket.StatusGoingAway, "")
	}
}

// slow says that the user once took longer than a grace to reload, or still
// does.
func (c *client) slow() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gap >= grace || !c.left.IsZero() && time.Since(c.left) >= grace
}

// reload lets restless users go and come back within their grace, all the
// time, unless it has to be calm.
func (c *client) reload() {
	for c.r.ctx.Err() == nil {
		pause(c.r.ctx, time.Duration(200+rand.IntN(600))*time.Millisecond)
		if _, _, seen := c.state(); seen && !c.r.calm.Load() {
			c.r.reloads.Add(1)
			c.closeTab()
		}
	}
}

// run is the life of the user.
func (c *client) run() {
	ctx := c.r.ctx
	for ctx.Err() == nil {
		at := c.target()
		if at == away {
			pause(ctx, 20*time.Millisecond)
			continue
		}
		conn, err := c.dial(at)
		if err != nil {
			pause(ctx, 50*time.Millisecond)
			continue
		}
		c.set(conn, at)
		if c.want.Load() == away { // since it was dialled
			c.closeTab()
		}
		ended := make(chan error, 1)
		go func() {
			// An empty message is answered by one, once the client is verified.
			_ = conn.Write(ctx, websocket.MessageText, nil)
			for {
				if _, _, err := conn.Read(ctx); err != nil {
					ended <- err
					return
				}
				c.back()
			}
		}()
		c.await(at, ended)
		err = <-ended
		c.set(nil, away)
		_ = conn.CloseNow()
		if !c.restless {
			c.r.ends.Add(1)
		}
		// A server that goes says when to come back.
		var ce websocket.CloseError
		if errors.As(err, &ce) {
			if ms, ok := strings.CutPrefix(ce.Reason, "retry="); ok {
				n, _ := strconv.Atoi(ms)
				pause(ctx, time.Duration(n)*time.Millisecond)
			}
		}
	}
}

func (c *client) target() int {
	want := int(c.want.Load())
	if want == away || c.r.nodes[want].takes.Load() {
		return want
	}
	if c.moves.Load() {
		for i := range c.r.nodes {
			k := (want + 1 + (len(c.name)+int(c.name[len(c.name)-1]))%2 + i) % len(c.r.nodes)
			if c.r.nodes[k].takes.Load() {
				return k
			}
		}
	}
	return away
}

func (c *client) dial(at int) (*websocket.Conn, error) {
	select {
	case c.r.dials <- struct{}{}:
		defer func() { <-c.r.dials }()
	case <-c.r.ctx.Done():
		return nil, c.r.ctx.Err()
	}
	return c.r.connect(at, c.name)
}

func (r *rig) connect(k int, user string) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(r.ctx, 5*time.Second)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(r.nodes[k].url(), "http")+"/ws?topic=room&user="+user, nil)
	return conn, err
}

// await waits until another node, if one can be asked, says that the user is
// online. From then on nobody may say anything else.
func (c *client) await(at int, ended chan error) {
	for c.r.ctx.Err() == nil {
		if len(ended) > 0 {
			return
		}
		k := at
		for i := 1; i < len(c.r.nodes); i++ {
			if n := (at + i) % len(c.r.nodes); c.r.nodes[n].takes.Load() {
				k = n
				break
			}
		}
		c.r.looks <- struct{}{}
		a, err := c.r.lookup(k, c.name)
		<-c.r.looks
		if err == nil && a == online {
			c.mu.Lock()
			c.seen, c.seenAt = true, time.Now()
			c.mu.Unlock()
			return
		}
		pause(c.r.ctx, 50*time.Millisecond)
	}
}

// sample asks a node all the time for somebody.
func (r *rig) sample(k int) {
	for r.ctx.Err() == nil {
		pause(r.ctx, r.pace)
		c := r.clients[rand.IntN(len(r.clients))]
		asked := r.nodes[k]
		at, epoch, seen := c.state()
		if !seen || !asked.answers.Load() {
			continue
		}
		// A node that is cut off knows its own users, but the others may
		// take them for gone.
		own := k == at
		sick := r.nodes[at].sick.Load()
		if sick%2 == 1 && !own {
			continue
		}
		a, err := r.lookup(k, c.name)
		if err != nil {
			r.failed.Add(1)
			continue
		}
		switch a {
		case online:
			r.online.Add(1)
		case unknown:
			r.unknown.Add(1)
		}
		if a == online || a == unknown && !own {
			continue
		}
		if _, e, _ := c.state(); e == epoch && r.nodes[at].sick.Load() == sick && asked.answers.Load() {
			r.wrong(c.name + " of " + strconv.Itoa(at) + " is said to be " + string(a) + " by " + strconv.Itoa(k))
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
