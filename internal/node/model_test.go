package node_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/memstore"
)

// Whatever happened between three nodes and a store, when the trouble is over
// the store holds exactly what the nodes hold: sessions, topics, metadata.
// And whoever was online all the while on a node without trouble was never
// reported offline.
func TestModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(bubbleTB{t}, func(t *rapid.T) {
			m := &model{at: newTrouble(memstore.Options{Lease: 3 * time.Second})}
			for i := range 3 {
				at := m.at
				if i > 0 {
					at = m.at.share()
				}
				m.ways = append(m.ways, at)
				limit := rapid.SampledFrom([]int{5, 0}).Draw(t, "limit")
				m.rigs = append(m.rigs, start(t, at, setup{name: fmt.Sprint(i), limit: limit, grace: time.Second}))
			}
			defer func() {
				for _, r := range m.rigs {
					_ = r.n.Close(context.Background(), 0)
				}
			}()
			t.Repeat(map[string]func(*rapid.T){
				"add":    m.add,
				"remove": m.remove,
				"change": m.change,
				"fault":  m.fault,
				"lose":   m.lose,
				"kick":   m.kick,
				"pass":   m.pass,
				"":       m.check,
			})
			m.settle(t)
		})
	})
}

// bubbleTB has no deadline: that of the test is in another time.
type bubbleTB struct{ *testing.T }

func (bubbleTB) Deadline() (time.Time, bool) { return time.Time{}, false }

type model struct {
	at   *trouble
	ways []*trouble
	rigs []*rig
	next int
}

func (m *model) rig(t *rapid.T) *rig { return m.rigs[rapid.IntRange(0, 2).Draw(t, "node")] }

func (m *model) add(t *rapid.T) {
	r := m.rig(t)
	for range rapid.IntRange(1, 3).Draw(t, "n") {
		m.next++
		op := store.Op{
			Kind: store.OpAdd, User: m.user(t), Session: fmt.Sprintf("%016x", m.next),
			Topics: rapid.SampledFrom([][]string{nil, {"x"}, {"x", "y"}}).Draw(t, "topics"),
		}
		if rapid.Bool().Draw(t, "limited") {
			op.Limit, op.WhenFull = 3, rapid.SampledFrom([]store.UserLimit{store.RefuseNew, store.ReplaceOldest}).Draw(t, "full")
		}
		r.addOp(op)
	}
}

func (m *model) user(t *rapid.T) string { return fmt.Sprint("u", rapid.IntRange(0, 5).Draw(t, "user")) }

// session returns one of the node's sessions.
func (r *rig) session(t *rapid.T) (store.Op, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.live) == 0 {
		return store.Op{}, false
	}
	return r.live[rapid.SampledFrom(slices.Sorted(maps.Keys(r.live))).Draw(t, "session")], true
}

func (m *model) remove(t *rapid.T) {
	r := m.rig(t)
	if s, ok := r.session(t); ok {
		grace := rapid.SampledFrom([]time.Duration{0, time.Second}).Draw(t, "grace")
		r.remove(s.User, s.Session, grace, store.CauseLost, nil)
	}
}

func (m *model) change(t *rapid.T) {
	r := m.rig(t)
	s, ok := r.session(t)
	if !ok {
		return
	}
	for range rapid.IntRange(1, 4).Draw(t, "n") {
		op := store.Op{User: s.User, Session: s.Session}
		op.Kind = rapid.SampledFrom([]store.OpKind{store.OpMeta, store.OpAway, store.OpJoin, store.OpLeave}).Draw(t, "kind")
		m.next++
		op.Meta = fmt.Append(nil, m.next)
		op.Away = rapid.Bool().Draw(t, "away")
		op.Topics = []string{rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "topic")}
		r.change(op)
	}
}

func (m *model) fault(t *rapid.T) {
	at := m.ways[rapid.IntRange(0, 1).Draw(t, "way")] // the third is always well
	at.set(rapid.SampledFrom([]mode{well, away, deaf, silent}).Draw(t, "mode"))
}

// lose removes a session behind its node's back.
func (m *model) lose(t *rapid.T) {
	i := rapid.IntRange(0, 1).Draw(t, "way")
	s, ok := m.rigs[i].session(t)
	if !ok {
		return
	}
	m.ways[i].mu.Lock()
	lease := m.ways[i].lease
	m.ways[i].mu.Unlock()
	_, _ = m.at.store().Commit(context.Background(), lease, []store.Op{
		{Kind: store.OpRemove, User: s.User, Session: s.Session},
		{Kind: store.OpAdd, User: "ghost", Session: "ffffffffffffffff"},
	})
}

func (m *model) kick(t *rapid.T) {
	_, _ = m.at.Disconnect(context.Background(), m.user(t), "", 4403, "")
}

func (m *model) pass(t *rapid.T) {
	time.Sleep(time.Duration(rapid.SampledFrom([]int{0, 1, 15, 100, 700, 4000}).Draw(t, "ms")) * time.Millisecond)
	synctest.Wait()
}

// check: no false offline on the node that has no trouble.
func (m *model) check(t *rapid.T) {
	r := m.rigs[2]
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, op := range r.live {
		if !r.since[id].IsZero() {
			require.Equal(t, store.Online, lookup(t, m.at, op.User).State, "%s of %s", id, op.User)
		}
	}
}

func (m *model) settle(t *rapid.T) {
	for _, at := range m.ways {
		at.set(well)
	}
	time.Sleep(15 * time.Second)
	for _, r := range m.rigs {
		require.NoError(t, r.n.Flush(context.Background()))
	}
	time.Sleep(15 * time.Second) // orders that followed
	want := map[string]string{}
	for _, r := range m.rigs {
		r.mu.Lock()
		for id, op := range r.live {
			want[id] = fmt.Sprint(op.User, slices.Sorted(slices.Values(op.Topics)), string(op.Meta), op.Away, " node-", r.name)
		}
		r.mu.Unlock()
	}
	got := map[string]string{}
	page, err := m.at.Members(context.Background(), "", "", 1000)
	require.NoError(t, err)
	for _, u := range page.Members {
		require.Equal(t, store.Online, u.State, u.User)
		for _, s := range u.Sessions {
			got[s.ID] = fmt.Sprint(s.User, slices.Sorted(slices.Values(s.Topics)), string(s.Meta), s.Away, " ", s.Node)
		}
	}
	require.Equal(t, want, got)
	for i, r := range m.rigs {
		require.Equal(t, len(r.held(0)), r.n.Stats().Sessions)
		require.Empty(t, m.ways[i].overlap)
		require.False(t, r.n.Away())
		require.True(t, r.n.Valid(0))
	}
}
