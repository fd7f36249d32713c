package presence

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"net/http"
	"strconv"
	"time"
)

//go:embed client/js/presence.js
var clientJS []byte

const (
	intervalUnknown = "SERVED_INTERVAL = null;"
	intervalKnown   = "SERVED_INTERVAL = "
)

// ClientJS serves presence.js, the client for browsers, as an ES module that
// knows this server's HeartbeatInterval:
//
//	mux.Handle("GET /presence.js", p.ClientJS())
//
//	<script type="module">
//	import { PresenceSocket } from "/presence.js";
//	const socket = new PresenceSocket("/ws");
//
// Browsers keep it and ask before each use whether it has changed.
func (p *Presence) ClientJS() http.Handler {
	interval := strconv.FormatInt(p.opts.HeartbeatInterval.Milliseconds(), 10)
	body := bytes.Replace(clientJS, []byte(intervalUnknown), []byte(intervalKnown+interval+";"), 1)
	sum := sha256.Sum256(body)
	etag := `"` + hex.EncodeToString(sum[:16]) + `"`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/javascript; charset=utf-8")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "public, no-cache")
		h.Set("ETag", etag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	})
}
