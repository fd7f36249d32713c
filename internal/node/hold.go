package node

import (
	"time"
)

// noteHold takes over what a renewal said: how long a hold may still last, 0
// when there is none.
func (s *shard) noteHold(left time.Duration) {
	n := s.n
	if left > 0 {
		s.holdUntil.Store(n.since() + int64(left))
		now := time.Now()
		if n.heldSince.CompareAndSwap(nil, &now) && n.saidHold.Now() {
			n.saidHeld.Store(true)
			n.cfg.Logger.Info("presence: the store holds: who is not found is unknown",
				"shard", s.id, "at_most", left.Round(time.Millisecond))
		}
		return
	}
	s.holdUntil.Store(0)
	if n.Hold() > 0 {
		return
	}
	if since := n.heldSince.Swap(nil); since != nil && n.saidHeld.Swap(false) {
		n.cfg.Logger.Info("presence: the hold is over", "shard", s.id, "held", time.Since(*since).Round(time.Millisecond))
	}
}

// Hold says how long the store may still hold, as of the last renewals; 0 when
// it does not. Of several shards it is the longest.
func (n *Node) Hold() time.Duration {
	var left time.Duration
	for _, s := range n.shards {
		left = max(left, s.hold())
	}
	return left
}

// HoldFor is Hold for the shard of one user.
func (n *Node) HoldFor(user string) time.Duration { return n.shardOf(user).hold() }

func (s *shard) hold() time.Duration {
	until := s.holdUntil.Load()
	if until == 0 {
		return 0
	}
	return max(0, time.Duration(until-s.n.since())).Round(time.Millisecond)
}
