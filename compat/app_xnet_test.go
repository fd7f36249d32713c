package compat

import (
	"net/http"

	"golang.org/x/net/websocket"
)

type xnetMessage struct {
	typ byte
	b   []byte
}

// xnetCodec is websocket.Message, but keeps the type of the message.
var xnetCodec = websocket.Codec{
	Marshal: func(v any) ([]byte, byte, error) { m := v.(xnetMessage); return m.b, m.typ, nil },
	Unmarshal: func(b []byte, typ byte, v any) error {
		*v.(*xnetMessage) = xnetMessage{typ, b}
		return nil
	},
}

func xnetApp(w *witness, _ settings) http.Handler {
	return websocket.Server{Handler: func(c *websocket.Conn) {
		w.open()
		for {
			var m xnetMessage
			if err := xnetCodec.Receive(c, &m); err != nil {
				w.readErr(err)
				return
			}
			w.message(m.b)
			if string(m.b) == cmdClose {
				_ = c.Close()
				return
			}
			_ = xnetCodec.Send(c, m)
		}
	}}
}
