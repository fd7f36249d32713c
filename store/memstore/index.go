package memstore

import (
	"slices"
	"sort"
)

// index keeps the members of a topic in order of user: sorted chunks in a
// sorted list. That is a B-tree of two levels. With 10 million members the
// list has some 50,000 chunks, and the longest step, a split, moves 2 MB.
type index struct {
	chunks []chunk
	size   int
}

type chunk struct {
	first   string // never greater than the first entry's user
	entries []entry
}

// entry repeats the name beside the pointer, so that a search touches the
// chunk and the names only.
type entry struct {
	user   string
	member *member
}

const (
	maxChunk = 256
	minChunk = maxChunk / 4
)

// chunk returns the position of the chunk in which the user is, or belongs.
func (x *index) chunk(user string) int {
	n := sort.Search(len(x.chunks), func(i int) bool { return x.chunks[i].first > user })
	return max(0, n-1)
}

// find returns where in the chunk the user is, or belongs.
func (c *chunk) find(user string) (int, bool) {
	i, j := 0, len(c.entries)
	for i < j {
		h := int(uint(i+j) >> 1)
		if c.entries[h].user < user {
			i = h + 1
		} else {
			j = h
		}
	}
	return i, i < len(c.entries) && c.entries[i].user == user
}

func (x *index) get(user string) *member {
	if len(x.chunks) == 0 {
		return nil
	}
	c := &x.chunks[x.chunk(user)]
	if i, ok := c.find(user); ok {
		return c.entries[i].member
	}
	return nil
}

// insert adds a member, whose user is not there yet.
func (x *index) insert(user string, m *member) {
	x.size++
	if len(x.chunks) == 0 {
		x.chunks = []chunk{{first: user, entries: []entry{{user, m}}}}
		return
	}
	at := x.chunk(user)
	c := &x.chunks[at]
	i, _ := c.find(user)
	if len(c.entries) < maxChunk {
		c.entries = slices.Insert(c.entries, i, entry{user, m})
		if i == 0 {
			c.first = user
		}
		return
	}
	if i == maxChunk && at == len(x.chunks)-1 {
		// Names that only grow would leave every chunk half full.
		x.chunks = append(x.chunks, chunk{user, []entry{{user, m}}})
		return
	}
	right := slices.Clone(c.entries[maxChunk/2:])
	clear(c.entries[maxChunk/2:])
	c.entries = c.entries[:maxChunk/2]
	x.chunks = slices.Insert(x.chunks, at+1, chunk{right[0].user, right})
	if i > maxChunk/2 {
		at, i = at+1, i-maxChunk/2
	}
	c = &x.chunks[at]
	c.entries = slices.Insert(c.entries, i, entry{user, m})
	if i == 0 {
		c.first = user
	}
}

// remove takes a user out, who is there.
func (x *index) remove(user string) {
	at := x.chunk(user)
	c := &x.chunks[at]
	i, ok := c.find(user)
	if !ok {
		return
	}
	x.size--
	c.entries = slices.Delete(c.entries, i, i+1)
	switch {
	case len(c.entries) == 0 && len(x.chunks) > 1:
		x.chunks = slices.Delete(x.chunks, at, at+1)
	case len(c.entries) < minChunk && at > 0:
		x.merge(at - 1)
	case len(c.entries) < minChunk && at+1 < len(x.chunks):
		x.merge(at)
	}
}

// merge joins a chunk with the next one, if the result has room to grow.
func (x *index) merge(at int) {
	a, b := &x.chunks[at], &x.chunks[at+1]
	if len(a.entries)+len(b.entries) > maxChunk*3/4 {
		return
	}
	a.entries = append(a.entries, b.entries...)
	x.chunks = slices.Delete(x.chunks, at+1, at+2)
}

// after calls f for the members behind a user, or from the start for "",
// until f returns false.
func (x *index) after(user string, f func(*member) bool) {
	at, i := 0, 0
	if user != "" && len(x.chunks) > 0 {
		var found bool
		at = x.chunk(user)
		if i, found = x.chunks[at].find(user); found {
			i++
		}
	}
	for ; at < len(x.chunks); at, i = at+1, 0 {
		for _, e := range x.chunks[at].entries[i:] {
			if !f(e.member) {
				return
			}
		}
	}
}
