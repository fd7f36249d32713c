package proctest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

var given sync.Map // ports, of this process

// FreePort returns a port for a program that cannot choose one itself, with
// nine more after it. It stays free while the program is not running: the
// system chooses others for the connections of everybody else.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 10_100 + 10*rand.IntN(2_200) // browsers refuse 10080; Linux chooses from 32768 on
		if _, taken := given.LoadOrStore(port, true); taken {
			continue
		}
		if ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = ln.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}
