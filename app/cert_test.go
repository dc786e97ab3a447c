package app

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// testCA signs what a test asks it to.
type testCA struct {
	name    string
	cert    *x509.Certificate
	key     crypto.Signer
	serials atomic.Int64
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newCA(t testing.TB, name string) *testCA {
	t.Helper()
	ca := &testCA{name: name, key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-1000 * time.Hour), NotAfter: time.Now().Add(100_000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, ca.key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	if ca.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	ca.serials.Store(100)
	return ca
}

// sign returns a chain for the names that ends after life, which may be negative.
func (ca *testCA) sign(t testing.TB, pub crypto.PublicKey, life time.Duration, names ...string) []byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(ca.serials.Add(1)), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, pub, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	var chain bytes.Buffer
	for _, block := range [][]byte{der, ca.cert.Raw} {
		if err := pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: block}); err != nil {
			t.Fatal(err)
		}
	}
	return chain.Bytes()
}

func (ca *testCA) issue(t testing.TB, pub crypto.PublicKey, life time.Duration, names ...string) *certmagic.IssuedCertificate {
	t.Helper()
	return &certmagic.IssuedCertificate{Certificate: ca.sign(t, pub, life, names...), Metadata: map[string]string{"order": "1"}}
}

const year = 365 * 24 * time.Hour

// issuer signs at once, or fails as the test says.
type issuer struct {
	key  string
	t    testing.TB
	ca   *testCA
	err  error
	asks atomic.Int32
}

func (i *issuer) IssuerKey() string { return i.key }

func (i *issuer) Issue(_ context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	i.asks.Add(1)
	if i.err != nil {
		return nil, i.err
	}
	return i.ca.issue(i.t, csr.PublicKey, year, csr.DNSNames...), nil
}

// events records the events that certmagic emits.
type events struct {
	mu  sync.Mutex
	all []string
}

func (e *events) on(_ context.Context, event string, _ map[string]any) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, event)
	return nil
}

func (e *events) count(event string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for _, each := range e.all {
		if each == event {
			n++
		}
	}
	return n
}

// newMagic completes a config with a cache and a storage of its own.
func newMagic(t testing.TB, cfg certmagic.Config, opts certmagic.CacheOptions) *certmagic.Config {
	t.Helper()
	var magic *certmagic.Config
	opts.GetConfigForCert = func(certmagic.Certificate) (*certmagic.Config, error) { return magic, nil }
	opts.Logger = zap.NewNop()
	cache := certmagic.NewCache(opts)
	t.Cleanup(cache.Stop)
	if cfg.Storage == nil {
		cfg.Storage = &certmagic.FileStorage{Path: t.TempDir()}
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	cfg.OCSP.DisableStapling = true
	magic = certmagic.New(cache, cfg)
	return magic
}

// handshake returns the leaf that a client gets when it asks for the name.
func handshake(magic *certmagic.Config, name string) (*x509.Certificate, error) {
	client, server := net.Pipe()
	defer client.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer server.Close()
		_ = tls.Server(server, &tls.Config{GetCertificate: magic.GetCertificate}).Handshake()
	}()
	conn := tls.Client(client, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	err := conn.Handshake()
	client.Close()
	<-done
	if err != nil {
		return nil, err
	}
	return conn.ConnectionState().PeerCertificates[0], nil
}

// wantServed fails unless the chain's leaf is served for the name.
func wantServed(t *testing.T, magic *certmagic.Config, name string, chain []byte) {
	t.Helper()
	got, err := handshake(magic, name)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	if want := leafOf(t, chain); !got.Equal(want) {
		t.Errorf("%s: served %s of %s, want %s of %s", name, got.SerialNumber, got.Issuer.CommonName, want.SerialNumber, want.Issuer.CommonName)
	}
}

func leafOf(t testing.TB, chain []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(chain)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

// deliver makes a certificate and delivers it.
func deliver(t *testing.T, magic *certmagic.Config, ca *testCA, issuerKey, name string, life time.Duration, more ...string) (chain []byte) {
	t.Helper()
	key := newKey(t)
	cert := ca.issue(t, key.Public(), life, append([]string{name}, more...)...)
	if err := Deliver(t.Context(), magic, issuerKey, name, key, cert); err != nil {
		t.Fatal(err)
	}
	return cert.Certificate
}
