package presence_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/stretchr/testify/require"
)

func TestOptionsDefaults(t *testing.T) {
	o := presence.WithDefaults(presence.Options{})
	for _, c := range []struct {
		name      string
		got, want any
	}{
		{"HeartbeatInterval", o.HeartbeatInterval, 25 * time.Second},
		{"HeartbeatTimeout", o.HeartbeatTimeout, 55 * time.Second},
		{"VerifyTimeout", o.VerifyTimeout, 10 * time.Second},
		{"IdleTimeout", o.IdleTimeout, time.Duration(0)},
		{"AwayAfter", o.AwayAfter, time.Duration(0)},
		{"LeaveGrace", o.LeaveGrace, 5 * time.Second},
		{"DrainGrace", o.DrainGrace, 15 * time.Second},
		{"KeepLastSeen", o.KeepLastSeen, 24 * time.Hour},
		{"DownloadTimeout", o.DownloadTimeout, 10 * time.Minute},
		{"CloseTimeout", o.CloseTimeout, time.Second},
		{"CommitWait", o.CommitWait, time.Second},
		{"Limits.Verifying", o.Limits.Verifying, 10_000},
		{"Limits.PerUser", o.Limits.PerUser, 1_000},
		{"Limits.TopicsPerSession", o.Limits.TopicsPerSession, 64},
		{"Limits.NameBytes", o.Limits.NameBytes, 256},
		{"Limits.MetaBytes", o.Limits.MetaBytes, 4096},
		{"Limits.ControlFramesPerSecond", o.Limits.ControlFramesPerSecond, 32},
		{"Limits.SubscriberEvents", o.Limits.SubscriberEvents, 256},
		{"Limits.SnapshotMembers", o.Limits.SnapshotMembers, 10_000},
		{"Limits.WhenUserFull", o.Limits.WhenUserFull, presence.RefuseNew},
	} {
		require.Equal(t, c.want, c.got, c.name)
	}
	require.Positive(t, o.Limits.Sessions)
}

func TestOptionsNegativeIsOff(t *testing.T) {
	o := presence.WithDefaults(presence.Options{
		HeartbeatInterval: -1, IdleTimeout: -1, AwayAfter: -1, LeaveGrace: -1, DrainGrace: -1,
		KeepLastSeen: -1, DownloadTimeout: -1, CloseTimeout: -1, CommitWait: -1,
	})
	for name, d := range map[string]time.Duration{
		"HeartbeatInterval": o.HeartbeatInterval, "HeartbeatTimeout": o.HeartbeatTimeout,
		"IdleTimeout": o.IdleTimeout, "AwayAfter": o.AwayAfter, "LeaveGrace": o.LeaveGrace,
		"DrainGrace": o.DrainGrace, "KeepLastSeen": o.KeepLastSeen, "DownloadTimeout": o.DownloadTimeout,
		"CloseTimeout": o.CloseTimeout, "CommitWait": o.CommitWait,
	} {
		require.Zero(t, d, name)
	}
}

func TestTimeoutFollowsInterval(t *testing.T) {
	for _, c := range []struct{ interval, timeout, want time.Duration }{
		{10 * time.Second, 0, 22 * time.Second},
		{50 * time.Millisecond, 0, 110 * time.Millisecond},
		{10 * time.Second, 15 * time.Second, 15 * time.Second},
		{10 * time.Second, -1, 0},
		{0, 2 * time.Minute, 2 * time.Minute},
	} {
		o := presence.WithDefaults(presence.Options{HeartbeatInterval: c.interval, HeartbeatTimeout: c.timeout})
		require.Equal(t, c.want, o.HeartbeatTimeout, "interval %v, timeout %v", c.interval, c.timeout)
	}
}

func TestOptionsRules(t *testing.T) {
	limit := func(l presence.Limits) presence.Options { return presence.Options{Limits: l} }
	for _, c := range []struct {
		name  string
		o     presence.Options
		rules []string // what the error names; none: the options are good
	}{
		{"zero", presence.Options{}, nil},
		{"just 1.5 times", presence.Options{HeartbeatInterval: 2 * time.Second, HeartbeatTimeout: 3 * time.Second}, nil},
		{"less than 1.5 times", presence.Options{HeartbeatInterval: 2 * time.Second, HeartbeatTimeout: 3*time.Second - 1}, []string{"1.5 x HeartbeatInterval"}},
		{"timeout below the default interval", presence.Options{HeartbeatTimeout: 10 * time.Second}, []string{"10s", "25s"}},
		{"timeout without heartbeats", presence.Options{HeartbeatInterval: -1, HeartbeatTimeout: time.Minute}, []string{"needs heartbeats"}},
		{"no heartbeats at all", presence.Options{HeartbeatInterval: -1}, nil},
		{"heartbeats that end nothing", presence.Options{HeartbeatTimeout: -1}, nil},
		{"interval too short", presence.Options{HeartbeatInterval: time.Millisecond}, []string{"less than 10ms"}},
		{"verification off", presence.Options{VerifyTimeout: -1}, []string{"VerifyTimeout"}},
		{"long grace", presence.Options{LeaveGrace: 11 * time.Minute}, []string{"LeaveGrace 11m0s"}},
		{"long drain grace", presence.Options{DrainGrace: time.Hour}, []string{"DrainGrace 1h0m0s"}},
		{"no sessions", limit(presence.Limits{Sessions: -1}), []string{"Limits.Sessions"}},
		{"no verifying", limit(presence.Limits{Verifying: -1}), []string{"Limits.Verifying"}},
		{"unknown rule for full users", limit(presence.Limits{WhenUserFull: 9}), []string{"WhenUserFull"}},
		{"long node name", presence.Options{NodeName: strings.Repeat("n", 257)}, []string{"NodeName"}},
		{"all at once", presence.Options{
			HeartbeatInterval: time.Millisecond, HeartbeatTimeout: time.Millisecond, VerifyTimeout: -1, LeaveGrace: time.Hour, DrainGrace: time.Hour,
			NodeName: strings.Repeat("n", 257),
			Limits: presence.Limits{
				Sessions: -1, Verifying: -2, PerUser: -3, TopicsPerSession: -4, NameBytes: -5, MetaBytes: -6,
				ControlFramesPerSecond: -7, SubscriberEvents: -8, SnapshotMembers: -9, WhenUserFull: 7,
			},
		}, []string{
			"1.5 x HeartbeatInterval", "less than 10ms", "VerifyTimeout", "LeaveGrace", "DrainGrace", "NodeName", "WhenUserFull",
			"Sessions is -1", "Verifying is -2", "PerUser is -3", "TopicsPerSession is -4", "NameBytes is -5", "MetaBytes is -6",
			"ControlFramesPerSecond is -7", "SubscriberEvents is -8", "SnapshotMembers is -9",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // a New that fails leaves no goroutine
				p, err := presence.New(c.o)
				if len(c.rules) == 0 {
					require.NoError(t, err)
					require.NoError(t, p.Shutdown(t.Context()))
					return
				}
				require.ErrorIs(t, err, presence.ErrOptions)
				require.Nil(t, p)
				for _, rule := range c.rules {
					require.ErrorContains(t, err, rule)
				}
			})
		})
	}
}

func TestNodeNameIsShown(t *testing.T) {
	for _, name := range []string{"", "web-1"} {
		t.Run(fmt.Sprintf("%q", name), func(t *testing.T) {
			inBubble(t, presence.Options{NodeName: name}, nil, func(t *testing.T, b *bubble) {
				b.dial("/?user=ann")
				infos, err := b.p.Sessions(t.Context(), "ann")
				require.NoError(t, err)
				require.Len(t, infos, 1)
				if name == "" {
					require.Len(t, infos[0].Node, 16, "the random identity")
				} else {
					require.Equal(t, name, infos[0].Node)
				}
			})
		})
	}
}
