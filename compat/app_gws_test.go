package compat

import (
	"net/http"

	"github.com/lxzan/gws"
)

func gwsApp(w *witness, s settings) http.Handler {
	upgrader := gws.NewUpgrader(&gwsHandler{w: w, s: s}, &gws.ServerOption{
		PermessageDeflate: gws.PermessageDeflate{
			Enabled:               s.deflate || s.takeover,
			ServerContextTakeover: s.takeover,
			ClientContextTakeover: s.takeover,
			ServerMaxWindowBits:   15, // others know no smaller window
			ClientMaxWindowBits:   15,
		},
	})
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		c, err := upgrader.Upgrade(rw, r)
		if err != nil {
			return
		}
		go c.ReadLoop()
	})
}

type gwsHandler struct {
	gws.BuiltinEventHandler
	w *witness
	s settings
}

func (h *gwsHandler) OnOpen(*gws.Conn)               { h.w.open() }
func (h *gwsHandler) OnClose(_ *gws.Conn, err error) { h.w.readErr(err) }
func (h *gwsHandler) OnPing(c *gws.Conn, p []byte)   { _ = c.WritePong(p) }
func (h *gwsHandler) OnPong(c *gws.Conn, p []byte)   { h.w.pong(string(p)); _ = c.WriteString(sawPong) }
func (h *gwsHandler) OnMessage(c *gws.Conn, m *gws.Message) {
	defer func() { _ = m.Close() }()
	b := m.Bytes()
	h.w.message(b)
	switch string(b) {
	case cmdClose:
		_ = c.WriteClose(4001, []byte("enough"))
	case cmdPing:
		_ = c.WritePing([]byte("mine"))
	case cmdPingEmpty:
		_ = c.WritePing(nil)
	case cmdDrip:
		_ = c.WriteFile(gws.OpcodeBinary, newDripReader(h.s.pause))
	default:
		_ = c.WriteMessage(m.Opcode, b)
	}
}
