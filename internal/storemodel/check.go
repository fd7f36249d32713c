package storemodel

import (
	"errors"
	"strings"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/a4cafe1a/presence/store"
)

// check compares everything a reader can ask with the model.
func (x *machine) check(t *rapid.T) {
	got, err := x.s.Lookup(ctx, nil, users)
	require.NoError(t, err)
	for i, u := range users {
		require.Equal(t, x.m.record(u, ""), shown(got[i]), "Lookup")
	}
	dead := 0
	for _, y := range x.m.sessions {
		if !x.m.live(y) {
			dead++
		}
	}
	for _, topic := range topics {
		page, err := x.s.Members(ctx, topic, "", 1000)
		counts, cerr := x.s.Count(ctx, topic)
		if x.m.inHold() {
			require.ErrorIs(t, err, store.ErrUnknown)
			require.ErrorIs(t, cerr, store.ErrUnknown)
			continue
		}
		require.NoError(t, err)
		require.NoError(t, cerr)
		var want, is []string
		for _, u := range users {
			if r := x.m.record(u, topic); x.m.members[[2]string{topic, u}] != nil && !strings.HasPrefix(r, u+" offline") {
				want = append(want, r)
			}
		}
		for _, r := range page.Members {
			is = append(is, shown(r))
		}
		require.Equal(t, want, is, "Members of %q", topic)
		var c store.Counts
		for k := range x.m.members {
			if k[0] == topic {
				c.Users++
			}
		}
		for _, y := range x.m.sessions {
			if y.topics[topic] {
				c.Sessions++
			}
		}
		c.MaybeGone = min(dead, c.Sessions)
		require.Equal(t, c, counts, "Count of %q", topic)
	}
	for _, f := range x.feeds {
		if f.slow {
			continue
		}
		x.read(t, f)
		x.checkEvents(t, f)
		if dead == 0 {
			x.checkFold(t, f)
		}
	}
}

// checkEvents compares the Joined and Left of each user in the feed's topic
// with the model's, in order.
func (x *machine) checkEvents(t *rapid.T, f *machineFeed) {
	for _, u := range users {
		var want, is []string
		for _, e := range x.m.events {
			if strings.HasPrefix(e, f.topic+": ") && strings.Fields(strings.TrimPrefix(e, f.topic+":"))[1] == u {
				want = append(want, e)
			}
		}
		for _, e := range f.events {
			if strings.Fields(strings.TrimPrefix(e, f.topic+":"))[1] == u {
				is = append(is, e)
			}
		}
		require.Equal(t, want, is, "Joined and Left of %s", u)
	}
}

// checkFold compares what a feed told with what Members says.
func (x *machine) checkFold(t *rapid.T, f *machineFeed) {
	page, err := x.s.Members(ctx, f.topic, "", 1000)
	if errors.Is(err, store.ErrUnknown) {
		return
	}
	require.NoError(t, err)
	want, is := map[string]string{}, map[string]string{}
	for _, r := range page.Members {
		want[r.User] = shown(r) + r.Since.String()
	}
	for u, r := range f.fold {
		is[u] = shown(r) + r.Since.String()
	}
	require.Equal(t, want, is, "folding topic %q", f.topic)
}
