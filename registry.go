package presence

import (
	"hash/maphash"
	"runtime"
	"sync"

	"github.com/a4cafe1a/presence/internal/hashset"
	"github.com/a4cafe1a/presence/store"
)

// registry holds this node's live sessions and is the authority on them. It
// knows no topics: a session knows its own.
type registry struct {
	seed  maphash.Seed
	ids   [registryShards]idShard
	users [registryShards]userShard
}

const registryShards = 64

// idShard is locked by who changes it.
type idShard struct {
	mu  sync.Mutex
	set hashset.Set[Session]
	_   [40]byte // its own cache line
}

// userShard chains the sessions of a user through Session.next, newest first:
// nearly all users have one. It is locked by who changes it.
type userShard struct {
	mu  sync.Mutex
	set hashset.Set[Session]
	_   [40]byte // its own cache line
}

func newRegistry() *registry { return &registry{seed: maphash.MakeSeed()} }

func (r *registry) idShard(id uint64) *idShard { return &r.ids[id%registryShards] }

func idOf(s *Session) uint64 { return s.id }

func (r *registry) hash(user string) uint64 { return maphash.String(r.seed, user) }

func (r *registry) hashOf(s *Session) uint64 { return r.hash(s.user) }

func (r *registry) userShard(hash uint64) *userShard { return &r.users[hash%registryShards] }

// newest is the newest session of a user, which has the hash, or nil.
func (r *registry) newest(hash uint64, user string) *Session {
	return r.userShard(hash).set.Get(hash, func(s *Session) bool { return s.user == user })
}

func (r *registry) add(s *Session) {
	h := r.hashOf(s)
	u := r.userShard(h)
	u.mu.Lock()
	if newest := r.newest(h, s.user); newest != nil {
		s.next.Store(newest)
		u.set.Replace(h, newest, s)
	} else {
		u.set.Add(s, r.hashOf)
	}
	u.mu.Unlock()
	i := r.idShard(s.id)
	i.mu.Lock()
	i.set.Add(s, idOf)
	i.mu.Unlock()
}

// remove says whether the session was there.
func (r *registry) remove(s *Session) bool {
	i := r.idShard(s.id)
	i.mu.Lock()
	ok := i.set.Delete(s, idOf)
	i.mu.Unlock()
	if !ok {
		return false
	}
	h := r.hashOf(s)
	u := r.userShard(h)
	u.mu.Lock()
	defer u.mu.Unlock()
	// Its own next stays as it is: somebody may be on the way along the chain.
	older, at := s.next.Load(), r.newest(h, s.user)
	switch {
	case at == s && older == nil:
		u.set.Delete(s, r.hashOf)
	case at == s:
		u.set.Replace(h, s, older)
	default:
		for at.next.Load() != s {
			at = at.next.Load()
		}
		at.next.Store(older)
	}
	return true
}

func (r *registry) byID(id uint64) *Session {
	return r.idShard(id).set.Get(id, func(s *Session) bool { return s.id == id })
}

// online says whether the user has a live session here.
func (r *registry) online(user string) bool { return r.newest(r.hash(user), user) != nil }

// byUser returns the user's sessions here, newest first.
func (r *registry) byUser(user string) (all []*Session) {
	for s := r.newest(r.hash(user), user); s != nil; s = s.next.Load() {
		all = append(all, s)
	}
	return all
}

// find finds the newest session of each of at most findSome users, whose records
// the store gave. It goes one step of the way for all before it goes the next: so
// the processor waits for the memory of many at once. Not for names: a store in
// this process returns the one that the session has.
func (r *registry) find(newest []*Session, users []store.UserRecord) {
	var hashes [findSome]uint64
	var spots [findSome]hashset.Spot[Session]
	for i := range users {
		h := r.hash(users[i].User)
		hashes[i], spots[i] = h, r.userShard(h).set.Spot(h)
	}
	for i := range users {
		spots[i].Touch()
	}
	for i := range users {
		newest[i] = spots[i].Guess(hashes[i])
	}
	var touched int64
	for _, s := range newest[:len(users)] {
		if s != nil {
			touched += s.touched.Load() + s.since.Load()
		}
	}
	for _, s := range newest[:len(users)] {
		if s != nil && s.conn != nil {
			touched += int64(s.conn.LastByte())
		}
	}
	runtime.KeepAlive(touched)
	for i := range users {
		if s := newest[i]; s == nil || s.user != users[i].User {
			newest[i] = r.newest(hashes[i], users[i].User)
		}
	}
}

const findSome = 128

// oldest returns the user's oldest session here and how many there are.
func (r *registry) oldest(user string) (s *Session, n int) {
	for at := r.newest(r.hash(user), user); at != nil; at = at.next.Load() {
		s = at
		n++
	}
	return s, n
}

// all calls f for every session. Sessions that come or go meanwhile may be
// missed or seen.
func (r *registry) all(f func(*Session)) {
	for i := range r.ids {
		for s := range r.ids[i].set.All() {
			f(s)
		}
	}
}
