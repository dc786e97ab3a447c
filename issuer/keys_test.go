package issuer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"
)

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func (r *keyring) size() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.keys)
}

func TestKeyringRemembersAndForgets(t *testing.T) {
	ring, key, other := newKeyring(), newKey(t), newKey(t)
	ring.remember(key)
	if found, ok := ring.find(key.Public()); !ok || !found.Public().(*ecdsa.PublicKey).Equal(key.Public()) {
		t.Fatalf("found %v, %t", found, ok)
	}
	if _, ok := ring.find(other.Public()); ok {
		t.Error("found a key that was never remembered")
	}
	ring.forget(key.Public())
	if _, ok := ring.find(key.Public()); ok {
		t.Error("found a forgotten key")
	}
	ring.forget(key.Public())
	if ring.size() != 0 {
		t.Errorf("%d keys are left", ring.size())
	}
	if _, ok := ring.find("not a key"); ok {
		t.Error("found nonsense")
	}
}

func TestKeyringIsBounded(t *testing.T) {
	ring := newKeyring()
	first := newKey(t)
	ring.remember(first)
	var last *ecdsa.PrivateKey
	for range maxKeys + 10 {
		last = newKey(t)
		ring.remember(last)
	}
	if n := ring.size(); n > maxKeys {
		t.Errorf("%d keys, at most %d are allowed", n, maxKeys)
	}
	if n := len(ring.fifo); n > maxKeys {
		t.Errorf("%d entries in the queue, at most %d are allowed", n, maxKeys)
	}
	if _, ok := ring.find(first.Public()); ok {
		t.Error("the oldest key was kept")
	}
	if _, ok := ring.find(last.Public()); !ok {
		t.Error("the newest key was dropped")
	}
}

// TestKeyringQueueIsBounded is about keys that are soon forgotten, like all keys whose attempt
// reaches this issuer.
func TestKeyringQueueIsBounded(t *testing.T) {
	ring := newKeyring()
	for range 3 * maxKeys {
		key := newKey(t)
		ring.remember(key)
		ring.forget(key.Public())
	}
	if n := len(ring.fifo); n > maxKeys {
		t.Errorf("the queue has %d entries", n)
	}
}

func TestKeyringDropsOldKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ring, old, young := newKeyring(), newKey(t), newKey(t)
		ring.remember(old)
		<-time.After(maxKeyAge / 2)
		ring.remember(young)
		if _, ok := ring.find(old.Public()); !ok {
			t.Error("the key was dropped before its time")
		}
		<-time.After(maxKeyAge / 2)
		ring.remember(newKey(t))
		if _, ok := ring.find(old.Public()); ok {
			t.Error("the old key was kept")
		}
		if _, ok := ring.find(young.Public()); !ok {
			t.Error("the younger key was dropped")
		}
	})
}

func TestKeyringIsSafeForConcurrentUse(t *testing.T) {
	ring := newKeyring()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				key := newKey(t)
				ring.remember(key)
				if _, ok := ring.find(key.Public()); !ok {
					t.Error("a key got lost")
				}
				ring.forget(key.Public())
			}
		})
	}
	wg.Wait()
	if ring.size() != 0 {
		t.Errorf("%d keys are left", ring.size())
	}
}

// brokenKeys is a key source that cannot make keys.
type brokenKeys struct{}

func (brokenKeys) GenerateKey() (crypto.PrivateKey, error) { return nil, errors.New("no entropy") }

func TestKeySourceIsWrappedOnce(t *testing.T) {
	cfg := &certmagic.Config{KeySource: certmagic.StandardKeyGenerator{KeyType: certmagic.RSA2048}}
	rememberKeysOf(cfg)
	rememberKeysOf(cfg)
	wrapped, ok := cfg.KeySource.(rememberingKeys)
	if !ok {
		t.Fatalf("the key source is a %T", cfg.KeySource)
	}
	if _, twice := wrapped.KeyGenerator.(rememberingKeys); twice {
		t.Error("wrapped twice")
	}
	key, err := cfg.KeySource.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	made, ok := key.(*rsa.PrivateKey)
	if !ok {
		t.Fatalf("the configured kind of key was lost, got %T", key)
	}
	if _, ok := keys.find(made.Public()); !ok {
		t.Error("the key was not remembered")
	}
	keys.forget(made.Public())

	plain := new(certmagic.Config)
	rememberKeysOf(plain)
	if _, err := plain.KeySource.GenerateKey(); err != nil {
		t.Errorf("without a key source: %v", err)
	}

	before := keys.size()
	broken := &certmagic.Config{KeySource: brokenKeys{}}
	rememberKeysOf(broken)
	if _, err := broken.KeySource.GenerateKey(); err == nil {
		t.Error("the key source's error was swallowed")
	}
	if keys.size() != before {
		t.Error("a key that was never made is remembered")
	}
}

// parseCSR makes and reads a CSR, as certmagic does.
func parseCSR(tb testing.TB, template *x509.CertificateRequest, key crypto.Signer) *x509.CertificateRequest {
	tb.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		tb.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		tb.Fatal(err)
	}
	return csr
}

func TestOrderCSR(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	mustStaple := pkix.Extension{Id: oidMustStaple, Value: []byte{0x30, 0x03, 0x02, 0x01, 0x05}}
	for name, key := range map[string]crypto.Signer{"ECDSA": newKey(t), "RSA": rsaKey} {
		for _, staple := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				template := &x509.CertificateRequest{DNSNames: []string{"example.com"}}
				if staple {
					template.ExtraExtensions = []pkix.Extension{mustStaple}
				}
				original := parseCSR(t, template, key)
				names := []string{"example.com", "www.example.com"}
				der, err := orderCSR(names, extrasOf(original), key)
				if err != nil {
					t.Fatal(err)
				}
				got, err := x509.ParseCertificateRequest(der)
				if err != nil {
					t.Fatal(err)
				}
				if err := got.CheckSignature(); err != nil {
					t.Errorf("signature: %v", err)
				}
				if got.Subject.CommonName != "example.com" {
					t.Errorf("common name %q", got.Subject.CommonName)
				}
				if !slices.Equal(got.DNSNames, names) {
					t.Errorf("names %v, want %v", got.DNSNames, names)
				}
				want, _ := keyID(original.PublicKey)
				if have, _ := keyID(got.PublicKey); have != want {
					t.Error("the key is another one")
				}
				has := slices.ContainsFunc(got.Extensions, func(ext pkix.Extension) bool {
					return ext.Id.Equal(oidMustStaple) && bytes.Equal(ext.Value, mustStaple.Value)
				})
				if has != staple {
					t.Errorf("must-staple is %t, want %t", has, staple)
				}
				if extra := len(got.Extensions); staple && extra != 2 || !staple && extra != 1 {
					t.Errorf("%d extensions", extra)
				}
			})
		}
	}
}

func TestStoredKey(t *testing.T) {
	ctx := context.Background()
	storage := newMemStorage()
	key, other := newKey(t), newKey(t)
	id, err := keyID(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	put := func(issuerKey string, value []byte) {
		t.Helper()
		if err := storage.Store(ctx, certmagic.StorageKeys.SitePrivateKey(issuerKey, "example.com"), value); err != nil {
			t.Fatal(err)
		}
	}
	encode := func(key *ecdsa.PrivateKey) []byte {
		t.Helper()
		pem, err := certmagic.PEMEncodePrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pem
	}
	issuers := []string{"absent", "damaged", "other", "right"}
	if _, ok := storedKey(ctx, storage, issuers, "example.com", id); ok {
		t.Error("found a key in an empty storage")
	}
	put("damaged", []byte("-----BEGIN NONSENSE-----"))
	put("other", encode(other))
	if _, ok := storedKey(ctx, storage, issuers, "example.com", id); ok {
		t.Error("found a key that is not stored")
	}
	put("right", encode(key))
	found, ok := storedKey(ctx, storage, issuers, "example.com", id)
	if !ok || !key.Public().(*ecdsa.PublicKey).Equal(found.Public()) {
		t.Errorf("found %v, %t", found, ok)
	}
	if _, ok := storedKey(ctx, storage, issuers, "www.example.com", id); ok {
		t.Error("found the key of another name")
	}
	if _, ok := storedKey(ctx, storage, issuers, "example.com", "nonsense"); ok {
		t.Error("found a key for nonsense")
	}
}

// TestKeyOutlivesThoseThatAreForgotten: a key that is still needed is not displaced by thousands
// that have come and gone since.
func TestKeyOutlivesThoseThatAreForgotten(t *testing.T) {
	r := newKeyring()
	first := newKey(t)
	r.remember(first)
	var pool []*ecdsa.PrivateKey
	for range 100 {
		pool = append(pool, newKey(t))
	}
	for i := range 5 * maxKeys {
		key := pool[i%len(pool)]
		r.remember(key)
		r.forget(key.Public())
	}
	if _, ok := r.find(first.Public()); !ok {
		t.Error("the key is gone")
	}
	if len(r.fifo) > 2*maxKeys+1 || len(r.keys) != 1 {
		t.Errorf("%d keys are remembered, %d in order", len(r.keys), len(r.fifo))
	}
}
