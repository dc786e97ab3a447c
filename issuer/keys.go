package issuer

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
)

// Some CAs insist on a CommonName in the CSR, and certmagic leaves it out unless
// the issuer is its own ZeroSSL one. To sign a CSR again, the key is needed, and
// certmagic does not hand it to issuers. What it does hand over is the config,
// which has its key source; wrapping that source lets us remember each new key
// until the attempt it was made for is over.

const (
	// maxKeys bounds the remembered keys. certmagic runs at most 1000 jobs at a
	// time, and each makes one key; those that another issuer has used come on top.
	maxKeys = 4096

	// maxKeyAge bounds how long a key is remembered if no CSR for it reaches us,
	// because another issuer of the policy succeeded with it.
	maxKeyAge = time.Hour
)

// keyring remembers private keys, in memory only, by their public keys.
type keyring struct {
	mu   sync.Mutex
	keys map[string]ringKey // by the DER of the public key
	fifo []string           // oldest first; some of them may be forgotten
}

type ringKey struct {
	signer crypto.Signer
	made   time.Time
}

// keys is shared by all issuers of the process: a policy may have several of them,
// which must not wrap each other's key sources.
var keys = newKeyring()

func newKeyring() *keyring { return &keyring{keys: make(map[string]ringKey)} }

// keyID names a public key: the SHA-256 of its DER, in hexadecimal.
func keyID(pub crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("encoding public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

func (r *keyring) remember(signer crypto.Signer) {
	id, err := keyID(signer.Public())
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for len(r.fifo) > 0 {
		oldest, known := r.keys[r.fifo[0]]
		if known && len(r.keys) < maxKeys && now.Sub(oldest.made) < maxKeyAge {
			break
		}
		delete(r.keys, r.fifo[0])
		r.fifo = r.fifo[1:]
	}
	if len(r.fifo) >= 2*maxKeys {
		r.fifo = slices.DeleteFunc(r.fifo, func(id string) bool { _, known := r.keys[id]; return !known })
	}
	if _, known := r.keys[id]; !known {
		r.fifo = append(r.fifo, id)
	}
	r.keys[id] = ringKey{signer: signer, made: now}
}

func (r *keyring) find(pub crypto.PublicKey) (crypto.Signer, bool) {
	id, err := keyID(pub)
	if err != nil {
		return nil, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	key, ok := r.keys[id]
	return key.signer, ok
}

func (r *keyring) forget(pub crypto.PublicKey) {
	id, err := keyID(pub)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.keys, id)
}

// rememberingKeys is a certmagic.KeyGenerator that notes the keys it makes.
type rememberingKeys struct {
	certmagic.KeyGenerator
	ring *keyring
}

// GenerateKey makes a key with the wrapped generator and remembers it.
func (g rememberingKeys) GenerateKey() (crypto.PrivateKey, error) {
	key, err := g.KeyGenerator.GenerateKey()
	if signer, ok := key.(crypto.Signer); ok && err == nil {
		g.ring.remember(signer)
	}
	return key, err
}

// rememberKeysOf wraps the config's key source, once.
func rememberKeysOf(cfg *certmagic.Config) {
	if _, done := cfg.KeySource.(rememberingKeys); done {
		return
	}
	inner := cfg.KeySource
	if inner == nil {
		inner = certmagic.DefaultKeyGenerator
	}
	cfg.KeySource = rememberingKeys{inner, keys}
}

// storedKey looks for a private key among those that certmagic keeps for a name. That is
// where a key comes from when private keys are reused.
func storedKey(ctx context.Context, storage certmagic.Storage, issuerKeys []string, name, want string) (crypto.Signer, bool) {
	for _, issuerKey := range issuerKeys {
		pem, err := storage.Load(ctx, certmagic.StorageKeys.SitePrivateKey(issuerKey, name))
		if err != nil {
			continue
		}
		if key, ok := decodeKey(pem, want); ok {
			return key, true
		}
	}
	return nil, false
}

// encodeKey returns a private key as PEM, which is how it is kept: what is derived from it to
// sign takes several times the memory.
func encodeKey(key crypto.Signer) ([]byte, error) {
	pem, err := certmagic.PEMEncodePrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a private key: %w", err)
	}
	return pem, nil
}

// decodeKey reads a private key, if it is the wanted one.
func decodeKey(pem []byte, want string) (crypto.Signer, bool) {
	key, err := certmagic.PEMDecodePrivateKey(pem)
	if err != nil {
		return nil, false
	}
	have, err := keyID(key.Public())
	return key, err == nil && have == want
}

// oidMustStaple is the TLS feature extension (RFC 7633), the only extension
// besides the names that certmagic puts into a CSR.
var oidMustStaple = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}

// extrasOf returns the extensions that a CSR asks for besides the names.
func extrasOf(csr *x509.CertificateRequest) (extras []pkix.Extension) {
	for _, ext := range csr.Extensions {
		if ext.Id.Equal(oidMustStaple) {
			extras = append(extras, ext)
		}
	}
	return extras
}

// orderCSR returns the DER of a CSR for names, the first of them as CommonName, that asks for
// the extras and is signed with the given key.
func orderCSR(names []string, extras []pkix.Extension, key crypto.Signer) ([]byte, error) {
	template := &x509.CertificateRequest{
		Subject:         pkix.Name{CommonName: names[0]},
		DNSNames:        names,
		ExtraExtensions: extras,
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, fmt.Errorf("signing the order's CSR: %w", err)
	}
	return der, nil
}
