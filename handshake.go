package presence

import (
	"crypto/sha1"
	"encoding/base64"
	"net/http"
	"strings"
)

// upgrade answers a handshake (RFC 6455 section 4.2) of Callback, without a
// library's connection, which a quiet session has no use for. It says whether
// the session is live. w leads to the upgrade.
func (m *Mount) upgrade(u *upgrade, w http.ResponseWriter, r *http.Request) bool {
	if r.Header.Get("Sec-WebSocket-Version") != "13" {
		w.Header().Set("Sec-WebSocket-Version", "13")
		m.badHandshake(w, r, "only WebSocket version 13 is spoken here")
		return false
	}
	keys := r.Header.Values("Sec-WebSocket-Key")
	if len(keys) != 1 || !validKey(strings.TrimSpace(keys[0])) {
		m.badHandshake(w, r, "Sec-WebSocket-Key must be 16 bytes in base64, once")
		return false
	}
	h := w.Header()
	h.Set("Upgrade", "websocket")
	h.Set("Connection", "Upgrade")
	h.Set("Sec-WebSocket-Accept", acceptKey(strings.TrimSpace(keys[0])))
	if chosen := m.offer(u, r); chosen != nil {
		h.Set("Sec-WebSocket-Protocol", chosen[0])
	}
	w.WriteHeader(http.StatusSwitchingProtocols)
	if _, _, err := http.NewResponseController(w).Hijack(); err != nil {
		m.p.log.Debug("presence: not accepted", "path", r.URL.Path, "error", err)
		if !u.over && !u.switched { // the 101 was taken back
			m.p.denySealed(w, r)
		}
		return false
	}
	return true
}

func (m *Mount) badHandshake(w http.ResponseWriter, r *http.Request, what string) {
	m.p.answer(w, r, http.StatusBadRequest, http.StatusText(http.StatusBadRequest)+": "+what, what)
}

func validKey(key string) bool {
	b, err := base64.StdEncoding.DecodeString(key)
	return err == nil && len(b) == 16
}

func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // RFC 6455 section 1.3
	return base64.StdEncoding.EncodeToString(sum[:])
}

// isToken says whether s can stand in a list of a header (RFC 9110 section 5.6.2).
func isToken(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// chooseSubprotocol takes the first of ours that the client offers.
func chooseSubprotocol(ours, offers []string) string {
	for _, want := range ours {
		if hasToken(offers, want) {
			return want
		}
	}
	return ""
}
