package main_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/a4cafe1a/presence/internal/proctest"
	"github.com/stretchr/testify/require"
	"nhooyr.io/websocket"
)

// The example as its user runs it: echo, who is online, a client that falls
// silent, Ctrl-C.
func TestExample(t *testing.T) {
	p := proctest.Start(t, proctest.Build(t, "."), "-addr", "127.0.0.1:0", "-interval", "1s", "-timeout", "3s", "-grace", "0")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ws := "ws" + strings.TrimPrefix(p.URL, "http")

	var online struct {
		Count   int
		Members []struct {
			User     string
			Sessions int
			Since    time.Time
		}
	}
	ask := func() {
		resp, err := http.Get(p.URL + "/online")
		require.NoError(t, err)
		defer resp.Body.Close()
		require.Equal(t, http.StatusOK, resp.StatusCode)
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&online))
	}
	resp, err := http.Get(p.URL + "/healthz")
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)

	ann, _, err := websocket.Dial(ctx, ws+"/ws?user=ann", nil)
	require.NoError(t, err)
	defer ann.CloseNow()
	require.NoError(t, ann.Write(ctx, websocket.MessageText, []byte("hello")))
	_, echo, err := ann.Read(ctx)
	require.NoError(t, err)
	require.Equal(t, "hello", string(echo))
	ask()
	require.Equal(t, 1, online.Count)
	require.Equal(t, "ann", online.Members[0].User)
	require.Equal(t, 1, online.Members[0].Sessions)
	require.WithinDuration(t, time.Now(), online.Members[0].Since, time.Minute)

	// This library answers pings only while somebody reads: ann falls silent.
	require.Contains(t, p.Logged("disconnected", "user=ann"), "cause=silent")
	require.Eventually(t, func() bool { ask(); return online.Count == 0 }, time.Minute, 20*time.Millisecond)

	ben, _, err := websocket.Dial(ctx, ws+"/ws?user=ben", nil)
	require.NoError(t, err)
	defer ben.CloseNow()
	left := make(chan error, 1)
	go func() {
		_, _, err := ben.Read(ctx)
		left <- err
	}()
	p.Logged("connected", "user=ben")
	p.Interrupt()
	require.Equal(t, websocket.StatusServiceRestart, websocket.CloseStatus(<-left))
	require.NoError(t, p.Wait(time.Minute))
	require.Contains(t, p.Logged("disconnected", "user=ben"), "cause=shutdown")
}
