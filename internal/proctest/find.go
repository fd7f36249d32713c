package proctest

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Find returns the path of the first of these programs that is installed.
// Without any the test is skipped, but fails in CI.
func Find(t testing.TB, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("none of %s in the PATH", strings.Join(names, ", "))
	}
	t.Skipf("none of %s in the PATH", strings.Join(names, ", "))
	return ""
}

// RedisServer finds the server that tests start: PRESENCE_REDIS_SERVER, a name
// or a path, or else redis-server or valkey-server. Without one the test is
// skipped, but fails in CI.
func RedisServer(t testing.TB) string {
	t.Helper()
	if named := os.Getenv("PRESENCE_REDIS_SERVER"); named != "" {
		path, err := exec.LookPath(named)
		if err != nil {
			t.Fatalf("PRESENCE_REDIS_SERVER: %v", err)
		}
		return path
	}
	return Find(t, "redis-server", "valkey-server")
}
