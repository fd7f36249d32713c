package compat

import (
	"net/http"
	"time"

	"github.com/gorilla/websocket"
)

func gorillaApp(w *witness, s settings) http.Handler {
	upgrader := websocket.Upgrader{EnableCompression: s.deflate}
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		c, err := upgrader.Upgrade(rw, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		w.open()
		c.SetPongHandler(func(p string) error {
			w.pong(p)
			return c.WriteMessage(websocket.TextMessage, []byte(sawPong))
		})
		for {
			typ, b, err := c.ReadMessage()
			if err != nil {
				w.readErr(err)
				return
			}
			w.message(b)
			switch string(b) {
			case cmdClose:
				_ = c.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(4001, "enough"))
				return
			case cmdPing:
				_ = c.WriteControl(websocket.PingMessage, []byte("mine"), time.Now().Add(10*time.Second))
			case cmdPingEmpty:
				_ = c.WriteControl(websocket.PingMessage, nil, time.Now().Add(10*time.Second))
			case cmdDrip:
				mw, err := c.NextWriter(websocket.BinaryMessage)
				if err == nil && drip(mw, s.pause) == nil {
					_ = mw.Close()
				}
			default:
				_ = c.WriteMessage(typ, b)
			}
		}
	})
}
