package presence_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/stretchr/testify/require"
)

// Whatever a client says in presence.v1, each request is answered, with an error
// that is documented, and an honest request after it works. Frames that are not
// one unfragmented text of 16 KiB end the connection with 1002. Messages are
// separated by newlines; one that begins with F is sent in two fragments.
func FuzzProtocol(f *testing.F) {
	p, err := presence.New(presence.Options{Authorize: all, Identify: byQuery})
	require.NoError(f, err)
	ln := wstest.Listen()
	mux := http.NewServeMux()
	mux.Handle("/handler", p.Handler(drop))
	mux.Handle("/callback", p.Callback(nil))
	srv := &http.Server{Handler: mux}
	go srv.Serve(ln)
	f.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = p.Shutdown(ctx)
		srv.Close()
	})
	for _, seed := range []string{
		`{"t":"follow","id":1,"topic":"a"}`, `{"t":"join","topic":"\ud800"}`, `{"t":"set","meta":{"a":[1,2]},"id":-0}`,
		`{"t":"leave","topic":"a","id":1e3}`, "{}\n[]\nnull\n\"\x00\"", `F{"t":"follow"}`, `{"T":"follow","t":"unfollow","topic":""}`,
		`{"t":"set","meta":null}` + "\n" + `{"t":"set","meta":1e999}`, `{"t":"follow","id":99999999999999999999}`,
	} {
		f.Add([]byte(seed))
	}
	codes := map[string]bool{"bad-request": true, "forbidden": true, "limit": true, "rate": true, "unavailable": true}
	f.Fuzz(func(t *testing.T, data []byte) {
		messages := bytes.Split(data, []byte("\n"))
		if len(messages) > 50 {
			return
		}
		nc, err := ln.Dial()
		require.NoError(t, err)
		c, err := wstest.Dial(nc, [2]string{"/handler", "/callback"}[len(data)%2]+"?user=ann", v1)
		require.NoError(t, err)
		defer c.Close()
		asked, broken := 0, false
		for _, m := range messages {
			if fragment, ok := bytes.CutPrefix(m, []byte("F")); ok || len(m) >= 16<<10 {
				first := byte(0x01)
				if !ok {
					first, fragment = 0x81, m
				}
				_, _ = c.Write(wstest.Masked(first, append([]byte{1}, fragment...)))
				broken = true
				break
			}
			require.NoError(t, c.Send(wstest.Text, append([]byte{1}, m...)))
			asked++
		}
		if !broken {
			require.NoError(t, c.SendText("\x01"+`{"t":"unfollow","id":424242,"topic":"honest"}`))
			asked++
		}
		answers := 0
		for timeout := time.After(time.Minute); ; {
			select {
			case frame, open := <-c.Frames:
				if !open || frame.Op == wstest.Close {
					require.True(t, broken, "the connection was not kept")
					if open {
						require.Equal(t, 1002, frame.Code())
					}
					return
				}
				require.Less(t, len(frame.Payload), 16<<10+1)
				require.EqualValues(t, 1, frame.Payload[0])
				var m wireMsg
				require.NoError(t, json.Unmarshal(frame.Payload[1:], &m))
				switch m.T {
				case "ok", "error":
					answers++
					require.True(t, m.T == "ok" || codes[m.Code], m.Code)
					if m.ID != nil && *m.ID == 424242 && answers == asked {
						require.Equal(t, "ok", m.T)
						return
					}
				case "welcome", "snapshot", "delta", "count", "unfollowed", "stale", "live":
				default:
					t.Fatalf("%s", frame.Payload)
				}
			case <-timeout:
				t.Fatalf("%d of %d answered", answers, asked)
			}
		}
	})
}
