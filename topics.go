package presence

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"

	"github.com/a4cafe1a/presence/store"
)

// Join adds the session to topics. A pending session joins with its
// connection. It returns when the store has taken it, or nil after CommitWait,
// at once while the store is away: then the change follows. ErrLimit: a name is too long, not
// UTF-8 or contains a zero byte, or there would be too many; then none is
// joined. ErrEnded: the session has ended.
func (s *Session) Join(ctx context.Context, topics ...string) error {
	add := topicSet(topics)
	for _, t := range add {
		if err := s.p.opts.Limits.checkName("topic", t); err != nil {
			return failed("join", err)
		}
	}
	add = cloneAll(add)
	return s.change(ctx, "join", store.Op{Kind: store.OpJoin, Topics: add}, func() (bool, error) {
		own := s.own()
		merged := topicSet(append(slices.Clone(own.topics), add...))
		if err := s.p.opts.Limits.checkTopics(len(merged)); err != nil {
			return false, err
		}
		changed := len(merged) != len(own.topics)
		own.topics = merged
		s.setExtra(own)
		return changed, nil
	})
}

// Leave takes the session out of topics, on purpose: there is no grace. It
// waits and fails as Join does. A topic that the session is not in is ignored,
// and so is everyone, "", which cannot be left.
func (s *Session) Leave(ctx context.Context, topics ...string) error {
	drop := topicSet(topics)
	err := s.change(ctx, "leave", store.Op{Kind: store.OpLeave, Topics: drop}, func() (bool, error) {
		own := s.own()
		left := slices.DeleteFunc(slices.Clone(own.topics), func(t string) bool {
			_, found := slices.BinarySearch(drop, t)
			return found
		})
		changed := len(left) != len(own.topics)
		own.topics = left
		s.setExtra(own)
		return changed, nil
	})
	s.left(drop)
	return err
}

// SetMeta replaces the session's metadata by v as JSON; nil removes it. An
// unchanged value does nothing. At most four changes a second reach others,
// the last one always does. ErrLimit: it is longer than Limits.MetaBytes, or
// the user's sessions have more than 64 KiB together; then others see the
// value from before.
func (s *Session) SetMeta(ctx context.Context, v any) error {
	var meta json.RawMessage
	if v != nil {
		b, err := json.Marshal(v)
		if err != nil {
			return failed("set metadata", err)
		}
		meta = compact(b)
	}
	if err := s.p.opts.Limits.checkMeta(meta); err != nil {
		return failed("set metadata", err)
	}
	var before json.RawMessage
	err := s.change(ctx, "set metadata", store.Op{Kind: store.OpMeta, Meta: meta}, func() (bool, error) {
		own := s.own()
		if string(own.meta) == string(meta) {
			return false, nil
		}
		before, own.meta = own.meta, meta
		s.setExtra(own)
		return true, nil
	})
	if err != nil {
		s.mu.Lock()
		if own := s.own(); string(own.meta) == string(meta) && isLimit(err) {
			own.meta = before
			s.setExtra(own)
		}
		s.mu.Unlock()
	}
	return err
}

// change applies a change here and, once the store knows the session, there.
func (s *Session) change(ctx context.Context, what string, op store.Op, apply func() (changed bool, err error)) error {
	s.mu.Lock()
	if s.ended.Load() != nil {
		s.mu.Unlock()
		return failed(what, ErrEnded)
	}
	changed, err := apply()
	listed := s.listed
	s.mu.Unlock()
	switch {
	case err != nil:
		return failed(what, err)
	case !changed || !listed:
		return nil
	}
	op.User, op.Session = s.user, s.ID()
	return s.p.commit(ctx, what, op)
}

// compact makes equal values equal bytes; null is none.
func compact(meta json.RawMessage) json.RawMessage {
	var b bytes.Buffer
	if len(meta) == 0 || json.Compact(&b, meta) != nil || b.String() == "null" {
		return nil
	}
	return b.Bytes()
}

func topicSet(topics []string) []string {
	set := make([]string, 0, len(topics))
	for _, t := range topics {
		if t != "" {
			set = append(set, t)
		}
	}
	slices.Sort(set)
	return slices.Compact(set)
}
