//go:build unix

package presence_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/a4cafe1a/presence/internal/wstest"
	"github.com/stretchr/testify/require"
)

// site is a server on the loopback network. Its users come from the query.
type site struct {
	t      *testing.T
	p      *presence.Presence
	srv    *httptest.Server
	remote string // its address, where it is another process
	secure bool

	mu       sync.Mutex
	ends     []ended
	sessions map[string]*presence.Session
	conns    map[string]net.Conn // the server's side, by the client's address
}

// siteSetup says what a site is like.
type siteSetup struct {
	presence.Options
	secure bool
	send   int // SO_SNDBUF of the server's sockets, 0: the system's
	recv   int // SO_RCVBUF
	route  func(*presence.Presence) http.Handler
}

// beats are quick, and leave a busy machine time to answer.
func beats() presence.Options {
	return presence.Options{HeartbeatInterval: time.Second, HeartbeatTimeout: 4 * time.Second}
}

// noBeats keep heartbeats out of a test.
func noBeats() presence.Options {
	return presence.Options{HeartbeatInterval: time.Minute, HeartbeatTimeout: 2 * time.Minute}
}

// opened is a site without a server; it keeps what the hooks say.
func opened(t *testing.T, o presence.Options) *site {
	t.Helper()
	s := &site{t: t, sessions: map[string]*presence.Session{}, conns: map[string]net.Conn{}}
	if o.Identify == nil {
		o.Identify = byQuery
	}
	if o.CloseTimeout == 0 {
		o.CloseTimeout = 10 * time.Second // of which a busy machine may need some, and none else
	}
	o.OnConnect = func(x *presence.Session) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.sessions[x.User()] = x
	}
	o.OnDisconnect = func(x *presence.Session, e presence.End) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ends = append(s.ends, ended{x.User(), x.ID(), time.Now(), e})
	}
	var err error
	s.p, err = presence.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.shutdown()) })
	return s
}

func newSite(t *testing.T, c siteSetup) *site {
	t.Helper()
	s := opened(t, c.Options)
	s.secure = c.secure
	handler := s.p.Handler(drop)
	if c.route != nil {
		handler = c.route(s.p)
	}
	s.srv = httptest.NewUnstartedServer(handler)
	s.srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.srv.Config.ConnContext = func(ctx context.Context, nc net.Conn) context.Context {
		tcp := tcpOf(nc)
		if c.send > 0 {
			_ = tcp.SetWriteBuffer(c.send)
		}
		if c.recv > 0 {
			_ = tcp.SetReadBuffer(c.recv)
		}
		s.mu.Lock()
		s.conns[nc.RemoteAddr().String()] = tcp
		s.mu.Unlock()
		return ctx
	}
	if c.secure {
		s.srv.StartTLS()
	} else {
		s.srv.Start()
	}
	t.Cleanup(s.srv.Close)
	return s
}

func tcpOf(nc net.Conn) *net.TCPConn {
	if secure, ok := nc.(*tls.Conn); ok {
		nc = secure.NetConn()
	}
	return nc.(*net.TCPConn)
}

func (s *site) shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return s.p.Shutdown(ctx)
}

func (s *site) addr() string {
	if s.srv == nil {
		return s.remote
	}
	return s.srv.Listener.Addr().String()
}

// conn connects a client, with TLS on a secure site.
func (s *site) conn() net.Conn {
	s.t.Helper()
	nc, err := net.Dial("tcp", s.addr())
	require.NoError(s.t, err)
	return s.client(nc)
}

func (s *site) client(nc net.Conn) net.Conn {
	s.t.Helper()
	s.t.Cleanup(func() { nc.Close() })
	if !s.secure {
		return nc
	}
	secure := tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	require.NoError(s.t, secure.Handshake())
	return secure
}

// slowConn connects a client whose network brings at most so much in each
// pause. Its receive buffer is small, and its segments are those of an
// Ethernet, because the loopback network's are larger than such a buffer.
func (s *site) slowConn(most int, pause time.Duration) (net.Conn, *paced) {
	s.t.Helper()
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error { return smallReceive(raw, 8<<10) }}
	nc, err := d.Dial("tcp", s.addr())
	require.NoError(s.t, err)
	slow := &paced{Conn: nc, most: most, pause: pause}
	return s.client(slow), slow
}

// dial connects a client that answers, and waits until it is live.
func (s *site) dial(user string) *wstest.Client {
	s.t.Helper()
	return s.dialOn(s.conn(), user)
}

func (s *site) dialOn(nc net.Conn, user string) *wstest.Client {
	s.t.Helper()
	c, err := wstest.Dial(nc, "/?user="+user)
	require.NoError(s.t, err)
	s.connected(user)
	return c
}

// prove shakes hands and answers the first ping. Nobody reads from then on.
func prove(t testing.TB, nc net.Conn, path string) {
	_, err := io.WriteString(nc, wstest.Request(path))
	require.NoError(t, err)
	var buf [1024]byte
	for got := 0; !bytes.HasSuffix(buf[:got], []byte("\r\n\r\n\x89\x00")); { // the answer and the ping
		n, err := nc.Read(buf[got:])
		require.NoError(t, err)
		got += n
	}
	_, err = nc.Write(wstest.Masked(0x80|wstest.Pong, nil))
	require.NoError(t, err)
}

// connected waits until the user's session is live.
func (s *site) connected(user string) *presence.Session {
	s.t.Helper()
	var x *presence.Session
	eventually(s.t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		x = s.sessions[user]
		return x != nil
	}, "%s should connect", user)
	return x
}

func (s *site) count(user string) int {
	s.t.Helper()
	infos, err := s.p.Sessions(context.Background(), user)
	require.NoError(s.t, err)
	return len(infos)
}

// told returns how the user's session ended, if it has.
func (s *site) told(user string) (e ended, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.ends {
		if e.user == user {
			return e, true
		}
	}
	return e, false
}

// end waits for the end of the user's session, which no query knows then.
func (s *site) end(user string) (e ended) {
	s.t.Helper()
	eventually(s.t, func() (ok bool) { e, ok = s.told(user); return ok }, "the session of %s should end", user)
	require.Zero(s.t, s.count(user))
	return e
}

// stays makes sure that the user's session is the one that came.
func (s *site) stays(user string) {
	s.t.Helper()
	e, over := s.told(user)
	require.False(s.t, over, "%s is alive, but was ended: %v, quiet for %v", user, e.Cause, e.Quiet)
	require.Equal(s.t, 1, s.count(user))
}

// closed says whether the server has closed its socket to that client.
func (s *site) closed(client net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	raw, err := s.conns[client.LocalAddr().String()].(*net.TCPConn).SyscallConn()
	return err != nil || raw.Control(func(uintptr) {}) != nil
}

// code waits for the close frame.
func code(t *testing.T, c *wstest.Client) int {
	t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		select {
		case f, ok := <-c.Frames:
			if !ok {
				require.Failf(t, "no close frame", "the connection ended with: %v", c.Err)
			}
			if f.Op == wstest.Close {
				return f.Code()
			}
		case <-late.C:
			require.Fail(t, "no close frame")
		}
	}
}

// message waits for the next message.
func message(t *testing.T, c *wstest.Client) string {
	t.Helper()
	select {
	case f, ok := <-c.Frames:
		if !ok { // c.Err is being written until then
			require.Failf(t, "no message", "the connection ended with: %v", c.Err)
		}
		require.NotEqual(t, byte(wstest.Close), f.Op, "closed: %d", f.Code())
		return string(f.Payload)
	case <-time.After(patience):
		require.Fail(t, "no message")
		return ""
	}
}

// beaten waits until each client has got n more heartbeats.
func beaten(t *testing.T, n int64, clients ...*wstest.Client) {
	t.Helper()
	want := make([]int64, len(clients))
	for i, c := range clients {
		want[i] = c.Pings.Load() + n
	}
	for i, c := range clients {
		eventually(t, func() bool { return c.Pings.Load() >= want[i] }, "there should be %d heartbeats", n)
	}
}

// overBoth runs f over TCP and over TLS.
func overBoth(t *testing.T, f func(t *testing.T, secure bool)) {
	t.Parallel()
	for name, secure := range map[string]bool{"tcp": false, "tls": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, secure)
		})
	}
}

// deaf is an app that never reads and only waits for the end.
func deaf(ctx context.Context, c *presence.Conn) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// paced is a connection whose reader takes a little at a time, and nothing
// more once it is held.
type paced struct {
	net.Conn
	most  int
	pause time.Duration
	taken atomic.Int64
	last  atomic.Int64 // when it took something, in nanoseconds
	held  atomic.Bool
}

func (c *paced) Read(p []byte) (int, error) {
	time.Sleep(c.pause)
	if c.held.Load() {
		return 0, io.ErrNoProgress
	}
	n, err := c.Conn.Read(p[:min(len(p), c.most)])
	c.taken.Add(int64(n))
	c.last.Store(time.Now().UnixNano())
	return n, err
}
