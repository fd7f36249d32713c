package link

import (
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/a4cafe1a/presence/internal/frame"
)

// ErrUnproven is returned by Verify when no proof came in time.
var ErrUnproven = errors.New("no sign of life after the upgrade")

// askAgain is after how long a second ping is sent. Some clients lose what comes
// in one packet with the 101.
const askAgain = 2 * time.Second

var errEarly = errors.New("too much data before the first sign of life")

// Verify sends a ping, a second one where need be, and waits for its pong, or
// for any byte newer than the 101. It is called once, while the library neither
// reads nor writes. What arrives meanwhile is kept for the library.
func (c *Conn) Verify(timeoutAfter time.Duration) error {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	now := time.Now()
	until := now.Add(timeoutAfter)
	c.takeRead(now.Add(min(askAgain, timeoutAfter)))
	defer c.giveRead()

	c.takeEarly()
	p := c.proof
	if err := c.challenge(p, until); err != nil {
		return c.unproven(err)
	}
	if err := c.awaitProof(p, until); err != nil {
		return err
	}
	if !p.tokened {
		c.proof = nil
	}
	return nil
}

func (c *Conn) awaitProof(p *proof, until time.Time) error {
	pooled := waiting.Get().(*[]byte)
	defer waiting.Put(pooled)
	for !p.given {
		if c.breach(); c.over.Load() != nil { // garbage is no proof, and nothing behind it is looked at
			return c.over.Load().err
		}
		if c.keptLen() > earlyMax {
			return c.awaitMore(p, until)
		}
		buf := *pooled
		k := copy(buf, c.held())
		n, err := c.nc.Read(buf[k:])
		if n > 0 {
			c.heard()
			c.keep(buf[:c.scan(buf[:k+n])])
			fresh := n > p.stale
			p.stale = max(0, p.stale-n)
			p.given = p.given || fresh && !p.insist || p.insist && !p.tokened && c.newer(p)
		}
		if e := c.over.Load(); e != nil {
			return e.err
		}
		switch {
		case err == nil || p.given:
		case timeout(err) && !p.again && time.Now().Before(until):
			p.again = true
			if err := c.challenge(p, until); err != nil {
				return c.unproven(err)
			}
			c.takeRead(until)
		default:
			return c.unproven(err)
		}
	}
	return nil
}

// awaitMore waits for proof without reading on: more than may be kept was there
// before the 101, or so soon after it that it cannot be told. What arrives
// behind it makes the kernel hold more. A layer such as TLS hides how much of
// what was there it has taken: then what the kernel has received counts.
func (c *Conn) awaitMore(p *proof, until time.Time) error {
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for (p.insist || p.stale > 0) && time.Now().Before(until) {
		if e := c.over.Load(); e != nil {
			return e.err
		}
		if p.insist {
			p.given = c.newer(p)
		} else {
			n, ok := c.sock.Pending()
			if !ok {
				break
			}
			p.given = n > p.stale
		}
		if p.given {
			break
		}
		<-poll.C
	}
	if p.given {
		return nil
	}
	return errEarly
}

// newer says whether the kernel has received anything since the 101, as far as
// it can tell.
func (c *Conn) newer(p *proof) bool {
	n, ok := c.sock.Received()
	return !ok || n > p.received
}

// takeEarly scans what came with the handshake: it is the library's, and it
// proves nothing.
func (c *Conn) takeEarly() {
	if early := c.proof.early; len(early) > 0 {
		c.proof.early = nil
		c.keep(early[:c.scan(early)])
	}
}

func (c *Conn) challenge(p *proof, until time.Time) error {
	var buf [16]byte
	var payload []byte
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if !c.out.Gap() {
		return nil // the library has begun to talk: any byte will do
	}
	if p.insist {
		if !p.tokened {
			_, _ = rand.Read(p.token[:])
			p.tokened = true
		}
		payload = p.token[:]
	} else {
		c.pings.Add(1)
	}
	c.pinged.Store(int64(c.cfg.Clock.Exact()))
	ping := c.rest()
	if c.leave(nil); ping == nil {
		ping = buf[:0]
	}
	ping = frame.AppendPing(ping, payload)
	if c.direct {
		n, _ := c.sock.Write(ping)
		if ping = ping[n:]; len(ping) == 0 {
			return nil
		}
	}
	c.takeWrite(until)
	defer c.giveWrite()
	_, err := c.nc.Write(ping)
	return err
}

func (c *Conn) unproven(err error) error {
	if e := c.over.Load(); e != nil {
		return e.err
	}
	if timeout(err) {
		return ErrUnproven
	}
	c.rerr = &fault{error: err}
	c.owner.Lost(err)
	if e := c.over.Load(); e != nil {
		return fmt.Errorf("%w: %w", e.err, err)
	}
	return err
}
