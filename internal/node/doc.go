// Package node is one process's side of a store.
//
// For each shard of the store it keeps a lease and a queue of changes. One
// goroutine per shard makes all calls with the lease, one at a time: it
// renews, commits in groups, sweeps what is due, and asserts all sessions
// again under a new lease when the old one was lost or the store has
// forgotten. While the store is away it tries once a second, and changes of
// the same session are folded, so that the queue stays bounded.
//
// # Order
//
// Changes of one user reach the store in the order of Do. Two changes of one
// session become one only where nobody can see the difference: metadata and
// away (the last one wins) wherever they stand, everything else only while no
// other session of the user was changed in between. A session that is removed
// before it was ever sent is not sent at all.
package node
