package mirror

import (
	"slices"
	"time"

	"github.com/a4cafe1a/presence/store"
)

// members is the membership of a topic. Lists of it are made on demand; one
// made before is reused for all members that have not changed since.
type members struct {
	store store.Store
	of    map[string]store.UserRecord

	listed  []store.UserRecord // the last list, which others may be reading
	changed map[string]bool    // users that changed since; nil when there is no list
}

func (m *members) count() int { return len(m.of) }

// fold takes in one change and says what it is for who knew the members
// before; 0 is nothing. since is when the membership began that a Leave ends.
func (m *members) fold(c *store.Change) (kind Kind, since time.Time) {
	user := c.Member.User
	old, known := m.of[user]
	if c.Kind == store.Left && !known {
		return 0, since
	}
	if m.changed != nil {
		m.changed[user] = true
		if len(m.changed) > len(m.of)/4+64 {
			m.listed, m.changed = nil, nil // sorting anew is as cheap
		}
	}
	if c.Kind == store.Left {
		delete(m.of, user)
		return Leave, old.Since
	}
	m.of[user] = c.Member
	if known {
		return Update, since
	}
	return Join, since
}

// list returns all members in order of shard, then user. It is not written to
// any more.
func (m *members) list() []store.UserRecord {
	users := make([]string, 0, max(len(m.changed), 16))
	if m.changed == nil {
		for user := range m.of {
			users = append(users, user)
		}
	} else {
		for user := range m.changed {
			users = append(users, user)
		}
	}
	slices.SortFunc(users, m.compare)

	list := make([]store.UserRecord, 0, len(m.of))
	old := m.listed
	for _, user := range users {
		for len(old) > 0 && m.compare(old[0].User, user) < 0 {
			list = append(list, old[0])
			old = old[1:]
		}
		if len(old) > 0 && old[0].User == user {
			old = old[1:]
		}
		if r, ok := m.of[user]; ok {
			list = append(list, r)
		}
	}
	list = append(list, old...)
	m.listed, m.changed = list, map[string]bool{}
	return list
}
