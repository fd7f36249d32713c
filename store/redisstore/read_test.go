package redisstore_test

import (
	"context"
	"net"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/store"
)

// between lets something happen inside of every pipeline that is no
// transaction: after its first command.
type between struct{ do func() }

func (h *between) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (h *between) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (h *between) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if h.do == nil || cmds[0].Name() == "multi" {
			return next(ctx, cmds)
		}
		if err := next(ctx, cmds[:1]); err != nil {
			return err
		}
		h.do()
		return next(ctx, cmds[1:])
	}
}

// A look-up reads leases and users at one moment. With leases that are older
// than the users, one who has just moved to a new node would be offline.
func TestLookupIsOneMoment(t *testing.T) {
	client := sharedServer(t).client(t)
	s := frozen(t, client, namespace())
	past(t, s, lease, s.Advance)
	reading := sharedServer(t).client(t)
	hook := &between{}
	reading.AddHook(hook)
	r := frozen(t, reading, s.Tag(0)[1:len(s.Tag(0))-len(":0}:")])
	l := register(t, s, "a")
	commit(t, s, l, add("u", "s1", "room"))
	require.Equal(t, store.Online, state(t, r, "u"))
	hook.do = func() {
		next := register(t, s, "b")
		commit(t, s, next, add("u", "s2", "room"))
		commit(t, s, l, store.Op{Kind: store.OpRemove, User: "u", Session: "s1", Cause: store.CauseLost})
	}
	require.Equal(t, store.Online, state(t, r, "u"))
}

// When the first key of a partition is gone, users that are left there belong
// to leases whose numbers are given again: they must not rise under those.
func TestHalfWiped(t *testing.T) {
	client := sharedServer(t).client(t)
	s := frozen(t, client, namespace())
	commit(t, s, register(t, s, "a"), add("u", "s", "room"))
	require.NoError(t, client.Del(ctx, s.Tag(0)+"m").Err())
	require.Equal(t, store.Unknown, state(t, s, "nobody"))
	next := register(t, s, "b")
	for range 4 {
		renew(t, s, next, true)
		s.Advance(lease / 3)
	}
	require.Equal(t, store.Offline, state(t, s, "u"), "it is under a lease of another node now")
	page, err := s.Members(ctx, "room", "", 0)
	require.NoError(t, err)
	require.Empty(t, page.Members)
}
