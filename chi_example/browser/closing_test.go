package browser

import (
	"context"
	"encoding/json"
	"fmt"
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
		{code: 1013, reason: "retry=12000", then: waits, low: 1, high: 12, words: "The server is busy (code 1013)."},
		{code: 1013, then: returns, words: "The server is busy (code 1013)."},
		{code: 1000, then: returns, words: "The server was done (code 1000)."},
		{code: 1011, then: returns, words: "Something failed in the server (code 1011)."},
		{code: 4001, reason: "an app's own", then: stops, words: "Closed (code 4001: an app's own)."},
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
		f.stay(ctx, c, user, n)
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

// A server that has fallen silent is left after two intervals. One that beats is not.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.interval = 2 * time.Second
	f.ws = func(ctx context.Context, c *websocket.Conn, user string, n int) {
		if user == "answered" || n > 1 {
			f.stay(ctx, c, user, n)
			return
		}
		data, _ := json.Marshal(f.welcome(user))
		_ = c.Write(ctx, websocket.MessageText, append([]byte{1}, data...))
		for {
			if _, _, err := c.Read(ctx); err != nil {
				return
			}
		}
	}
	b := newBrowser(t)
	answered := b.open(f.url + "/?user=answered")
	answered.until(`link() === "open" && live()`)
	began := time.Now()
	left := b.open(f.url + "/?user=left")
	left.until(`link() === "open" && live() && text("cause").startsWith("Before: The connection broke without a goodbye (code 1006: nothing heard ")`)
	require.Equal(t, 2, f.counted(f.dials, "left"))
	time.Sleep(time.Until(began.Add(5 * f.interval)))
	answered.equal(true, `link() === "open" && live()`)
	require.Equal(t, 1, f.counted(f.dials, "answered"))
}

// A connection that is lost before the list came, or after, is followed by another, and its snapshot replaces all.
func TestNewSnapshot(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.room = func(ctx context.Context, r *room, n int) {
		switch n {
		case 1: // lost at once
		case 2:
			r.snapshot(member("gone", false))
			r.change("join", member("also gone", false))
		default:
			r.snapshot(member("here", true))
			<-ctx.Done()
		}
	}
	tb := newBrowser(t).open(f.url + "/?user=me")
	tb.until(`live() && state("here") === "away" && text("count") === "1 person here"`)
	tb.equal(1, `document.querySelectorAll("#list > li").length`)
	tb.equal(1, `feed("join", "also gone").length`)
	tb.equal(1, `feed("leave", "also gone").length`)
	tb.equal(1, `feed("join", "here").length`)
	require.Equal(t, 3, f.counted(f.dials, "me"))
}

// A browser has six connections for a host, but sockets are not among them. So all tabs are live, whether seen or not.
func TestHiddenTabs(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	b := newBrowser(t)
	var tabs []*tab
	for i := range 9 {
		tb := b.tab(chromedp.WithNewWindow(false))
		tb.do(chromedp.Navigate(f.url + "/?user=" + strconv.Itoa(i)))
		tb.until(`link() === "open" && live()`)
		tabs = append(tabs, tb)
	}
	first := tabs[0]
	first.until(`document.hidden`)
	for i, tb := range tabs {
		tb.equal(true, `link() === "open" && live()`)
		require.Equal(t, 1, f.counted(f.dials, strconv.Itoa(i)))
	}
	first.do(func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, page.BringToFront, struct{}{})
		return chromedp.Void{}, err
	})
	first.until(`!document.hidden && link() === "open" && live()`)
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
	f.room = func(ctx context.Context, r *room, _ int) {
		r.snapshot(all...)
		<-begin
		pace := time.Tick(10 * time.Millisecond)
		for i := range updates {
			<-pace
			r.change("update", me)
			r.change("update", all[1+i])
			r.change("join", member(fmt.Sprintf("zoe-%d", i), false))
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

// A topic that grows too large for names is counted, and listed again when it is small enough.
func TestOnlyCounted(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	more := make(chan struct{})
	f.room = func(ctx context.Context, r *room, _ int) {
		r.snapshot(member("me", false), member("ann", false))
		<-more
		r.count(5210, 6002)
		<-more
		r.snapshot(member("me", false), member("bob", false))
		<-ctx.Done()
	}
	tb := newBrowser(t).open(f.url + "/?user=me")
	tb.until(`live() && text("count") === "2 people here"`)
	more <- struct{}{}
	tb.until(`text("count") === "5,210 people here"`)
	tb.equal("6,002 tabs. That is too many to list by name.", `text("split")`)
	tb.equal(0, `document.querySelectorAll("#list > li").length`)
	more <- struct{}{}
	tb.until(`live() && text("count") === "2 people here" && state("bob") === "online"`)
	tb.equal(0, `document.querySelectorAll("#log > [data-kind=join], #log > [data-kind=leave]").length`)
}
