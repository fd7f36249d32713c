package presence_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// hijackable could hand a connection over, and never does.
type hijackable struct{ *httptest.ResponseRecorder }

func (hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) { panic("the 101 was near") }

// upgrade asks h for a WebSocket without a network, and expects a refusal.
func upgrade(h http.Handler, path string, header ...string) *http.Response {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header.Set("Connection", "keep-alive, Upgrade")
	r.Header.Set("Upgrade", "WebSocket")
	r.Header.Set("Sec-WebSocket-Version", "13")
	r.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(hijackable{w}, r)
	return w.Result()
}

func TestWhatIdentifyAnswers(t *testing.T) {
	id := func(i presence.Identity) func(*http.Request) (presence.Identity, error) {
		return func(*http.Request) (presence.Identity, error) { return i, nil }
	}
	topics := make([]string, 65)
	for i := range topics {
		topics[i] = fmt.Sprint("topic ", i)
	}
	for _, c := range []struct {
		name     string
		identify func(*http.Request) (presence.Identity, error)
		status   int
		retry    string
	}{
		{"401", refusing(presence.ErrUnauthorized), 401, ""},
		{"401 wrapped", refusing(fmt.Errorf("secret: %w", presence.ErrUnauthorized)), 401, ""},
		{"403", refusing(presence.ErrForbidden), 403, ""},
		{"429", refusing(presence.ErrTooMany), 429, "1"},
		{"429 with a time", refusing(presence.RetryAfter(presence.ErrTooMany, 90*time.Second)), 429, "90"},
		{"503 with a part of a second", refusing(presence.RetryAfter(fmt.Errorf("secret: %w", presence.ErrUnavailable), 1200*time.Millisecond)), 503, "2"},
		{"503 with no time", refusing(presence.RetryAfter(presence.ErrUnavailable, -time.Second)), 503, "0"},
		{"403 with a time", refusing(presence.RetryAfter(presence.ErrForbidden, time.Minute)), 403, ""},
		{"500", refusing(errors.New("secret")), 500, ""},
		{"expired", id(presence.Identity{User: "u", Expires: time.Now().Add(-time.Second)}), 401, ""},
		{"user too long", id(presence.Identity{User: strings.Repeat("u", 257)}), 400, ""},
		{"user not UTF-8", id(presence.Identity{User: "\xff"}), 400, ""},
		{"user with a zero byte", id(presence.Identity{User: "u\x00"}), 400, ""},
		{"topic too long", id(presence.Identity{User: "u", Topics: []string{"ok", strings.Repeat("t", 257)}}), 400, ""},
		{"topic not UTF-8", id(presence.Identity{User: "u", Topics: []string{"\xc3\x28"}}), 400, ""},
		{"topic with a zero byte", id(presence.Identity{User: "u", Topics: []string{"\x00"}}), 400, ""},
		{"too many topics", id(presence.Identity{User: "u", Topics: topics}), 500, ""},
		{"metadata too large", id(presence.Identity{User: "u", Meta: json.RawMessage(`"` + strings.Repeat("m", 4096) + `"`)}), 400, ""},
		{"metadata no JSON", id(presence.Identity{User: "u", Meta: json.RawMessage(`{"a":`)}), 500, ""},
		{"good", id(presence.Identity{User: strings.Repeat("ü", 128), Topics: append(topics[:64:64], "", topics[0]), Meta: json.RawMessage(`{}`)}), 426, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			book := &logbook{}
			p := open(t, presence.Options{Identify: c.identify, Logger: book.logger()})
			answers := map[string]*http.Response{
				"Handler":  get(p.Handler(drop), "/"),
				"Callback": get(p.Callback(nil), "/"),
			}
			if c.status != 426 { // a good one would be upgraded
				answers["upgrade of Handler"] = upgrade(p.Handler(drop), "/")
				answers["upgrade of Callback"] = upgrade(p.Callback(nil), "/")
				answers["upgrade in Middleware"] = upgrade(p.Middleware(echo), "/")
			}
			for who, resp := range answers {
				body, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				require.Equal(t, c.status, resp.StatusCode, who)
				require.Contains(t, string(body), http.StatusText(c.status), who)
				require.NotContains(t, string(body), "secret", who)
				require.Equal(t, c.retry, resp.Header.Get("Retry-After"), who)
				if c.status == 426 {
					require.Equal(t, "websocket", resp.Header.Get("Upgrade"), who)
				}
			}
			logged := 0
			if c.status == 500 {
				logged = len(answers)
			}
			require.Len(t, book.lines("Identify failed"), logged)
			if c.name == "too many topics" {
				require.Len(t, book.lines("65 are more than Limits.TopicsPerSession, 64"), logged)
			}
			sessions, verifying := p.PlacesTaken()
			require.Zero(t, sessions+verifying)
		})
	}
}

func TestMethods(t *testing.T) {
	p := open(t, presence.Options{})
	for name, h := range map[string]http.Handler{"Handler": p.Handler(drop), "Callback": p.Callback(nil)} {
		for method, status := range map[string]int{
			"GET": 426, "HEAD": 426, "POST": 405, "PUT": 405, "DELETE": 405, "OPTIONS": 405, "CONNECT": 405,
		} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(method, "/", nil))
			require.Equal(t, status, w.Code, "%s %s", name, method)
			require.Equal(t, status == 405, w.Header().Get("Allow") != "", method)
		}
	}
}

func TestSetupRefuses(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
	}{
		{presence.ErrForbidden, 403},
		{fmt.Errorf("no such room: %w", presence.ErrUntracked), 404},
		{presence.ErrTooMany, 429},
		{fmt.Errorf("join: %w", presence.ErrLimit), 400},
		{errors.New("secret"), 500},
	} {
		t.Run(c.err.Error(), func(t *testing.T) {
			hooked := false
			o := presence.Options{OnConnect: func(*presence.Session) { hooked = true }}
			mount := func(p *presence.Presence) http.Handler {
				return p.Callback(func(_ *http.Request, c2 *presence.Peer) (presence.Callbacks, error) {
					require.NoError(t, c2.Join(context.Background(), "room"))
					return presence.Callbacks{Closed: func(presence.End) { hooked = true }}, c.err
				})
			}
			inBubble(t, o, mount, func(t *testing.T, b *bubble) {
				resp := b.refused("/?user=ann", c.status)
				body, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				require.NotContains(t, string(body), "secret")
				b.nothingLeft()
				require.False(t, hooked)
			})
		})
	}
}

func TestOrigins(t *testing.T) {
	for _, c := range []struct {
		name     string
		patterns []string
		origin   string
		allowed  bool
	}{
		{"no origin", nil, "", true},
		{"same host", nil, "https://example.com", true},
		{"same host, other case", nil, "http://EXAMPLE.com", true},
		{"other host", nil, "https://evil.com", false},
		{"other port", nil, "https://example.com:8443", false},
		{"host as a prefix", nil, "https://example.com.evil.com", false},
		{"host as user info", nil, "https://example.com@evil.com", false},
		{"null", nil, "null", false},
		{"garbage", nil, "://", false},
		{"pattern", []string{"*.friend.com"}, "https://app.friend.com", true},
		{"pattern in capitals", []string{"*.FRIEND.com"}, "https://App.friend.com", true},
		{"pattern does not match the bare host", []string{"*.friend.com"}, "https://friend.com", false},
		{"pattern does not match a suffix", []string{"*.friend.com"}, "https://app.friend.com.evil.com", false},
		{"second pattern", []string{"a.com", "b.com"}, "https://b.com", true},
		{"pattern with port", []string{"localhost:*"}, "http://localhost:5173", true},
		{"everybody", []string{"*"}, "https://evil.com", true},
		{"pattern with scheme", []string{"https://friend.com"}, "https://friend.com", true},
		{"pattern with another scheme", []string{"https://friend.com"}, "http://friend.com", false},
		{"same host with patterns", []string{"good.com"}, "https://example.com", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			book := &logbook{}
			mount := func(p *presence.Presence) http.Handler {
				mux := http.NewServeMux()
				at := p.At(presence.Route{OriginPatterns: c.patterns})
				mux.Handle("/handler", at.Handler(drop))
				mux.Handle("/callback", at.Callback(nil))
				return mux
			}
			inBubble(t, presence.Options{Logger: book.logger()}, mount, func(t *testing.T, b *bubble) {
				for _, path := range []string{"/handler?user=ann", "/callback?user=ann"} {
					var header []string
					if c.origin != "" {
						header = append(header, "Origin: "+c.origin)
					}
					if c.allowed {
						b.dial(path, header...).Close()
					} else {
						b.refused(path, http.StatusForbidden, header...)
					}
				}
				b.nothingLeft()
			})
			require.Equal(t, !c.allowed, len(book.lines("another origin")) == 1, "logged once")
			require.Equal(t, !c.allowed, len(book.lines("the proxy that changed Host")) == 1, "the cure")
		})
	}
}

// Who mounts with settings that can never work is told at once, whatever the
// Logger is.
func TestRoutesThatCannotWork(t *testing.T) {
	p := open(t, presence.Options{})
	for _, c := range []struct {
		route presence.Route
		says  string
	}{
		{presence.Route{OriginPatterns: []string{"good.com", "["}}, `presence: At: Route.OriginPatterns: "[": syntax error in pattern`},
		{presence.Route{OriginPatterns: []string{"a["}}, `presence: At: Route.OriginPatterns: "a[": syntax error in pattern`},
		{presence.Route{OriginPatterns: []string{"[]a]"}}, `presence: At: Route.OriginPatterns: "[]a]": syntax error in pattern`},
		{presence.Route{OriginPatterns: []string{"https://good.com/"}}, `presence: At: Route.OriginPatterns: "https://good.com/": an origin has no path`},
		{presence.Route{OriginPatterns: []string{"good.com/app"}}, `presence: At: Route.OriginPatterns: "good.com/app": an origin has no path`},
		{presence.Route{Subprotocols: []string{"v1", "v 2"}}, `presence: At: Route.Subprotocols: "v 2" is no token of a header`},
		{presence.Route{Subprotocols: []string{""}}, `presence: At: Route.Subprotocols: "" is no token of a header`},
		{presence.Route{Subprotocols: []string{"v1,v2"}}, `presence: At: Route.Subprotocols: "v1,v2" is no token of a header`},
		{presence.Route{Subprotocols: []string{"größe"}}, `presence: At: Route.Subprotocols: "größe" is no token of a header`},
		{presence.Route{Dialects: make([]presence.Dialect, 32)}, `presence: At: Route.Dialects: 32 are more than 31`},
	} {
		require.PanicsWithValue(t, c.says, func() { p.At(c.route) })
	}
	p.At(presence.Route{
		OriginPatterns: []string{"", "*", "https://*.friend.com:[0-9]*"},
		Subprotocols:   []string{"v1.json", "presence.v1", "!#$%&'*+-.^_`|~", "graphql-transport-ws"},
		Dialects:       slices.Repeat([]presence.Dialect{presence.PingPong}, 31),
	})
}

func TestSubprotocol(t *testing.T) {
	mount := func(p *presence.Presence) http.Handler {
		return p.At(presence.Route{Subprotocols: []string{"v2", "v1"}}).Handler(drop)
	}
	inBubble(t, presence.Options{}, mount, func(t *testing.T, b *bubble) {
		c := b.dial("/", "Sec-WebSocket-Protocol: v1, v2")
		require.Equal(t, "v2", c.Response.Header.Get("Sec-WebSocket-Protocol"), "best first")
	})
}

func TestReadLimit(t *testing.T) {
	for _, c := range []struct {
		limit int64
		size  int
		fits  bool
	}{{0, 32 << 10, true}, {0, 32<<10 + 1, false}, {100, 101, false}, {-1, 1 << 20, true}} {
		t.Run(fmt.Sprint(c.limit, " ", c.size), func(t *testing.T) {
			mount := func(p *presence.Presence) http.Handler { return p.At(presence.Route{ReadLimit: c.limit}).Handler(drop) }
			inBubble(t, presence.Options{}, mount, func(t *testing.T, b *bubble) {
				client := b.dial("/?user=ann")
				_ = client.SendText(strings.Repeat("x", c.size))
				wait(2 * time.Second)
				if c.fits {
					require.Equal(t, 1, b.sessions("ann"))
					require.Empty(t, client.Frames)
				} else {
					require.Zero(t, b.sessions("ann"))
					require.Equal(t, 1009, (<-client.Frames).Code())
					require.Equal(t, "protocol-error (1009)", b.end("ann").String())
				}
			})
		})
	}
}

// What setup does to its own session is told by the status: who stops for good
// after a 403 must not get one for the app's fault.
func TestEndedInSetup(t *testing.T) {
	for name, c := range map[string]struct {
		do     func(*presence.Peer)
		status int
		logged int
	}{
		"kicked":     {func(c *presence.Peer) { c.Disconnect(presence.Reason{Text: "no"}) }, 403, 0},
		"signed out": {func(c *presence.Peer) { c.Disconnect(presence.Reason{Code: 4401}) }, 401, 0},
		"closed":     {func(c *presence.Peer) { c.Close(1000, "") }, 403, 0},
		"too many":   {func(c *presence.Peer) { c.Close(4429, "later") }, 429, 0},
		"too much": {func(c *presence.Peer) {
			for range 65 {
				_ = c.Send(websocket.MessageText, []byte("history"))
			}
		}, 500, 1},
	} {
		t.Run(name, func(t *testing.T) {
			book := &logbook{}
			mount := func(p *presence.Presence) http.Handler {
				return p.Callback(func(_ *http.Request, peer *presence.Peer) (presence.Callbacks, error) {
					c.do(peer)
					return presence.Callbacks{}, nil
				})
			}
			inBubble(t, presence.Options{Logger: book.logger()}, mount, func(t *testing.T, b *bubble) {
				resp := b.refused("/?user=ann", c.status)
				require.Equal(t, c.status == 429, resp.Header.Get("Retry-After") == "10")
				require.Len(t, book.lines("ended by the app before the upgrade"), c.logged)
				require.Empty(t, b.p.Stats().Ended, "it was never live")
			})
		})
	}
}

// A client that gives up while it is identified is no failure.
func TestClientGivesUpInIdentify(t *testing.T) {
	for name, c := range map[string]struct {
		err    func(r *http.Request) error
		log    int
		failed uint64
	}{
		"the client has gone": {func(r *http.Request) error { <-r.Context().Done(); return r.Context().Err() }, 0, 0},
		"not the client's":    {func(*http.Request) error { return context.Canceled }, 1, 1},
		"too late":            {func(*http.Request) error { return fmt.Errorf("db: %w", context.DeadlineExceeded) }, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			book := &logbook{}
			o := presence.Options{Logger: book.logger(), Identify: func(r *http.Request) (presence.Identity, error) {
				return presence.Identity{}, fmt.Errorf("select: %w", c.err(r))
			}}
			inBubble(t, o, nil, func(t *testing.T, b *bubble) {
				nc := b.conn()
				go io.WriteString(nc, wstest.Request("/"))
				wait(time.Second)
				if name == "too late" {
					resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
					require.NoError(t, err)
					require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
					require.NotEmpty(t, resp.Header.Get("Retry-After"))
				}
				nc.Close()
				wait(time.Second)
				require.Len(t, book.lines("Identify failed"), c.log)
				require.Equal(t, c.failed, b.p.Stats().Refused5xx)
			})
		})
	}
}
