package compat

import (
	"context"
	"crypto/sha256"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// library connects with a library, as a Go client does.
func (s *site) library(t *testing.T, o *websocket.DialOptions) *websocket.Conn {
	t.Helper()
	return s.libraryAs(t, "lib", o)
}

func (s *site) libraryAs(t *testing.T, user string, o *websocket.DialOptions) *websocket.Conn {
	t.Helper()
	if o == nil {
		o = &websocket.DialOptions{}
	}
	scheme := "http://"
	if s.conf != nil {
		scheme = "https://"
	}
	o.HTTPClient = s.http
	o.HTTPHeader = http.Header{"Origin": {scheme + s.addr}}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, _, err := websocket.Dial(ctx, scheme+s.addr+"/?user="+user, o)
	require.NoError(t, err)
	c.SetReadLimit(4 * megabyte)
	t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

// requireSame compares by hash: a difference of a megabyte is nothing to print.
func requireSame(t *testing.T, want []byte, got message) {
	t.Helper()
	require.Equal(t, len(want), len(got.data), "length of the message")
	require.Equal(t, sha256.Sum256(want), sha256.Sum256(got.data), "hash of the message")
}

// eventually waits for something that is about to be true.
func eventually(t *testing.T, ok func() bool, what string, args ...any) {
	t.Helper()
	require.Eventuallyf(t, ok, patience, 2*time.Millisecond, what, args...)
}
