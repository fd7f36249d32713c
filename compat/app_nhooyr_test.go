package compat

import (
	"net/http"

	"nhooyr.io/websocket" // deprecated in favour of coder/websocket; many apps still import it
)

func nhooyrApp(w *witness, s settings) http.Handler {
	mode := websocket.CompressionDisabled
	switch {
	case s.takeover:
		mode = websocket.CompressionContextTakeover
	case s.deflate:
		mode = websocket.CompressionNoContextTakeover
	}
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(rw, r, &websocket.AcceptOptions{
			CompressionMode: mode,
		})
		if err != nil {
			return
		}
		defer c.CloseNow()
		w.open()
		c.SetReadLimit(4 * megabyte)
		ctx := r.Context()
		for {
			typ, b, err := c.Read(ctx)
			if err != nil {
				w.readErr(err)
				return
			}
			w.message(b)
			switch string(b) {
			case cmdClose:
				_ = c.Close(4001, "enough")
				return
			case cmdPing, cmdPingEmpty: // the library numbers its pings
				go func() {
					if c.Ping(ctx) == nil {
						_ = c.Write(ctx, websocket.MessageText, []byte(sawPong))
					}
				}()
			case cmdDrip:
				mw, err := c.Writer(ctx, websocket.MessageBinary)
				if err == nil && drip(mw, s.pause) == nil {
					_ = mw.Close()
				}
			default:
				_ = c.Write(ctx, typ, b)
			}
		}
	})
}
