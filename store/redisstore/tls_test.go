package redisstore_test

import (
	"crypto/tls"
	"path"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/a4cafe1a/presence/internal/certtest"
	"github.com/a4cafe1a/presence/internal/proctest"
	"github.com/a4cafe1a/presence/store/redisstore"
	"github.com/a4cafe1a/presence/store/storetest"
)

// A Redis that takes nothing but TLS: calls, feeds and bells go over it.
func TestTLS(t *testing.T) {
	cert := certtest.New(t)
	port := strconv.Itoa(proctest.FreePort(t))
	server := &server{
		dir: t.TempDir(), addr: "127.0.0.1:" + port, tls: &tls.Config{RootCAs: cert.Pool, MinVersion: tls.VersionTLS12},
		args: []string{"--port", "0", "--tls-port", port, "--tls-auth-clients", "no",
			"--tls-cert-file", cert.CertFile, "--tls-key-file", cert.KeyFile},
	}
	server.start(t)
	t.Cleanup(server.kill)
	o, err := redis.ParseURL("rediss://" + server.addr + "/0") // the way most write it
	require.NoError(t, err)
	require.NotNil(t, o.TLSConfig)
	o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled = -1, 1, true

	stranger := redis.NewClient(o)
	defer stranger.Close()
	require.ErrorContains(t, stranger.Ping(ctx).Err(), "certificate", "a certificate of nobody's is trusted")

	trusting := *o
	trusting.TLSConfig = o.TLSConfig.Clone()
	trusting.TLSConfig.RootCAs = cert.Pool
	client := redis.NewClient(&trusting)
	t.Cleanup(func() { _ = client.Close() })
	some := []string{"FirstInLastOut", "Bell", "NodeLost", "MembersInOrder", "SnapshotAndFold", "Next", "LookupInOrder", "DisconnectUser"}
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		if !slices.Contains(some, path.Base(t.Name())) {
			t.Skip("runs without TLS")
		}
		s, err := redisstore.NewMovable(client, redisstore.Options{Namespace: namespace(), Lease: lease, Log: 512})
		require.NoError(t, err)
		past(t, s, lease, s.Advance)
		return storetest.Harness{Store: s, Lease: lease, Log: 512, Advance: s.Advance}
	})
	a := newProcess(t, client, "a", redisstore.Options{Lease: 900 * time.Millisecond})
	a.join("u", "s", "room")
	eventually(t, 5*time.Second, "a node does not get on over TLS", func() bool {
		n, err := a.s.Count(ctx, "room")
		return err == nil && n.Users == 1
	})
}
