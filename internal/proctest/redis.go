package proctest

import (
	"os"
	"os/exec"
	"testing"
)

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
	for _, name := range []string{"redis-server", "valkey-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatal("no redis-server in the PATH (apt-get install redis-server)")
	}
	t.Skip("no redis-server in the PATH (apt-get install redis-server)")
	return ""
}
