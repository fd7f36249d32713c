package link

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// TestLines: each paragraph of Conn is a line of the cache, so that a message
// writes to one line for each direction. An object of this size begins at one.
func TestLines(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("a machine with short pointers")
	}
	var c Conn
	begins := []uintptr{
		unsafe.Offsetof(c.nc), unsafe.Offsetof(c.last), unsafe.Offsetof(c.rmu), unsafe.Offsetof(c.wmu), unsafe.Offsetof(c.sock), unsafe.Sizeof(c),
	}
	require.Equal(t, []uintptr{0, 64, 128, 192, 256, 320}, begins)
}
