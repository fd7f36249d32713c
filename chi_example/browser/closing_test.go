package browser

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// What the page does about each close code.
func TestCloseCodes(t *testing.T) {
	t.Parallel()
	const (
		returns = "returns"
		waits   = "waits"
		stops   = "stops"
		wakes   = "wakes" // stops until somebody does something
	)
	tests := []struct {
		code      int
		reason    string
		then      string
		low, high int // seconds, of waits
		words     string
	}{
		{code: 1012, reason: "retry=700", then: returns, words: "The server restarts (code 1012)."},
		{code: 1012, reason: "retry=90000", then: waits, low: 80, high: 90, words: "The server restarts (code 1012)."},
		{code: 1012, reason: "soon", then: returns, words: "The server restarts (code 1012: soon)."},
		{code: 1013, then: waits, low: 1, high: 15, words: "The server is busy (code 1013)."},
		{code: 1000, then: returns, words: "The server was done (code 1000)."},
		{code: 1011, then: returns, words: "Something failed in the server (code 1011)."},
		{code: 4001, reason: "an app's own", then: returns, words: "Closed (code 4001: an app's own)."},
		{code: 4401, then: stops, words: "Your sign-in has run out. Sign in again (code 4401)."},
		{code: 4403, reason: "<b>bye</b>", then: stops, words: "You were kicked (code 4403: <b>bye</b>)."},
		{code: 4409, then: stops, words: "A newer tab of yours took over (code 4409)."},
		{code: 4408, then: wakes, words: "You were idle for too long. Do something here to come back (code 4408)."},
		{code: 4429, then: waits, low: 20, high: 60, words: "Too many connections or messages (code 4429)."},
	}
	f := newFake(t)
	f.ws = func(ctx context.Context, c *websocket.Conn, user string, n int) {
		if i, err := strconv.Atoi(user); err == nil && n == 1 {
			_, _, _ = c.Read(ctx) // the page is there
			_ = c.Close(websocket.StatusCode(tests[i].code), tests[i].reason)
			return
		}
		stay(ctx, c, user, n)
	}
	b := newBrowser(t)
	for i, test := range tests {
		t.Run(fmt.Sprint(test.code, test.then), func(t *testing.T) {
			user := strconv.Itoa(i)
			tb := b.open(f.url + "/?user=" + user)
			defer tb.close()
			tb.t = t
			switch test.then {
			case returns:
				tb.until(`link() === "open" && text("cause") === ` + quote("Before: "+test.words))
				require.Equal(t, 2, f.counted(f.dials, user))
				return
			case waits:
				tb.until(`link() === "waiting" && text("cause") === ` + quote(test.words))
				next, err := tb.value(`text("next")`)
				require.NoError(t, err)
				m := regexp.MustCompile(`^Next try in (\d+) s\.$`).FindStringSubmatch(next.(string))
				require.NotNil(t, m, next)
				s, _ := strconv.Atoi(m[1])
				require.GreaterOrEqual(t, s, test.low)
				require.LessOrEqual(t, s, test.high)
				tb.equal("Connect now", `text("connect")`)
			default:
				tb.until(`link() === "stopped" && text("cause") === ` + quote(test.words))
				tb.equal(true, `document.getElementById("next").hidden`)
				tb.equal("Connect", `text("connect")`)
			}
			if test.then != waits {
				require.Equal(t, 1, f.counted(f.dials, user))
			}
			tb.do(press("x")) // wakes the idle, and only them
			if test.then != wakes {
				tb.equal(false, `link() === "open"`)
				tb.do(click("#connect"))
			}
			tb.until(`link() === "open"`)
		})
	}
}

// A server that has fallen silent is asked after one interval, and left after two. One that answers is not.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	heard := map[string]int{}
	f.ws = func(ctx context.Context, c *websocket.Conn, user string, n int) {
		for {
			_, _, err := c.Read(ctx)
			if err != nil {
				return
			}
			f.count(heard, user)
			if (user == "answered" || n > 1) && c.Write(ctx, websocket.MessageText, nil) != nil {
				return
			}
		}
	}
	b := newBrowser(t)
	b.open(f.url+"/?user=answered", hurry(25_000, 500))
	left := b.open(f.url+"/?user=left", hurry(25_000, 500))
	left.until(`link() === "open" && text("cause") === "Before: The connection broke without a goodbye (code 1006: nothing heard for two intervals)."`)
	require.Equal(t, 2, f.counted(f.dials, "left"))
	eventually(t, "the page asks on", func() bool { return f.counted(heard, "answered") >= 8 })
	require.Equal(t, 1, f.counted(f.dials, "answered"))
}

// A stream that fails or ends on its own is opened again, and its snapshot replaces all.
func TestStream(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.events = func(ctx context.Context, send func(string, any), n int) {
		switch n {
		case 1:
			panic(http.ErrAbortHandler)
		case 2:
			send("snapshot", snapshot(member("gone", false)))
			send("join", change(member("also gone", false)))
		default:
			send("snapshot", snapshot(member("here", true)))
			<-ctx.Done()
		}
	}
	tb := newBrowser(t).open(f.url + "/?user=me")
	tb.until(`live() && state("here") === "away" && text("count") === "1 person here"`)
	tb.equal(1, `document.querySelectorAll("#list > li").length`)
	tb.equal(1, `feed("join", "also gone").length`)
	require.Equal(t, 1, f.counted(f.dials, "me"))
}

// A browser has six connections for a host, and each event stream takes one. Tabs that nobody sees give theirs back.
func TestHiddenTabs(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	b := newBrowser(t)
	var tabs []*tab
	for i := range 9 {
		tb := b.tab(chromedp.WithNewWindow(false))
		tb.do(hurry(10_000, 200), chromedp.Navigate(f.url+"/?user="+strconv.Itoa(i)))
		tb.until(`link() === "open" && live()`)
		tabs = append(tabs, tb)
	}
	first := tabs[0]
	first.until(`document.hidden && !live() && link() === "open" && text("live").startsWith("This is how it was at ")`)
	first.do(func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, page.BringToFront, struct{}{})
		return chromedp.Void{}, err
	})
	first.until(`!document.hidden && live()`)
}

// hurry makes timers of one length shorter on the pages loaded from now on.
func hurry(from, to int) step {
	source := fmt.Sprintf(`{
		const slow = window.setTimeout;
		window.setTimeout = (f, ms, ...args) => slow(f, ms === %d ? %d : ms, ...args);
	}`, from, to)
	return func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: source})
		return chromedp.Void{}, err
	}
}

// With many users the page stays small, and asks for no more than it shows.
func TestManyUsers(t *testing.T) {
	t.Parallel()
	const updates = 150
	f := newFake(t)
	me := member("me", false)
	all := []map[string]any{me}
	for i := range 2000 {
		all = append(all, member(fmt.Sprintf("user-%d", i), i%3 == 0))
	}
	begin := make(chan struct{})
	f.events = func(ctx context.Context, send func(string, any), _ int) {
		send("snapshot", snapshot(all...))
		<-begin
		pace := time.Tick(10 * time.Millisecond)
		for i := range updates {
			<-pace
			send("update", change(me))
			send("update", change(all[1+i]))
			send("join", change(member(fmt.Sprintf("zoe-%d", i), false)))
		}
		<-ctx.Done()
	}
	b := newBrowser(t)
	tb := b.open(f.url + "/?user=me")
	tb.until(`text("count") === "2,001 people here"`)
	start, before := time.Now(), f.counted(f.asked, "me")
	close(begin)
	tb.until(fmt.Sprintf(`feed("join", "zoe-%d").length === 1`, updates-1))
	require.LessOrEqual(t, f.counted(f.asked, "me")-before, 2+int(2*time.Since(start).Seconds()))
	tb.equal(100, `document.querySelectorAll("#log > li").length`)
	tb.equal(200, `document.querySelectorAll("#list > li").length`)
	tb.equal("me", `document.querySelector("#list > li").dataset.user`)
	tb.equal("and 1,951 more. Find them by name.", `text("more")`)
	tb.equal("1,484 online, 667 away, 0 leaving", `text("split")`)
	tb.do(focus("#find"), press("SER-1999"))
	tb.until(`document.querySelectorAll("#list > li").length === 1 && state("user-1999") !== "none"`)
	require.Len(t, f.asked, 1, "only the user whose tabs are open")
}
