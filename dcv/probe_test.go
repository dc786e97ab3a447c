package dcv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

func TestProbe(t *testing.T) {
	s := NewStore()
	ch := challenge(t, "a", "A1.txt", "one\r\ntwo\n", "example.com")
	must(t, s.Present(t.Context(), nil, ch))
	ours := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := &Handler{logger: zap.NewNop()}
		_ = h.serve(s, w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			http.NotFound(w, r)
			return nil
		}))
	})
	answer := func(status int, body string, headers ...string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.UserAgent() != probeUserAgent || r.URL.Path != ch.Path || NormalizeHost(r.Host) != "example.com" {
				t.Errorf("asked for %s %s as %s", r.Host, r.URL, r.UserAgent())
			}
			for i := 0; i < len(headers); i += 2 {
				w.Header().Set(headers[i], headers[i+1])
			}
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		})
	}
	for _, tc := range []struct {
		name    string
		handler http.Handler
		https   bool
		kind    ProbeKind // "" is success
		tells   []string
	}{
		{name: "ours", handler: ours},
		{name: "ours over https", handler: ours, https: true},
		{name: "redirect", handler: answer(308, "", "Location", "https://example.com/x", "Server", "Caddy"), kind: Redirected, tells: []string{"308", "https://example.com/x", "Caddy"}},
		{name: "redirect of evil", handler: answer(301, "", "Location", "http://x/"+strings.Repeat("\u202e", 900)), kind: Redirected, tells: []string{"301"}},
		{name: "cdn", handler: answer(404, "no", "Server", "cloudflare", "CF-RAY", "8f"), kind: WrongStatus, tells: []string{"404", "cloudflare", "CDN"}},
		{name: "proxy", handler: answer(502, "no", "Via", "1.1 varnish"), kind: WrongStatus, tells: []string{"502", "varnish", "proxy"}},
		{name: "other caddy", handler: answer(404, "", "Server", "Caddy"), kind: WrongStatus, tells: []string{"404", "dcv directive"}},
		{name: "other server", handler: answer(200, "<html>\x1b[2Jwelcome", "Server", "nginx"), kind: WrongBody, tells: []string{"<html>.[2Jwelcome", "nginx", "another server"}},
		{name: "empty", handler: answer(200, ""), kind: WrongBody, tells: []string{"empty"}},
		{name: "one byte too many", handler: answer(200, "one\r\ntwo\n\n"), kind: WrongBody},
		{name: "one byte too few", handler: answer(200, "one\r\ntwo"), kind: WrongBody},
		{name: "line feeds only", handler: answer(200, "one\ntwo\n"), kind: WrongBody},
		{name: "endless", handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for _, err := w.Write(make([]byte, 4096)); err == nil; {
				_, err = w.Write(make([]byte, 4096))
			}
		}), kind: WrongBody},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server := httptest.NewUnstartedServer(tc.handler)
			if tc.https {
				server.StartTLS()
			} else {
				server.Start()
			}
			defer server.Close()
			p := &Prober{Port: server.Listener.Addr().(*net.TCPAddr).Port, HTTPS: tc.https, Dial: dialLoopback}
			err := p.Probe(t.Context(), "example.com", ch)
			if tc.kind == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var failed *ProbeError
			if !errors.As(err, &failed) || failed.Kind != tc.kind || !failed.Wrong() || failed.Host != "example.com" {
				t.Fatalf("got %v", err)
			}
			if len(err.Error()) > 700 || strings.ContainsAny(err.Error(), "\x1b\u202e\n") {
				t.Errorf("unsafe to log: %q", err)
			}
			for _, part := range append(tc.tells, failed.URL) {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
		})
	}
	if n := s.VisitCount("a"); n != 0 {
		t.Errorf("probes count as %d visits", n)
	}
}

func TestProbeOfAnotherProtocol(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	defer tls.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, "SSH-2.0-OpenSSH\r\n")
			conn.Close()
		}
	}()
	ch := challenge(t, "a", "a.txt", "one", "example.com")
	for name, tc := range map[string]struct {
		addr  net.Addr
		https bool
	}{"https on http": {plain.Listener.Addr(), true}, "ssh": {ln.Addr(), false}, "ssh for https": {ln.Addr(), true}} {
		p := &Prober{Port: tc.addr.(*net.TCPAddr).Port, HTTPS: tc.https, Dial: dialLoopback}
		var failed *ProbeError
		if err := p.Probe(t.Context(), "example.com", ch); !errors.As(err, &failed) || failed.Kind != WrongBody {
			t.Errorf("%s: got %v", name, err)
		}
	}
	p := &Prober{Port: tls.Listener.Addr().(*net.TCPAddr).Port, Dial: dialLoopback}
	var failed *ProbeError
	if err := p.Probe(t.Context(), "example.com", ch); !errors.As(err, &failed) || failed.Kind != WrongStatus {
		t.Errorf("http on https: got %v", err)
	}
}

// greeting is the connection to a server that has greeted and gone: what is written fails before
// the greeting has been read to its end, which takes until the prober, too, has closed it.
type greeting struct {
	net.Conn
	reading, closed chan struct{}
	closes          atomic.Int32
}

func (g *greeting) Read(p []byte) (int, error) {
	close(g.reading)
	<-g.closed
	return copy(p, "SSH"), io.EOF
}

func (g *greeting) Write([]byte) (int, error) {
	<-g.reading
	return 0, syscall.EPIPE
}

func (g *greeting) Close() error {
	if g.closes.Add(1) == 2 { // the transport was the first
		close(g.closed)
	}
	return nil
}

func TestProbeHearsBehindAFailedWrite(t *testing.T) {
	p := &Prober{Dial: func(context.Context, string, string) (net.Conn, error) {
		return &greeting{reading: make(chan struct{}), closed: make(chan struct{})}, nil
	}}
	var failed *ProbeError
	if err := p.Probe(t.Context(), "example.com", challenge(t, "a", "a.txt", "one", "example.com")); !errors.As(err, &failed) || failed.Kind != WrongBody {
		t.Errorf("got %v", err)
	}
}

func TestProbeUnreachable(t *testing.T) {
	ch := challenge(t, "a", "a.txt", "one", "example.com")
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer silent.Close()
	dialError := func(err error) func(context.Context, string, string) (net.Conn, error) {
		return func(context.Context, string, string) (net.Conn, error) { return nil, err }
	}
	for _, tc := range []struct {
		name   string
		prober Prober
		tells  string
	}{
		{"refused", Prober{Port: freePort(t), Dial: dialLoopback}, "refused"},
		{"silent", Prober{Port: silent.Addr().(*net.TCPAddr).Port, Dial: dialLoopback, Timeout: 50 * time.Millisecond}, "firewall"},
		{"no such name", Prober{Dial: dialError(&net.DNSError{Name: "example.com", IsNotFound: true})}, "A or AAAA"},
		{"resolver", Prober{Dial: dialError(&net.DNSError{Name: "example.com", IsTimeout: true})}, "resolver"},
	} {
		err := tc.prober.Probe(t.Context(), "example.com", ch)
		var failed *ProbeError
		if !errors.As(err, &failed) || failed.Kind != Unreachable || failed.Wrong() || failed.Err == nil {
			t.Errorf("%s: got %v", tc.name, err)
		} else if !strings.Contains(err.Error(), tc.tells) {
			t.Errorf("%s: %q does not say %q", tc.name, err, tc.tells)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var failed *ProbeError
	if err := (&Prober{Port: 1, Dial: dialLoopback}).Probe(ctx, "example.com", ch); !errors.Is(err, context.Canceled) || errors.As(err, &failed) {
		t.Errorf("cancelled: got %v", err)
	}
}

func TestProbeURL(t *testing.T) {
	for want, p := range map[string]Prober{
		"http://example.com":       {},
		"http://example.com:8080":  {Port: 8080},
		"https://example.com":      {HTTPS: true, Port: 443},
		"https://example.com:8443": {HTTPS: true, Port: 8443},
	} {
		if got := p.url("example.com"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got := (&Prober{Port: 8080}).url("2001:db8::1"); got != "http://[2001:db8::1]:8080" {
		t.Errorf("got %s", got)
	}
}

// TestProbeLeavesNoDial: no dial is left behind when nothing answers; the bubble must be empty in
// the end.
func TestProbeLeavesNoDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Prober{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		err := p.Probe(t.Context(), "shop.example.com", challenge(t, "a", "A1.txt", "one", "shop.example.com"))
		if problem, ok := errors.AsType[*ProbeError](err); !ok || problem.Kind != Unreachable {
			t.Errorf("error %v", err)
		}
	})
}
