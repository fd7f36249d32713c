package browser

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// cable is the network between browsers and the server. A cable that is pulled
// brings nothing any more and says nothing of it, and takes no new connections.
type cable struct {
	url string
	to  string

	mu     sync.Mutex
	pulled bool
	conns  map[net.Conn]bool
}

// lay lays a cable to the server.
func lay(t *testing.T, s *server) *cable {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &cable{url: "http://" + ln.Addr().String(), to: s.addr, conns: map[net.Conn]bool{}}
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go c.join(nc)
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		c.mu.Lock()
		defer c.mu.Unlock()
		for nc := range c.conns {
			nc.Close()
		}
	})
	return c
}

func (c *cable) join(browser net.Conn) {
	c.mu.Lock()
	c.conns[browser] = true
	pulled := c.pulled
	c.mu.Unlock()
	if pulled {
		return // it waits for an answer
	}
	server, err := net.Dial("tcp", c.to)
	if err != nil {
		browser.Close()
		return
	}
	c.mu.Lock()
	c.conns[server] = true
	c.mu.Unlock()
	go c.carry(browser, server)
	c.carry(server, browser)
}

// carry brings what comes from one side to the other, but not what it has when
// the cable is pulled, nor anything after that: those connections are lost.
func (c *cable) carry(from, to net.Conn) {
	buf := make([]byte, 16<<10)
	lost := false
	for {
		n, err := from.Read(buf)
		c.mu.Lock()
		lost = lost || c.pulled
		c.mu.Unlock()
		if lost && err == nil {
			continue
		}
		if lost {
			_, _ = io.Copy(io.Discard, from)
			return
		}
		if n > 0 {
			_, _ = to.Write(buf[:n])
		}
		if err != nil {
			from.Close()
			to.Close()
			return
		}
	}
}

func (c *cable) pull(yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pulled = yes
}

// online has the browser think that it has a network, or none.
func (tb *tab) online(yes bool) {
	tb.do(func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, network.OverrideNetworkState, network.OverrideNetworkStateParams{Offline: !yes, DownloadThroughput: -1, UploadThroughput: -1})
		if err == nil {
			_, err = cdp.Call(ctx, t, network.EmulateNetworkConditionsByRule, network.EmulateNetworkConditionsByRuleParams{
				MatchedNetworkConditions: []*network.Conditions{{Offline: !yes, DownloadThroughput: -1, UploadThroughput: -1}},
			})
		}
		return chromedp.Void{}, err
	})
}

// A cable is pulled: neither side is told. Chromium alone plays offline, but
// lets an open WebSocket be, so the test takes the network away, too. The server
// reaps the silent tab, the tab finds the server silent after two intervals,
// and when the network is back so is the tab, and its list is right.
func TestClientOffline(t *testing.T) {
	t.Parallel()
	const interval = 3 * time.Second
	s := serve(t, "-interval", interval.String(), "-timeout", "7s", "-grace", "500ms")
	c := lay(t, s)
	b := newBrowser(t)
	ann := b.joinedAt(c.url, "ann")
	bob := b.joined(s, "bob")
	ann.until(sees("ann", "bob"))
	bob.until(sees("ann", "bob"))

	c.pull(true)
	ann.online(false)
	pulled := time.Now()
	ann.until(`!navigator.onLine && downs >= 1`)
	require.Less(t, time.Since(pulled), 4*interval)
	ann.equal(1006, `downCode`)
	ann.equal(true, `!room.live && room.members.size === 2`)
	bob.until(sees("bob") + ` && log.includes("leave ann")`)
	cat := b.joined(s, "cat")
	bob.close()
	cat.until(sees("cat") + ` && !room.members.has("bob")`)

	c.pull(false)
	ann.online(true)
	ann.until(`navigator.onLine && opens === 2 && ` + sees("ann", "cat"))
	cat.until(sees("ann", "cat"))
	ann.until(`["join bob", "leave bob", "join cat"].every((e) => log.includes(e)) && log.length === 3`)
}

// The network is away for a moment and nobody says so: what was on its way is
// lost, and with it the connection, which is all the page can see.
func TestClientLosesBytes(t *testing.T) {
	t.Parallel()
	s := serve(t, "-interval", "2s", "-timeout", "5s", "-grace", "20s")
	c := lay(t, s)
	b := newBrowser(t)
	ann := b.joinedAt(c.url, "ann")
	bob := b.joined(s, "bob")
	bob.until(sees("ann", "bob"))
	bob.do(script(`log.length = 0; 0`))
	c.pull(true)
	ann.until(`downs >= 1`)
	c.pull(false)
	ann.until(`opens === 2 && ` + sees("ann", "bob"))
	bob.until(sees("ann", "bob"))
	bob.equal(`[]`, `JSON.stringify(log)`) // it was within the grace
}
