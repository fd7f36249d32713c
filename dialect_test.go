package presence_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/stretchr/testify/require"
)

// phoenix is what phoenix.js sends every 30 s, as a user would write it: V2 of
// its serializer, [null,"5","phoenix","heartbeat",{}].
type phoenix struct{}

func (phoenix) MaxLen() int { return 128 }

func (phoenix) Answer(dst, msg []byte) ([]byte, bool) {
	if !bytes.HasPrefix(msg, []byte("[null,")) {
		return nil, false
	}
	var m []any
	if json.Unmarshal(msg, &m) != nil || len(m) != 5 || m[2] != "phoenix" || m[3] != "heartbeat" {
		return nil, false
	}
	ref, err := json.Marshal(m[1])
	if err != nil {
		return nil, false
	}
	dst = append(append(dst, "[null,"...), ref...)
	return append(dst, `,"phoenix","phx_reply",{"status":"ok","response":{}}]`...), true
}

func (phoenix) Beat([]byte, bool) ([]byte, bool) { return nil, false }

// engineIO is the heartbeat of engine.io 4, which socket.io stands on: the
// server sends 2, the client answers 3.
type engineIO struct{}

func (engineIO) MaxLen() int { return 1 }

func (engineIO) Answer(_, msg []byte) ([]byte, bool) { return nil, string(msg) == "3" }

func (engineIO) Beat(dst []byte, _ bool) ([]byte, bool) { return append(dst, '2'), true }

// collect is a route that keeps what the app sees.
func collect(seen *[]string, dialects ...presence.Dialect) func(p *presence.Presence) http.Handler {
	return func(p *presence.Presence) http.Handler {
		return p.At(presence.Route{Dialects: dialects}).Handler(func(ctx context.Context, c *presence.Conn) error {
			for {
				_, m, err := c.Read(ctx)
				if err != nil {
					return err
				}
				*seen = append(*seen, string(m))
			}
		})
	}
}

func TestJSONPingPong(t *testing.T) {
	var seen []string
	inBubble(t, presence.Options{}, collect(&seen, presence.JSONPingPong), func(t *testing.T, b *bubble) {
		c := b.dial("/?user=ann")
		for _, m := range []string{`{"type":"ping"}`, "{ \"type\" :\t\"ping\" }\r\n"} {
			require.NoError(t, c.SendText(m))
			wait(settle)
			require.Equal(t, `{"type":"pong"}`, string((<-c.Frames).Payload))
		}
		others := []string{`{"type":"ping","id":1}`, `{"type":"pong"}`, `"ping"`, `ping`, `{"type":"ping"`, `{"type":"ping"}}`, ``}
		for _, m := range others {
			require.NoError(t, c.SendText(m))
		}
		wait(settle)
		require.Equal(t, others, seen)
		require.Empty(t, c.Frames)
	})
}

func TestPhoenixDialect(t *testing.T) {
	var seen []string
	inBubble(t, presence.Options{}, collect(&seen, phoenix{}), func(t *testing.T, b *bubble) {
		c := b.dial("/?user=ann")
		for _, ref := range []string{"1", "2"} {
			wait(30 * time.Second)
			require.NoError(t, c.SendText(`[null,"`+ref+`","phoenix","heartbeat",{}]`))
			wait(settle)
			require.Equal(t, `[null,"`+ref+`","phoenix","phx_reply",{"status":"ok","response":{}}]`, string((<-c.Frames).Payload))
		}
		require.NoError(t, c.SendText(`[null,"3","room:1","phx_join",{}]`))
		wait(settle)
		require.Equal(t, []string{`[null,"3","room:1","phx_join",{}]`}, seen)
	})
}

// The client of engine.io waits for the server's beat, however much it sends.
func TestEngineIODialect(t *testing.T) {
	var seen []string
	inBubble(t, presence.Options{}, collect(&seen, engineIO{}), func(t *testing.T, b *bubble) {
		c := b.dial("/?user=ann")
		beats := 0
		for range 40 {
			wait(5 * time.Second)
			for len(c.Frames) > 0 {
				require.Equal(t, "2", string((<-c.Frames).Payload))
				require.NoError(t, c.SendText("3"))
				beats++
			}
			require.NoError(t, c.SendText("4hello"))
		}
		wait(settle)
		require.GreaterOrEqual(t, beats, 200/25-1)
		require.LessOrEqual(t, beats, 200/25+2)
		require.Len(t, seen, 40, "the app sees no heartbeat")
	})
}
