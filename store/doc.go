// Package store says what package presence needs of a store, and nothing
// about how one is built. It imports nothing of ours.
//
// A store holds users, the topics they are in, and what each node says of
// its sessions. It decides who joins and who leaves, atomically, and writes
// each decision to a log that feeds read. Its clock is the only clock: nodes
// measure durations and never compare times of their own with the store's.
//
// # Words
//
// A session is one live connection. It belongs to one user and is held by
// one node. A node proves that it lives by renewing a lease, one per shard.
// When a lease runs out or is ended, its sessions are dead: readers leave
// them out at once, and any other node sweeps them.
//
// A topic is a named set of sessions. Every session is in the topic "",
// everyone. A user is a member of a topic from its Joined change to its Left
// change: while it has a session there, and for the grace after the last one
// ended. Who leaves everyone leaves every topic in the same step.
//
// # Who joins, who leaves
//
// All of this is per topic and user, and Joined and Left alternate there.
//
//   - The first session in is Joined. Each further one is Updated.
//   - The last one out, with a grace, is Updated: the member is in state
//     [Grace] until the store's clock reaches the end of the grace. Then a
//     Sweep writes Left with the cause of that last session's end.
//   - A session that comes within the grace ends it: Updated, nothing else.
//   - The last one out without a grace is Left at once. Leaving a topic on
//     purpose ([OpLeave]) has no grace.
//   - Metadata or away that really changed is Updated. A user is away when
//     all its sessions are, in whatever topic; when that flips, every topic
//     the user is in gets Updated.
//   - Moving a session to a new lease of the same node changes nothing, as
//     long as the old lease is alive. From a dead one it is Updated, because
//     readers and records had left the session out.
//   - What changed nothing is never logged. One Op logs at most one change
//     per topic.
//
// # Leases
//
// A lease is registered, renewed every third of its TTL, and never comes
// back once it has ended: each call with it returns [ErrLeaseLost] and does
// nothing. The node then registers again and adds all sessions whose
// connections still live, with their old ids and Since, under the new lease.
// A removal acts only on a session that the calling lease holds, and an add
// never takes a session from a newer lease. So nothing late or resumed can
// remove or move something newer.
//
// A lease that runs out gives its sessions the cause [CauseNodeLost] and what
// is left of the node's LeaveGrace, counted from the last renewal. One that
// is ended by [Store.End] gives them the cause and grace of that call.
//
// # Hold
//
// A store that was away cannot tell the dead from the unheard. When nobody
// was heard (by Register, Renew or Commit) for half a TTL while a lease ran,
// and when the store lost its memory or its master, there is a hold of one
// TTL from the next contact. Every lease that ran when somebody was last
// heard is good until the hold's end. Meanwhile nothing is swept, every Left
// is held back (the member is in state [Grace] and due at the end), a user
// that is not found is [Unknown], and Members and Count return a
// [*HoldError]. The hold ends early once every lease has been renewed with
// [Summary.Complete] and an agreeing digest, and is prolonged while a node
// renews without Complete. Readers apply the same tests themselves, since a
// reader may be the first one back. After a loss of memory the hold cannot
// end early, because nobody knows how many nodes there were.
//
// # Errors
//
// A miss is not an error: a user nobody knows is [Offline], a topic nobody is
// in has no members, a session that is not there gives [Missing]. Errors are
// few: [ErrLeaseLost], [ErrClosed], [ErrUnavailable], [ErrUnknown],
// [ErrShard], and the context's own. Each may be wrapped. After any other
// error than ErrLeaseLost and ErrShard the call may have taken effect; every
// call that writes may be repeated.
package store
