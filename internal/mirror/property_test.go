package mirror_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/a4cafe1a/presence/internal/mirror"
	"github.com/a4cafe1a/presence/store"
	"github.com/a4cafe1a/presence/store/memstore"
)

// Whoever folds the events over the snapshot knows the membership, however
// slow, and whatever the feed went through.
func TestFoldIsTheMembership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(bubbleTB{t}, func(t *rapid.T) {
			m := &machine{rig: newRig(t,
				memstore.Options{Log: rapid.SampledFrom([]int{1, 2, 5, 4096}).Draw(t, "log")},
				mirror.Limits{SubscriberEvents: rapid.SampledFrom([]int{1, 3, 256}).Draw(t, "events")},
			)}
			defer m.close()
			m.subscribe(t)
			t.Repeat(map[string]func(*rapid.T){
				"commit":    m.change,
				"subscribe": m.subscribe,
				"close":     m.unsubscribe,
				"read":      m.read,
				"trouble":   m.trouble,
				"die":       m.die,
				"pass":      m.pass,
			})
			m.check(t)
		})
	})
}

// bubbleTB has no deadline: that of the test is in another time.
type bubbleTB struct{ *testing.T }

func (bubbleTB) Deadline() (time.Time, bool) { return time.Time{}, false }

type machine struct {
	*rig
	subs []*reader
	down bool
}

// reader is a subscriber that reads when told to, or all the time.
type reader struct {
	sub   *mirror.Subscription
	known folded
	mu    sync.Mutex
	all   bool
	done  chan struct{}
}

func (m *machine) close() {
	m.hub.Close()
	for _, r := range m.subs {
		if r.all {
			<-r.done
		}
	}
}

func (m *machine) change(t *rapid.T) {
	var ops []store.Op
	for range rapid.IntRange(1, 12).Draw(t, "ops") {
		u := rapid.IntRange(0, 9).Draw(t, "user")
		op := store.Op{User: fmt.Sprint("u", u), Session: fmt.Sprint("s", u, rapid.IntRange(0, 1).Draw(t, "session"))}
		op.Kind = rapid.SampledFrom([]store.OpKind{
			store.OpAdd, store.OpAdd, store.OpRemove, store.OpRemove, store.OpJoin, store.OpLeave, store.OpMeta, store.OpAway,
		}).Draw(t, "kind")
		op.Topics = []string{"x"}
		m.next++
		op.Meta = fmt.Append(nil, m.next)
		op.Away = rapid.Bool().Draw(t, "away")
		if rapid.Bool().Draw(t, "grace") {
			op.Grace = time.Second
		}
		ops = append(ops, op)
	}
	m.commit(ops...)
}

func (m *machine) subscribe(t *rapid.T) {
	if m.down || len(m.subs) > 5 {
		return
	}
	r := &reader{sub: m.rig.subscribe("x"), done: make(chan struct{})}
	m.subs = append(m.subs, r)
	if rapid.Bool().Draw(t, "fast") {
		r.all = true
		go func() {
			defer close(r.done)
			for {
				e, err := r.sub.Next(bg)
				if err != nil {
					return
				}
				r.mu.Lock()
				r.known.fold(e)
				r.mu.Unlock()
			}
		}()
	}
}

func (m *machine) unsubscribe(t *rapid.T) {
	if len(m.subs) < 2 {
		return
	}
	i := rapid.IntRange(0, len(m.subs)-1).Draw(t, "which")
	m.subs[i].sub.Close()
	if m.subs[i].all {
		<-m.subs[i].done
	}
	m.subs = append(m.subs[:i], m.subs[i+1:]...)
}

// read lets a slow one read a little.
func (m *machine) read(t *rapid.T) {
	r := m.subs[rapid.IntRange(0, len(m.subs)-1).Draw(t, "which")]
	if r.all {
		return
	}
	for range rapid.IntRange(1, 4).Draw(t, "n") {
		if !r.one() {
			return
		}
	}
}

func (r *reader) one() bool {
	ctx, cancel := timeout(time.Millisecond)
	defer cancel()
	e, err := r.sub.Next(ctx)
	if err == nil {
		r.known.fold(e)
	}
	return err == nil
}

func (m *machine) trouble(t *rapid.T) {
	err := rapid.SampledFrom([]error{nil, &store.HoldError{For: time.Second}, store.ErrUnavailable}).Draw(t, "error")
	m.down = err != nil
	m.at.fail(err)
}

// die ends the node, and another sweeps it.
func (m *machine) die(t *rapid.T) {
	grace := rapid.SampledFrom([]time.Duration{0, time.Second}).Draw(t, "grace")
	require.NoError(t, m.at.End(bg, m.lease, grace, store.CauseShutdown))
	m.register()
}

func (m *machine) pass(t *rapid.T) {
	time.Sleep(time.Duration(rapid.SampledFrom([]int{0, 1, 11, 200, 1500}).Draw(t, "ms")) * time.Millisecond)
	m.sweep(t)
	synctest.Wait()
}

func (m *machine) sweep(t *rapid.T) {
	for more := true; more; {
		res, err := m.at.Sweep(bg, m.lease, 0)
		require.NoError(t, err)
		more = res.More
	}
}

func (m *machine) check(t *rapid.T) {
	m.at.fail(nil)
	for range 2 { // graces begin, graces end
		m.sweep(t)
		time.Sleep(3 * time.Second)
	}
	want := text(m.members("x"))
	for _, r := range m.subs {
		if !r.all {
			for r.one() {
			}
		}
		r.mu.Lock()
		require.Empty(t, r.known.wrong)
		require.Equal(t, want, r.known.text(), "fast: %v", r.all)
		r.mu.Unlock()
	}
	if m.subs[0].all {
		return
	}
	s := m.rig.subscribe("x")
	defer s.Close()
	e, err := s.Next(bg)
	require.NoError(t, err)
	require.Equal(t, want, text(e.Members))
}
