package presence_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/a4cafe1a/presence"
	"github.com/stretchr/testify/require"
)

// byLine reads who it is from the first line.
func byLine(nc net.Conn) (presence.Identity, error) {
	var user string
	_, err := fmt.Fscanln(nc, &user)
	return presence.Identity{User: user}, err
}

func TestAttach(t *testing.T) {
	inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
		client, nc := net.Pipe()
		defer client.Close()
		go io.WriteString(client, "ann\nfirst line\n")
		server, s, err := b.p.Attach(t.Context(), nc, byLine)
		require.NoError(t, err)
		require.Equal(t, "ann", s.User())
		require.Equal(t, 1, b.sessions("ann"))
		lines := make(chan string, 10)
		go func() {
			for scan := bufio.NewScanner(server); scan.Scan(); {
				lines <- scan.Text()
			}
		}()
		require.Equal(t, "first line", <-lines, "what login did not read is still there")
		go fmt.Fprintln(server, "hello", s.User())
		line, err := bufio.NewReader(client).ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "hello ann\n", line, "nothing is added to the stream")

		wait(50 * time.Second)
		go io.WriteString(client, "a sign of life\n")
		require.Equal(t, "a sign of life", <-lines)
		last := time.Now()
		wait(54 * time.Second)
		require.Equal(t, 1, b.sessions("ann"), "any byte is life")
		wait(2 * time.Second)
		e := b.end("ann")
		require.Equal(t, presence.CauseSilent, e.Cause, "quiet for HeartbeatTimeout")
		require.WithinDuration(t, last.Add(55*time.Second), e.at, 3*tick)
		_, err = client.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
	})
}

func TestAttachEnds(t *testing.T) {
	for _, c := range []struct {
		name  string
		do    func(client, server net.Conn, s *presence.Session)
		cause presence.Cause
	}{
		{"the app closes", func(_, server net.Conn, _ *presence.Session) { server.Close() }, presence.CauseAppClosed},
		{"the client hangs up", func(client, _ net.Conn, _ *presence.Session) { client.Close() }, presence.CauseLost},
		{"a kick", func(_, _ net.Conn, s *presence.Session) { s.Disconnect(presence.Reason{}) }, presence.CauseKicked},
		{"it expires", func(_, _ net.Conn, s *presence.Session) { s.SetExpires(time.Now().Add(time.Second)) }, presence.CauseExpired},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
				client, server, s := b.attach("ann")
				defer client.Close()
				failed := make(chan error, 1)
				go func() {
					_, err := server.Read(make([]byte, 1))
					failed <- err
				}()
				synctest.Wait()
				c.do(client, server, s)
				wait(2 * time.Second)
				require.Equal(t, c.cause, b.end("ann").Cause)
				require.Len(t, failed, 1, "the blocked Read fails")
				if err := <-failed; c.cause == presence.CauseKicked {
					var e *presence.End
					require.ErrorAs(t, err, &e)
				}
				b.nothingLeft()
				_, err := client.Write([]byte("x"))
				require.Error(t, err, "closed")
			})
		})
	}
}

func TestAttachTouch(t *testing.T) {
	inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
		client, _, s := b.attach("ann")
		defer client.Close()
		for range 10 {
			wait(50 * time.Second)
			s.Touch()
		}
		require.Equal(t, 1, b.sessions("ann"))
		wait(56 * time.Second)
		require.Equal(t, presence.CauseSilent, b.end("ann").Cause)
	})
}

func TestAttachWithoutLogin(t *testing.T) {
	inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
		client, nc := net.Pipe()
		defer client.Close()
		_, s, err := b.p.Attach(t.Context(), nc, nil)
		require.NoError(t, err)
		require.Equal(t, s.ID(), s.User(), "a user of its own")
		wait(settle)
		require.Equal(t, 1, b.sessions(s.ID()))
	})
}

func TestAttachRefuses(t *testing.T) {
	secret := errors.New("wrong password")
	identify := func(id presence.Identity) func(net.Conn) (presence.Identity, error) {
		return func(net.Conn) (presence.Identity, error) { return id, nil }
	}
	for _, c := range []struct {
		name  string
		login func(net.Conn) (presence.Identity, error)
		want  error
		after time.Duration
	}{
		{"an error", func(net.Conn) (presence.Identity, error) { return presence.Identity{}, secret }, secret, 0},
		{"a silent client", byLine, os.ErrDeadlineExceeded, 10 * time.Second},
		{"a silent client and a login with deadlines of its own", func(nc net.Conn) (presence.Identity, error) {
			_ = nc.SetDeadline(time.Now().Add(time.Hour))
			_ = nc.SetReadDeadline(time.Time{})
			return byLine(nc)
		}, os.ErrDeadlineExceeded, 10 * time.Second},
		{"a client that does not read", func(nc net.Conn) (presence.Identity, error) {
			_, err := io.WriteString(nc, "who are you?\n")
			return presence.Identity{}, err
		}, os.ErrDeadlineExceeded, 10 * time.Second},
		{"a bad name", identify(presence.Identity{User: "\x00"}), presence.ErrLimit, 0},
		{"expired", identify(presence.Identity{User: "ann", Expires: time.Unix(1, 0)}), presence.ErrUnauthorized, 0},
		{"a full user", identify(presence.Identity{User: "full"}), presence.ErrTooMany, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			hooked := atomic.Int32{}
			o := presence.Options{Limits: presence.Limits{PerUser: 1}, OnConnect: func(*presence.Session) { hooked.Add(1) }}
			inBubble(t, o, nil, func(t *testing.T, b *bubble) {
				_, err := b.p.Open(t.Context(), presence.Identity{User: "full"})
				require.NoError(t, err)
				client, nc := net.Pipe()
				defer client.Close()
				start := time.Now()
				_, _, err = b.p.Attach(t.Context(), nc, c.login)
				require.ErrorIs(t, err, c.want)
				if c.after >= 0 {
					require.Equal(t, c.after, time.Since(start))
				}
				wait(2 * time.Second)
				_, err = client.Read(make([]byte, 64))
				require.Error(t, err, "closed")
				sessions, verifying := b.p.PlacesTaken()
				require.EqualValues(t, 1, sessions)
				require.Zero(t, verifying)
				require.EqualValues(t, 1, hooked.Load(), "the other one")
			})
		})
	}
	t.Run("the context ends", func(t *testing.T) {
		inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
			client, nc := net.Pipe()
			defer client.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, _, err := b.p.Attach(ctx, nc, byLine)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			b.nothingLeft()
		})
	})
	t.Run("no place", func(t *testing.T) {
		o := presence.Options{Limits: presence.Limits{Sessions: 1}}
		inBubble(t, o, nil, func(t *testing.T, b *bubble) {
			b.dial("/?user=ann")
			client, nc := net.Pipe()
			_, _, err := b.p.Attach(t.Context(), nc, nil)
			require.ErrorIs(t, err, presence.ErrUnavailable)
			_, err = client.Read(make([]byte, 1))
			require.ErrorIs(t, err, io.EOF, "closed")
		})
	})
}

func TestAttachContextIsForTheCall(t *testing.T) {
	inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
		client, nc := net.Pipe()
		defer client.Close()
		ctx, cancel := context.WithCancel(t.Context())
		go io.WriteString(client, "ann\n")
		_, _, err := b.p.Attach(ctx, nc, byLine)
		require.NoError(t, err)
		cancel()
		wait(time.Second)
		require.Equal(t, 1, b.sessions("ann"))
	})
}

func TestOpen(t *testing.T) {
	t.Run("ends with its context", func(t *testing.T) {
		inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
			ctx, cancel := context.WithCancel(t.Context())
			s, err := b.p.Open(ctx, presence.Identity{User: "ann", Topics: []string{"room"}})
			require.NoError(t, err)
			require.Equal(t, 1, b.sessions("ann"))
			require.Equal(t, []string{"room"}, s.Info().Topics)
			cancel()
			wait(0)
			require.Equal(t, presence.CauseAppClosed, b.end("ann").Cause)
			b.nothingLeft()
		})
	})
	t.Run("silent without Touch", func(t *testing.T) {
		inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
			s, err := b.p.Open(t.Context(), presence.Identity{User: "ann"})
			require.NoError(t, err)
			for range 5 {
				wait(54 * time.Second)
				s.Touch()
			}
			last := time.Now()
			require.Equal(t, 1, b.sessions("ann"))
			wait(56 * time.Second)
			e := b.end("ann")
			require.Equal(t, presence.CauseSilent, e.Cause)
			require.WithinDuration(t, last.Add(55*time.Second), e.at, 3*tick)
		})
	})
	t.Run("without a name", func(t *testing.T) {
		inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
			one, err := b.p.Open(t.Context(), presence.Identity{})
			require.NoError(t, err)
			two, err := b.p.Open(t.Context(), presence.Identity{})
			require.NoError(t, err)
			require.NotEqual(t, one.User(), two.User())
			require.Regexp(t, "^[0-9a-f]{16}$", one.ID())
		})
	})
	t.Run("with a context that has ended", func(t *testing.T) {
		inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if s, err := b.p.Open(ctx, presence.Identity{User: "ann"}); err == nil {
				wait(0)
				require.Error(t, s.Context().Err())
			}
			b.nothingLeft()
		})
	})
	t.Run("forgets its context when it ends", func(t *testing.T) {
		inBubble(t, presence.Options{}, nil, func(t *testing.T, b *bubble) {
			ctx := &counted{Context: t.Context(), done: make(chan struct{})}
			for range 100 {
				s, err := b.p.Open(ctx, presence.Identity{})
				require.NoError(t, err)
				s.Disconnect(presence.Reason{})
			}
			wait(time.Second)
			require.Zero(t, ctx.waiting.Load(), "a context of the server outlives its sessions")
		})
	})
}

// counted counts who waits for it with AfterFunc.
type counted struct {
	context.Context
	done    chan struct{}
	waiting atomic.Int32
}

func (c *counted) Done() <-chan struct{} { return c.done }

func (c *counted) AfterFunc(func()) (stop func() bool) {
	c.waiting.Add(1)
	return func() bool { c.waiting.Add(-1); return true }
}
