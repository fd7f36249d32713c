package main_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/a4cafe1a/presence/internal/proctest"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

const patience = time.Minute

// site is the running example.
type site struct {
	*proctest.Process
	t *testing.T
}

func start(t *testing.T, args ...string) *site {
	t.Helper()
	args = append([]string{"-addr", "127.0.0.1:0", "-interval", "1s", "-timeout", "3s", "-grace", "500ms"}, args...)
	return &site{proctest.Start(t, proctest.Build(t, "."), args...), t}
}

// tab is a client that reads all the time, so it answers pings.
type tab struct {
	*websocket.Conn
	closed chan error
}

func (s *site) open(query string) *tab {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(s.URL, "http")+"/ws?"+query, nil)
	require.NoError(s.t, err)
	tb := &tab{c, make(chan error, 1)}
	go func() {
		for {
			if _, _, err := c.Read(context.Background()); err != nil {
				tb.closed <- err
				return
			}
		}
	}()
	s.t.Cleanup(func() { c.CloseNow() })
	return tb
}

// ask does a request and decodes the answer.
func (s *site) ask(method, path string, into any) int {
	s.t.Helper()
	r, err := http.NewRequest(method, s.URL+path, nil)
	require.NoError(s.t, err)
	resp, err := http.DefaultClient.Do(r)
	require.NoError(s.t, err)
	defer resp.Body.Close()
	if into != nil {
		require.NoError(s.t, json.NewDecoder(resp.Body).Decode(into))
	}
	return resp.StatusCode
}

type list struct {
	Count   int
	Members []struct {
		User, State string
		Sessions    int
		Since       time.Time
	}
	Next  string
	Error string
}

type user struct {
	User     string
	Online   *bool
	State    string
	Sessions []struct {
		ID     string
		Topics []string
		RTT    float64 `json:"rtt_ms"`
	}
	LastSeen *time.Time `json:"last_seen"`
}

// event is what a stream of server-sent events brings.
type event struct {
	Name string
	Data struct {
		Topic, Cause string
		Member       struct{ User, State string }
		Members      []struct{ User string }
	}
}

// follow returns the events of a topic. close ends the stream.
func (s *site) follow(topic string) (events <-chan event, close func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/events?topic="+url.QueryEscape(topic), nil)
	require.NoError(s.t, err)
	resp, err := http.DefaultClient.Do(r)
	require.NoError(s.t, err)
	require.Equal(s.t, http.StatusOK, resp.StatusCode)
	require.Equal(s.t, "text/event-stream", resp.Header.Get("Content-Type"))
	all := make(chan event, 10_000)
	go func() {
		defer resp.Body.Close()
		var e event
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				e = event{Name: name}
			} else if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				if json.Unmarshal([]byte(data), &e.Data) == nil {
					all <- e
				}
			}
		}
	}()
	s.t.Cleanup(cancel)
	return all, cancel
}

// next returns the next event that is no update.
func (s *site) next(events <-chan event) event {
	s.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case e := <-events:
			if e.Name != "update" {
				return e
			}
		case <-timer.C:
			s.t.Fatal("no event")
		}
	}
}

// counts waits until so many users are online: a client has its 101 before it
// is verified.
func (s *site) counts(topic string, n int) {
	s.t.Helper()
	var l list
	require.Eventually(s.t, func() bool {
		s.ask("GET", "/online?topic="+topic, &l)
		return l.Count == n
	}, patience, 20*time.Millisecond)
}

func TestRoutes(t *testing.T) {
	s := start(t)
	require.Equal(t, http.StatusOK, s.ask("GET", "/healthz", nil))
	require.Equal(t, http.StatusOK, s.ask("GET", "/", nil))
	require.Equal(t, http.StatusUpgradeRequired, s.ask("GET", "/ws?user=ann", nil))

	name := "ann/ö 1"
	ann := s.open("user=" + url.QueryEscape(name) + "&topic=red")
	s.open("user=ben&topic=red")
	s.counts("red", 2)
	s.open("user=" + url.QueryEscape(name))
	var l list
	require.Eventually(t, func() bool { // the node knows its sessions before the list does
		l = list{}
		s.ask("GET", "/online", &l)
		return len(l.Members) == 2 && l.Members[0].Sessions == 2
	}, patience, 20*time.Millisecond)

	l = list{}
	require.Equal(t, http.StatusOK, s.ask("GET", "/online", &l))
	require.Equal(t, 2, l.Count)
	require.Equal(t, name, l.Members[0].User)
	require.Equal(t, 2, l.Members[0].Sessions)
	require.Equal(t, "online", l.Members[0].State)
	require.WithinDuration(t, time.Now(), l.Members[0].Since, time.Minute)

	l = list{}
	s.ask("GET", "/online?topic=red&limit=1", &l)
	require.Equal(t, 2, l.Count)
	require.Len(t, l.Members, 1)
	require.Equal(t, 1, l.Members[0].Sessions, "only those in the topic")
	require.Equal(t, name, l.Next)
	next := l.Next
	l = list{}
	s.ask("GET", "/online?topic=red&limit=1&after="+url.QueryEscape(next), &l)
	require.Equal(t, "ben", l.Members[0].User)
	require.Empty(t, l.Next)
	for _, limit := range []string{"0", "1001", "x"} {
		l = list{}
		require.Equal(t, http.StatusBadRequest, s.ask("GET", "/online?limit="+limit, &l), limit)
		require.NotEmpty(t, l.Error)
	}

	var u user
	require.Equal(t, http.StatusOK, s.ask("GET", "/online/"+url.PathEscape(name), &u))
	require.Equal(t, name, u.User)
	require.True(t, *u.Online)
	require.Len(t, u.Sessions, 2)
	u = user{}
	require.Equal(t, http.StatusOK, s.ask("GET", "/online/nobody", &u))
	require.False(t, *u.Online)
	require.Equal(t, "offline", u.State)
	require.Nil(t, u.LastSeen)

	require.Equal(t, http.StatusBadRequest, s.ask("GET", "/ws?user="+strings.Repeat("x", 257), nil))

	var told struct{ Disconnected int }
	require.Equal(t, http.StatusOK, s.ask("DELETE", "/online/"+url.PathEscape(name), &told))
	require.Equal(t, 2, told.Disconnected)
	require.Equal(t, websocket.StatusCode(4403), websocket.CloseStatus(<-ann.closed))
	u = user{}
	s.ask("GET", "/online/"+url.PathEscape(name), &u)
	require.False(t, *u.Online, "a kick has no grace")
	require.NotNil(t, u.LastSeen)
}

func TestEventsOfTwoTopics(t *testing.T) {
	s := start(t, "-grace", "5s") // longer than a reload takes on a busy machine
	red, _ := s.follow("red")
	all, _ := s.follow("")
	require.Equal(t, "snapshot", s.next(red).Name)
	require.Equal(t, "snapshot", s.next(all).Name)

	ann := s.open("user=ann&topic=red")
	e := s.next(red)
	require.Equal(t, []string{"join", "ann", "red"}, []string{e.Name, e.Data.Member.User, e.Data.Topic})
	ben := s.open("user=ben&topic=blue")
	require.Equal(t, "ann", s.next(all).Data.Member.User)
	require.Equal(t, "ben", s.next(all).Data.Member.User)

	// A reload: the old tab goes, a new one comes within the grace.
	require.NoError(t, ann.Close(websocket.StatusGoingAway, ""))
	ann = s.open("user=ann&topic=red")
	s.ask("DELETE", "/online/ben", nil)
	<-ben.closed
	e = s.next(all)
	require.Equal(t, []string{"leave", "ben", "kicked"}, []string{e.Name, e.Data.Member.User, e.Data.Cause}, "a reload is no event")

	require.NoError(t, ann.Close(websocket.StatusGoingAway, ""))
	e = s.next(red)
	require.Equal(t, []string{"leave", "ann", "client-closed"}, []string{e.Name, e.Data.Member.User, e.Data.Cause})
	e = s.next(all)
	require.Equal(t, []string{"leave", "ann", "client-closed"}, []string{e.Name, e.Data.Member.User, e.Data.Cause})

	s.Interrupt()
	require.NoError(t, s.Wait(patience), "event streams end with Shutdown")
}

func TestTwoThousandUsersAndASlowReader(t *testing.T) {
	const n = 2000
	s := start(t, "-interval", "10s", "-timeout", "30s")
	// A reader of the stream that never reads, with a small buffer.
	slow, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
	require.NoError(t, err)
	defer slow.Close()
	require.NoError(t, slow.(*net.TCPConn).SetReadBuffer(4096))
	_, err = fmt.Fprintf(slow, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	events, _ := s.follow("")
	require.Equal(t, "snapshot", s.next(events).Name)

	var wg sync.WaitGroup
	tabs := make([]*tab, n)
	for w := range 20 {
		wg.Go(func() {
			for i := w; i < n; i += 20 {
				tabs[i] = s.open(fmt.Sprintf("user=u%04d", i))
			}
		})
	}
	wg.Wait()
	s.counts("", n)

	// All pages together are everybody, in order, once.
	seen, after := []string{}, ""
	for {
		var l list
		s.ask("GET", "/online?limit=300&after="+after, &l)
		for _, m := range l.Members {
			seen = append(seen, m.User)
		}
		if l.Next == "" {
			break
		}
		after = l.Next
	}
	require.Len(t, seen, n)
	require.IsIncreasing(t, seen)

	// The quick reader has them all too: by joins, or by a newer snapshot.
	members := map[string]bool{}
	for len(members) < n {
		e := s.next(events)
		switch e.Name {
		case "snapshot":
			clear(members)
			for _, m := range e.Data.Members {
				members[m.User] = true
			}
		case "join":
			members[e.Data.Member.User] = true
		case "leave":
			t.Fatalf("%s left: %s", e.Data.Member.User, e.Data.Cause)
		}
	}
	for _, tb := range tabs {
		tb.CloseNow()
	}
	s.counts("", 0)
}
