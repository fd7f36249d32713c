package compat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	iframe "github.com/a4cafe1a/presence/internal/frame"
	imessage "github.com/a4cafe1a/presence/internal/message"
	coder "github.com/coder/websocket"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	gorilla "github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"
)

// TestConformance gives each case to the scanner and the decoder that Callback uses, whole and in pieces, and to gobwas/ws: the three agree,
// save where the list says why not.
func TestConformance(t *testing.T) {
	t.Parallel()
	for _, c := range conformanceCases() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			check := func(size int) {
				calls, code := ours(c.stream, size)
				requireCalls(t, c.want, calls, "in pieces of %d bytes", size)
				require.Equal(t, c.code, code, "in pieces of %d bytes", size)
			}
			check(len(c.stream))
			if len(c.stream) < 1000 {
				for size := 1; size < len(c.stream); size++ {
					check(size)
				}
			} else {
				check(1000)
				check(4096)
			}
			in := iframe.In{MaxMessage: -1}
			_, _, broken := in.Scan(bytes.Clone(c.stream), &scanned{})
			require.Equal(t, c.code == 1002 && !c.compressed, broken != nil, "the scanner alone, which guards Handler and Middleware: %v", broken)

			calls, code := reference(c.stream)
			if c.gobwas != "" {
				require.NotEqual(t, fmt.Sprint(c.want, c.code), fmt.Sprint(calls, code), "the reference agrees: drop %q", c.gobwas)
				return
			}
			requireCalls(t, c.want, calls, "gobwas")
			require.Equal(t, c.code, code, "gobwas")
		})
	}
}

// requireCalls does not print megabytes.
func requireCalls(t *testing.T, want, got []string, how string, args ...any) {
	t.Helper()
	short := func(all []string) (s []string) {
		for _, c := range all {
			s = append(s, fmt.Sprintf("%.60q of %d", c, len(c)))
		}
		return s
	}
	require.Equalf(t, short(want), short(got), how, args...)
	for i := range want {
		require.Truef(t, want[i] == got[i], how, args...)
	}
}

// calls writes down what a decoder makes of a stream.
type calls []string

func (c *calls) Message(op iframe.Op, b []byte) error {
	*c = append(*c, map[iframe.Op]string{iframe.Text: "text:", iframe.Binary: "binary:"}[op]+string(b))
	return nil
}
func (c *calls) Ping(b []byte) { *c = append(*c, "ping:"+string(b)) }
func (c *calls) Close()        {}

// scanned is what the scanner is asked. Only the scanner knows how the client said goodbye.
type scanned struct{ bye string }

func (*scanned) Data()                {}
func (*scanned) Control(iframe.Op)    {}
func (*scanned) Pong([]byte) bool     { return false }
func (*scanned) Message([]byte) bool  { return false }
func (*scanned) Channel([]byte, bool) {}
func (s *scanned) Close(code int, reason []byte) {
	s.bye = fmt.Sprintf("close:%d %s", code, reason)
}

// ours is what a parked session does: it scans what arrives, and decodes what passed.
func ours(stream []byte, size int) ([]string, int) {
	in, sc, got := iframe.In{MaxMessage: -1}, &scanned{}, calls{}
	var d imessage.Decoder
	var held []byte
	for rest := bytes.Clone(stream); len(rest) > 0; {
		k := min(size, len(rest))
		b := append(held, rest[:k]...)
		rest = rest[k:]
		n, kept, broken := in.Scan(b, sc)
		held = bytes.Clone(b[n : n+kept])
		switch err := d.Feed(b[:n], conformanceLimit, &got); {
		case errors.Is(err, imessage.ErrText):
			return got, 1007
		case errors.Is(err, imessage.ErrTooLarge):
			return got, 1009
		case err != nil || broken != nil:
			return got, 1002
		}
		if sc.bye != "" {
			return append(got, sc.bye), 0
		}
	}
	return got, 0
}

// reference is gobwas/ws.
func reference(stream []byte) (got []string, code int) {
	r := &wsutil.Reader{Source: bytes.NewReader(stream), State: ws.StateServerSide, CheckUTF8: true, MaxMessageSize: conformanceLimit}
	control := func(h ws.Header, body io.Reader) error {
		b, err := io.ReadAll(body)
		if err != nil {
			return err
		}
		switch h.OpCode {
		case ws.OpPing:
			got = append(got, "ping:"+string(b))
		case ws.OpClose:
			code, reason := ws.StatusNoStatusRcvd, ""
			if len(b) > 0 {
				code, reason = ws.ParseCloseFrameData(b)
				if len(b) >= 2 {
					if err := ws.CheckCloseFrameData(code, reason); err != nil {
						return err
					}
				}
			}
			got = append(got, fmt.Sprintf("close:%d %s", code, reason))
			return errBye
		}
		return nil
	}
	r.OnIntermediate = control
	err := error(nil)
	for err == nil {
		var h ws.Header
		if h, err = r.NextFrame(); err != nil {
			break
		}
		if h.OpCode.IsControl() {
			err = control(h, r)
			continue
		}
		var b []byte
		if b, err = io.ReadAll(r); err == nil {
			got = append(got, map[ws.OpCode]string{ws.OpText: "text:", ws.OpBinary: "binary:"}[h.OpCode]+string(b))
		}
	}
	switch {
	case errors.Is(err, errBye), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return got, 0
	case errors.Is(err, wsutil.ErrInvalidUTF8):
		return got, 1007
	case errors.Is(err, wsutil.ErrMessageTooLarge):
		return got, 1009
	default:
		return got, 1002
	}
}

var errBye = errors.New("bye")

// parkedApp is what a parked session's app got, by user.
type parkedApp struct {
	*rig
	mu  sync.Mutex
	got map[string][]string
}

func (a *parkedApp) messages(user string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.got[user])
}

// parked serves Callback, which sends back every message.
func parked(t *testing.T, w way) *parkedApp {
	a := &parkedApp{got: map[string][]string{}}
	r := newPresence(t, func(o *presence.Options) {
		o.HeartbeatInterval, o.HeartbeatTimeout = time.Minute, 2*time.Minute
	})
	a.rig = r
	mount := r.p.At(presence.Route{ReadLimit: conformanceLimit, Dialects: []presence.Dialect{}})
	r.site = newSite(t, w, mount.Callback(func(_ *http.Request, p *presence.Peer) (presence.Callbacks, error) {
		return presence.Callbacks{Message: func(_ context.Context, typ coder.MessageType, b []byte) error {
			a.mu.Lock()
			a.got[p.User()] = append(a.got[p.User()], map[coder.MessageType]string{coder.MessageText: "text:", coder.MessageBinary: "binary:"}[typ]+string(b))
			a.mu.Unlock()
			if string(b) == cmdClose {
				p.Close(4001, "enough")
				return nil
			}
			if err := p.Send(typ, b); !errors.Is(err, presence.ErrEnded) {
				return err
			}
			return nil // the client has said goodbye behind it
		}}, nil
	}))
	return a
}

// TestConformanceParked sends each case over the network to a parked Callback session.
func TestConformanceParked(t *testing.T) {
	t.Parallel()
	for _, w := range direct {
		t.Run(w.String(), func(t *testing.T) {
			t.Parallel()
			r := parked(t, w)
			for i, c := range conformanceCases() {
				user := fmt.Sprint("user-", i)
				ann := r.connect(t, user)
				eventually(t, func() bool { return r.starts(user) == 1 }, "%s: it should connect", c.name)
				_ = ann.write(c.stream) // it may be cut off
				var pongs, messages []string
				bye := ""
				for _, x := range c.want {
					switch kind, _, _ := strings.Cut(x, ":"); kind {
					case "ping":
						pongs = append(pongs, x)
					case "close":
						bye = x
					default:
						messages = append(messages, x)
					}
				}
				switch {
				case c.code != 0: // what is good in the same packet may be dropped with what is wrong
					require.Equal(t, c.code, ann.ended(), c.name)
					end := r.end(user)
					require.Equal(t, c.code, end.Code, c.name)
					require.Equal(t, presence.CauseProtocolError, end.Cause, c.name)
				case bye != "": // nothing is sent to a client that has said it, but the app gets what came before
					code := ann.ended()
					end := r.end(user)
					require.Equal(t, presence.CauseClientClosed, end.Cause, c.name)
					require.Equal(t, bye, fmt.Sprintf("close:%d %s", end.Code, end.Text), c.name)
					if end.Code != 1005 {
						require.Equal(t, end.Code, code, "%s: a close is answered by its code", c.name)
					}
					eventually(t, func() bool { return len(r.messages(user)) == len(messages) }, "%s: the app gets what came before", c.name)
					requireCalls(t, messages, r.messages(user), c.name)
				default:
					// A message under way ends here; the ping shows that the connection lives.
					ann.send(opPing, []byte("still here?"))
					requirePongs(t, ann, append(pongs, "ping:still here?"), c.name)
					var back []string
					for range messages {
						m := ann.receive()
						back = append(back, map[byte]string{opText: "text:", opBinary: "binary:"}[m.op]+string(m.data))
					}
					requireCalls(t, messages, back, c.name)
					requireCalls(t, messages, r.messages(user), c.name)
				}
				_ = ann.nc.Close()
			}
		})
	}
}

func requirePongs(t *testing.T, c *client, want []string, name string) {
	t.Helper()
	for _, p := range want {
		select {
		case got := <-c.pongs:
			require.Equal(t, p, "ping:"+got, name)
		case <-c.done:
			require.FailNow(t, "no pong", "%s: %v", name, c.err)
		case <-time.After(patience):
			require.FailNow(t, "no pong", name)
		}
	}
}

// Clients with coder's and gorilla's library talk to a parked session as to any server: all sizes, in fragments, with pings, both goodbyes.
func TestLibrariesTalkToParked(t *testing.T) {
	t.Parallel()
	sizes := []int{0, 1, 125, 126, 65535, 65536, conformanceLimit}
	for _, w := range direct {
		t.Run("coder/"+w.String(), func(t *testing.T) {
			t.Parallel()
			r := parked(t, w)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			c := r.libraryAs(t, "ann", nil)
			for _, n := range sizes {
				for _, typ := range []coder.MessageType{coder.MessageText, coder.MessageBinary} {
					want := bytes.Repeat([]byte("x"), n)
					wr, err := c.Writer(ctx, typ) // sends fragments
					require.NoError(t, err)
					for _, b := range [][]byte{want[:n/2], want[n/2:]} {
						_, err = wr.Write(b)
						require.NoError(t, err)
					}
					require.NoError(t, wr.Close())
					got, b, err := c.Read(ctx)
					require.NoError(t, err)
					require.Equal(t, typ, got)
					require.True(t, bytes.Equal(want, b), n)
				}
			}
			reading := c.CloseRead(ctx)
			require.NoError(t, c.Ping(reading))
			require.NoError(t, c.Close(4002, "bye"))
			end := r.end("ann")
			require.Equal(t, 4002, end.Code)
			require.Equal(t, "bye", end.Text)

			c = r.libraryAs(t, "bob", nil)
			require.NoError(t, c.Write(ctx, coder.MessageText, []byte(cmdClose)))
			_, _, err := c.Read(ctx)
			require.Equal(t, coder.StatusCode(4001), coder.CloseStatus(err))
		})
		t.Run("gorilla/"+w.String(), func(t *testing.T) {
			t.Parallel()
			r := parked(t, w)
			dial := func(user string) *gorilla.Conn {
				scheme := "ws://"
				if w.tls {
					scheme = "wss://"
				}
				d := gorilla.Dialer{WriteBufferSize: 300, TLSClientConfig: r.conf} // small: it sends fragments
				c, _, err := d.Dial(scheme+r.addr+"/?user="+user, nil)
				require.NoError(t, err)
				t.Cleanup(func() { _ = c.Close() })
				require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
				return c
			}
			c := dial("ann")
			var pongs []string
			c.SetPongHandler(func(p string) error { pongs = append(pongs, p); return nil })
			for _, n := range sizes {
				for _, typ := range []int{gorilla.TextMessage, gorilla.BinaryMessage} {
					want := bytes.Repeat([]byte("x"), n)
					wr, err := c.NextWriter(typ)
					require.NoError(t, err)
					_, err = wr.Write(want[:n/2])
					require.NoError(t, err)
					require.NoError(t, c.WriteControl(gorilla.PingMessage, []byte("between"), time.Now().Add(patience)))
					_, err = wr.Write(want[n/2:])
					require.NoError(t, err)
					require.NoError(t, wr.Close())
					got, b, err := c.ReadMessage()
					require.NoError(t, err)
					require.Equal(t, typ, got)
					require.True(t, bytes.Equal(want, b), n)
				}
			}
			for len(pongs) < 2*len(sizes) { // a pong may come behind the message that it was sent before
				require.NoError(t, c.WriteMessage(gorilla.TextMessage, nil))
				_, _, err := c.ReadMessage()
				require.NoError(t, err)
			}
			require.Equal(t, "between", pongs[0])
			require.NoError(t, c.WriteControl(gorilla.CloseMessage, gorilla.FormatCloseMessage(4002, "bye"), time.Now().Add(patience)))
			_, _, err := c.ReadMessage()
			require.True(t, gorilla.IsCloseError(err, 4002), err)
			require.Equal(t, 4002, r.end("ann").Code)

			c = dial("bob")
			require.NoError(t, c.WriteMessage(gorilla.TextMessage, []byte(cmdClose)))
			_, _, err = c.ReadMessage()
			require.True(t, gorilla.IsCloseError(err, 4001), err)
		})
	}
}
