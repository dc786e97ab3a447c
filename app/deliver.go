package app

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/caddyserver/certmagic"
)

// deliveryTimeout bounds a delivery, waiting for certmagic's lock of the name included.
const deliveryTimeout = time.Minute

// TornPairError says that the stored certificate and the stored private key of a name do not form
// a pair, or that their metadata cannot be read: a server died between writing the two, or one of
// them is damaged. certmagic serves nothing then, and does not ask for another certificate
// either.
type TornPairError struct {
	IssuerKey, Name string
	Err             error // what is wrong with them
}

func (e *TornPairError) Error() string {
	return fmt.Sprintf("the stored certificate and private key of %s (issuer %s) do not fit: %v", e.Name, e.IssuerKey, e.Err)
}

// Unwrap returns what is wrong.
func (e *TornPairError) Unwrap() error { return e.Err }

// Stored returns the certificate, the PEM of its chain, and the private key that certmagic
// has stored for the name. The error is an fs.ErrNotExist if one of the two or their metadata,
// without which certmagic does not serve them, is not there; and a *TornPairError if they do
// not make a pair.
func Stored(ctx context.Context, storage certmagic.Storage, issuerKey, name string) (leaf *x509.Certificate, chain []byte, key crypto.Signer, err error) {
	pair, chain, err := storedPair(ctx, storage, issuerKey, name)
	if err != nil {
		return nil, nil, nil, err
	}
	meta, err := storage.Load(ctx, certmagic.StorageKeys.SiteMeta(issuerKey, cacheName(name)))
	if err != nil {
		return nil, nil, nil, fmt.Errorf("loading the metadata of %s: %w", name, err)
	}
	if err := json.Unmarshal(meta, new(certmagic.CertificateResource)); err != nil {
		return nil, nil, nil, &TornPairError{IssuerKey: issuerKey, Name: name, Err: fmt.Errorf("decoding the metadata: %w", err)}
	}
	return pair.Leaf, chain, pair.PrivateKey.(crypto.Signer), nil
}

// storedPair returns what Stored does, ready to be served. Its private key can sign.
func storedPair(ctx context.Context, storage certmagic.Storage, issuerKey, name string) (tls.Certificate, []byte, error) {
	ascii := cacheName(name)
	keyPEM, err := storage.Load(ctx, certmagic.StorageKeys.SitePrivateKey(issuerKey, ascii))
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("loading the private key of %s: %w", name, err)
	}
	chain, err := storage.Load(ctx, certmagic.StorageKeys.SiteCert(issuerKey, ascii))
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("loading the certificate of %s: %w", name, err)
	}
	pair, err := tls.X509KeyPair(chain, keyPEM)
	if err == nil && !signs(pair) {
		err = fmt.Errorf("a key of type %T cannot sign", pair.PrivateKey)
	}
	if err != nil {
		return tls.Certificate{}, nil, &TornPairError{IssuerKey: issuerKey, Name: name, Err: err}
	}
	return pair, chain, nil
}

// Served returns the certificates for the name in the config's cache, wildcards among them.
// Unlike the function of the TLS app, it may be called when no config runs any more. Stopgaps are
// not among them, even if they are copies of what is in the storage: certmagic does not renew
// them.
func Served(magic *certmagic.Config, name string) []*x509.Certificate {
	cache := cacheOf(magic)
	if cache == nil {
		return nil
	}
	var list []*x509.Certificate
	for _, cert := range cache.AllMatchingCertificates(name) {
		if cert.Leaf != nil && !cert.HasTag(stopgapTag) {
			list = append(list, cert.Leaf)
		}
	}
	return list
}

// IsServed reports whether anything in the config's cache serves the name, a stopgap or a
// wildcard, too.
func IsServed(magic *certmagic.Config, name string) bool {
	cache := cacheOf(magic)
	return cache != nil && slices.ContainsFunc(cache.AllMatchingCertificates(name), func(cert certmagic.Certificate) bool {
		return cert.Leaf != nil && time.Now().Before(cert.Leaf.NotAfter)
	})
}

// Deliver stores a certificate with its private key as certmagic would have, had its
// issuer returned it in time: under certmagic's lock of the name, in its three files, with
// its event cert_obtained. Then it is served at once in place of the certificates that it
// replaces. Delivering again what is stored already only sees to it that it is served. A
// torn pair and damaged files are written over.
//
// It must not be called under certmagic's lock of the name, as from within Issue. It goes on for
// up to a minute after ctx has ended.
func Deliver(ctx context.Context, magic *certmagic.Config, issuerKey, name string, key crypto.PrivateKey, cert *certmagic.IssuedCertificate) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deliveryTimeout)
	defer cancel()
	name = cacheName(name)
	keyPEM, err := certmagic.PEMEncodePrivateKey(key)
	if err != nil {
		return fmt.Errorf("encoding the private key of %s: %w", name, err)
	}
	pair, err := tls.X509KeyPair(cert.Certificate, keyPEM)
	if err != nil {
		return fmt.Errorf("delivering the certificate of %s: it does not fit the private key: %w", name, err)
	}
	if !covers(pair.Leaf, name) {
		return fmt.Errorf("delivering the certificate of %s: it is for %v only", name, pair.Leaf.DNSNames)
	}
	if stored, _, _, err := Stored(ctx, magic.Storage, issuerKey, name); err != nil || !stored.Equal(pair.Leaf) {
		if err := store(ctx, magic, issuerKey, name, key, cert); err != nil {
			return fmt.Errorf("storing the certificate of %s: %w", name, err)
		}
	}
	return Reload(ctx, magic, issuerKey, name)
}

// store lets certmagic obtain the certificate from an issuer that has it ready.
func store(ctx context.Context, magic *certmagic.Config, issuerKey, name string, key crypto.PrivateKey, cert *certmagic.IssuedCertificate) error {
	ready := &readyIssuer{key: issuerKey, cert: cert}
	one := only(magic, ready)
	one.KeySource = readyKey{key}
	one.ReusePrivateKeys, one.DisableStorageCheck = false, true
	// The first does nothing if all files are there, the second if one is missing.
	err := one.ObtainCertSync(ctx, name)
	if err == nil && !ready.used {
		err = one.RenewCertSync(ctx, name, true)
	}
	if err == nil || ready.used || ctx.Err() != nil {
		return err
	}
	// certmagic does not renew what it cannot read. Without its metadata, it obtains anew.
	metaKey := certmagic.StorageKeys.SiteMeta(issuerKey, name)
	meta, loadErr := magic.Storage.Load(ctx, metaKey)
	if loadErr != nil || json.Unmarshal(meta, new(certmagic.CertificateResource)) == nil {
		return err
	}
	if err := magic.Storage.Delete(ctx, metaKey); err != nil {
		return fmt.Errorf("deleting damaged metadata: %w", err)
	}
	return one.ObtainCertSync(ctx, name)
}

// Reload serves the stored pair of the issuer in place of what it replaces. Call it when another
// server of the cluster has delivered that. The errors are those of Stored and of certmagic's
// loading.
func Reload(ctx context.Context, magic *certmagic.Config, issuerKey, name string) error {
	name = cacheName(name)
	leaf, _, _, err := Stored(ctx, magic.Storage, issuerKey, name)
	if err != nil {
		return err
	}
	if !covers(leaf, name) {
		return fmt.Errorf("loading the stored certificate of %s: it is for %v only", name, leaf.DNSNames)
	}
	if magic.LocalCache != nil {
		for _, file := range []string{
			certmagic.StorageKeys.SitePrivateKey(issuerKey, name),
			certmagic.StorageKeys.SiteCert(issuerKey, name),
			certmagic.StorageKeys.SiteMeta(issuerKey, name),
		} {
			if err := magic.LocalCache.Delete(ctx, file); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("deleting an old local copy: %w", err)
			}
		}
	}
	// With several issuers, certmagic would load the certificate with the latest NotBefore.
	cached, err := only(magic, &readyIssuer{key: issuerKey}).CacheManagedCertificate(ctx, name)
	if err != nil {
		return fmt.Errorf("loading the stored certificate of %s: %w", name, err)
	}
	if !cached.Leaf.Equal(leaf) {
		return fmt.Errorf("loading the stored certificate of %s: another one was stored meanwhile; load it again", name)
	}
	evict(ctx, magic, name, cached)
	return nil
}

// only returns a copy of the config, with the same cache, that has one issuer.
func only(magic *certmagic.Config, issuer certmagic.Issuer) *certmagic.Config {
	one := *magic
	one.Issuers = []certmagic.Issuer{issuer}
	one.SubjectTransformer = nil // the name has been transformed already
	return &one
}

// readyIssuer is an issuer that has its certificate ready. It notes whether it was asked.
type readyIssuer struct {
	key  string
	cert *certmagic.IssuedCertificate
	used bool
}

// IssuerKey implements certmagic.Issuer.
func (r *readyIssuer) IssuerKey() string { return r.key }

// Issue implements certmagic.Issuer.
func (r *readyIssuer) Issue(context.Context, *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	r.used = true
	return r.cert, nil
}

// readyKey is a source of one key.
type readyKey struct{ key crypto.PrivateKey }

// GenerateKey implements certmagic.KeyGenerator.
func (r readyKey) GenerateKey() (crypto.PrivateKey, error) { return r.key, nil }

// Interface guards
var (
	_ certmagic.Issuer       = (*readyIssuer)(nil)
	_ certmagic.KeyGenerator = readyKey{}
)
