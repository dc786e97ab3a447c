package e2e

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// origin is what served a site before it was given to this plugin's issuer.
type origin struct {
	title, name string

	// config is that of a server before the switch.
	config func(w *world, n node) string

	// roots are what its visitors trust, once it is served.
	roots func(w *world) (*x509.CertPool, error)

	// restarts is whether a restart leaves anything to serve until the order is done.
	restarts bool
}

const switched = "shop.localhost"

var origins = []origin{
	{"internal", switched, func(w *world, n node) string {
		return w.localGlobals(n) + site(switched, "issuer internal\n")
	}, (*world).localRoots, true},

	{"files", switched, func(w *world, n node) string {
		return w.localGlobals(n) + fmt.Sprintf("%s {\n\ttls %s\n\trespond hello\n}\n", switched, w.ownPair(switched))
	}, (*world).ownRoots, false},

	{"wildcard", switched, func(w *world, n node) string {
		return w.localGlobals(n) + site("*.localhost", "issuer internal\n")
	}, (*world).localRoots, true},
}

// ownPair makes the files of a certificate that an operator has got elsewhere, and returns
// the directive's line for them.
func (w *world) ownPair(name string) string {
	w.t.Helper()
	files := filepath.Join(w.dir, "own.crt") + " " + filepath.Join(w.dir, "own.key")
	if _, err := os.Stat(filepath.Join(w.dir, "own.crt")); err == nil {
		return files
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 1, 0),
		IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		w.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		w.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		"own.crt": {Type: "CERTIFICATE", Bytes: cert}, "own.key": {Type: "PRIVATE KEY", Bytes: pkcs8},
	} {
		if err := os.WriteFile(filepath.Join(w.dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	return files
}

// ownRoots are what trusts the pair of ownPair.
func (w *world) ownRoots() (*x509.CertPool, error) {
	data, err := os.ReadFile(filepath.Join(w.dir, "own.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(data)
	return pool, nil
}

// trusting waits until the servers serve the name as before the switch, and returns what a
// visitor trusts who accepts that and the certificate that is bought.
func (o origin) trusting(w *world, servers ...*server) *x509.CertPool {
	w.t.Helper()
	var roots *x509.CertPool
	for _, s := range servers {
		w.await("what serves "+o.name+" before the switch", func() (err error) {
			if roots, err = o.roots(w); err == nil {
				_, err = w.handshake(s.node, o.name, roots)
			}
			return cmp.Or(s.alive(), err)
		})
	}
	roots.AppendCertsFromPEM(w.ca.RootPEM())
	return roots
}

// TestSwitch: a site that is given to this plugin's issuer is served by what it had until
// the order is done, for as long as that takes, and whatever happens to the config and the
// server meanwhile. No handshake fails.
func TestSwitch(t *testing.T) {
	for _, o := range origins {
		t.Run(o.title, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, neverIssue)
			o.switchOver(w, w.start(o.config(w, w.node)))
		})
	}
}

// TestSwitchFromACME: the same with a certificate that Caddy got by ACME, from a Caddy that
// is such a CA.
func TestSwitchFromACME(t *testing.T) {
	t.Parallel()
	const name = "shop.example.com"
	w, n := newWorld(t, neverIssue), startNamed(t)
	ca := w.localGlobals(w.node) + "acme.localhost {\n\ttls {\n\tissuer internal\n}\n\tacme_server {\n\tresolvers " + n.addr + "\n}\n}\n"
	s := w.start(ca)
	// An issuer wants to read the root when its config is loaded.
	o := origin{title: "ACME", name: "acme.localhost", roots: (*world).localRoots, restarts: true}
	o.trusting(w, s)
	o.name = name
	s.load(ca+site(name, fmt.Sprintf(`issuer acme {
	dir https://acme.localhost:%d/acme/local/directory
	trusted_roots %s
	dns %s
	resolvers %s
}
`, w.node.https, filepath.Join(w.storage, "pki", "authorities", "local", "root.crt"), n.module(keySecret), n.addr)), false)
	o.switchOver(w, s)
}

// switchOver gives the site of a running server to this plugin's issuer.
func (o origin) switchOver(w *world, s *server) {
	w.t.Helper()
	roots := o.trusting(w, s)
	v := w.visit(w.node, o.name, roots)
	config := w.simple(w.node, o.name, "max_wait 1s")
	s.load(config, false)
	s.awaitLog("order placed")
	s.load(config+"# changed\n", true)
	s.load(config+"http://other.localhost {\n\trespond other\n}\n", false)
	w.await("a round of the last config", w.collectedMore(2))
	if o.restarts {
		w.welcome("switch", v)
		s.stop()
		s = w.start(config)
		s.awaitLog("serving initial configuration")
		v = w.visit(w.node, o.name, roots)
		w.await("a round after the restart", w.collectedMore(2))
	}
	w.issueNow()
	leaf := s.served(o.name)
	w.await("the visitor to see it", func() error { return v.sees(leaf) })
	w.welcome("order", v)
	w.charges(1)
	w.nothingForgotten()
	if n := w.ca.Calls("replace"); n != 0 {
		w.t.Errorf("the order was reissued %d times", n)
	}
}

// TestSwitchCluster: the same with two servers on one storage, one after the other.
func TestSwitchCluster(t *testing.T) {
	t.Parallel()
	o := origins[0]
	w, a, b, _ := newCluster(t, neverIssue)
	first := w.startAt(a, o.config(w, a))
	o.trusting(w, first)
	second := w.startAt(b, o.config(w, b))
	roots := o.trusting(w, first, second)

	visitors := []*visitor{w.visit(a, o.name, roots), w.visit(b, o.name, roots)}
	first.load(w.simple(a, o.name, "max_wait 1s"), false)
	first.awaitLog("order placed")
	second.load(w.simple(b, o.name, "max_wait 1s"), false)
	second.load(w.simple(b, o.name, "max_wait 1s"), true)
	w.await("more rounds", w.collectedMore(4))
	w.issueNow()
	leaf := first.served(o.name)
	if !second.served(o.name).Equal(leaf) {
		t.Error("the servers show different certificates")
	}
	for i, v := range visitors {
		w.await("the visitors to see it", func() error { return v.sees(leaf) })
		w.welcome(fmt.Sprintf("server %d", i), v)
	}
	w.charges(1)
	w.nothingForgotten()
}

// collectedMore returns a check that the vendor is asked so many times more.
func (w *world) collectedMore(n int) func() error {
	before := w.ca.Calls("collect")
	return func() error {
		if w.ca.Calls("collect") < before+n {
			return errors.New("the vendor is not asked for the order")
		}
		return nil
	}
}
