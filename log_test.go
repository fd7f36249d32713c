package presence_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/stretchr/testify/require"
)

func (l *logbook) debug() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Whoever gets no WebSocket can be found in the log, with the reason: a route
// for the wrong method and a proxy that takes headers out look the same to a
// client.
func TestRefusalsAreLogged(t *testing.T) {
	upgrade := []string{"Connection", "Upgrade", "Upgrade", "websocket"}
	with := func(more ...string) []string { return slices.Concat(upgrade, more) }
	handshake := with("Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	for _, c := range []struct {
		name, method string
		header       []string
		plain        bool // the ResponseWriter has no Hijack
		callback     bool
		proto        string
		status       int
		reason       string
	}{
		{name: "POST", method: "POST", header: handshake, status: 405, reason: "this is POST"},
		{name: "HEAD", method: "HEAD", header: handshake, status: 426, reason: "this is HEAD"},
		{name: "no headers", status: 426, reason: "no header Upgrade"},
		{name: "no Connection", header: handshake[2:], status: 426, reason: "no header Connection"},
		{name: "HTTP/2", proto: "HTTP/2.0", header: handshake, status: 426, reason: "HTTP/2.0 has no upgrade"},
		{name: "no Hijack", header: handshake, plain: true, status: 501, reason: "cannot be hijacked"},
		{name: "another origin", header: with("Origin", "https://evil.com"), status: 403, reason: "https://evil.com"},
		{name: "not ours", header: with("X-Not", "ours"), status: 404, reason: "presence: untracked"},
		{name: "an old version", header: with("Sec-WebSocket-Version", "8"), callback: true, status: 400, reason: "only WebSocket version 13"},
		{name: "no key", header: with("Sec-WebSocket-Version", "13"), callback: true, status: 400, reason: "Sec-WebSocket-Key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			book := &logbook{}
			p := open(t, presence.Options{Logger: book.debug(), Identify: func(r *http.Request) (presence.Identity, error) {
				if r.Header.Get("X-Not") != "" {
					return presence.Identity{}, presence.ErrUntracked
				}
				return presence.Identity{User: "ann"}, nil
			}})
			mounts := map[string]http.Handler{"Callback": p.Callback(nil)}
			if !c.callback { // what the library of Handler refuses is logged in its words
				mounts["Handler"] = p.Handler(drop)
			}
			for path, h := range mounts {
				r := httptest.NewRequest(c.method, "/"+path, nil)
				if c.proto != "" {
					r.Proto, r.ProtoMajor, r.ProtoMinor = c.proto, 2, 0
				}
				for i := 0; i < len(c.header); i += 2 {
					r.Header.Set(c.header[i], c.header[i+1])
				}
				recorder := httptest.NewRecorder()
				w := http.ResponseWriter(hijackable{recorder})
				if c.plain {
					w = recorder
				}
				h.ServeHTTP(w, r)
				require.Equal(t, c.status, recorder.Code, path)
				lines := book.lines("path=/" + path + " status=")
				require.Len(t, lines, 1, path)
				require.Contains(t, lines[0], `level=DEBUG msg="presence: refused"`)
				require.Contains(t, lines[0], c.reason)
			}
		})
	}
}

// A proxy that was not told to pass the upgrade on is the commonest reason for no
// WebSocket at all: the log says so at level warn, and the answer says why.
func TestStrippedHandshakeIsLogged(t *testing.T) {
	handshake := []string{"Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}
	for _, c := range []struct {
		name, proto string
		header      []string
		reason      string // "": it was no WebSocket
	}{
		{"nginx as it comes", "HTTP/1.0", append(handshake, "Connection", "close"), "HTTP/1.0 has no upgrade, HTTP/1.1 has"},
		{"nginx with proxy_http_version 1.1", "HTTP/1.1", append(handshake, "Connection", "close"), "no header Upgrade: websocket"},
		{"Upgrade alone", "HTTP/1.1", append(handshake, "Upgrade", "websocket"), "no header Connection: Upgrade"},
		{"HTTP/2 upstream", "HTTP/2.0", handshake, "HTTP/2.0 has no upgrade, HTTP/1.1 has"},
		{"a page", "HTTP/1.1", nil, ""},
		{"not stripped", "HTTP/1.1", append(handshake, "Connection", "Upgrade", "Upgrade", "websocket"), ""},
	} {
		for name, mount := range mounts {
			t.Run(c.name+" "+name, func(t *testing.T) {
				book := &logbook{}
				h := mount(open(t, presence.Options{Logger: book.logger(), Identify: named("ann")}))
				for range 3 {
					r := httptest.NewRequest(http.MethodGet, "/ws", nil)
					r.ProtoMajor, r.ProtoMinor, _ = http.ParseHTTPVersion(c.proto)
					r.Proto = c.proto
					for i := 0; i < len(c.header); i += 2 {
						r.Header.Set(c.header[i], c.header[i+1])
					}
					w := httptest.NewRecorder()
					h.ServeHTTP(w, r)
					if c.reason != "" && name != "Middleware" {
						require.Equal(t, http.StatusUpgradeRequired, w.Code)
						require.Contains(t, w.Body.String(), c.reason)
					}
				}
				said := book.lines("took the upgrade out")
				if c.reason == "" {
					require.Empty(t, said)
					return
				}
				require.Len(t, said, 1, "once in a while")
				require.Contains(t, said[0], "level=WARN")
				require.Contains(t, said[0], "path=/ws")
				require.Contains(t, said[0], c.reason)
			})
		}
	}
}

// A healthy node says how it was started, and nothing about its sessions.
func TestStartIsLogged(t *testing.T) {
	book := &logbook{}
	o := presence.Options{Logger: book.logger(), NodeName: "web-1", Limits: presence.Limits{Sessions: 7}}
	inBubble(t, o, nil, func(t *testing.T, b *bubble) {
		c := b.dial("/?user=ann")
		wait(time.Minute)
		c.Close()
		wait(time.Minute)
	})
	require.Len(t, book.lines(""), 1)
	require.Contains(t, book.lines("")[0], `level=INFO msg="presence: started" node=web-1 store=memory partitions=1 `+
		"max_sessions=7 interval=25s timeout=55s leave_grace=5s")

	book = &logbook{}
	open(t, presence.Options{Logger: book.logger()})
	require.Len(t, book.lines("everybody is anonymous"), 1)
}

// Who lets any site in may not have meant it.
func TestAnySiteIsLogged(t *testing.T) {
	for pattern, any := range map[string]bool{
		"*": true, "**": true, "*://*": true, "https://*": true, "http://*": true, "*.*": true,
		"*.friend.com": false, "https://*.friend.com": false, "localhost:*": false, "": false, "*:5173": false,
	} {
		book := &logbook{}
		open(t, presence.Options{Logger: book.logger()}).At(presence.Route{OriginPatterns: []string{"friend.com", pattern}})
		require.Equal(t, any, len(book.lines("level=WARN")) == 1, pattern)
		require.Equal(t, any, len(book.lines("pages of any site")) == 1, pattern)
	}
}

// Whoever is not verified is logged with what happened and when, in one line
// that says nothing twice, also in the words of the library.
func TestNotVerifiedIsExplained(t *testing.T) {
	book := &logbook{}
	inBubble(t, presence.Options{Logger: book.debug()}, nil, func(t *testing.T, b *bubble) {
		for _, stay := range []time.Duration{0, time.Second, time.Minute} {
			c, err := wstest.Handshake(b.conn(), "/?user=ann")
			require.NoError(t, err)
			wait(stay)
			c.Close()
			wait(time.Second)
		}
	})
	lines := book.lines("not verified")
	require.Len(t, lines, 3)
	require.Contains(t, lines[0], `after=0s error="presence: session ended: lost: EOF"`)
	require.Contains(t, lines[1], `after=1s error="presence: session ended: lost: EOF"`)
	require.Contains(t, lines[2], `after=10s error="no sign of life after the upgrade"`)
	lines = book.lines("not accepted")
	require.Len(t, lines, 3)
	for i, why := range []string{"lost: EOF", "lost: EOF", "silent: no sign of life after the upgrade"} {
		require.Equal(t, 1, strings.Count(lines[i], "session ended"), lines[i])
		require.Contains(t, lines[i], `: presence: session ended: `+why+`"`)
	}
}

// The package documentation lists every message with its level.
func TestEveryMessageIsListed(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	call := regexp.MustCompile(`og(?:ger)?\.(Debug|Info|Warn|Error)\("presence: ([^"]+)"`)
	found := 0
	for _, pattern := range []string{"*.go", "internal/*/*.go"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, file := range files {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for _, m := range call.FindAllStringSubmatch(string(text), -1) {
				found++
				require.Regexp(t, `(?m)^//\t`+strings.ToLower(m[1])+`\b.*\b`+regexp.QuoteMeta(m[2])+`\b`, string(doc), file)
			}
		}
	}
	require.Greater(t, found, 15)
}

// Whoever filters a log for this package finds all of it.
func TestEveryLineSaysWhose(t *testing.T) {
	book := &logbook{}
	o := presence.Options{Logger: book.debug(), OnDisconnect: func(*presence.Session, presence.End) { panic("on purpose") }}
	inBubble(t, o, nil, func(t *testing.T, b *bubble) {
		b.dial("/?user=ann").Close()
		c := b.dial("/?user=ben")
		go c.Write(wstest.Masked(0x83, nil))
		wait(time.Second)
	})
	require.NotEmpty(t, book.lines("session ended"))
	require.Contains(t, book.lines("cause=protocol-error")[0], `text="`, "what was wrong")
	panicked := book.lines("OnDisconnect panicked")
	require.Len(t, panicked, 2)
	for _, line := range panicked {
		require.Regexp(t, `session=[0-9a-f]{16} user=(ann|ben) panic="on purpose"`, line)
		require.Contains(t, line, "log_test.go", "where")
	}
	require.Len(t, book.lines(`msg="presence: `), len(book.lines("")))
}
