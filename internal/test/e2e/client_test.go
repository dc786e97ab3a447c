package e2e

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// handshake connects to a server's HTTPS port as a client that trusts only roots,
// and returns the leaf certificate it was shown.
func (w *world) handshake(n node, name string, roots *x509.CertPool) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: name}}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(n.https)))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// slowly connects to a server's HTTPS port, and returns a function that makes the
// handshake, with the config that the server has now. Caddy may have closed the
// connection by then, which is not an error.
func (w *world) slowly(n node, name string, roots *x509.CertPool) (shake func() error) {
	w.t.Helper()
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(n.https)))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	// Connections are accepted one after the other.
	if _, err := w.handshake(n, name, roots); err != nil {
		w.t.Fatal(err)
	}
	return func() error {
		err := tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: name}).HandshakeContext(w.t.Context())
		if err != nil && !strings.Contains(err.Error(), "remote error") {
			w.t.Logf("a slow handshake was too slow: %v", err)
			return nil
		}
		return err
	}
}

// served waits until the server shows a certificate of the CA for name.
func (s *server) served(name string) *x509.Certificate {
	s.w.t.Helper()
	var leaf *x509.Certificate
	s.w.await("a certificate for "+name+" from "+s.name, func() (err error) {
		if leaf, err = s.w.handshake(s.node, name, s.w.ca.Roots()); err != nil {
			return cmp.Or(s.alive(), err)
		}
		return nil
	})
	return leaf
}

// answer is an HTTP response.
type answer struct {
	status   int
	location string
	body     string
}

// get fetches over plain HTTP, without following redirects.
func (w *world) get(n node, host, path string) answer {
	w.t.Helper()
	a, err := w.tryGet(n, host, path)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

func (w *world) tryGet(n node, host, path string) (answer, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", n.http, path), nil)
	if err != nil {
		return answer{}, err
	}
	req.Host, req.Close = host, true
	return roundTrip(req)
}

func roundTrip(req *http.Request) (answer, error) {
	resp, err := http.DefaultTransport.RoundTrip(req) // a client would follow redirects
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header.Get("Location"), string(body)}, err
}
