package browser

import (
	"fmt"
	"net/url"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

// Two tabs see each other. One is closed: the other sees its user leaving,
// then the leave and its cause.
func TestTwoTabs(t *testing.T) {
	t.Parallel()
	const grace = 5 * time.Second
	s := serve(t, "-grace", grace.String())
	b := newBrowser(t)
	ann := b.here(s, "ann")
	bob := b.here(s, "bob")
	ann.until(`state("bob") === "online" && feed("join", "bob").length === 1 && text("count") === "2 people here"`)
	bob.until(`state("ann") === "online"`)
	ann.until(`row("ann").querySelector(".tabs").innerText.includes("Tab 1")`)
	ann.equal(0, `performance.getEntriesByType("resource").filter((r) => new URL(r.name).host !== location.host).length`)

	closed := time.Now()
	bob.close()
	ann.until(`state("bob") === "grace"`)
	ann.equal(0, `feed("leave", "bob").length`)
	ann.until(`state("bob") === "none" && feed("leave", "bob").length === 1`)
	require.GreaterOrEqual(t, time.Since(closed), grace)
	ann.equal("client-closed", `cause("bob")`)
	ann.equal("1 person here", `text("count")`)
}

// The reload of a tab is no leave and no join.
func TestReload(t *testing.T) {
	t.Parallel()
	s := serve(t, "-grace", "8s")
	b := newBrowser(t)
	ann := b.here(s, "ann")
	bob := b.here(s, "bob")
	ann.until(`state("bob") === "online"`)
	for range 3 {
		bob.do(script(`window.old = true`), chromedp.Reload())
		bob.until(`!window.old && link() === "open" && state("bob") === "online"`)
	}
	// The leave of one who went later comes after any leave of bob.
	cat := b.here(s, "cat")
	ann.until(`state("cat") === "online"`)
	cat.close()
	ann.until(`feed("leave", "cat").length === 1`)
	ann.equal(1, `feed("join", "bob").length`)
	ann.equal(0, `feed("leave", "bob").length`)
	ann.equal("online", `state("bob")`)
}

// The server goes away and comes back on the same port: so do both pages.
func TestRestart(t *testing.T) {
	t.Parallel()
	s := serve(t)
	b := newBrowser(t)
	ann := b.here(s, "ann")
	bob := b.here(s, "bob")
	for _, how := range []struct {
		signal syscall.Signal
		told   string
	}{
		{syscall.SIGTERM, "The server restarts (code 1012)."},
		{syscall.SIGKILL, "The connection broke without a goodbye (code 1006)."},
	} {
		ann.until(`state("bob") === "online"`)
		// What is on the page from now on comes from the next server.
		for _, tb := range []*tab{ann, bob} {
			tb.until(`link() === "open" && live()`)
			tb.do(script(`window.causes = []; new MutationObserver(() => causes.push(document.getElementById("cause").textContent))
				.observe(document.getElementById("cause"), { childList: true, characterData: true, subtree: true })`))
		}
		s.stop(how.signal)
		for _, tb := range []*tab{ann, bob} {
			tb.until(`causes.includes(` + quote(how.told) + `) && !live() && text("live").startsWith("Not live")`)
		}
		s.start()
		for _, tb := range []*tab{ann, bob} {
			tb.until(`link() === "open" && live() && state("ann") === "online" && state("bob") === "online" && text("count") === "2 people here"`)
		}
	}
}

// A status set in one tab shows in the other. A kick asks first, is seen at
// once with its cause, and the kicked stay away until they want to come back.
func TestStatusAndKick(t *testing.T) {
	t.Parallel()
	s := serve(t, "-grace", "1m")
	b := newBrowser(t)
	ann := b.here(s, "ann")
	bob := b.here(s, "bob")
	bob.until(`state("ann") === "online"`)
	ann.do(focus("#status"), press("<i>in a call</i>"+kb.Enter))
	bob.until(`status("ann") === "<i>in a call</i>"`)
	bob.equal(0, `document.querySelectorAll("#list i").length`)
	ann.do(chromedp.Reload()) // the new connection tells it again
	ann.until(`link() === "open" && status("ann") === "<i>in a call</i>"`)

	bob.do(click(`[data-user=ann] [aria-label="Kick ann"]`), click(`#ask button[value=""]`))
	bob.equal("online", `state("ann")`)
	bob.do(click(`[data-user=ann] [aria-label="Kick ann"]`), click(`#ask button[value=kick]`))
	ann.until(`link() === "stopped" && text("cause") === "You were kicked (code 4403: kicked)."`)
	bob.until(`state("ann") === "none" && cause("ann") === "kicked"`)
	bob.until(`document.getElementById("log").innerText.includes("You kicked ann: 1 tab was told.")`)
	ann.equal("Connect", `text("connect")`)
	ann.do(click("#connect"))
	ann.until(`link() === "open" && text("cause").startsWith("Before: You were kicked")`)
	bob.until(`state("ann") === "online" && status("ann") === "<i>in a call</i>"`)
	bob.equal(1, `feed("join", "ann").length`)
}

// Buttons open a second user, and a second tab of the same user. Its tabs are
// listed with their round-trip times.
func TestMoreTabs(t *testing.T) {
	t.Parallel()
	s := serve(t, "-interval", "1s")
	b := newBrowser(t)
	ann := b.here(s, "ann")
	ann.do(click("#other"))
	ann.until(`text("count") === "2 people here"`)
	ann.do(click("#again"))
	ann.until(`row("ann").querySelectorAll(".tabs li").length === 2 && text("count") === "2 people here"`)
	ann.until(`[...row("ann").querySelectorAll(".tabs .rtt")].every((e) => / ms$/.test(e.textContent))`)
}

// Without a name the page finds one, and keeps it when it is loaded again.
func TestOwnName(t *testing.T) {
	t.Parallel()
	s := serve(t)
	tb := newBrowser(t).open(s.url + "/?topic=room:1")
	tb.until(`link() === "open" && /^[a-z]+-[a-z]+-\d+$/.test(text("me")) && state(text("me")) === "online"`)
	name, err := tb.value(`text("me")`)
	require.NoError(t, err)
	tb.do(script(`window.old = true`), chromedp.Reload())
	tb.until(`!window.old && link() === "open" && state(` + quote(name.(string)) + `) === "online" && text("where") === "in room:1"`)
	tb.equal("1 person here", `text("count")`)
}

// Any name can be shown and asked for, and none is markup.
func TestNames(t *testing.T) {
	t.Parallel()
	s := serve(t)
	b := newBrowser(t)
	ann := b.here(s, "ann")
	for _, name := range []string{`<img src=x onerror="window.bad=1">`, `a/b c?d&e#f%2F`, `"quoted" 'name'`, "日本語 👩‍👩‍👧", `__proto__`} {
		other := b.open(s.url + "/?" + url.Values{"user": {name}}.Encode())
		other.until(fmt.Sprintf(`state(%[1]s) === "online" && text("me") === %[1]s`, quote(name)))
		other.until(fmt.Sprintf(`row(%s).querySelector(".tabs").innerText.includes("Tab 1")`, quote(name)))
		ann.until(fmt.Sprintf(`feed("join", %s).length === 1`, quote(name)))
		other.equal(nil, `window.bad`)
		other.close()
	}
	ann.equal(nil, `window.bad`)
	ann.equal(0, `document.querySelectorAll("main img").length`)
}

// Every control is reached with the Tab key, in the order of the page, and
// shows that it has the focus. Enter works.
func TestKeyboard(t *testing.T) {
	t.Parallel()
	s := serve(t)
	b := newBrowser(t)
	ann := b.here(s, "ann")
	bob := b.here(s, "bob")
	ann.until(`state("bob") === "online"`)
	ann.do(script(`window.controls = [...document.querySelectorAll("button, input, summary, a, [tabindex='0']")].filter((e) => e.checkVisibility())`))
	n, err := ann.value(`controls.length`)
	require.NoError(t, err)
	require.EqualValues(t, 11, n)
	for i := range int(n.(float64)) {
		ann.do(press(kb.Tab))
		ann.equal(i, `controls.indexOf(focused())`)
		ann.equal("solid", `getComputedStyle(focused()).outlineStyle`)
		ann.equal(true, `(focused().ariaLabel || focused().textContent || focused().labels?.[0]?.textContent || "").trim() !== "" || focused().hasAttribute("aria-labelledby")`)
	}

	ann.do(focus("summary"), press(kb.Enter))
	ann.until(`document.querySelector("details").open`)
	ann.do(focus("#status"), press("busy"), press(kb.Enter))
	bob.until(`status("ann") === "busy"`)
	ann.do(focus(`[aria-label="Tabs of bob"]`), press(kb.Enter))
	ann.until(`row("bob").querySelector(".tabs").innerText.includes("Tab 1")`)

	ann.do(focus(`[aria-label="Kick bob"]`), press(kb.Enter))
	ann.until(`document.getElementById("ask").open && focused().textContent === "Cancel"`)
	ann.do(press(kb.Escape))
	ann.until(`!document.getElementById("ask").open && focused().ariaLabel === "Kick bob"`)
	ann.do(press(kb.Enter), press(kb.Tab))
	ann.until(`focused().textContent === "Kick"`)
	ann.do(press(kb.Enter))
	bob.until(`link() === "stopped"`)
	ann.until(`state("bob") === "none" && focused().id === "count"`) // not lost with the row

	ann.do(focus("#connect"), press(kb.Enter))
	ann.until(`link() === "stopped" && text("connect") === "Connect"`)
	ann.do(press(kb.Enter))
	ann.until(`link() === "open"`)
}

// Somebody who does nothing is away, and is back at the next key.
func TestAway(t *testing.T) {
	t.Parallel()
	s := serve(t, "-away", "5s")
	b := newBrowser(t)
	ann := b.here(s, "ann")
	bob := b.open(s.url + "/?user=bob")
	ann.until(`state("bob") === "away"`)
	bob.do(press("x"))
	ann.until(`state("bob") === "online"`)
	ann.until(`state("bob") === "away"`)
	bob.equal(0, `text("cause").length`) // on the one connection
}
