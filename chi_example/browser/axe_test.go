package browser

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// axe is axe-core, which checks contrast, names, roles and the like. Its version is pinned in package.json.
const axe = "node_modules/axe-core/axe.min.js"

// found is what axe says against the page, a line each. A colour that it cannot decide about counts, too, but for signs that
// say nothing, such as the minus before a leave.
const found = `axe.run({ resultTypes: ["violations", "incomplete"] }).then((r) => {
	const lines = (v, nodes) => nodes.map((n) => v.id + ": " + n.target.join(" ") + ": " + n.failureSummary);
	const colors = r.incomplete.filter((v) => v.id === "color-contrast");
	return [
		...r.violations.flatMap((v) => lines(v, v.nodes)),
		...colors.flatMap((v) => lines(v, v.nodes.filter((n) => !document.querySelector(n.target[0]).ariaHidden))),
		...(r.passes.length > 0 ? [] : ["nothing was checked"]),
	];
})`

// The page has nothing that axe objects to, on a phone and on a desktop, light and dark.
func TestAxe(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile(axe)
	if os.IsNotExist(err) && os.Getenv("CI") == "" {
		t.Skip("no axe-core: run npm ci in chi_example/browser")
	}
	require.NoError(t, err)
	s := serve(t, "-grace", "5m", "-away", "3s")
	b := newBrowser(t)
	for _, test := range []struct {
		name          string
		width, height int64
		phone         bool
	}{
		{name: "phone", width: 390, height: 844, phone: true},
		{name: "desktop", width: 1280, height: 800},
	} {
		for _, scheme := range []string{"light", "dark"} {
			t.Run(test.name+" "+scheme, func(t *testing.T) {
				topic := "&topic=" + test.name + "-" + scheme // so that no test sees another's users
				ann := b.open(s.url+"/healthz", looks(test.width, test.height, test.phone, scheme))
				ann.t = t
				defer ann.close()
				ann.do(chromedp.Navigate(s.url + "/?user=ann" + topic))
				ann.until(`link() === "open" && live()`)
				// Bob goes quiet, cat goes, ann goes on.
				bob := b.open(s.url + "/?user=bob" + topic)
				defer bob.close()
				cat := b.open(s.url + "/?user=cat" + topic)
				bob.until(`link() === "open"`)
				bob.do(focus("#status"), press("looking at the sea\r"))
				ann.until(`status("bob") === "looking at the sea" && state("cat") !== "none"`)
				cat.close()
				ann.do(focus("#status"), press("reading"), script(`setInterval(() => document.getElementById("say").requestSubmit(), 500); 0`))
				ann.do(click(`[aria-label="Tabs of bob"]`), click("summary"))
				ann.until(`state("ann") === "online" && state("bob") === "away" && state("cat") === "grace" && status("ann") === "reading" && row("bob").innerText.includes("Tab 1") && row("ann").innerText.includes("Tab 1")`)
				ann.equal(true, `matchMedia("(prefers-color-scheme: `+scheme+`)").matches && document.documentElement.scrollWidth <= innerWidth`)
				ann.do(script(string(source) + "; 0"))
				ann.check("the page", test.name+"-"+scheme)

				ann.do(click(`[aria-label="Kick bob"]`))
				ann.until(`document.getElementById("ask").open`)
				ann.check("the dialog", test.name+"-"+scheme+"-dialog")
				ann.do(click(`#ask button[value=kick]`))
				ann.until(`state("bob") === "none"`)

				ann.do(click("#connect")) // closes the connection
				ann.until(`link() === "stopped"`)
				ann.check("without a connection", test.name+"-"+scheme+"-stopped")
			})
		}
	}
}

// check has axe look at the page as it is. With PRESENCE_SCREENSHOTS=dir it also leaves a picture there.
func (tb *tab) check(what, picture string) {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, patience)
	defer cancel()
	if dir := os.Getenv("PRESENCE_SCREENSHOTS"); dir != "" {
		png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
		require.NoError(tb.t, err)
		require.NoError(tb.t, os.WriteFile(filepath.Join(dir, picture+".png"), png, 0o644))
	}
	lines, err := chromedp.Run(ctx, chromedp.Evaluate[[]string](found, chromedp.EvalAwaitPromise))
	require.NoError(tb.t, err)
	require.Empty(tb.t, lines, what)
}

// looks makes a tab as wide and as light as a device. Nothing moves, so that axe sees the colours that stay.
func looks(width, height int64, phone bool, scheme string) step {
	return func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
			Width: width, Height: height, DeviceScaleFactor: 1, Mobile: phone,
		})
		if err == nil {
			_, err = cdp.Call(ctx, t, emulation.SetTouchEmulationEnabled, emulation.SetTouchEmulationEnabledParams{Enabled: phone})
		}
		if err == nil {
			_, err = cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
				{Name: "prefers-color-scheme", Value: scheme},
				{Name: "prefers-reduced-motion", Value: "reduce"},
			}})
		}
		return chromedp.Void{}, err
	}
}
