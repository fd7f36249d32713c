package presence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/a4cafe1a/presence/store"
)

// Options configure a Presence. The zero value of each field is its default.
// Of the durations that say so, a negative one turns the thing off.
type Options struct {
	// Store is where users, topics and leases are kept. Default: memory, for
	// one process. Share one between Presences to make them one cluster.
	// Shutdown does not close a store given here; close it after that.
	Store store.Store

	// Identify says who makes a request, or refuses it with ErrUnauthorized,
	// ErrForbidden, ErrTooMany, ErrUnavailable or ErrUntracked. It is called
	// before the upgrade, on the request's goroutine, concurrently. In a
	// Middleware around a router, that is before the router: there are no
	// parameters of the route yet. Default: everybody is anonymous, a user of
	// its own.
	Identify func(*http.Request) (Identity, error)

	// HeartbeatInterval is how long nothing may be received before the
	// client is asked for a sign of life. Default 25 s: the shortest common
	// idle limit of proxies is 55 s, and some networks forget a connection
	// after 30 s. Each wait is shortened at random by up to a tenth.
	// Negative: no heartbeats, and then nobody is ended as silent either.
	HeartbeatInterval time.Duration

	// HeartbeatTimeout is how long nothing may be received before the
	// session ends as silent. Default 55 s; with an interval set, 2.2 times
	// that. At least 1.5 x HeartbeatInterval. Negative: never.
	HeartbeatTimeout time.Duration

	// VerifyTimeout is how long a client has to prove after the upgrade that
	// it is alive. Default 10 s. It cannot be off.
	VerifyTimeout time.Duration

	// IdleTimeout ends a session (4408) whose client is alive but has sent no
	// message of its own for so long: neither one of the app nor a request of
	// presence.v1. Heartbeats do not count. Default and negative: off.
	IdleTimeout time.Duration

	// AwayAfter marks a session away whose client has sent no message of its
	// own, as for IdleTimeout, for so long. A user is away when all its
	// sessions are. Default and negative: off.
	AwayAfter time.Duration

	// LeaveGrace is how long a user whose last session was lost is still
	// counted as there, so that a reload is no leave. Default 5 s, at most
	// 10 min. Negative: none.
	LeaveGrace time.Duration

	// DrainGrace is the same for sessions ended by Shutdown. Default 15 s.
	// Negative: none.
	DrainGrace time.Duration

	// KeepLastSeen is how long it is remembered when a named user left.
	// Default 24 h. Negative: not at all.
	KeepLastSeen time.Duration

	// DownloadTimeout is how long a client that takes data steadily, but
	// cannot answer because the heartbeat waits behind that data, is not
	// judged. Default 10 min. Negative: it is judged at once. Needs Linux.
	DownloadTimeout time.Duration

	// CloseTimeout is how long, after a close frame, the client may take to
	// close its side. Default 1 s. Negative: it is not waited for, and close
	// codes may be lost. Each session that ends so holds its socket meanwhile,
	// however many end at once, and also a goroutine where its socket is full
	// or no TCP, and on systems other than Linux. It is also how long the app
	// has to read what a client sent before it broke the protocol.
	CloseTimeout time.Duration

	// CommitWait is how long a new session waits for the store before the app
	// gets it anyway. Default 1 s. Negative: it does not wait. A store that
	// is known to be away is not waited for.
	CommitWait time.Duration

	// RequireStore refuses newcomers (503) while the store is away.
	RequireStore bool

	// Authorize says whether a client of the subprotocol presence.v1 may have
	// what it asks for; nil allows it. An error's text is never sent. It is
	// asked once per request, on a goroutine of the session, and may wait; a
	// panic ends the process. Default, which is safe: a client may follow the
	// topics its session is in (not everyone, ""), leave those it has joined
	// itself, join none, and set metadata where the app has set none.
	Authorize func(*Session, Ask) error

	// Limits bound what clients and apps can ask for.
	Limits Limits

	// OnConnect is called for each verified session, on the goroutine of its
	// connection, before the app gets it; calls for different sessions
	// overlap. The client waits meanwhile, and no heartbeat is missed. A
	// panic ends the session as app-error and goes on.
	OnConnect func(*Session)

	// OnDisconnect is called exactly once for each session OnConnect was
	// called for, after OnConnect has returned and the session is out of all
	// local queries, on a goroutine of its own. At most 64 run at once; the
	// others wait their turn. Shutdown awaits them. A panic is logged.
	OnDisconnect func(*Session, End)

	// Logger gets what an operator should know: one line at the start, and
	// then trouble only. The package documentation lists every message.
	// Default: nothing is logged.
	Logger *slog.Logger

	// NodeName is shown to people, in SessionInfo.Node. Default: the node's
	// random identity.
	NodeName string
}

// Limits bound what one Presence holds. The zero value of each is its
// default; negative values are refused by New.
type Limits struct {
	// Sessions on this node, pending ones included. Default: 90 % of the
	// limit of open files, 100,000 where that is not known. Beyond: 503.
	Sessions int
	// Verifying is how many upgrades may be under way. Default 10,000.
	// Beyond: 503.
	Verifying int
	// PerUser is how many sessions a user may have, over all nodes. Default
	// 1,000. A tab with two endpoints has two. WhenUserFull says what happens
	// beyond.
	PerUser int
	// TopicsPerSession, not counting everyone. Default 64.
	TopicsPerSession int
	// NameBytes of a user or a topic. Default 256.
	NameBytes int
	// MetaBytes of a session's metadata as JSON. Default 4,096. A user's
	// sessions together have 64 KiB.
	MetaBytes int
	// ControlFramesPerSecond that a client may send, heartbeat messages
	// included. Default 32. Beyond: the session ends with 4429.
	ControlFramesPerSecond int
	// SubscriberEvents that may wait for one subscriber. Default 256. Beyond:
	// it gets a new Snapshot instead.
	SubscriberEvents int
	// SnapshotMembers in one Snapshot. Default 10,000. Beyond: ErrTooLarge.
	SnapshotMembers int
	// FollowMembers that clients of presence.v1 are told by name, per topic.
	// Default 1,000, at most SnapshotMembers. Beyond: they are told how many
	// there are, once a second.
	FollowMembers int
	// WhenUserFull is RefuseNew by default.
	WhenUserFull UserLimit
}

// UserLimit says what happens when a user has Limits.PerUser sessions.
type UserLimit uint8

const (
	// RefuseNew refuses the newcomer (429, or 4429 when it is decided after
	// the upgrade), but only after the user's oldest session has proved that
	// it is alive: a dead one must not lock its owner out.
	RefuseNew UserLimit = iota
	// ReplaceOldest closes the user's oldest session with 4409. It does so
	// once per user in 2 s; beyond that the newcomer gets 4429.
	ReplaceOldest
)

// Identity is who a request comes from.
type Identity struct {
	// User is the app's name for the user. "": anonymous, a user of its own.
	User string
	// Topics the session is in from the start; "", everyone, is implied.
	Topics []string
	// Meta is shown with the session. It must be valid JSON.
	Meta json.RawMessage
	// Expires ends the session (4401), without a grace: others see a Leave even
	// if the client is back at once. Zero: never. Session.SetExpires moves it.
	Expires time.Time
}

const (
	defaultInterval = 25 * time.Second
	defaultTimeout  = 55 * time.Second
	maxLeaveGrace   = 10 * time.Minute
)

// withDefaults returns a copy with every default filled in; what is off is 0.
func (o Options) withDefaults() Options {
	if o.HeartbeatTimeout == 0 && o.HeartbeatInterval > 0 {
		o.HeartbeatTimeout = o.HeartbeatInterval * 11 / 5
	}
	if o.HeartbeatTimeout == 0 && o.HeartbeatInterval < 0 {
		o.HeartbeatTimeout = -1
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&o.HeartbeatInterval, defaultInterval},
		{&o.HeartbeatTimeout, defaultTimeout},
		{&o.IdleTimeout, 0},
		{&o.AwayAfter, 0},
		{&o.LeaveGrace, 5 * time.Second},
		{&o.DrainGrace, 15 * time.Second},
		{&o.KeepLastSeen, 24 * time.Hour},
		{&o.DownloadTimeout, 10 * time.Minute},
		{&o.CloseTimeout, time.Second},
		{&o.CommitWait, time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
		*d.field = max(0, *d.field)
	}
	if o.VerifyTimeout == 0 {
		o.VerifyTimeout = 10 * time.Second
	}
	if o.Identify == nil {
		o.Identify = func(*http.Request) (Identity, error) { return Identity{}, nil }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Limits = o.Limits.withDefaults()
	return o
}

func (l Limits) withDefaults() Limits {
	for _, d := range []struct {
		field *int
		value int
	}{
		{&l.Verifying, 10_000},
		{&l.PerUser, 1_000},
		{&l.TopicsPerSession, 64},
		{&l.NameBytes, 256},
		{&l.MetaBytes, 4 << 10},
		{&l.ControlFramesPerSecond, 32},
		{&l.SubscriberEvents, 256},
		{&l.SnapshotMembers, 10_000},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if l.FollowMembers == 0 {
		l.FollowMembers = min(1_000, l.SnapshotMembers)
	}
	if l.Sessions == 0 {
		l.Sessions = sessionsByFiles()
	}
	return l
}

// storeClosed says whether the app has closed the store: a question that may
// take no time goes no further than that.
func storeClosed(s store.Store) bool {
	if s == nil {
		return false
	}
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := s.Position(over, 0)
	return errors.Is(err, store.ErrClosed)
}

// check says which relations are broken, all at once. It expects defaults.
func (o Options) check() error {
	var broken []string
	rule := func(ok bool, format string, args ...any) {
		if !ok {
			broken = append(broken, fmt.Sprintf(format, args...))
		}
	}
	rule(o.HeartbeatTimeout == 0 || o.HeartbeatInterval > 0,
		"HeartbeatTimeout %v needs heartbeats: leave it 0, or give HeartbeatInterval", o.HeartbeatTimeout)
	rule(o.HeartbeatTimeout == 0 || 2*o.HeartbeatTimeout >= 3*o.HeartbeatInterval,
		"HeartbeatTimeout %v is less than 1.5 x HeartbeatInterval %v", o.HeartbeatTimeout, o.HeartbeatInterval)
	rule(o.HeartbeatInterval == 0 || o.HeartbeatInterval >= 10*time.Millisecond,
		"HeartbeatInterval %v is less than 10ms", o.HeartbeatInterval)
	rule(o.VerifyTimeout > 0, "VerifyTimeout cannot be off")
	rule(o.LeaveGrace <= maxLeaveGrace, "LeaveGrace %v is more than %v", o.LeaveGrace, maxLeaveGrace)
	rule(o.DrainGrace <= maxLeaveGrace, "DrainGrace %v is more than %v", o.DrainGrace, maxLeaveGrace)
	for _, l := range []struct {
		name  string
		value int
	}{
		{"Sessions", o.Limits.Sessions},
		{"Verifying", o.Limits.Verifying},
		{"PerUser", o.Limits.PerUser},
		{"TopicsPerSession", o.Limits.TopicsPerSession},
		{"NameBytes", o.Limits.NameBytes},
		{"MetaBytes", o.Limits.MetaBytes},
		{"ControlFramesPerSecond", o.Limits.ControlFramesPerSecond},
		{"SubscriberEvents", o.Limits.SubscriberEvents},
		{"SnapshotMembers", o.Limits.SnapshotMembers},
		{"FollowMembers", o.Limits.FollowMembers},
	} {
		rule(l.value > 0, "Limits.%s is %d: there is no unlimited", l.name, l.value)
	}
	rule(o.Limits.FollowMembers <= o.Limits.SnapshotMembers,
		"Limits.FollowMembers %d is more than SnapshotMembers %d", o.Limits.FollowMembers, o.Limits.SnapshotMembers)
	rule(o.Limits.WhenUserFull <= ReplaceOldest, "Limits.WhenUserFull %d is unknown", o.Limits.WhenUserFull)
	rule(!storeClosed(o.Store), "Store is closed")
	rule(len(o.NodeName) <= 256, "NodeName is longer than 256 bytes")
	if len(broken) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrOptions, strings.Join(broken, "; "))
}
