package redisstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/a4cafe1a/presence/store/redisstore"
)

// TestFaults lets users move and reload all the time while Redis fails in one
// way after the other. No reader may say that one of them is offline, no
// subscriber may see one leave, and afterwards everything is right.
func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for real leases")
	}
	t.Parallel()
	const lease = 2 * time.Second
	server := newServer(t)
	admin := server.client(t)
	var ps []*process
	for i := range 3 {
		ps = append(ps, newProcess(t, server.client(t), fmt.Sprint("n", i), redisstore.Options{Lease: lease}))
	}
	c := newCrowd(t, 60, ps...)
	for _, fault := range []struct {
		name string
		do   func()
	}{
		{"killed connections", func() {
			for range 5 {
				_ = admin.Do(ctx, "client", "kill", "type", "normal").Err()
				_ = admin.Do(ctx, "client", "kill", "type", "pubsub").Err()
				time.Sleep(50 * time.Millisecond)
			}
		}},
		{"forgotten scripts", func() { _ = admin.ScriptFlush(ctx).Err() }},
		{"wiped", func() { _ = admin.FlushAll(ctx).Err() }},
		{"paused for half a lease", func() { server.pause(t); time.Sleep(lease * 6 / 10); server.resume(t) }},
		{"paused for two leases", func() { server.pause(t); time.Sleep(2 * lease); server.resume(t) }},
		{"restarted empty", func() { server.kill(); time.Sleep(lease / 2); server.start(t) }},
	} {
		fault.do()
		begun := time.Now()
		eventually(t, lease+4*time.Second, "after being "+fault.name+" it is not right", c.right)
		t.Logf("%s: right after %v", fault.name, time.Since(begun).Round(time.Millisecond))
		time.Sleep(lease / 2)
	}
	c.end()
}
