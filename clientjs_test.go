package presence_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/stretchr/testify/require"
)

func TestClientJS(t *testing.T) {
	get := func(o presence.Options, method string, headers ...string) *httptest.ResponseRecorder {
		p, err := presence.New(o)
		require.NoError(t, err)
		defer p.Shutdown(t.Context())
		r := httptest.NewRequest(method, "/presence.js", nil)
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		w := httptest.NewRecorder()
		p.ClientJS().ServeHTTP(w, r)
		return w
	}
	w := get(presence.Options{HeartbeatInterval: 12 * time.Second}, "GET")
	require.Equal(t, http.StatusOK, w.Code)
	require.Equal(t, "text/javascript; charset=utf-8", w.Header().Get("Content-Type"))
	require.Equal(t, "public, no-cache", w.Header().Get("Cache-Control"))
	require.Contains(t, w.Body.String(), "SERVED_INTERVAL = 12000;")
	require.NotContains(t, w.Body.String(), "SERVED_INTERVAL = null;")
	etag := w.Header().Get("ETag")
	require.NotEmpty(t, etag)

	same := get(presence.Options{HeartbeatInterval: 12 * time.Second}, "GET", "If-None-Match", etag)
	require.Equal(t, http.StatusNotModified, same.Code)
	require.Zero(t, same.Body.Len())
	other := get(presence.Options{}, "GET", "If-None-Match", etag)
	require.Equal(t, http.StatusOK, other.Code)
	require.Contains(t, other.Body.String(), "SERVED_INTERVAL = 25000;")
	require.Contains(t, get(presence.Options{HeartbeatInterval: -1}, "GET").Body.String(), "SERVED_INTERVAL = 0;")
	require.Zero(t, get(presence.Options{}, "HEAD").Body.Len())
	require.Equal(t, http.StatusMethodNotAllowed, get(presence.Options{}, "POST").Code)
}
