package e2e

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/test/zerossltest"
	"github.com/caddy-commercial/caddy-commercial/ledger"
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

// ownPair makes the files of a certificate that an operator got elsewhere, and returns
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

// ownRoots trusts the pair of ownPair.
func (w *world) ownRoots() (*x509.CertPool, error) { return trusted(filepath.Join(w.dir, "own.crt")) }

// trusting waits until the servers serve the name as before the switch, and returns the
// roots of a visitor who accepts both that and the certificate that is bought.
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

// TestSwitch: a site that is given to this plugin's issuer is served with what it had
// until the order is done, for as long as that takes, and whatever happens to the config
// and the server meanwhile. No handshake fails.
func TestSwitch(t *testing.T) {
	for _, o := range origins {
		for _, to := range sellers {
			t.Run(o.title+" to "+to.name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, neverIssue)
				o.switchOver(w, w.start(o.config(w, w.node)), to)
			})
		}
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
	// An issuer reads the root when its config is loaded.
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
	o.switchOver(w, s, sellers[0])
}

// TestSwitchFromZeroSSL: the same with a certificate of Caddy's ZeroSSL issuer, from a
// stand-in for its API. What the issuer has stored stays as it is.
func TestSwitchFromZeroSSL(t *testing.T) {
	t.Parallel()
	w := newWorld(t, neverIssue)
	api, err := zerossltest.New(w.node.http, 0)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(api)
	t.Cleanup(srv.Close)
	w.zerossl = srv.URL
	o := origin{title: "ZeroSSL", name: switched, roots: func(w *world) (*x509.CertPool, error) {
		return trusted(filepath.Join(w.storage, "certificates", "zerossl", switched, switched+".crt"))
	}, restarts: true}
	s := w.start(w.localGlobals(w.node) + site(switched, fmt.Sprintf("issuer zerossl key {\n\talt_http_port %d\n}\n", w.node.http)))
	o.trusting(w, s)
	before := w.stored("certificates/zerossl")
	o.switchOver(w, s, sellers[0])
	if after := w.stored("certificates/zerossl"); len(before) != 3 || !maps.Equal(before, after) {
		t.Errorf("the issuer's files were\n%q, and are\n%q", before, after)
	}
}

// stored are the files of a folder of the storage: when they were written, and a hash.
func (w *world) stored(folder string) map[string]string {
	w.t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(filepath.Join(w.storage, folder), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		files[path] = fmt.Sprintf("%s %x", info.ModTime(), sha256.Sum256(data))
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return files
}

// TestSwitchVendor: the same with a certificate that this plugin bought from another
// vendor, or in another account. What was paid for there stays in its ledger, and nobody
// touches it.
func TestSwitchVendor(t *testing.T) {
	racent, digicert, howssl := sellers[0], sellers[1], sellers[2]
	second := racent
	second.options = "account second"
	for title, change := range map[string][2]seller{
		"racent to digicert": {racent, digicert},
		"digicert to howssl": {digicert, howssl},
		"howssl to racent":   {howssl, racent},
		"another account":    {racent, second},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			s := w.start(w.localGlobals(w.node) + site(switched, w.issuerOf(change[0], "")))
			s.served(switched)
			before := w.entries()
			w.update(neverIssue)
			o := origin{title: title, name: switched, roots: func(w *world) (*x509.CertPool, error) {
				pool := x509.NewCertPool()
				pool.AppendCertsFromPEM(w.ca.RootPEM())
				return pool, nil
			}, restarts: true}
			o.switchOver(w, s, change[1])
			after := w.entries()
			if len(before) != 1 || len(after) != 2 {
				t.Fatalf("the ledgers have %d entries before, and %d after", len(before), len(after))
			}
			if !slices.ContainsFunc(after, func(e *ledger.Entry) bool { return reflect.DeepEqual(e, before[0]) }) {
				t.Errorf("the entry of the old order was changed: %+v", after)
			}
		})
	}
}

// switchOver gives the site of a running server to this plugin's issuer, for a vendor.
func (o origin) switchOver(w *world, s *server, to seller) {
	w.t.Helper()
	paid := len(w.ca.Charges())
	roots := o.trusting(w, s)
	v := w.visit(w.node, o.name, roots)
	config := w.localGlobals(w.node) + site(o.name, w.issuerOf(to, "max_wait 1s"))
	s.load(config, false)
	w.await("the order", func() error {
		if len(w.ca.Charges()) == paid {
			return errors.New("nothing is bought")
		}
		return nil
	})
	s.load(config+"# changed\n", true)
	s.load(config+"http://other.localhost {\n\trespond other\n}\n", false)
	w.await("a round of the last config", w.calledMore("", 2))
	if o.restarts {
		w.welcome("switch", v)
		s.stop()
		s = w.start(config)
		s.awaitLog("serving initial configuration")
		v = w.visit(w.node, o.name, roots)
		w.await("a round after the restart", w.calledMore("", 2))
	}
	w.issueNow()
	var leaf *x509.Certificate
	w.await("the certificate to be served", func() (err error) {
		if leaf, err = w.handshake(w.node, o.name, roots); err == nil && !w.newest(leaf) {
			err = errors.New("another one is served")
		}
		return err
	})
	w.await("the visitor to see it", func() error { return v.sees(leaf) })
	w.welcome("order", v)
	w.charges(paid + 1)
	w.nothingForgotten()
	for _, reissue := range []string{"replace", "reissue", "Reissue/submit"} {
		if n := w.ca.Calls(reissue); n != 0 {
			w.t.Errorf("the order was reissued %d times", n)
		}
	}
}

// newest reports whether a certificate belongs to the order that was placed last.
func (w *world) newest(leaf *x509.Certificate) bool {
	newest := slices.MaxFunc(w.entries(), func(a, b *ledger.Entry) int { return a.Paid.Compare(b.Paid) })
	return newest.Certificate != nil && newest.Certificate.Serial == fmt.Sprintf("%x", leaf.SerialNumber)
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
	w.await("more rounds", w.calledMore("", 4))
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

// calledMore returns a check that an endpoint of the vendor is called this many times
// more; the empty one means any of them.
func (w *world) calledMore(endpoint string, n int) func() error {
	before := w.ca.Calls(endpoint)
	return func() error {
		if w.ca.Calls(endpoint) < before+n {
			return errors.New("the order is not polled")
		}
		return nil
	}
}
