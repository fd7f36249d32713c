package compat

import (
	"net/http"

	"github.com/olahol/melody"
)

func melodyApp(w *witness, s settings) http.Handler {
	m := melody.New()
	m.Config.MaxMessageSize = 4 * megabyte
	if s.pingPeriod > 0 {
		m.Config.PingPeriod, m.Config.PongWait = s.pingPeriod, s.pongWait
	}
	m.HandleConnect(func(*melody.Session) { w.open() })
	m.HandlePong(func(*melody.Session) { w.pong("") })
	m.HandleError(func(_ *melody.Session, err error) { w.readErr(err) })
	m.HandleMessage(func(c *melody.Session, b []byte) {
		w.message(b)
		if string(b) == cmdClose {
			_ = c.CloseWithMsg(melody.FormatCloseMessage(4001, "enough"))
			return
		}
		_ = c.Write(b)
	})
	m.HandleMessageBinary(func(c *melody.Session, b []byte) {
		w.message(b)
		_ = c.WriteBinary(b)
	})
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { _ = m.HandleRequest(rw, r) })
}
