package presence

import (
	"hash/maphash"
	"sync"

	"github.com/a4cafe1a/presence/internal/hashset"
)

// registry holds this node's live sessions and is the authority on them. It
// knows no topics: a session knows its own.
type registry struct {
	seed  maphash.Seed
	ids   [registryShards]idShard
	users [registryShards]userShard
}

const registryShards = 64

type idShard struct {
	mu  sync.RWMutex
	set hashset.Set[*Session]
}

// userShard chains the sessions of a user through Session.next, newest first:
// nearly all users have one.
type userShard struct {
	mu  sync.RWMutex
	set hashset.Set[*Session]
}

func newRegistry() *registry { return &registry{seed: maphash.MakeSeed()} }

func (r *registry) idShard(id uint64) *idShard { return &r.ids[id%registryShards] }

// find returns the session with an ID, or nil. i.mu is held.
func (i *idShard) find(id uint64) *Session {
	if at := i.set.At(id, func(s *Session) bool { return s.id == id }); at != nil {
		return *at
	}
	return nil
}

func idOf(s *Session) uint64 { return s.id }

func (r *registry) hash(user string) uint64 { return maphash.String(r.seed, user) }

func (r *registry) hashOf(s *Session) uint64 { return r.hash(s.user) }

func (r *registry) userShard(hash uint64) *userShard { return &r.users[hash%registryShards] }

// at is where the newest session of a user is, or nil. u.mu is held, here and
// below.
func (u *userShard) at(hash uint64, user string) **Session {
	return u.set.At(hash, func(s *Session) bool { return s.user == user })
}

func (u *userShard) newest(hash uint64, user string) *Session {
	if at := u.at(hash, user); at != nil {
		return *at
	}
	return nil
}

func (r *registry) add(s *Session) {
	h := r.hashOf(s)
	u := r.userShard(h)
	u.mu.Lock()
	if at := u.at(h, s.user); at != nil {
		s.next, *at = *at, s
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
	ok := i.set.Delete(s.id, func(other *Session) bool { return other == s }, idOf)
	i.mu.Unlock()
	if !ok {
		return false
	}
	h := r.hashOf(s)
	u := r.userShard(h)
	u.mu.Lock()
	defer u.mu.Unlock()
	at := u.at(h, s.user)
	if *at == s && s.next == nil {
		u.set.Delete(h, func(other *Session) bool { return other == s }, r.hashOf)
		return true
	}
	for *at != s {
		at = &(*at).next
	}
	*at = s.next
	return true
}

func (r *registry) byID(id uint64) *Session {
	i := r.idShard(id)
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.find(id)
}

// online says whether the user has a live session here.
func (r *registry) online(user string) bool {
	h := r.hash(user)
	u := r.userShard(h)
	u.mu.RLock()
	defer u.mu.RUnlock()
	return u.at(h, user) != nil
}

// byUser returns the user's sessions here, newest first.
func (r *registry) byUser(user string) []*Session { return r.appendByUser(nil, user) }

func (r *registry) appendByUser(all []*Session, user string) []*Session {
	h := r.hash(user)
	u := r.userShard(h)
	u.mu.RLock()
	defer u.mu.RUnlock()
	for s := u.newest(h, user); s != nil; s = s.next {
		all = append(all, s)
	}
	return all
}

// oldest returns the user's oldest session here and how many there are.
func (r *registry) oldest(user string) (s *Session, n int) {
	h := r.hash(user)
	u := r.userShard(h)
	u.mu.RLock()
	defer u.mu.RUnlock()
	for at := u.newest(h, user); at != nil; at = at.next {
		s = at
		n++
	}
	return s, n
}

// all calls f for every session. Sessions that come or go meanwhile may be
// missed or seen.
func (r *registry) all(f func(*Session)) {
	var batch []*Session
	for i := range r.ids {
		shard := &r.ids[i]
		shard.mu.RLock()
		batch = batch[:0]
		for s := range shard.set.All() {
			batch = append(batch, s)
		}
		shard.mu.RUnlock()
		for _, s := range batch {
			f(s)
		}
	}
}
