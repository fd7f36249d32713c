package redisstore

import (
	"context"
	"errors"
	"maps"
	"net"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/a4cafe1a/presence/store"
)

// bells are the channels of one partition that this process listens to, over
// one connection. A ring may be lost with it, so that each new subscription
// counts as a ring.
type bells struct {
	s    *Store
	p    *shard
	kick chan struct{}

	mu      sync.Mutex
	wanted  map[string]*wish // by channel
	running bool
	sub     *redis.PubSub
}

// pingEvery is how often a quiet connection is asked for a sign of life. Feeds
// and mailboxes do not wait for it: renewals show what they miss.
const pingEvery = 10 * time.Second

// wish is somebody who listens.
type wish struct{ ring func(string) }

func (b *bells) init(s *Store, p *shard) {
	b.s, b.p = s, p
	b.kick = make(chan struct{}, 1)
	b.wanted = map[string]*wish{}
}

// want calls ring with each message of a channel, and with "" when some may
// have been missed. ring must not block. A later wish for the channel takes
// over. What it returns ends the wish.
func (b *bells) want(channel string, ring func(string)) (leave func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := &wish{ring}
	b.wanted[channel] = w
	if !b.running {
		b.running = b.s.background(b.run)
	}
	b.rouse()
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.wanted[channel] == w {
			delete(b.wanted, channel)
			b.rouse()
		}
	}
}

func (b *bells) rouse() {
	select {
	case b.kick <- struct{}{}:
	default:
	}
}

func (b *bells) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sub != nil {
		_ = b.sub.Close() // a context would not wake who receives
	}
}

// run keeps a connection while any channel is wanted, and subscribes to what
// is wanted.
func (b *bells) run() {
	var broken chan struct{}
	has := map[string]bool{}
	for {
		b.mu.Lock()
		wanted := maps.Clone(b.wanted)
		sub := b.sub
		if b.s.closed() || len(wanted) == 0 {
			b.running, b.sub = false, nil
			b.mu.Unlock()
			if sub != nil {
				_ = sub.Close()
			}
			return
		}
		b.mu.Unlock()

		if sub != nil {
			select {
			case <-broken:
				_ = sub.Close()
				sub = nil
			default:
			}
		}
		var more, less []string
		if sub == nil {
			clear(has)
		}
		for c := range wanted {
			if !has[c] {
				more = append(more, c)
			}
		}
		for c := range has {
			if wanted[c] == nil {
				less = append(less, c)
			}
		}
		within, cancel := context.WithTimeout(b.s.ctx, b.s.timeout)
		err := error(nil)
		if sub == nil {
			sub = b.s.client.SSubscribe(within)
			broken = make(chan struct{})
			b.mu.Lock()
			b.sub = sub
			b.mu.Unlock()
			err = sub.SSubscribe(within, more...)
			lost := broken
			if !b.s.background(func() {
				b.receive(sub)
				close(lost)
				b.rouse()
			}) {
				close(lost)
			}
		} else if len(more) > 0 {
			err = sub.SSubscribe(within, more...)
		}
		if err == nil && len(less) > 0 {
			err = sub.SUnsubscribe(within, less...)
		}
		cancel()
		for _, c := range more {
			has[c] = true
		}
		for _, c := range less {
			delete(has, c)
		}
		if err != nil {
			_ = sub.Close() // receive ends, and everything begins again
			select {
			case <-time.After(min(time.Second, b.s.lease/3)):
			case <-b.s.done:
			}
		}
		select {
		case <-b.kick:
		case <-broken:
			select {
			case <-time.After(min(time.Second, b.s.lease/10)):
			case <-b.s.done:
			}
		case <-b.s.done:
		}
	}
}

// receive rings until the connection is of no use any more.
func (b *bells) receive(sub *redis.PubSub) {
	quiet := 0
	for {
		m, err := sub.ReceiveTimeout(b.s.ctx, max(pingEvery, b.s.lease))
		var timeout net.Error
		switch {
		case err == nil:
			quiet = 0
		case errors.As(err, &timeout) && timeout.Timeout() && quiet == 0:
			quiet++ // nothing to hear, or nobody there
			if sub.Ping(b.s.ctx) != nil {
				return
			}
			continue
		default:
			return
		}
		switch m := m.(type) {
		case *redis.Message:
			b.ring(m.Channel, m.Payload)
		case *redis.Subscription:
			switch {
			case m.Kind == "ssubscribe":
				b.ring(m.Channel, "")
			case b.listens(m.Channel):
				return // the slot has moved to another master
			}
		}
	}
}

func (b *bells) listens(channel string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.wanted[channel] != nil
}

func (b *bells) ring(channel, message string) {
	b.mu.Lock()
	w := b.wanted[channel]
	b.mu.Unlock()
	if w != nil {
		w.ring(message)
	}
}

// Bell implements store.Store.
func (s *Store) Bell(ctx context.Context, lease store.Lease) (<-chan struct{}, error) {
	p, number, nonce, err := s.holder(lease)
	if err != nil {
		return nil, err
	}
	a, err := s.eval(ctx, s.scripts.bell, p, number, nonce)
	if err != nil {
		return nil, err
	}
	bell := make(chan struct{}, 1)
	ring := func(string) {
		select {
		case bell <- struct{}{}:
		default: // rung already
		}
	}
	leave := p.bells.want(p.tag+"bell:"+number, ring)
	if a.int(3) > 0 {
		ring("")
	}
	context.AfterFunc(ctx, leave)
	return bell, nil
}
