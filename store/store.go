package store

import (
	"context"
	"time"
)

// Store is where nodes meet. All methods may be called concurrently, but for
// one lease Renew, Commit, Sweep and End are to be called one at a time: the
// digest of a Renew must describe what the Commits before it left.
//
// Slices and metadata that a store returns are shared and read-only, unless
// the method says otherwise. Slices passed in belong to the store only until
// the call returns, but metadata and topic names passed in must never change
// afterwards.
type Store interface {
	// Shards says over how many shards users are spread: at least 1, and
	// the same for the life of the store. Shards are numbered from 0. A
	// node keeps a lease and a queue of operations for each.
	Shards() int

	// ShardOf says which shard a user lives in, and with it all that is
	// decided about the user.
	ShardOf(user string) int

	// Register begins a new incarnation of a node in one shard and returns
	// its lease, good for Lease.TTL from before the call was sent. It never
	// returns the same lease twice, even for the same node. ErrShard: there
	// is no such shard.
	Register(ctx context.Context, shard int, node Node) (Lease, error)

	// Renew makes the lease good for another TTL, counted from before the
	// call was sent, and returns what the node has to do. ErrLeaseLost: the
	// lease has ended or was never given, and nothing was renewed.
	Renew(ctx context.Context, lease Lease, s Summary) (Orders, error)

	// Bell returns a channel that receives when the mailbox of the lease may
	// hold an order that no Renew has returned yet: renew at once, do not
	// wait for the third of the TTL. Rings may coalesce, may be false, and
	// may be lost with the connection to the store; the next Renew brings
	// the order anyway. The channel rings until ctx ends and is never
	// closed. One bell per lease; a later one takes over. ErrLeaseLost: as
	// for Renew.
	Bell(ctx context.Context, lease Lease) (<-chan struct{}, error)

	// Commit applies the operations in order, all in one atomic step, and
	// returns one result for each. All users must live in the lease's
	// shard. Callers keep batches below some 200 operations or 600 topic
	// entries, because everybody waits meanwhile. Operations name absolute
	// states and are idempotent by session id, so a batch whose fate is
	// unknown may be repeated, before any later batch. A full user or a
	// missing session is a Status, not an error. ErrLeaseLost: the lease has
	// ended, and nothing was applied.
	Commit(ctx context.Context, lease Lease, ops []Op) ([]Result, error)

	// End ends the lease at once for readers. Each session still under it
	// ends with the given cause, and if it was the last its member stays in
	// grace for the given time from now; a Sweep by anybody carries that
	// out. Ending a lease that has ended or was swept does nothing and is no
	// error.
	End(ctx context.Context, lease Lease, grace time.Duration, cause Cause) error

	// Sweep does what is due in the lease's shard, for all nodes: the
	// sessions of dead leases, members whose grace has ended, and users
	// seen last longer ago than the node's KeepLastSeen. It does at most max
	// such things (200 when max <= 0, and never more than 1,000), more only
	// because the dead sessions of one user go together, and says whether
	// there is more. Of those sessions the one with the longest grace goes
	// last, so that it counts. In a hold nothing is done. ErrLeaseLost: as
	// for Commit.
	Sweep(ctx context.Context, lease Lease, max int) (SweepResult, error)

	// Lookup appends one record per user to dst, in the order of users, as
	// seen in the topic everyone, and returns the extended slice. It uses
	// the capacity of dst and the capacity of the Sessions slices in it, so
	// a caller that reuses dst looks up without allocating; those two slices
	// are the caller's. A user nobody knows is Offline, or Unknown when that
	// cannot be told. One round trip per shard, whatever the number of
	// users. On an error the returned slice is dst as it was.
	Lookup(ctx context.Context, dst []UserRecord, users []string) ([]UserRecord, error)

	// Count says how many are in a topic, in O(1). A topic nobody is in
	// counts zero. ErrUnknown: there is a hold.
	Count(ctx context.Context, topic string) (Counts, error)

	// Members returns up to max members of a topic (100 when max <= 0, and
	// never more than 1,000), in order of shard, then user by bytes,
	// beginning behind the user after, who need not be a member, or from the
	// start when after is "". Over several pages a user is seen at most
	// once, and one that is a member all the while exactly once. Users whose
	// every session there is dead are left out as soon as their grace has
	// ended. ErrUnknown: there is a hold.
	Members(ctx context.Context, topic, after string, max int) (Page, error)

	// Position says where the log of a shard ends now. ErrShard: there is no
	// such shard.
	Position(ctx context.Context, shard int) (Version, error)

	// Watch returns a feed of the changes in one topic. The feed begins no
	// later than the return of Watch: what Members says afterwards, with
	// everything the feed returns folded over it in order, is the
	// membership. See Feed for how to take a snapshot. ctx is for the call
	// only.
	Watch(ctx context.Context, topic string) (Feed, error)

	// Disconnect orders the nodes that hold the user's sessions, or the one
	// session named, to end them with this code and text, and returns how
	// many sessions that were: told, not confirmed. It also ends at once
	// every grace the user is in, with the cause that each would have had.
	// A user nobody knows gives 0. ErrUnknown: nothing was found, and there
	// is a hold.
	Disconnect(ctx context.Context, user, session string, code int, text string) (told int, err error)

	// Close releases what the store holds in this process. It ends no lease
	// and forgets nothing that other processes can see. Every later call,
	// and every Feed.Next that waits, returns ErrClosed. Closing again does
	// nothing. Bells fall silent.
	Close() error
}

// Feed is a cursor into the log, for one topic over all shards. It belongs
// to one goroutine; only Close may be called at the same time.
//
// A snapshot is taken without a lock: Watch, read all pages of Members, then
// Poll once and fold what it returns over the pages, silently. Changes are
// absolute and in order, so the last one of each user is right whether the
// page had it or not, and the result is exact as of the batch's To. Start
// over if that Poll says Reset. After that each batch is news.
type Feed interface {
	// Next waits until the topic has changed, or the feed must be reset, and
	// returns everything since the last batch. Many changes wake it once;
	// who wants fewer, larger batches sleeps before the next call and loses
	// nothing while the log still holds it. A context that ends loses
	// nothing either. ErrClosed: the feed or the store was closed. Other
	// errors (ErrUnavailable) leave the feed where it was: call again.
	Next(ctx context.Context) (Batch, error)

	// Poll returns at once with everything since the last batch, up to a
	// position of the log taken after the call began. It may be empty.
	Poll(ctx context.Context) (Batch, error)

	// Close ends the feed. Closing again does nothing.
	Close() error
}
