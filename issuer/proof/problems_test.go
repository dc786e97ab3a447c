package proof

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/caddy-commercial/caddy-commercial/check"
	"github.com/caddy-commercial/caddy-commercial/dcv"
)

// elsewhere is an internet in which all names of a zone lead to nginx, and forbid the CA.
func elsewhere(tb testing.TB, records ...string) func(*Config) {
	exchange := func(_ context.Context, q *dns.Msg, _ string) (*dns.Msg, error) {
		m := new(dns.Msg)
		m.SetReply(q)
		m.Rcode = dns.RcodeNameError
		for _, line := range records {
			rr, err := dns.NewRR(line)
			if err != nil {
				tb.Error(err)
				continue
			}
			if rr.Header().Name != q.Question[0].Name {
				continue
			}
			m.Rcode = dns.RcodeSuccess
			if rr.Header().Rrtype == q.Question[0].Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
		return m, nil
	}
	dial := func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go func() {
			defer func() { _ = far.Close() }()
			if _, err := http.ReadRequest(bufio.NewReader(far)); err != nil {
				return
			}
			w := httptest.NewRecorder()
			w.Header().Set("Server", "nginx")
			w.WriteHeader(http.StatusNotFound)
			_ = w.Result().Write(far)
		}()
		return near, nil
	}
	return func(c *Config) {
		c.About.AnyName, c.Resolvers, c.Identities = false, []string{"192.0.2.53:53"}, []string{"sectigo.com"}
		c.Exchange, c.Dial = exchange, dial
	}
}

// TestAllProblemsAreTold: the person who fixes a site learns everything that is wrong with it at
// once, and each problem only once.
func TestAllProblemsAreTold(t *testing.T) {
	m, _ := newProver(t, elsewhere(t, "shop.example.com. 60 IN A 203.0.113.2", "example.com. 60 IN A 203.0.113.2",
		`example.com. 60 IN CAA 0 issue "letsencrypt.org"`))
	p := fileProof("problems-1", "x", "shop.example.com", "gone.example.com", "example.com")
	if err := m.Present(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	defer m.CleanUp(t.Context(), p)
	err := m.Wait(t.Context(), p)
	name, isName := errors.AsType[*check.NameError](err)
	forbidden, isForbidden := errors.AsType[*dcv.CAAError](err)
	probe, isProbe := errors.AsType[*dcv.ProbeError](err)
	if !isName || name.Name != "gone.example.com" || !isForbidden || forbidden == nil || !isProbe || probe.Host == "" {
		t.Fatalf("error %v", err)
	}
	text := err.Error()
	for _, word := range []string{"6 problems: 1. gone.example.com does not exist", "probing http://shop.example.com", "probing http://example.com", "nginx"} {
		if !strings.Contains(text, word) {
			t.Errorf("the error does not say %q: %v", word, err)
		}
	}
	if strings.Contains(text, "probing http://gone.example.com") {
		t.Errorf("a name that does not exist was fetched from: %v", err)
	}
}

// TestProblemsEndWithTheContext: what was found before ctx was done is not reported as the cause.
func TestProblemsEndWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := errors.New("another configuration goes on")
	m, _ := newProver(t, func(c *Config) {
		elsewhere(t, "shop.example.com. 60 IN A 203.0.113.2", "example.com. 60 IN SOA a. b. 1 2 3 4 5")(c)
		c.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			cancel(ended)
			<-ctx.Done()
			return nil, ctx.Err()
		}
	})
	p := fileProof("problems-2", "x", "shop.example.com", "gone.example.com")
	if err := m.Present(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	defer m.CleanUp(t.Context(), p)
	if err := m.Wait(ctx, p); err != ended { //nolint:errorlint // it is the cause itself
		t.Errorf("error %v", err)
	}
}
