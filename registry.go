package presence

import (
	"hash/maphash"
	"sync"
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
	mu sync.RWMutex
	m  map[uint64]*Session
}

// userShard chains the sessions of a user through Session.next, newest first:
// nearly all users have one.
type userShard struct {
	mu sync.RWMutex
	m  map[string]*Session
}

func newRegistry() *registry {
	r := &registry{seed: maphash.MakeSeed()}
	for i := range registryShards {
		r.ids[i].m = map[uint64]*Session{}
		r.users[i].m = map[string]*Session{}
	}
	return r
}

func (r *registry) userShard(user string) *userShard {
	return &r.users[maphash.String(r.seed, user)%registryShards]
}

func (r *registry) idShard(id uint64) *idShard { return &r.ids[id%registryShards] }

func (r *registry) add(s *Session) {
	u := r.userShard(s.user)
	u.mu.Lock()
	s.next = u.m[s.user]
	u.m[s.user] = s
	u.mu.Unlock()
	i := r.idShard(s.id)
	i.mu.Lock()
	i.m[s.id] = s
	i.mu.Unlock()
}

// remove says whether the session was there.
func (r *registry) remove(s *Session) bool {
	i := r.idShard(s.id)
	i.mu.Lock()
	_, ok := i.m[s.id]
	delete(i.m, s.id)
	i.mu.Unlock()
	if !ok {
		return false
	}
	u := r.userShard(s.user)
	u.mu.Lock()
	defer u.mu.Unlock()
	first := u.m[s.user]
	if first == s {
		if s.next == nil {
			delete(u.m, s.user)
		} else {
			u.m[s.user] = s.next
		}
		return true
	}
	for at := first; at != nil; at = at.next {
		if at.next == s {
			at.next = s.next
			return true
		}
	}
	return true
}

func (r *registry) byID(id uint64) *Session {
	i := r.idShard(id)
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.m[id]
}

// online says whether the user has a live session here.
func (r *registry) online(user string) bool {
	u := r.userShard(user)
	u.mu.RLock()
	defer u.mu.RUnlock()
	return u.m[user] != nil
}

// byUser returns the user's sessions here, newest first.
func (r *registry) byUser(user string) []*Session { return r.appendByUser(nil, user) }

func (r *registry) appendByUser(all []*Session, user string) []*Session {
	u := r.userShard(user)
	u.mu.RLock()
	defer u.mu.RUnlock()
	for s := u.m[user]; s != nil; s = s.next {
		all = append(all, s)
	}
	return all
}

// oldest returns the user's oldest session here and how many there are.
func (r *registry) oldest(user string) (s *Session, n int) {
	u := r.userShard(user)
	u.mu.RLock()
	defer u.mu.RUnlock()
	for at := u.m[user]; at != nil; at = at.next {
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
		for _, s := range shard.m {
			batch = append(batch, s)
		}
		shard.mu.RUnlock()
		for _, s := range batch {
			f(s)
		}
	}
}
