package presence

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// badIdentity is an identity that breaks a limit. Its text is ours, and may be
// sent.
type badIdentity struct{ error }

func (e *badIdentity) Unwrap() error { return e.error }

// refuse answers with the status of err.
func (p *Presence) refuse(w http.ResponseWriter, r *http.Request, err error) {
	code := http.StatusInternalServerError
	switch {
	case errors.Is(err, context.Canceled) && r.Context().Err() != nil:
		// The client has gone, and it is nobody's fault.
		p.log.Debug("presence: refused", "path", r.URL.Path, "reason", err)
		http.Error(w, http.StatusText(http.StatusServiceUnavailable), http.StatusServiceUnavailable)
		return
	case errors.Is(err, ErrUnauthorized):
		code = http.StatusUnauthorized
	case errors.Is(err, ErrForbidden):
		code = http.StatusForbidden
	case errors.Is(err, ErrTooMany):
		code = http.StatusTooManyRequests
	case errors.Is(err, ErrUnavailable), errors.Is(err, ErrClosed):
		code = http.StatusServiceUnavailable
	case errors.Is(err, ErrUntracked):
		code = http.StatusNotFound
	case errors.Is(err, ErrLimit):
		code = http.StatusBadRequest
	default:
		if errors.Is(err, context.DeadlineExceeded) {
			code = http.StatusServiceUnavailable
		}
		p.log.Error("presence: Identify failed", "path", r.URL.Path, "error", err)
	}
	if code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable {
		after := time.Second
		var ra *retryAfter
		if errors.As(err, &ra) {
			after = ra.after
		}
		w.Header().Set("Retry-After", seconds(after))
	}
	text := http.StatusText(code)
	var bad *badIdentity
	if errors.As(err, &bad) {
		text += strings.TrimPrefix(bad.Error(), ErrLimit.Error())
		if p.saidIdentity.Now() {
			p.log.Warn("presence: Identify returned what breaks a limit", "path", r.URL.Path, "error", bad.error)
		}
	}
	p.answer(w, r, code, text, err)
}

// seconds rounds up, for Retry-After.
func seconds(d time.Duration) string {
	return strconv.Itoa(int((max(d, 0) + time.Second - 1) / time.Second))
}

// answer ends a request that is no upgrade, or gets none, and logs why.
func (p *Presence) answer(w http.ResponseWriter, r *http.Request, code int, text string, reason any) {
	p.countRefused(code)
	p.log.Debug("presence: refused", "path", r.URL.Path, "status", code, "reason", reason)
	http.Error(w, text, code)
}

func (p *Presence) countRefused(code int) {
	if code < http.StatusInternalServerError {
		p.refused4xx.Add(1)
	} else {
		p.refused5xx.Add(1)
	}
}

// deny is answer with no more than the status.
func (p *Presence) deny(w http.ResponseWriter, r *http.Request, code int, reason string) {
	p.answer(w, r, code, http.StatusText(code), reason)
}

// denySealed answers where the connection cannot be had.
func (p *Presence) denySealed(w http.ResponseWriter, r *http.Request) {
	const why = "the http.ResponseWriter cannot be hijacked"
	p.answer(w, r, http.StatusNotImplemented, http.StatusText(http.StatusNotImplemented)+": "+why+"; the log says what is in the way", why)
}

// probe is the media type by which presence.js asks why an upgrade failed: its
// browser does not say. It takes no more rights than an upgrade.
const probe = "application/vnd.presence.probe"

func isProbe(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && hasToken(r.Header["Accept"], probe)
}

// refuseProbe answers where an upgrade would have been refused here.
func (m *Mount) refuseProbe(w http.ResponseWriter, r *http.Request) bool {
	err := m.refusal(r)
	if err == nil || errors.Is(err, ErrUntracked) {
		return false
	}
	w.Header().Set("Cache-Control", "no-store") // others get something else at this URL
	m.p.refuse(w, r, err)
	return true
}

// refusal is what an upgrade would have been refused with, nil for a good one.
func (m *Mount) refusal(r *http.Request) error {
	id, err := m.identify(r)
	if err == nil {
		s := m.p.newSession(&m.set, id)
		if err = m.p.admit(s); err == nil {
			err = m.p.room(r.Context(), s.user)
			s.release()
		}
	}
	return err
}

// answerPlain tells a request that is no upgrade what one would have got.
func (m *Mount) answerPlain(w http.ResponseWriter, r *http.Request) {
	if err := m.refusal(r); err != nil {
		m.p.refuse(w, r, err)
		return
	}
	if r.ProtoMajor == 1 { // HTTP/2 forbids both (RFC 9113 section 8.2.2)
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
	}
	why := whyNoUpgrade(r)
	m.p.answer(w, r, http.StatusUpgradeRequired,
		http.StatusText(http.StatusUpgradeRequired)+": this is a WebSocket; "+why, why)
}
