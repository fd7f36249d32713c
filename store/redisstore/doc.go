// Package redisstore keeps presence in Redis 7.0 or newer, or in Valkey, so
// that many processes are one cluster. It passes the suite of storetest.
//
//	client := redis.NewClient(&redis.Options{
//		Addr:                  "localhost:6379",
//		MaxRetries:            -1, // nodes repeat what failed, in order
//		DialerRetries:         1,
//		ContextTimeoutEnabled: true,
//	})
//	s, err := redisstore.New(client, redisstore.Options{})
//	p, err := presence.New(presence.Options{Store: s})
//
// Those settings suit best, since the default ones hide an outage for many
// seconds. With others the store is as right: each call ends within
// Options.Timeout, and a commit that was given up and arrives later is refused.
//
// # What Redis must be
//
// A single server, one with replicas and Sentinel, or a Cluster. Its clock
// (TIME) is the only one. Evict nothing: maxmemory-policy noeviction or
// volatile-*, since no key has a TTL; allkeys-* would evict half a truth.
// When memory is full, commits fail; all else goes on.
//
// The first start on an empty Redis, a restart, a FLUSHALL and a failover begin
// a hold of one lease, in which those who are not found are unknown, and nobody
// leaves. So does the first replica that is attached to a master, because the
// master takes a new replication id then.
//
// In a Cluster each partition lives in one slot. While its slot moves to
// another master, Redis refuses the partition's calls (TRYAGAIN), and nodes
// repeat them; afterwards there is a hold. A partition of 100,000 users moves
// in some tenths of a second.
//
// # Keys
//
// All keys of partition p have the tag {ns:p}. A user lives in partition
// FNV-1a(user) mod P, and so does all that is decided about the user.
//
//	:m          hash    options, generation, replication id of the master, last
//	                    contact, hold, where the log ends, last lease number
//	:n          hash    lease number -> node, end, LeaveGrace, number and digest
//	                    of its sessions
//	:u          hash    user -> sessions and memberships (see lua/user.lua)
//	:x          hash    user -> metadata of the sessions that have some
//	:t:<topic>  zset    score 0, the members, in order; "" is everyone
//	:k          hash    topic -> its sessions less its users, where not 0
//	:d          zset    user and topic -> when the grace ends
//	:i:<lease>  set     users with sessions under the lease: what a sweep takes
//	:b:<lease>  list    the mailbox, at most 10,000 orders
//	:l          zset    user -> last seen, at most 1,000,000
//	:r          zset    user -> when its oldest session was replaced, for 2 s
//	:log        stream  one entry for each call that changed something; its id
//	                    is the sequence, f the sequence before it
//	:none               never exists (see lua/base.lua)
//
// To begin anew delete all of them or none: of those that are left counts would
// be wrong.
//
// Shard channels :log and :bell:<lease> are doorbells only: what they say is
// read from the keys, and a ring that is lost delays it by a third of a lease
// at most.
//
// # What it costs
//
// Memory, measured with Redis 7.0, ids of 16 hex digits and names of about 10
// bytes: 300 B for a user with one session; 10 to 60 B for a second session; for
// each further topic of a user 50 B in rooms of 20, 90 B in rooms of 2 and 130 B
// in a room of 50,000; 120 B for metadata of 40 bytes. The log takes some
// 100 B for each change, and never much more for users with many sessions: from
// some 25 on it only names the user, and those who watch read the user.
//
// Time, on one busy core: 14 µs of Redis for a join, 21 µs with two topics, so
// that a batch of 200 blocks for 3 to 4 ms; 14 µs for a session that is swept. A
// look-up of 1,000 users takes 1.3 ms, 2.4 times a bare MGET of 1,000 keys. An
// idle node costs 3 calls for each lease and partition, whatever the number of
// its sessions. A process that watches topics reads the whole log of each
// partition.
package redisstore
