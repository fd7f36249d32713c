package presence

import (
	"cmp"
	"context"
)

// DisconnectUser ends all sessions of the user on every node, and a grace at
// once: the live ones, and on this node also those that are pending, whose
// Identify had begun before the call. A client that another node is just
// verifying is not found. So have Identify refuse the user first, and call again
// after VerifyTimeout to be sure. told is the number of sessions told to end;
// they are not confirmed closed when it returns. ErrLimit: the reason is not
// valid, or no user can have that name, as for Online. When the store is away,
// only this node's sessions end, and the error is ErrStoreUnavailable: call again
// as long as the error is ErrUnknown. Called within the Identify of the same user
// it refuses that request, too: Limits.WhenUserFull is for the newest to win.
//
// It waits until the store has heard of the sessions that ended here, some
// 10 ms. Calls at the same time wait for the same commit: to end thousands of
// users call it from some hundred goroutines, not in a loop.
func (p *Presence) DisconnectUser(ctx context.Context, user string, r Reason) (told int, err error) {
	if err := cmp.Or(p.closed(), p.opts.Limits.checkUser(user), r.check()); err != nil {
		return 0, failed("disconnect", err)
	}
	e := r.end()
	p.kicks.add(user, p.wheel.Exact())
	pending := p.endPending(e, func(s *Session) bool { return s.user == user })
	local := p.registry.byUser(user)
	err = p.ask(ctx, "disconnect", func(ctx context.Context) (err error) {
		told, err = p.store.Disconnect(ctx, user, "", e.Code, e.Text)
		return err
	})
	for _, s := range local {
		s.end(e)
	}
	p.settle(ctx, len(local) > 0)
	return max(told, len(local)) + pending, err
}

// DisconnectSession is DisconnectUser for one session, wherever it is. It says
// whether that session was found.
func (p *Presence) DisconnectSession(ctx context.Context, user, id string, r Reason) (bool, error) {
	if err := cmp.Or(p.closed(), p.opts.Limits.checkUser(user), r.check()); err != nil {
		return false, failed("disconnect", err)
	}
	e := r.end()
	told := 0
	err := p.ask(ctx, "disconnect", func(ctx context.Context) (err error) {
		told, err = p.store.Disconnect(ctx, user, id, e.Code, e.Text)
		return err
	})
	if s := p.registry.byID(parseID(id)); s != nil && s.user == user {
		s.end(e)
		p.settle(ctx, true)
		return true, nil
	}
	if p.endPending(e, func(s *Session) bool { return s.id == parseID(id) && s.user == user }) > 0 {
		return true, nil
	}
	return told > 0, err
}

// settle waits, for CommitWait at most, until the store knows what was ended
// here, so that the next query does not find it.
func (p *Presence) settle(ctx context.Context, ended bool) {
	if !ended || p.opts.CommitWait == 0 || p.member.Away() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, p.opts.CommitWait)
	defer cancel()
	_ = p.member.Flush(ctx) // what is late follows by itself
}
