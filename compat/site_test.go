package compat

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// A way is how a client reaches the server.
type way struct {
	tls bool
	via string // "direct", "proxy" or "tunnel"
}

func (w way) String() string {
	if w.tls {
		return "tls/" + w.via
	}
	return "tcp/" + w.via
}

var (
	direct = []way{{false, "direct"}, {true, "direct"}}
	ways   = append(direct, way{false, "proxy"}, way{true, "proxy"}, way{false, "tunnel"}, way{true, "tunnel"})
)

// A site is a running server, as its clients see it.
type site struct {
	addr string
	conf *tls.Config // nil: TCP
	http *http.Client
}

// newSite serves h. It ends with the test.
func newSite(t *testing.T, w way, h http.Handler) *site {
	t.Helper()
	srv := serveTest(t, w.tls, h)
	s := &site{addr: srv.Listener.Addr().String(), http: srv.Client()}
	switch w.via {
	case "proxy":
		u, err := url.Parse(srv.URL)
		require.NoError(t, err)
		rp := &httputil.ReverseProxy{
			Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(u); r.Out.Host = r.In.Host },
			Transport: srv.Client().Transport,
		}
		front := serveTest(t, w.tls, rp)
		s.addr, s.http = front.Listener.Addr().String(), front.Client()
	case "tunnel":
		s.addr = tunnel(t, s.addr)
	}
	if w.tls {
		s.conf = s.http.Transport.(*http.Transport).TLSClientConfig.Clone()
		s.conf.ServerName = "127.0.0.1"
	}
	return s
}

func serveTest(t *testing.T, useTLS bool, h http.Handler) *httptest.Server {
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = quiet
	if useTLS {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
	return srv
}

// tunnel copies bytes between its clients and addr, as a TCP load balancer does.
func tunnel(t *testing.T, addr string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	half := func(dst, src net.Conn) {
		defer wg.Done()
		if _, err := io.Copy(dst, src); err != nil { // a reset goes on as a reset
			_ = dst.(*net.TCPConn).SetLinger(0)
			_ = dst.Close()
			_ = src.Close()
			return
		}
		_ = dst.(*net.TCPConn).CloseWrite()
	}
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", addr)
			if err != nil {
				_ = in.Close()
				continue
			}
			mu.Lock()
			conns = append(conns, in, out)
			mu.Unlock()
			wg.Add(2)
			go half(out, in)
			go half(in, out)
		}
	}()
	return ln.Addr().String()
}
