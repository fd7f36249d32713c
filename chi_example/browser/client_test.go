//go:build unix

package browser

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// The tests of presence.js in a real browser. The page they use is one of plain
// text, from the example's server, so that nothing else runs on it.

// joining is a page's own program: be here as user, and watch everyone.
func joining(user string) step {
	return script(`window.log = []; window.downs = 0; window.opens = 0;
		import("/presence.js").then(({ PresenceSocket }) => {
			window.socket = new PresenceSocket("/ws?user=` + user + `", { maxDelay: 1000 });
			socket.addEventListener("down", (e) => { downs++; window.downAt = Date.now(); window.downCode = e.code; });
			socket.addEventListener("open", () => opens++);
			window.room = socket.presence("");
			for (const kind of ["join", "leave"]) room.addEventListener(kind, (e) => log.push(kind + " " + e.user));
		}); 0`)
}

func (b *browser) joined(s *server, user string) *tab {
	b.t.Helper()
	return b.joinedAt(s.url, user)
}

func (b *browser) joinedAt(url, user string) *tab {
	b.t.Helper()
	tb := b.open(url+"/healthz", joining(user)) // the script is for the next page
	tb.do(joining(user))
	tb.until(`window.room?.live && room.members.has("` + user + `")`)
	return tb
}

func sees(users ...string) string {
	list := ""
	for _, u := range users {
		list += u + " "
	}
	return fmt.Sprintf(`window.room?.live && [...room.members.values()].filter((m) => m.state === "online").map((m) => m.user + " ").sort().join("") === %q`, list)
}

func TestClientTwoTabs(t *testing.T) {
	t.Parallel()
	s := serve(t, "-grace", "8s")
	b := newBrowser(t)
	ann := b.joined(s, "ann")
	bob := b.joined(s, "bob")
	ann.until(sees("ann", "bob"))
	bob.until(sees("ann", "bob"))
	ann.do(script(`socket.setStatus("busy"); 0`))
	bob.until(`room.members.get("ann").metas?.[0].status === "busy"`)
	for range 2 {
		bob.do(chromedp.Reload())
		bob.do(joining("bob"))
		bob.until(sees("ann", "bob"))
	}
	ann.until(sees("ann", "bob"))
	ann.equal(`["join bob"]`, `JSON.stringify(log)`)
	bob.close()
	ann.until(`room.members.get("bob")?.state === "grace"`)
	ann.until(sees("ann") + ` && JSON.stringify(log) === '["join bob","leave bob"]'`)
}

func TestClientSurvivesRestarts(t *testing.T) {
	t.Parallel()
	s := serve(t)
	b := newBrowser(t)
	ann := b.joined(s, "ann")
	bob := b.joined(s, "bob")
	for i, with := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		for _, tb := range []*tab{ann, bob} {
			tb.until(sees("ann", "bob"))
		}
		s.stop(with)
		for _, tb := range []*tab{ann, bob} {
			tb.until(`!room.live && room.members.size === 2`)
		}
		s.start()
		for _, tb := range []*tab{ann, bob} {
			tb.until(fmt.Sprintf(`opens >= %d && `, i+2) + sees("ann", "bob"))
		}
	}
}

// The server freezes: its kernel goes on to acknowledge, but nothing comes.
func TestClientNoticesAFrozenServer(t *testing.T) {
	t.Parallel()
	const interval = 3 * time.Second
	s := serve(t, "-interval", interval.String(), "-timeout", "7s")
	ann := newBrowser(t).joined(s, "ann")
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGSTOP))
	thaw := func() { _ = s.cmd.Process.Signal(syscall.SIGCONT) }
	t.Cleanup(thaw)
	frozen := time.Now()
	ann.until(`downs === 1`)
	require.Less(t, time.Since(frozen), 4*interval, "after two")
	require.Greater(t, time.Since(frozen), interval/2)
	ann.equal(1006, `downCode`)
	thaw()
	ann.until(`opens >= 2 && ` + sees("ann"))
}

// A page that talks all the time and gets no answers is not reconnected.
func TestClientTalksWithoutAnswers(t *testing.T) {
	t.Parallel()
	s := serve(t, "-interval", "2s", "-timeout", "5s")
	ann := newBrowser(t).joined(s, "ann")
	ann.do(script(`window.sent = 0; setInterval(() => { socket.send("words"); sent++; }, 50); 0`))
	time.Sleep(10 * time.Second) // longer than two intervals, and than the timeout
	ann.equal(true, `opens === 1 && downs === 0 && sent > 60 && socket.readyState === 1`)
}

// A hidden page whose timers run once a second stays online.
func TestClientHidden(t *testing.T) {
	t.Parallel()
	s := serve(t, "-interval", "2s", "-timeout", "5s", "-grace", "500ms")
	// Automation turns the throttling off.
	b := newProcess(t, chromedp.Flag("disable-background-timer-throttling", false), chromedp.Flag("disable-renderer-backgrounding", false),
		chromedp.Flag("disable-backgrounding-occluded-windows", false))
	bob := newBrowser(t).joined(s, "bob")
	hidden := b.tab(chromedp.WithNewWindow(false))
	hidden.do(chromedp.Navigate(s.url+"/healthz"), joining("ann"))
	hidden.until(sees("ann", "bob"))
	bob.until(sees("ann", "bob"))
	bob.do(script(`log.length = 0; 0`))
	ann := hidden
	// A tab in front of it, in the same window.
	ann.do(script(`window.ticks = 0; setInterval(() => ticks++, 20); 0`))
	front := b.tab(chromedp.WithNewWindow(false))
	front.do(chromedp.Navigate(s.url + "/healthz"))
	ann.until(`document.hidden`)
	time.Sleep(10 * time.Second) // longer than two intervals, and than the timeout
	ticks, err := ann.value(`ticks`)
	require.NoError(t, err)
	t.Logf("timers of 20 ms that ran in 10 s: %v", ticks)
	require.Less(t, ticks.(float64), 50.0, "not throttled: this shows nothing")
	ann.equal(true, `opens === 1 && downs === 0`)
	bob.equal(`[]`, `JSON.stringify(log)`)
}

// The way back: a page that was put away whole is here again.
func TestClientBackForwardCache(t *testing.T) {
	t.Parallel()
	s := serve(t, "-grace", "1s")
	b := newBrowser(t)
	ann := b.joined(s, "ann")
	bob := b.joined(s, "bob")
	ann.until(sees("ann", "bob"))
	ann.do(script(`window.kept = "yes"; addEventListener("pageshow", (e) => { window.persisted = e.persisted; }); 0`))
	ann.do(chromedp.Navigate(s.url + "/online"))
	bob.until(sees("bob"))
	ann.do(script(`history.back(); 0`))
	ann.until(`location.pathname === "/healthz"`)
	ann.equal(true, `window.kept === "yes"`) // else this browser does not keep pages
	ann.until(`window.persisted === true && opens === 2 && ` + sees("ann", "bob"))
	bob.until(sees("ann", "bob"))
}
