package app

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
)

// loadManual loads a certificate as Caddy loads the operator's files.
func loadManual(t testing.TB, magic *certmagic.Config, chain []byte, key crypto.PrivateKey) (hash string) {
	t.Helper()
	keyPEM, err := certmagic.PEMEncodePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if hash, err = magic.CacheUnmanagedCertificatePEMBytes(t.Context(), chain, keyPEM, nil); err != nil {
		t.Fatal(err)
	}
	return hash
}

// take takes stopgaps, and fails unless that many were taken.
func take(t *testing.T, magic *certmagic.Config, want int, names ...string) {
	t.Helper()
	if got := TakeStopgaps(t.Context(), magic, "ours", names); got != want {
		t.Errorf("%d stopgaps, want %d", got, want)
	}
}

// ourMagic is the config after the switch.
func ourMagic(t *testing.T) *certmagic.Config {
	return newMagic(t, certmagic.Config{Issuers: []certmagic.Issuer{&issuer{key: "ours", err: errors.New("not yet")}}}, certmagic.CacheOptions{})
}

// TestStopgapOfTheSameCertificate: a site was served from files, whose certificate was imported, so
// it is in the storage, too. certmagic does not add it beside the loaded one, and Caddy drops that
// one. Then only a stopgap serves the site, and the stored certificate has to be loaded.
func TestStopgapOfTheSameCertificate(t *testing.T) {
	magic, ca, key := ourMagic(t), newCA(t, "before"), newKey(t)
	chain := ca.sign(t, key.Public(), year, "a.example.com")
	hash := loadManual(t, magic, chain, key)
	if err := Deliver(t.Context(), magic, "ours", "a.example.com", key, &certmagic.IssuedCertificate{Certificate: chain}); err != nil {
		t.Fatal(err)
	}
	if cachedOf(cacheOf(magic), "a.example.com", "ours") {
		t.Fatal("certmagic adds it beside the loaded one; this test is useless")
	}
	take(t, magic, 1, "a.example.com")
	cacheOf(magic).Remove([]string{hash})
	wantServed(t, magic, "a.example.com", chain)
	if served := Served(magic, "a.example.com"); len(served) != 0 {
		t.Errorf("%d certificates are served, beside the stopgap", len(served))
	}
	if !IsServed(magic, "a.example.com") || IsServed(magic, "b.example.com") {
		t.Error("the name of the stopgap, and only that one, must be served")
	}
	if err := Reload(t.Context(), magic, "ours", "a.example.com"); err != nil {
		t.Fatal(err)
	}
	wantServed(t, magic, "a.example.com", chain)
	if !cachedOf(cacheOf(magic), "a.example.com", "ours") || len(Served(magic, "a.example.com")) != 1 {
		t.Error("it is not maintained")
	}
}

// TestStopgap: what served the name before the switch serves it until our certificate is there, and
// no longer.
func TestStopgap(t *testing.T) {
	ca := newCA(t, "before")
	for what, before := range map[string]func(t *testing.T, magic *certmagic.Config) (chain []byte, remove func()){
		"managed": func(t *testing.T, magic *certmagic.Config) ([]byte, func()) {
			chain := deliver(t, magic, ca, "internal", "a.example.com", year)
			return chain, func() {
				cacheOf(magic).RemoveManaged([]certmagic.SubjectIssuer{{Subject: "a.example.com", IssuerKey: "internal"}})
			}
		},
		"manual": func(t *testing.T, magic *certmagic.Config) ([]byte, func()) {
			key := newKey(t)
			chain := ca.sign(t, key.Public(), year, "www.example.net", "a.example.com", "mail.example.net")
			hash := loadManual(t, magic, chain, key)
			return chain, func() { cacheOf(magic).Remove([]string{hash}) }
		},
		"wildcard": func(t *testing.T, magic *certmagic.Config) ([]byte, func()) {
			chain := deliver(t, magic, ca, "internal", "*.example.com", year)
			return chain, func() {
				cacheOf(magic).RemoveManaged([]certmagic.SubjectIssuer{{Subject: "*.example.com", IssuerKey: "internal"}})
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			magic := ourMagic(t)
			chain, remove := before(t, magic)
			take(t, magic, 1, "a.example.com", "nobody.example.org")
			take(t, magic, 0, "a.example.com")
			remove()
			wantServed(t, magic, "a.example.com", chain)
			if leaf, err := handshake(magic, "www.example.net"); err == nil {
				t.Errorf("the stopgap serves another name, with %v", leaf.DNSNames)
			}
			if leaf, err := handshake(magic, "b.example.com"); err == nil {
				t.Errorf("the stopgap serves another name, with %v", leaf.DNSNames)
			}
			own := deliver(t, magic, newCA(t, "ours"), "ours", "a.example.com", year)
			wantServed(t, magic, "a.example.com", own)
			if got := len(cachedFor(cacheOf(magic), "a.example.com")); got != 1 {
				t.Errorf("%d certificates in the cache", got)
			}
			take(t, magic, 0, "a.example.com")
		})
	}
	t.Run("wildcard to wildcard", func(t *testing.T) {
		magic := ourMagic(t)
		chain := deliver(t, magic, ca, "internal", "*.example.com", year)
		take(t, magic, 1, "*.example.com")
		cacheOf(magic).RemoveManaged([]certmagic.SubjectIssuer{{Subject: "*.example.com"}})
		wantServed(t, magic, "a.example.com", chain)
		own := deliver(t, magic, newCA(t, "ours"), "ours", "*.example.com", year)
		wantServed(t, magic, "a.example.com", own)
	})
	t.Run("wildcard to many names", func(t *testing.T) {
		magic := ourMagic(t)
		chain := deliver(t, magic, ca, "internal", "*.example.com", year)
		names := []string{"*.example.com", "a.example.com", "b.example.com", "c.example.com"}
		take(t, magic, len(names), names...)
		cacheOf(magic).RemoveManaged([]certmagic.SubjectIssuer{{Subject: "*.example.com"}})
		for _, name := range names[1:] {
			wantServed(t, magic, name, chain)
			wantServed(t, magic, name, deliver(t, magic, newCA(t, "ours"), "ours", name, year))
		}
		wantServed(t, magic, "d.example.com", chain)
	})
	t.Run("name to wildcard", func(t *testing.T) { // it would not cover the wildcard
		magic := ourMagic(t)
		deliver(t, magic, ca, "internal", "a.example.com", year)
		take(t, magic, 0, "*.example.com")
	})
	t.Run("expired", func(t *testing.T) {
		magic := ourMagic(t)
		deliver(t, magic, ca, "internal", "a.example.com", -time.Hour)
		take(t, magic, 0, "a.example.com")
	})
}

// TestStopgapForStoppedServers: the servers that Caddy stops on a reload may still be in a handshake
// when the certificates with which they were configured are gone. They choose certificates from
// files by their tag.
func TestStopgapForStoppedServers(t *testing.T) {
	magic := ourMagic(t)
	key := newKey(t)
	chain := newCA(t, "before").sign(t, key.Public(), year, "a.example.com")
	keyPEM, err := certmagic.PEMEncodePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := magic.CacheUnmanagedCertificatePEMBytes(t.Context(), chain, keyPEM, []string{"cert0"})
	if err != nil {
		t.Fatal(err)
	}
	stopped := *magic
	stopped.CertSelection = &caddytls.CustomCertSelectionPolicy{AnyTag: []string{"cert0"}}
	wantServed(t, &stopped, "a.example.com", chain)
	take(t, magic, 1, "a.example.com")
	cacheOf(magic).Remove([]string{hash})
	wantServed(t, &stopped, "a.example.com", chain)
	own := deliver(t, magic, newCA(t, "ours"), "ours", "a.example.com", year)
	wantServed(t, &stopped, "a.example.com", own)
	if got := len(cachedFor(cacheOf(magic), "a.example.com")); got != 1 {
		t.Errorf("%d certificates in the cache", got)
	}
}

// TestStopgapDroppedByEvent: when certmagic itself puts our certificate into the cache, as on a
// reload, the stopgap is dropped. For a certificate of an issuer that is not in the config, it is
// not.
func TestStopgapDroppedByEvent(t *testing.T) {
	ca, magic := newCA(t, "ca"), ourMagic(t)
	Quiet(magic, nil)
	deliver(t, magic, ca, "internal", "a.example.com", year)
	take(t, magic, 1, "a.example.com")
	if stopgapOf(cacheOf(magic), "a.example.com").Leaf == nil {
		t.Fatal("no stopgap")
	}
	one := only(magic, &issuer{key: "internal"})
	if _, err := one.CacheManagedCertificate(t.Context(), "a.example.com"); err != nil {
		t.Fatal(err)
	}
	if stopgapOf(cacheOf(magic), "a.example.com").Leaf == nil {
		t.Error("dropped for a certificate that is about to be removed")
	}
	cacheOf(magic).RemoveManaged([]certmagic.SubjectIssuer{{Subject: "a.example.com"}})

	key := newKey(t)
	cert := ca.issue(t, key.Public(), year, "a.example.com")
	if err := store(t.Context(), magic, "ours", "a.example.com", key, cert); err != nil { // as another server does
		t.Fatal(err)
	}
	if err := magic.ManageSync(t.Context(), []string{"a.example.com"}); err != nil {
		t.Fatal(err)
	}
	wantServed(t, magic, "a.example.com", cert.Certificate)
}

// TestStopgapFromStorage: after a restart the cache is empty, but the storage is not.
func TestStopgapFromStorage(t *testing.T) {
	ca := newCA(t, "ca")
	storage := &certmagic.FileStorage{Path: t.TempDir()}
	before := newMagic(t, certmagic.Config{Storage: storage}, certmagic.CacheOptions{})
	deliver(t, before, ca, "acme", "a.example.com", 48*time.Hour)
	longer := deliver(t, before, ca, "internal", "a.example.com", year)
	wildcard := deliver(t, before, ca, "acme", "*.example.com", year/2)
	deliver(t, before, ca, "acme", "expired.example.com", -time.Hour)
	deliver(t, before, ca, "ours", "done.example.com", year)
	deliver(t, before, ca, "acme", "done.example.com", year)

	magic := newMagic(t, certmagic.Config{Storage: storage, Issuers: []certmagic.Issuer{&issuer{key: "ours"}}}, certmagic.CacheOptions{})
	names := []string{"a.example.com", "b.example.com", "*.example.com", "x.y.example.com", "done.example.com", "10.0.0.1", "localhost"}
	take(t, magic, 3, names...)
	take(t, magic, 0, names...)
	wantServed(t, magic, "a.example.com", longer)
	wantServed(t, magic, "b.example.com", wildcard)
	wantServed(t, magic, "c.example.com", wildcard)
	for _, name := range []string{"x.y.example.com", "localhost"} {
		if _, err := handshake(magic, name); err == nil {
			t.Errorf("%s is served", name)
		}
	}

	empty := newMagic(t, certmagic.Config{}, certmagic.CacheOptions{})
	take(t, empty, 0, "a.example.com")
	broken := newMagic(t, certmagic.Config{Storage: brokenStorage{}}, certmagic.CacheOptions{})
	take(t, broken, 0, "a.example.com")
}

// brokenStorage is a storage that cannot be reached.
type brokenStorage struct{ certmagic.Storage }

func (brokenStorage) List(context.Context, string, bool) ([]string, error) {
	return nil, errors.New("no connection")
}

// storeCA stores an authority of Caddy's internal issuer.
func storeCA(t *testing.T, storage certmagic.Storage, path string, ca *testCA) {
	t.Helper()
	keyPEM, err := certmagic.PEMEncodePrivateKey(ca.key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
	if err := errors.Join(storage.Store(t.Context(), path+".key", keyPEM), storage.Store(t.Context(), path+".crt", certPEM)); err != nil {
		t.Fatal(err)
	}
}

// intermediate makes a CA below another one.
func (ca *testCA) intermediate(t *testing.T, life time.Duration) *testCA {
	t.Helper()
	below := newCA(t, "intermediate")
	template := *below.cert
	template.NotBefore, template.NotAfter = time.Now().Add(-200*time.Hour), time.Now().Add(life)
	der, err := x509.CreateCertificate(rand.Reader, &template, ca.cert, below.key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	if below.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return below
}

// TestStopgapSignedAgain: certificates of Caddy's internal issuer last 12 hours, and an order may
// take days, so they are signed again, by the root if the intermediate ends, too.
func TestStopgapSignedAgain(t *testing.T) {
	for what, life := range map[string]time.Duration{"intermediate": 100 * time.Hour, "root": time.Hour} {
		for _, restarted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s restarted=%v", what, restarted), func(t *testing.T) {
				root := newCA(t, "root")
				below := root.intermediate(t, life)
				magic := ourMagic(t)
				other := newCA(t, "not this one")
				storeCA(t, magic.Storage, "pki/authorities/another/root", other)
				storeCA(t, magic.Storage, "pki/authorities/another/intermediate", other)
				storeCA(t, magic.Storage, "pki/authorities/local/root", root)
				storeCA(t, magic.Storage, "pki/authorities/local/intermediate", below)
				remaining := 3 * time.Hour
				if restarted {
					remaining = -time.Hour
				}
				deliver(t, magic, below, "local", "a.example.com", remaining)
				if restarted {
					cacheOf(magic).RemoveManaged([]certmagic.SubjectIssuer{{Subject: "a.example.com"}})
				}
				TakeStopgaps(t.Context(), magic, "ours", []string{"a.example.com"})
				cacheOf(magic).RemoveManaged([]certmagic.SubjectIssuer{{Subject: "a.example.com"}})

				roots := x509.NewCertPool()
				roots.AddCert(root.cert)
				verify := func() time.Time {
					t.Helper()
					gap := stopgapOf(cacheOf(magic), "a.example.com")
					if gap.Leaf == nil {
						t.Fatal("no stopgap")
					}
					chain := x509.NewCertPool()
					for _, der := range gap.Certificate.Certificate[1:] {
						cert, err := x509.ParseCertificate(der)
						if err != nil {
							t.Fatal(err)
						}
						chain.AddCert(cert)
					}
					leaf, err := handshake(magic, "a.example.com")
					if err != nil {
						t.Fatal(err)
					}
					if _, err := leaf.Verify(x509.VerifyOptions{DNSName: "a.example.com", Roots: roots, Intermediates: chain}); err != nil {
						t.Error(err)
					}
					return leaf.NotAfter
				}
				if left := time.Until(verify()); left < stopgapLife-time.Minute {
					t.Errorf("signed for %s only", left)
				}
				take(t, magic, 0, "a.example.com")
			})
		}
	}
	t.Run("another CA", func(t *testing.T) { // it serves for as long as it lasts
		magic := ourMagic(t)
		storeCA(t, magic.Storage, "pki/authorities/local/root", newCA(t, "root"))
		chain := deliver(t, magic, newCA(t, "public"), "acme", "a.example.com", 2*time.Hour)
		take(t, magic, 1, "a.example.com")
		take(t, magic, 0, "a.example.com")
		cacheOf(magic).RemoveManaged([]certmagic.SubjectIssuer{{Subject: "a.example.com"}})
		wantServed(t, magic, "a.example.com", chain)
		// Another server has one that lasts longer; it is found in time.
		elsewhere := newMagic(t, certmagic.Config{Storage: magic.Storage}, certmagic.CacheOptions{})
		renewed := deliver(t, elsewhere, newCA(t, "public"), "acme", "a.example.com", year)
		take(t, magic, 1, "a.example.com")
		wantServed(t, magic, "a.example.com", renewed)
		if got := len(cachedFor(cacheOf(magic), "a.example.com")); got != 1 {
			t.Errorf("%d certificates in the cache", got)
		}
	})
}

// TestStopgapInFullCache: certmagic may evict any managed certificate from a full cache. Then it
// loads it again from the storage, even if there was a stopgap.
func TestStopgapInFullCache(t *testing.T) {
	ca := newCA(t, "ca")
	magic := newMagic(t, certmagic.Config{Issuers: []certmagic.Issuer{&issuer{key: "ours"}}}, certmagic.CacheOptions{Capacity: 2})
	deliver(t, magic, ca, "internal", "a.example.com", year)
	take(t, magic, 1, "a.example.com")
	own := deliver(t, magic, ca, "ours", "a.example.com", year)
	for i := range 5 {
		deliver(t, magic, ca, "ours", fmt.Sprintf("x%d.example.com", i), year)
		wantServed(t, magic, "a.example.com", own)
	}
}

// TestKeepStopgaps: names that leave the config leave the cache.
func TestKeepStopgaps(t *testing.T) {
	ca, magic := newCA(t, "ca"), ourMagic(t)
	for _, name := range []string{"a.example.com", "b.example.com"} {
		deliver(t, magic, ca, "internal", name, year)
	}
	take(t, magic, 2, "a.example.com", "b.example.com")
	KeepStopgaps(magic, func(name string) bool { return name == "a.example.com" })
	if stopgapOf(cacheOf(magic), "a.example.com").Leaf == nil || stopgapOf(cacheOf(magic), "b.example.com").Leaf != nil {
		t.Error("the wrong stopgaps are kept")
	}
}

func TestStopgapKeys(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := newCA(t, "ca")
	for _, key := range []crypto.Signer{rsaKey, edKey, p384} {
		magic := ourMagic(t)
		chain := ca.sign(t, key.Public(), year, "a.example.com")
		hash := loadManual(t, magic, chain, key)
		take(t, magic, 1, "a.example.com")
		cacheOf(magic).Remove([]string{hash})
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			client, server := net.Pipe()
			go func() {
				defer server.Close()
				_ = tls.Server(server, &tls.Config{GetCertificate: magic.GetCertificate}).Handshake()
			}()
			roots := x509.NewCertPool()
			roots.AddCert(ca.cert)
			conn := tls.Client(client, &tls.Config{ServerName: "a.example.com", RootCAs: roots, MaxVersion: version})
			if err := conn.Handshake(); err != nil {
				t.Errorf("%T, %s: %v", key, tls.VersionName(version), err)
			}
			client.Close()
		}
	}
}

// TestStrangersCostNothing: a stranger's handshake, for a name that is not served, costs the same
// however many certificates there are. A CertSelection would make certmagic copy its whole cache for
// each label of the name, so none is ever set.
func TestStrangersCostNothing(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	cost := func(n int) uint64 {
		magic := ourMagic(t)
		key := newKey(t)
		for i := range n {
			name := fmt.Sprintf("h%d.example.com", i)
			leaf := &x509.Certificate{DNSNames: []string{name}, NotAfter: time.Now().Add(year)}
			cert := tls.Certificate{Certificate: [][]byte{[]byte(name)}, PrivateKey: key, Leaf: leaf}
			if _, err := magic.CacheUnmanagedTLSCertificate(t.Context(), cert, nil); err != nil {
				t.Fatal(err)
			}
		}
		Quiet(magic, nil)
		take(t, magic, 2, "h1.example.com", "h2.example.com")
		if magic.CertSelection != nil {
			t.Error("there is a CertSelection")
		}
		hello := &tls.ClientHelloInfo{ServerName: "www.stranger.example.org", Conn: server}
		const handshakes = 200
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range handshakes {
			if _, err := magic.GetCertificate(hello); err == nil {
				t.Fatal("a stranger is served")
			}
		}
		runtime.ReadMemStats(&after)
		return (after.TotalAlloc - before.TotalAlloc) / handshakes
	}
	few, many := cost(10), cost(10_000)
	t.Logf("%d bytes with 10 certificates, %d with 10,000", few, many)
	if many > few+64<<10 {
		t.Errorf("a stranger's handshake allocates %d bytes with 10,000 certificates, %d with 10", many, few)
	}
}
