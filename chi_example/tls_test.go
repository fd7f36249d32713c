//go:build linux

package main_test

import (
	"net/http"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/certtest"
	"github.com/a4cafe1a/presence/internal/proctest"
)

// Two nodes meet in a Redis that takes nothing but TLS, by rediss://.
func TestRedisOverTLS(t *testing.T) {
	port := strconv.Itoa(proctest.FreePort(t))
	cert := certtest.New(t)
	cmd := exec.Command(proctest.RedisServer(t), "--port", "0", "--tls-port", port, "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir(),
		"--tls-auth-clients", "no", "--tls-cert-file", cert.CertFile, "--tls-key-file", cert.KeyFile)
	proctest.DieWithParent(cmd)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })

	t.Setenv("SSL_CERT_FILE", cert.CertFile) // what the nodes trust
	args := []string{"-redis", "rediss://localhost:" + port + "/0", "-lease", "1s"}
	one := start(t, append(args, "-node", "one")...)
	two := start(t, append(args, "-node", "two")...)
	one.open("user=ann")
	require.Eventually(t, func() bool {
		var u user
		return two.ask("GET", "/online/ann", &u) == http.StatusOK && *u.Online
	}, patience, 50*time.Millisecond)
}
