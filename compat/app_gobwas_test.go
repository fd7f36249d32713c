package compat

import (
	"errors"
	"io"
	"net/http"

	"github.com/gobwas/ws"
)

func gobwasApp(w *witness, s settings) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		c, _, _, err := ws.UpgradeHTTP(r, rw)
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		w.open()
		var typ ws.OpCode
		var msg []byte
		for {
			f, err := gobwasFrame(c)
			if err != nil {
				w.readErr(err)
				return
			}
			switch f.Header.OpCode {
			case ws.OpPing:
				_ = ws.WriteFrame(c, ws.NewPongFrame(f.Payload))
				continue
			case ws.OpPong:
				w.pong(string(f.Payload))
				_ = ws.WriteFrame(c, ws.NewTextFrame([]byte(sawPong)))
				continue
			case ws.OpClose:
				_ = ws.WriteFrame(c, ws.NewCloseFrame(f.Payload))
				return
			case ws.OpContinuation:
				msg = append(msg, f.Payload...)
			default:
				typ, msg = f.Header.OpCode, f.Payload
			}
			if !f.Header.Fin {
				continue
			}
			w.message(msg)
			switch string(msg) {
			case cmdClose:
				_ = ws.WriteFrame(c, ws.NewCloseFrame(ws.NewCloseFrameBody(4001, "enough")))
				return
			case cmdPing:
				_ = ws.WriteFrame(c, ws.NewPingFrame([]byte("mine")))
			case cmdPingEmpty:
				_ = ws.WriteFrame(c, ws.NewPingFrame(nil))
			case cmdDrip:
				fw := &gobwasFragments{w: c, op: ws.OpBinary}
				_ = drip(fw, s.pause)
				_ = ws.WriteFrame(c, ws.NewFrame(ws.OpContinuation, true, nil))
			default:
				_ = ws.WriteFrame(c, ws.NewFrame(typ, true, msg))
			}
		}
	})
}

// gobwasFragments writes each piece as a fragment of one message.
type gobwasFragments struct {
	w  io.Writer
	op ws.OpCode
}

func (g *gobwasFragments) Write(b []byte) (int, error) {
	err := ws.WriteFrame(g.w, ws.NewFrame(g.op, false, b))
	g.op = ws.OpContinuation
	return len(b), err
}

func gobwasFrame(r io.Reader) (f ws.Frame, err error) {
	if f.Header, err = ws.ReadHeader(r); err != nil {
		return
	}
	if f.Header.Length > 4*megabyte {
		return f, errors.New("too long")
	}
	f.Payload = make([]byte, f.Header.Length)
	_, err = io.ReadFull(r, f.Payload)
	return ws.UnmaskFrameInPlace(f), err
}
