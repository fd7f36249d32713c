package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
)

const (
	protocol = "presence.v1"
	probeIn  = 5 * time.Second
)

// plan is what follows a loss.
type plan struct {
	stop  bool
	idle  bool // wait for a Write
	after time.Duration
}

// policy says what a close code or a refusal means for the next dial.
type policy struct {
	o         *Options
	tries     int
	obeyed    bool // retry= was, and nothing was stable since
	authTried bool // 4401 was answered by a dial that was not stable yet
}

// stable: the connection has lasted.
func (p *policy) stable() { p.tries, p.obeyed, p.authTried = 0, false, false }

var retryReason = regexp.MustCompile(`^retry=(\d{1,9})$`)

func (p *policy) closed(code int, reason string) plan {
	switch {
	case code == 1012 || code == 1013:
		if m := retryReason.FindStringSubmatch(reason); m != nil {
			ms, _ := strconv.Atoi(m[1])
			told := plan{after: time.Duration(ms) * time.Millisecond}
			if p.obeyed { // by connections that did not last: to obey again may be to dial in a circle
				told.after = max(told.after, p.backoff().after)
			}
			p.obeyed = true
			return told
		}
	case code == 4401:
		if p.o.Auth == nil || p.authTried {
			return plan{stop: true}
		}
		p.authTried = true
		return plan{}
	case code == 4408:
		return plan{idle: true}
	case code == 4429:
		return plan{after: p.o.MaxDelay - rand.N(p.o.MaxDelay/2+1)}
	case code >= 4000 && code <= 4999:
		return plan{stop: true}
	}
	return p.backoff()
}

// backoff is full jitter: anything up to a bound that doubles.
func (p *policy) backoff() plan {
	bound := p.o.MaxDelay
	if p.tries < 30 {
		bound = min(bound, p.o.MinDelay<<p.tries)
	}
	p.tries++
	return plan{after: rand.N(bound + 1)}
}

// refused is for an upgrade that was answered with something else.
func (p *policy) refused(status int, retryAfter string) (plan, int) {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return plan{stop: true}, 4000 + status
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		var told time.Duration
		if s, err := strconv.Atoi(strings.TrimSpace(retryAfter)); err == nil {
			told = time.Duration(s) * time.Second
		} else if at, err := http.ParseTime(retryAfter); err == nil {
			told = time.Until(at)
		}
		if told > 0 { // no wait is nothing said
			return plan{after: told + rand.N(p.o.MinDelay+1)}, 1006
		}
	}
	return p.backoff(), 1006
}

// run dials until there is no use in it.
func (c *Conn) run() {
	defer close(c.done)
	defer c.wired.close()
	p := policy{o: &c.o}
	for c.ctx.Err() == nil {
		code, reason := 1006, ""
		var next plan
		ws, resp, err := c.dial()
		if err != nil && c.ctx.Err() == nil {
			c.failed = err
		}
		switch {
		case err == nil:
			began := time.Now()
			code, reason = c.serve(ws)
			if time.Since(began) >= c.o.StableAfter {
				p.stable()
			}
			next = p.closed(code, reason)
		case errors.Is(err, ErrStop):
			c.end(4401, "not signed in")
			return
		case resp != nil && resp.StatusCode != http.StatusSwitchingProtocols:
			next, code = p.refused(resp.StatusCode, resp.Header.Get("Retry-After"))
			reason = fmt.Sprintf("HTTP %d", resp.StatusCode)
			err = errors.New(reason)
		default:
			next = p.backoff()
		}
		if next.stop {
			c.end(code, reason)
			return
		}
		if c.ctx.Err() != nil {
			return
		}
		if next.idle {
			next.after = -1
		}
		if c.o.OnDown != nil {
			c.o.OnDown(Down{Code: code, Reason: reason, RetryIn: next.after, Err: err})
		}
		c.wait(next)
	}
}

func (c *Conn) wait(next plan) {
	if next.idle {
		c.mu.Lock()
		waiting := len(c.outbox) > 0
		c.mu.Unlock()
		if waiting {
			return
		}
		select {
		case <-c.wake: // of a Write long ago
		default:
		}
		select {
		case <-c.wake:
		case <-c.ctx.Done():
		}
		return
	}
	timer := time.NewTimer(next.after)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.ctx.Done():
	}
}

// dial makes one try. resp is set when the server answered something else.
func (c *Conn) dial() (*websocket.Conn, *http.Response, error) {
	ctx, cancel := context.WithTimeout(c.ctx, c.o.DialTimeout)
	defer cancel()
	at := *c.url // Auth may change it
	r := &http.Request{URL: &at, Header: c.o.Header.Clone()}
	if r.Header == nil {
		r.Header = http.Header{}
	}
	if c.o.Auth != nil {
		if err := c.o.Auth(ctx, r); err != nil {
			return nil, nil, err
		}
	}
	var offers []string
	for _, p := range c.o.Subprotocols {
		offers = append(offers, protocol+"+"+p)
	}
	offers = append(offers, c.o.Subprotocols...)
	if len(c.o.Subprotocols) == 0 {
		offers = []string{protocol}
	}
	ws, resp, err := websocket.Dial(ctx, r.URL.String(), &websocket.DialOptions{
		HTTPClient: c.o.HTTPClient, HTTPHeader: r.Header, Subprotocols: offers,
	})
	if err != nil {
		return nil, resp, err
	}
	ws.SetReadLimit(c.o.ReadLimit)
	return ws, nil, nil
}

// serve is one connection's life. It returns how that ended.
func (c *Conn) serve(ws *websocket.Conn) (code int, reason string) {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	defer ws.CloseNow()
	chosen := ws.Subprotocol()
	wired := chosen == protocol || strings.HasPrefix(chosen, protocol+"+")
	own := chosen
	if wired {
		own = strings.TrimPrefix(strings.TrimPrefix(chosen, protocol), "+")
	}
	c.heard()
	if c.o.Interval > 0 {
		if ws.Write(ctx, websocket.MessageText, nil) != nil { // announces that heartbeats are to show
			return 1006, ""
		}
	}
	c.mu.Lock()
	c.own, c.ws = own, ws
	waiting := c.outbox
	c.outbox = nil
	for i, m := range waiting { // with the lock held: in front of what is written from now on
		if ws.Write(ctx, m.kind, m.data) != nil {
			c.outbox = waiting[i:]
			break
		}
	}
	c.mu.Unlock()
	if !wired {
		c.wired.unspoken()
	}
	watched := make(chan struct{})
	if c.o.Interval > 0 {
		go func() {
			defer close(watched)
			c.watch(ctx, ws)
		}()
	} else {
		close(watched)
	}
	c.o.OnOpen()
	code, reason = c.read(ctx, ws, wired)
	cancel()
	<-watched
	c.mu.Lock()
	c.ws = nil
	c.mu.Unlock()
	c.wired.down()
	return code, reason
}

func (c *Conn) read(ctx context.Context, ws *websocket.Conn, wired bool) (code int, reason string) {
	goodbye := context.AfterFunc(c.ctx, func() {
		var e *CloseError
		if errors.As(context.Cause(c.ctx), &e) && e.Code == 1000 {
			_ = ws.Close(websocket.StatusNormalClosure, "")
		}
		ws.CloseNow()
	})
	defer goodbye()
	for {
		kind, data, err := ws.Read(context.WithoutCancel(ctx)) // a context that ends would leave no time for a goodbye
		if err != nil {
			var e websocket.CloseError
			if errors.As(err, &e) {
				return int(e.Code), e.Reason
			}
			return 1006, ""
		}
		c.heard()
		if kind == websocket.MessageText {
			if len(data) == 0 && c.o.Interval > 0 {
				continue
			}
			if wired && len(data) > 0 && data[0] == mark {
				c.wired.told(ws, data[1:])
				continue
			}
		}
		select {
		case c.inbox <- message{kind, data}:
		case <-c.ctx.Done():
		}
	}
}

func (c *Conn) heard() { c.heardAt.Store(time.Now().UnixNano()) }

// watch cuts a connection whose server is silent for two intervals. It goes by
// the wall clock: other clocks stop while the machine sleeps. After a sleep the
// server is asked first, since what it has sent may not have been read yet.
func (c *Conn) watch(ctx context.Context, ws *websocket.Conn) {
	var probed time.Duration // since when an answer is waited for
	last := time.Now().UnixNano()
	for {
		interval := time.Duration(c.interval.Load())
		tick := max(min(interval/8, time.Second), time.Millisecond)
		if interval == 0 {
			tick = time.Second // the server has no heartbeats
		}
		timer := time.NewTimer(tick)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		now := time.Now().UnixNano()
		slept := time.Duration(now-last) > 2*tick+time.Second
		last = now
		quiet := time.Duration(now - c.heardAt.Load())
		switch {
		case interval == 0:
		case quiet < tick:
			probed = 0
		case slept:
			probed = tick
			probe, cancel := context.WithTimeout(ctx, probeIn)
			_ = ws.Write(probe, websocket.MessageText, nil)
			cancel()
		case probed > 0:
			if probed += tick; probed > min(probeIn, interval) {
				ws.CloseNow()
				return
			}
		case quiet >= 2*interval:
			ws.CloseNow()
			return
		}
	}
}
