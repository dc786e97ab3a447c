package e2e

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
)

// newDNSWorld is a world whose CA can only look up DNS records.
func newDNSWorld(t *testing.T, change func(*hostile.Config)) (*world, *nameServer) {
	t.Helper()
	n := startNamed(t)
	w := newWorld(t, func(c *hostile.Config) {
		n.lookUp(c)
		c.Transport = noWeb{}
		if change != nil {
			change(c)
		}
	})
	return w, n
}

// noWeb is a network where no file can be fetched.
type noWeb struct{}

func (noWeb) RoundTrip(*http.Request) (*http.Response, error) { return nil, syscall.ECONNREFUSED }

// provenBy fails unless all names of all orders were proven by the method.
func (w *world) provenBy(method string) {
	w.t.Helper()
	for _, o := range w.ca.Orders() {
		for i, m := range o.Methods {
			if m != method {
				w.t.Errorf("%s of order %s was to be proven by %s", o.Names[i], o.ID, m)
			}
		}
	}
}

// TestDNSWildcard: a wildcard, which no file could prove, gets its certificate, and
// nothing is left in the zone.
func TestDNSWildcard(t *testing.T) {
	t.Parallel()
	w, n := newDNSWorld(t, nil)
	s := w.start(w.localGlobals(w.node) + site("*.example.com",
		strings.Replace(w.issuer(n.dcv(keySecret)), "product comodo-positivessl\n", "product comodo-positivessl-wildcard\n", 1)))
	leaf := s.served("shop.example.com")
	if leaf.Subject.CommonName != "*.example.com" {
		t.Errorf("the common name is %q", leaf.Subject.CommonName)
	}
	w.charges(1)
	w.provenBy("cname")
	w.nothingForgotten()
	w.clean(n)
	for _, f := range w.ca.Fetches() {
		if f.Result != hostile.ResultOK {
			t.Errorf("the CA looked up %s in vain: %s", f.URL, f.Result)
		}
	}
	for _, e := range s.errors() {
		t.Errorf("the log has an error: %s", e.raw)
	}
}

// TestDNSSeveralNames: each name of an order is proven by a record of its own, and the
// apex that the CA adds to a www name as well.
func TestDNSSeveralNames(t *testing.T) {
	t.Parallel()
	w, n := newDNSWorld(t, func(c *hostile.Config) { c.Quirks.NoTwin = false })
	s := w.start(w.localGlobals(w.node) + site("www.example.com", w.issuer(n.dcv(keySecret))))
	leaf := s.served("www.example.com")
	if err := leaf.VerifyHostname("example.com"); err != nil {
		t.Errorf("the apex is not covered: %v", err)
	}
	w.charges(1)
	w.clean(n)
}

// TestDNSWithoutServers: a host that has no HTTP server, and whose ports cannot be
// reached, gets its certificate all the same.
func TestDNSWithoutServers(t *testing.T) {
	t.Parallel()
	const name = "shop.example.com"
	w, n := newDNSWorld(t, neverIssue)
	config := strings.Replace(w.tlsAppAlone(name), `"probe":"strict"`, fmt.Sprintf(
		`"probe":"strict","dcv":{"method":"dns","resolvers":[%q],"provider":{"name":"e2e_update","server":%q,"key_name":%q,"secret":%q}}`,
		n.addr, n.addr, keyName, keySecret), 1)
	s := w.launch(w.node, "caddy.json", config)
	s.awaitLog("order placed")
	if _, err := w.tryGet(w.node, name, "/"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("asking the HTTP port gives %v, want it closed", err)
	}
	w.issueNow()
	w.await("the certificate", func() error {
		files, err := filepath.Glob(filepath.Join(w.storage, "certificates", "*", name, name+".crt"))
		if err == nil && len(files) == 0 {
			err = errors.New("no certificate in the storage")
		}
		if err != nil {
			return cmp.Or(s.alive(), err)
		}
		return nil
	})
	w.charges(1)
	w.provenBy("cname")
	w.clean(n)
}

// TestDNSRestart: the record of a pending order is there exactly once, whatever happens
// to the server, and the server that gets the certificate removes it.
func TestDNSRestart(t *testing.T) {
	for title, interrupt := range map[string]func(s *server, config string) *server{
		"reloaded": func(s *server, config string) *server {
			s.load(config, true)
			return s
		},
		"stopped": func(s *server, config string) *server {
			s.stop()
			return s.w.start(config)
		},
		"killed": func(s *server, config string) *server {
			s.kill()
			return s.w.start(config)
		},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			const name = "shop.example.com"
			w, n := newDNSWorld(t, neverIssue)
			config := w.localGlobals(w.node) + site(name, w.issuer(n.dcv(keySecret)))
			s := w.start(config)
			s.awaitLog("order placed")
			before := n.proofs()
			if len(before) != 1 {
				t.Fatalf("a pending order of one name has the records %q", before)
			}
			collected := w.ca.Calls("collect")
			s = interrupt(s, config)
			w.await("the order to be polled again", func() error {
				if w.ca.Calls("collect") < collected+3 {
					return cmp.Or(s.alive(), errors.New("it is not"))
				}
				return nil
			})
			if after := n.proofs(); len(after) != 1 || after[0] != before[0] {
				t.Errorf("the records were %q and are %q now", before, after)
			}
			w.issueNow()
			s.served(name)
			w.charges(1)
			w.nothingForgotten()
			w.clean(n)
		})
	}
}

// TestDNSRefused: nothing is bought if the record cannot be added, or cannot be seen.
func TestDNSRefused(t *testing.T) {
	const name = "shop.example.com"
	for title, tt := range map[string]struct {
		name  string
		issue func(n *nameServer) string
		want  string
	}{
		"wrong key": {name, func(n *nameServer) string {
			return n.dcv(base64.StdEncoding.EncodeToString([]byte("another key of the same length!!")))
		}, "listing the records of the zone example.com"},
		"foreign zone": {"shop.example.net", func(n *nameServer) string { return n.dcv(keySecret) }, "finding the DNS zone of"},
		"nobody to ask": {name, func(n *nameServer) string {
			return strings.Replace(n.dcv(keySecret), "resolvers "+n.addr, "resolvers 127.0.0.1:1", 1)
		}, "finding the DNS zone of"},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w, n := newDNSWorld(t, nil)
			s := w.start(w.localGlobals(w.node) + site(tt.name, w.issuer(tt.issue(n))))
			s.awaitEntry("the refusal", func(e logEntry) bool { return e.Level == "error" && strings.Contains(e.raw, tt.want) })
			w.charges(0)
			if got := n.proofs(); len(got) > 0 {
				t.Errorf("records were added: %q", got)
			}
		})
	}
}

// TestDNSRandomValues: records of both types whose value is known only after the paid
// order, next to records of others, and at a delegated name. The provider is the one that
// is set for all issuers.
func TestDNSRandomValues(t *testing.T) {
	for title, tt := range map[string]struct {
		address, name, product, record, option string
	}{
		"TXT":            {"shop.example.com", "shop.example.com", "ssl_dv_rapidssl", "txt", ""},
		"CNAME":          {"*.example.com", "any.example.com", "wildcard_dv_rapidssl", "cname", ""},
		"TXT, delegated": {"delegated.example.com", "delegated.example.com", "ssl_dv_rapidssl", "txt", "override_domain proofs.example.com"},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w, n := newDNSWorld(t, nil)
			s := w.start(w.localGlobals(w.node, "dns "+n.module(keySecret), "tls_resolvers "+n.addr) +
				site(tt.address, fmt.Sprintf(`issuer commercial {
	vendor digicert {env.E2E_TOKEN} {
		endpoint %s
		test_service
		dns_record %s
	}
	product %s
	dcv dns
	poll 50ms 1s
	probe strict
	%s
}
`, strings.TrimSuffix(w.api, "/ssl")+"/services/v2", tt.record, tt.product, tt.option)))
			s.served(tt.name)
			w.charges(1)
			w.provenBy(tt.record)
			w.clean(n)
			for _, e := range s.errors() {
				t.Errorf("the log has an error: %s", e.raw)
			}
		})
	}
}
