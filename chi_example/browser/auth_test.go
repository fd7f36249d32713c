package browser

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/stretchr/testify/require"
)

// signIn is a server whose sessions end with their tokens.
type signIn struct {
	url string

	mu      sync.Mutex
	issued  int
	checked int // GET of the WebSocket's URL without an upgrade
	refused int
}

const (
	tokenLasts = 3 * time.Second
	goodTokens = 3 // the next one is none
)

func newSignIn(t *testing.T) *signIn {
	in := &signIn{}
	valid := map[string]time.Time{}
	p, err := presence.New(presence.Options{Identify: func(r *http.Request) (presence.Identity, error) {
		in.mu.Lock()
		defer in.mu.Unlock()
		until := valid[r.URL.Query().Get("token")]
		if r.Header.Get("Upgrade") == "" {
			in.checked++
		}
		if !time.Now().Before(until) {
			in.refused++
			return presence.Identity{}, presence.ErrUnauthorized
		}
		return presence.Identity{User: "ann", Expires: until}, nil
	}})
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "a page") })
	mux.Handle("GET /presence.js", p.ClientJS())
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, _ *http.Request) {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.issued++
		token := fmt.Sprint("t", in.issued)
		if in.issued <= goodTokens {
			valid[token] = time.Now().Add(tokenLasts)
		}
		fmt.Fprint(w, token)
	})
	mux.Handle("GET /ws", p.Handler(func(ctx context.Context, c *presence.Conn) error {
		for {
			kind, m, err := c.Read(ctx)
			if err != nil {
				return err
			}
			if err := c.Write(ctx, kind, m); err != nil {
				return err
			}
		}
	}))
	srv := httptest.NewServer(mux)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = p.Shutdown(ctx)
		srv.Close()
	})
	in.url = srv.URL
	return in
}

// Tokens expire: the session ends with 4401, and presence.js gets a new token and
// is back. Signed out, the upgrade is refused, which a browser shows as 1006: the
// answer to GET tells that there is no use in trying.
func TestClientTokensExpire(t *testing.T) {
	t.Parallel()
	in := newSignIn(t)
	tb := newBrowser(t).open(in.url + "/")
	tb.do(script(`window.log = []; window.echoed = []; import("/presence.js").then(async ({ PresenceSocket }) => {
		const auth = async () => ({ query: { token: await (await fetch("/token", { method: "POST" })).text() } });
		window.socket = new PresenceSocket("/ws", { auth, stableAfter: 500, presence: true });
		for (const kind of ["open", "down", "error", "close"]) socket.addEventListener(kind, (e) => log.push(kind + " " + (e.code ?? e.error?.code ?? "")));
		window.welcomed = (await socket.ready) === socket;
		try {
			setInterval(() => socket.readyState === 1 && socket.send("hello"), 100);
			for await (const m of socket) echoed.push(m);
		} catch (err) {
			window.ended = err.name + " " + err.code;
		}
	}); 0`))
	tb.until(`window.welcomed && window.ended === "CloseError 4401"`)
	tb.equal("open ,down 4401,open ,down 4401,open ,down 4401,error 4401,close 4401", `log.join()`)
	tb.equal(true, `socket.readyState === 3 && echoed.length > 10 && echoed.every((m) => m === "hello")`)
	time.Sleep(3 * time.Second) // longer than the first wait
	in.mu.Lock()
	defer in.mu.Unlock()
	require.Equal(t, []int{4, 1, 2}, []int{in.issued, in.checked, in.refused}, "one upgrade and one GET with the last token")
}
