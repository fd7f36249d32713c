package presence_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/stretchr/testify/require"
)

// What queries return is written as JSON as it is, with the names of
// presence.v1.
func TestJSON(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	ann := presence.Status{User: "ann", State: presence.Online, Away: true, Sessions: 2, Since: at, LastSeen: at, AsOf: at}
	for _, c := range []struct {
		name string
		v    any
		want string
	}{
		{"status", ann, `{"user":"ann","state":"online","away":true,"sessions":2,
			"since":"2026-01-01T00:00:00Z","last_seen":"2026-01-01T00:00:00Z","as_of":"2026-01-01T00:00:00Z"}`},
		{"status of nobody", presence.Status{User: "ben", State: presence.Offline, AsOf: at},
			`{"user":"ben","state":"offline","away":false,"sessions":0,"as_of":"2026-01-01T00:00:00Z"}`},
		{"member", presence.Member{Status: presence.Status{User: "ann", State: presence.Grace, Since: at}, Metas: []json.RawMessage{json.RawMessage(`{"a":1}`)}},
			`{"user":"ann","state":"grace","away":false,"sessions":0,"since":"2026-01-01T00:00:00Z","metas":[{"a":1}]}`},
		{"session", presence.SessionInfo{
			ID: "1f0c6a2b9d3e4f50", User: "ann", Node: "one", Topics: []string{"room"}, Meta: json.RawMessage(`7`),
			Local: true, Since: at, LastSeen: at, RTT: 3 * time.Millisecond,
		}, `{"id":"1f0c6a2b9d3e4f50","user":"ann","node":"one","topics":["room"],"meta":7,"away":false,"local":true,
			"since":"2026-01-01T00:00:00Z","last_seen":"2026-01-01T00:00:00Z","rtt_ns":3000000}`},
		{"session of which little is known", presence.SessionInfo{ID: "1f0c6a2b9d3e4f50", User: "ann", Node: "one", Since: at},
			`{"id":"1f0c6a2b9d3e4f50","user":"ann","node":"one","away":false,"local":false,"since":"2026-01-01T00:00:00Z"}`},
		{"counts", presence.Counts{Users: 2, Sessions: 3}, `{"users":2,"sessions":3}`},
		{"snapshot of nobody", presence.Event{Kind: presence.Snapshot, Topic: "room", Version: "7", At: at, Members: []presence.Member{}},
			`{"kind":"snapshot","topic":"room","version":"7","at":"2026-01-01T00:00:00Z","members":[]}`},
		{"leave", presence.Event{Kind: presence.Leave, Version: "8", At: at, Member: presence.Member{Status: presence.Status{User: "ann", State: presence.Offline}}, Cause: presence.CauseLost},
			`{"kind":"leave","topic":"","version":"8","at":"2026-01-01T00:00:00Z","cause":"lost",
			"member":{"user":"ann","state":"offline","away":false,"sessions":0}}`},
		{"stats", presence.Stats{Sessions: 1, MaxSessions: 2, Verifying: 3, Refused4xx: 4, Refused5xx: 5, NoRoom: 6, Unverified: 7, Ended: map[presence.Cause]uint64{presence.CauseLost: 12},
			StoreAway: true, StoreFailures: 8, Hold: time.Second, LeasesLost: 9, Reasserts: 10, Queued: 11},
			`{"sessions":1,"max_sessions":2,"verifying":3,"refused_4xx":4,"refused_5xx":5,"no_room":6,"unverified":7, "ended": {"lost": 12},
			"store_away":true,"store_failures":8,"hold_ns":1000000000,"leases_lost":9,"reasserts":10,"queued":11}`},
		{"states as keys", map[presence.State]int{presence.Unknown: 1}, `{"unknown":1}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := json.Marshal(c.v)
			require.NoError(t, err)
			require.JSONEq(t, c.want, string(got))
		})
	}
	var back presence.Status
	b, err := json.Marshal(ann)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &back))
	require.Equal(t, ann, back)
	for _, state := range []presence.State{presence.Unknown, presence.Offline, presence.Grace, presence.Online} {
		text, err := state.MarshalText()
		require.NoError(t, err)
		var s presence.State
		require.NoError(t, s.UnmarshalText(text))
		require.Equal(t, state, s)
	}
	for kind := presence.Snapshot; kind <= presence.Update; kind++ {
		text, err := kind.MarshalText()
		require.NoError(t, err)
		var k presence.Kind
		require.NoError(t, k.UnmarshalText(text))
		require.Equal(t, kind, k)
	}
	require.Error(t, json.Unmarshal([]byte(`{"kind":"kind 7"}`), new(presence.Event)))
	for _, bad := range []string{`{"state":"asleep"}`, `{"state":""}`, `{"state":3}`} {
		require.Error(t, json.Unmarshal([]byte(bad), &back), bad)
	}
}
