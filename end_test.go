package presence_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"

	"github.com/a4cafe1a/presence"
	"github.com/stretchr/testify/require"
)

// OnDisconnect gets an End, Read returns a *End: both print as words, and only
// the second is an error.
func TestEndInWords(t *testing.T) {
	kicked := presence.End{Cause: presence.CauseKicked, Code: 4403, Text: "banned"}
	require.Equal(t, "kicked (4403)", fmt.Sprint(kicked))
	require.Equal(t, "lost", fmt.Sprint(presence.End{Cause: presence.CauseLost}))
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("gone", "end", kicked)
	require.Contains(t, log.String(), `end="kicked (4403)"`)
	log.Reset()
	slog.New(slog.NewJSONHandler(&log, nil)).Info("gone", "end", kicked, "error", &kicked)
	require.Contains(t, log.String(), `"end":"kicked (4403)","error":"kicked (4403)"`)
	fields, err := json.Marshal(kicked)
	require.NoError(t, err)
	require.JSONEq(t, `{"Cause":"kicked","Code":4403,"Text":"banned","Quiet":0}`, string(fields), "as it always was")

	err = &kicked
	require.EqualError(t, err, "presence: session ended: kicked (4403)")
	require.Equal(t, "presence: session ended: kicked (4403)", fmt.Sprint(err))
	require.EqualError(t, &presence.End{Cause: presence.CauseLost}, "presence: session ended: lost")
	var found *presence.End
	require.True(t, errors.As(fmt.Errorf("read: %w", err), &found))
	require.Same(t, &kicked, found)
	require.ErrorIs(t, err, net.ErrClosed)
	require.ErrorIs(t, err, presence.ErrEnded)
	require.NotErrorIs(t, err, io.EOF)
}
