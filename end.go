package presence

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/a4cafe1a/presence/store"
)

// Cause says why a session ended, or why a user left a topic.
type Cause = store.Cause

// The causes. See the table in the package documentation for what each looks
// like to the client and whether a grace follows.
const (
	CauseClientClosed  = store.CauseClientClosed  // the client said goodbye
	CauseLost          = store.CauseLost          // the connection broke
	CauseSilent        = store.CauseSilent        // no sign of life in time
	CauseStalled       = store.CauseStalled       // the app does not read
	CauseSlow          = store.CauseSlow          // the client does not read
	CauseIdle          = store.CauseIdle          // alive, but no message of its own
	CauseExpired       = store.CauseExpired       // Identity.Expires has passed
	CauseKicked        = store.CauseKicked        // disconnected by the app
	CauseLimit         = store.CauseLimit         // too many sessions or control frames
	CauseReplaced      = store.CauseReplaced      // by a newer session of the user
	CauseShutdown      = store.CauseShutdown      // the node was shut down
	CauseProtocolError = store.CauseProtocolError // the client broke the protocol
	CauseAppClosed     = store.CauseAppClosed     // the app was done
	CauseAppError      = store.CauseAppError      // the app failed
	CauseLeft          = store.CauseLeft          // left the topic on purpose
	CauseNodeLost      = store.CauseNodeLost      // the node's lease ran out
)

// Close codes that presence sends (RFC 6455 section 7.4; 4000-4999 are for
// applications).
const (
	codeNormal        = 1000
	codeProtocolError = 1002
	codeNoStatus      = 1005
	codeText          = 1007
	codeTooLarge      = 1009
	codeAppError      = 1011
	codeShutdown      = 1012
	codeSlow          = 1013
	codeExpired       = 4401
	codeKicked        = 4403
	codeIdle          = 4408
	codeReplaced      = 4409
	codeLimit         = 4429
)

// End is how a session ended. *End is an error: the library's blocked Read
// returns it, and it is the cause of the session's context.
type End struct {
	Cause Cause
	Code  int           // of the close frame, sent or received; 0: there was none
	Text  string        // its reason
	Quiet time.Duration // how long nothing had been received
}

// String is the cause and the code, if there was one: "kicked (4403)".
func (e End) String() string {
	if e.Code == 0 {
		return string(e.Cause)
	}
	return fmt.Sprintf("%s (%d)", e.Cause, e.Code)
}

// LogValue is what String says, for every slog.Handler, also of *End: one that
// writes JSON would write the fields.
func (e End) LogValue() slog.Value { return slog.StringValue(e.String()) }

// Error says that the session ended, and what String says.
func (e *End) Error() string { return "presence: session ended: " + e.String() }

// Is makes errors.Is(end, net.ErrClosed) and errors.Is(end, ErrEnded) true.
func (e *End) Is(target error) bool { return target == net.ErrClosed || target == ErrEnded }

// status is what a request is answered with whose session the app has ended
// before the upgrade. Clients of presence.v1 stop after 401 and 403.
func (e *End) status() int {
	switch {
	case e.Cause == CauseShutdown:
		return http.StatusServiceUnavailable
	case e.Cause == CauseSlow, e.Cause == CauseAppError:
		return http.StatusInternalServerError
	case e.Code == codeExpired:
		return http.StatusUnauthorized
	case e.Code == codeLimit:
		return http.StatusTooManyRequests
	}
	return http.StatusForbidden
}

// causes are those with which a session can end.
var causes = []Cause{
	CauseClientClosed, CauseLost, CauseSilent, CauseStalled, CauseSlow, CauseIdle, CauseExpired, CauseKicked,
	CauseLimit, CauseReplaced, CauseShutdown, CauseProtocolError, CauseAppClosed, CauseAppError,
}

// graceful says whether a user whose last session ends like this stays in
// state grace for a while, because it may well come back.
func graceful(c Cause) bool {
	switch c {
	case CauseIdle, CauseExpired, CauseKicked, CauseLimit, CauseReplaced, CauseLeft:
		return false
	}
	return true
}

// Reason is what the client of a disconnected session is told.
type Reason struct {
	Code int    // 4000-4999; 0: 4403
	Text string // at most 123 bytes of UTF-8 (RFC 6455 section 5.5)
}

func (r Reason) check() error {
	if r.Code != 0 && (r.Code < 4000 || r.Code > 4999) {
		return fmt.Errorf("%w: close code %d is not within 4000-4999", ErrLimit, r.Code)
	}
	if len(r.Text) > maxReason || !utf8.ValidString(r.Text) {
		return fmt.Errorf("%w: a close reason is at most %d bytes of UTF-8", ErrLimit, maxReason)
	}
	return nil
}

const maxReason = 123

// end makes the best of a reason that was not checked.
func (r Reason) end() End {
	if r.Code < 4000 || r.Code > 4999 {
		r.Code = codeKicked
	}
	return End{Cause: CauseKicked, Code: r.Code, Text: cutText(r.Text)}
}

func cutText(s string) string {
	if len(s) > maxReason {
		s = s[:maxReason]
		for len(s) > 0 && !utf8.ValidString(s) {
			s = s[:len(s)-1]
		}
	}
	if !utf8.ValidString(s) {
		return ""
	}
	return s
}
