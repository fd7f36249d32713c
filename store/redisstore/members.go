package redisstore

import (
	"context"
	"sync"

	"github.com/a4cafe1a/presence/store"
)

// membersAtOnce is how many partitions are asked for a page at a time.
const membersAtOnce = 16

// Members implements store.Store. It asks one partition, and then as many at
// once as the page is likely to need: a small topic is spread thinly over all
// of them, a large one fills pages from one.
func (s *Store) Members(ctx context.Context, topic, after string, limit int) (store.Page, error) {
	if limit <= 0 {
		limit = 100
	}
	limit = min(limit, 1000)
	page := store.Page{Next: after}
	first, begin := 0, "-"
	if after != "" {
		first, begin = s.ShardOf(after), "("+after
	}
	room := limit
	for from, wave := first, 1; from < len(s.shards); begin = "-" {
		parts := make([]members, min(wave, len(s.shards)-from))
		var asked sync.WaitGroup
		for i := range parts {
			// Asked for one more than wanted, it says whether there is more.
			asked.Go(func() { parts[i].ask(ctx, s, s.shards[from+i], topic, begin, room+1) })
		}
		asked.Wait()
		for i := range parts {
			p := &parts[i]
			if p.err != nil {
				return store.Page{}, p.err
			}
			p.fill(&page, topic, room)
			if room -= len(p.names.list); room < 0 {
				page.More = true
				return page, nil
			}
		}
		from += len(parts)
		wave = membersAtOnce
		if found := limit - room; found > 0 && room > 0 {
			wave = min(wave, 1+room*(from-first)/found)
		}
	}
	return page, nil
}

// members is what one partition has of a page.
type members struct {
	view
	names, users, metas answer
	err                 error
}

func (m *members) ask(ctx context.Context, s *Store, p *shard, topic, begin string, limit int) {
	a, err := s.eval(ctx, s.scripts.members, p, topic, begin, limit)
	if err != nil {
		m.err = err
		return
	}
	if hold := a.int(3); hold > 0 {
		m.err = &store.HoldError{For: micros(hold)}
		return
	}
	m.view, m.names, m.users, m.metas = newView(a), a.array(6), a.array(7), a.array(8)
}

// fill appends up to limit of them to a page.
func (m *members) fill(page *store.Page, topic string, limit int) {
	page.AsOf = m.asOf
	n := min(len(m.names.list), limit)
	if page.Members == nil {
		page.Members = make([]store.UserRecord, 0, n)
	}
	for i := range n {
		r := store.UserRecord{User: m.names.string(i)}
		page.Next = r.User
		packed := m.users.string(i)
		if packed == "" {
			continue
		}
		if member, _ := m.record(&r, topic, packed, m.metas.string(i)); member && r.State >= store.Grace {
			page.Members = append(page.Members, r)
		}
	}
}
