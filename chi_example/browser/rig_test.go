package browser

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/a4cafe1a/presence/internal/proctest"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

const (
	root     = "../.." // of the repository
	patience = time.Minute
	often    = 20 * time.Millisecond
)

// example is the path of the built example.
var example string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "presence-browser-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	example = filepath.Join(dir, "chi_example")
	args := []string{"build", "-o", example}
	if race {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "./chi_example")...)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the example: %v\n%s", err, out)
		return 1
	}
	defer func() {
		if shared.end != nil {
			shared.end()
		}
	}()
	flag.Parse()
	if p := flag.Lookup("test.parallel"); p.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = p.Value.Set(strconv.Itoa(max(4, runtime.GOMAXPROCS(0)))) // they wait most of the time
	}
	return m.Run()
}

// server is the example as a process.
type server struct {
	t    *testing.T
	url  string
	addr string
	args []string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	log  syncBuffer
}

// serve starts the example. It is stopped with the test, and must not have
// found a data race by then.
func serve(t *testing.T, args ...string) *server {
	t.Helper()
	s := &server{t: t, addr: fmt.Sprintf("127.0.0.1:%d", proctest.FreePort(t)), args: args}
	s.start()
	t.Cleanup(func() {
		s.stop(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("the server said:\n%s", s.log.String())
		}
		require.NotContains(t, s.log.String(), "DATA RACE")
		require.NotContains(t, s.log.String(), "panic")
	})
	return s
}

var serving = regexp.MustCompile(`\bserving url=(\S+)`)

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(example, append([]string{"-addr", s.addr}, s.args...)...)
	out, w, err := os.Pipe()
	require.NoError(s.t, err)
	defer w.Close()
	s.cmd.Stdout, s.cmd.Stderr = w, w
	proctest.DieWithParent(s.cmd)
	require.NoError(s.t, s.cmd.Start())
	url := make(chan string, 1)
	done := make(chan struct{})
	s.done = done
	go func() {
		defer close(done)
		defer out.Close()
		for lines := bufio.NewScanner(out); lines.Scan(); {
			fmt.Fprintln(&s.log, lines.Text())
			if m := serving.FindStringSubmatch(lines.Text()); m != nil {
				url <- m[1]
			}
		}
		_ = s.cmd.Wait()
	}()
	select {
	case s.url = <-url:
	case <-done:
		s.t.Fatalf("the example ended:\n%s", s.log.String())
	case <-time.After(patience):
		s.t.Fatalf("the example does not serve:\n%s", s.log.String())
	}
}

// stop ends the process with a signal and waits for it.
func (s *server) stop(with syscall.Signal) {
	_ = s.cmd.Process.Signal(with)
	select {
	case <-s.done:
	case <-time.After(patience):
		_ = s.cmd.Process.Kill()
		<-s.done
		s.t.Errorf("the example did not end within %v of %v", patience, with)
	}
}

// browser is a Chromium process, or a part of one that shares nothing with the
// others.
type browser struct {
	t   *testing.T
	ctx context.Context
}

// shared is the process that most tests use, since starting one takes a second.
var shared struct {
	once sync.Once
	ctx  context.Context
	end  func()
	err  error
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	path := proctest.Find(t, "chromium", "chromium-browser")
	shared.once.Do(func() { shared.ctx, shared.end, shared.err = launch(path) })
	require.NoError(t, shared.err)
	ctx, cancel := chromedp.NewContext(shared.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	require.NoError(t, chromedp.Do(ctx))
	return &browser{t, ctx}
}

// newProcess is a browser that can be killed.
func newProcess(t *testing.T, more ...chromedp.ExecAllocatorOption) *browser {
	t.Helper()
	ctx, cancel, err := launch(proctest.Find(t, "chromium", "chromium-browser"), more...)
	require.NoError(t, err)
	t.Cleanup(cancel)
	return &browser{t, ctx}
}

func launch(path string, more ...chromedp.ExecAllocatorOption) (context.Context, func(), error) {
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("no-sandbox", os.Geteuid() == 0), // Chromium's sandbox refuses root
		chromedp.WindowSize(1280, 800),
		chromedp.ModifyCmdFunc(ownGroup),
	)
	ctx, stop := chromedp.NewExecAllocator(context.Background(), append(opts, more...)...)
	ctx, cancel := chromedp.NewContext(ctx)
	end := func() { cancel(); stop() }
	if err := chromedp.Do(ctx); err != nil {
		end()
		return nil, nil, err
	}
	return ctx, end, nil
}

// pid is the first process of the browser. It leads a process group.
func (b *browser) pid() int { return chromedp.FromContext(b.ctx).Browser.Process().Pid }

// tab is a page in a window of its own, so that it is visible.
type tab struct {
	t     *testing.T
	ctx   context.Context
	close func()
}

func (b *browser) tab(opts ...chromedp.ContextOption) *tab {
	b.t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx, opts...)
	require.NoError(b.t, chromedp.Do(ctx))
	return &tab{b.t, ctx, cancel}
}

func (b *browser) open(url string, first ...step) *tab {
	b.t.Helper()
	tb := b.tab()
	tb.do(append(first, chromedp.Navigate(url))...)
	tb.equal(false, `document.hidden`)
	return tb
}

// here opens the page of a user and waits until the user is listed on it.
func (b *browser) here(s *server, user string) *tab {
	b.t.Helper()
	tb := b.open(s.url + "/?user=" + user)
	tb.until(fmt.Sprintf(`link() === "open" && live() && state(%q) === "online"`, user))
	return tb
}

type step = chromedp.Action[chromedp.Void]

func click(selector string) step { return chromedp.Click(chromedp.CSS(selector)) }
func focus(selector string) step { return chromedp.Focus(chromedp.CSS(selector)) }
func press(keys string) step     { return chromedp.KeyEvent(keys) }
func script(js string) step      { return chromedp.Evaluate[chromedp.Void](js) }

func (tb *tab) do(steps ...step) {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, patience)
	defer cancel()
	require.NoError(tb.t, chromedp.Do(ctx, steps...))
}

// words are what the expressions in the tests use.
const words = `
const row = (user) => [...document.querySelectorAll("#list > li")].find((li) => li.dataset.user === user);
const state = (user) => row(user)?.dataset.state ?? "none";
const status = (user) => row(user)?.querySelector(".status").textContent;
const feed = (kind, user) => [...document.querySelectorAll("#log > [data-kind=" + kind + "]")].filter((li) => li.querySelector("bdi")?.textContent === user);
const cause = (user) => feed("leave", user)[0]?.querySelector("code").textContent;
const text = (id) => document.getElementById(id).textContent;
const link = () => document.getElementById("link").dataset.link;
const live = () => document.getElementById("people").dataset.live === "yes";
const focused = () => document.activeElement;
`

// value is what a JavaScript expression is worth on the page.
func (tb *tab) value(expr string) (any, error) {
	ctx, cancel := context.WithTimeout(tb.ctx, patience)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[any](`(() => {`+words+`return `+expr+`})()`))
}

func (tb *tab) equal(want any, expr string) {
	tb.t.Helper()
	got, err := tb.value(expr)
	require.NoError(tb.t, err, expr)
	require.EqualValues(tb.t, want, got, expr)
}

// until waits until an expression is true. A page that is being loaded is
// asked again.
func (tb *tab) until(expr string) {
	tb.t.Helper()
	var got any
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(often) {
		if got, err = tb.value(expr); err == nil && got == true {
			return
		}
	}
	shown, _ := tb.value(`document.body?.innerText + (window.log?.join ? "\n" + window.log.join() : "")`)
	tb.t.Fatalf("not true within %v: %s\nit is %v (%v); the page shows:\n%v", patience, expr, got, err, shown)
}

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
