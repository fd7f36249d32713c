package presence_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The test in the README is what people begin with: it passes, and at once.
func TestReadmeTestPasses(t *testing.T) {
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(text), "## Testing your handler\n\n```go\n")
	require.True(t, found)
	snippet, _, found := strings.Cut(rest, "```")
	require.True(t, found)
	file := filepath.Join(t.TempDir(), "readme_test.go")
	require.NoError(t, os.WriteFile(file, []byte(`package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/a4cafe1a/presence"
	"github.com/coder/websocket"
)

func identify(r *http.Request) (presence.Identity, error) {
	return presence.Identity{User: r.URL.Query().Get("user")}, nil
}

func serve(ctx context.Context, c *presence.Conn) error {
	_, _, err := c.Read(ctx)
	return err
}

`+snippet), 0o600))
	out, err := exec.Command("go", "test", "-timeout=1m", file).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// The first program of the README is what people paste.
func TestReadmeProgramCompiles(t *testing.T) {
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	before, rest, found := strings.Cut(string(text), "```go\n")
	require.True(t, found)
	require.Less(t, strings.Count(before, "\n"), 20, "the program comes by line 20")
	program, _, found := strings.Cut(rest, "```")
	require.True(t, found)
	file := filepath.Join(t.TempDir(), "main.go")
	require.NoError(t, os.WriteFile(file, []byte(program), 0o600))
	out, err := exec.Command("go", "vet", file).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// The other snippets compile, too, once their dots are filled in and what they
// only name is used.
func TestSnippetsOfTheDocsCompile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "main.go")
	program := `package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"strings"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/client"
	"github.com/a4cafe1a/presence/store/redisstore"
	"github.com/redis/go-redis/v9"
)

func main() {}

var (
	identify    func(*http.Request) (presence.Identity, error)
	verify      func(token string) (user string, until time.Time, err error)
	allowed     func(user string, kind presence.AskKind, topic string) error
	serve       func(context.Context, *presence.Conn) error
	yourHandler http.HandlerFunc
)
`
	const cluster = "docs/cluster.md"
	for i, s := range []struct {
		file, begin string // of the snippet
		before      string // what it stands in
		dots        []string
		after       string
	}{
		{"README.md", "c, err := client.Dial(", "(ctx context.Context) {", []string{"_ = err", "_, _ = msg, err"}, "}"},
		{"README.md", "if token, ok :=", "(msg []byte, c *presence.Conn) { for {", nil, "}}"},
		{"README.md", "p, err := presence.New(presence.Options{\n\tIdentify:  ", "() {", []string{""}, "_ = err }"},
		{"README.md", "if s := presence.FromContext", "(r *http.Request, err error) {", nil, "_ = err }"},
		{"README.md", "ok, err :=", "(ctx context.Context, p *presence.Presence) {", []string{"_, _ = m, err"}, "_, _, _, _, _, _ = ok, all, tabs, n, told, err }"},
		{"README.md", "sub, err :=", "(ctx context.Context, p *presence.Presence) {", []string{"_, _ = e, err"}, "_ = err }"},
		{"README.md", "ctx, cancel :=", "(p *presence.Presence, srv *http.Server) {", nil, "_ = err }"},
		{"README.md", "client := redis.NewClient(", "() {", []string{""}, "_, _ = p, err }"},
		{cluster, "client := redis.NewClient(", "() {", nil, "_, _ = p, err }"},
		{cluster, "ctx, cancel :=", "(p *presence.Presence) {", nil, "}"},
	} {
		text, err := os.ReadFile(s.file)
		require.NoError(t, err)
		_, rest, found := strings.Cut(string(text), "```go\n"+s.begin)
		require.True(t, found, "%s: %s", s.file, s.begin)
		rest, _, _ = strings.Cut(rest, "```")
		snippet := s.begin + rest
		require.Equal(t, len(s.dots), strings.Count(snippet, "..."), snippet)
		for _, d := range s.dots {
			snippet = strings.Replace(snippet, "...", d, 1)
		}
		program += fmt.Sprintf("\nfunc snippet%d%s\n%s%s\n", i, s.before, snippet, s.after)
	}
	require.NoError(t, os.WriteFile(file, []byte(program), 0o600))
	out, err := exec.Command("go", "vet", file).CombinedOutput()
	require.NoError(t, err, "%s", out)
}
