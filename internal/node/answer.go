package node

import (
	"sync/atomic"

	"github.com/a4cafe1a/presence/store"
)

// waiter is somebody who wants to know what became of a change.
type waiter struct {
	kind store.OpKind
	done func(store.Result, error) // of Do
	call *call                     // of Await
}

// call is an Await that may have given up.
type call struct {
	taken  atomic.Bool
	answer chan answer
}

// giveUp returns why, unless the answer came at the same moment.
func (c *call) giveUp(why error) (store.Result, error) {
	if c.taken.CompareAndSwap(false, true) {
		return store.Result{}, why
	}
	a := <-c.answer
	return a.result, a.err
}

type answer struct {
	result store.Result
	err    error
}

// tell answers and says whether somebody heard.
func (w *waiter) tell(r store.Result, err error) bool {
	switch {
	case w.done != nil:
		w.done(r, err)
		return true
	case w.call != nil && w.call.taken.CompareAndSwap(false, true):
		w.call.answer <- answer{r, err}
		return true
	}
	return false
}

// waits says whether somebody may hear.
func (w *waiter) waits() bool { return w.done != nil || w.call != nil }

// reply is an answer that is due, kept until no lock is held.
type reply struct {
	waiter
	answer
	session string
}

// replies are given by the shard's goroutine. Each OpAdd is heard by exactly
// one: who waited for it, or Config.Added.
func (n *Node) give(replies []reply) {
	for i := range replies {
		r := &replies[i]
		if !r.tell(r.result, r.err) && r.err == nil && r.kind == store.OpAdd && n.cfg.Added != nil {
			n.cfg.Added(r.session, r.result)
		}
	}
}
