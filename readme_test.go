package presence_test

import (
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
