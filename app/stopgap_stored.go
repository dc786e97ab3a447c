package app

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"path"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

const (
	// stopgapLoads bounds how many names are looked up in the storage at a time.
	stopgapLoads = 16

	// stopgapLife is the lifetime of stopgaps that are signed here, the same as that of
	// certificates of Caddy's internal issuer.
	stopgapLife = 12 * time.Hour
)

// stopgapsFromStorage takes stopgaps for names that nothing in the cache serves for long.
func stopgapsFromStorage(ctx context.Context, magic *certmagic.Config, cache *certmagic.Cache, issuerKey string, names []string) int {
	if len(names) == 0 {
		return 0
	}
	holders, err := storedNames(ctx, magic.Storage)
	if err != nil {
		magic.Logger.Warn("looking for certificates to serve until the order is done failed", zap.Error(err))
		return 0
	}
	found := make([]tls.Certificate, len(names))
	var group errgroup.Group
	group.SetLimit(stopgapLoads)
	for i, name := range names {
		group.Go(func() error {
			found[i] = storedStopgap(ctx, magic.Storage, holders, issuerKey, name, stopgapOf(cache, name))
			return nil
		})
	}
	_ = group.Wait() // none of them returns an error
	taken := 0
	for i, name := range names {
		have := stopgapOf(cache, name)
		if lasts(found[i], have.Leaf) && exchange(ctx, magic, name, certmagic.Certificate{Certificate: found[i]}, have) {
			taken++
		}
	}
	return taken
}

// storedNames returns the keys of the issuers that have something stored, by the folder
// of the name.
func storedNames(ctx context.Context, storage certmagic.Storage) (map[string][]string, error) {
	issuers, err := list(ctx, storage, "certificates")
	if err != nil {
		return nil, err
	}
	holders := make(map[string][]string)
	for _, issuer := range issuers {
		folders, err := list(ctx, storage, issuer)
		if err != nil {
			return nil, err
		}
		for _, folder := range folders {
			name := path.Base(folder)
			holders[name] = append(holders[name], path.Base(issuer))
		}
	}
	return holders, nil
}

// list lists a folder, which need not exist.
func list(ctx context.Context, storage certmagic.Storage, folder string) ([]string, error) {
	keys, err := storage.List(ctx, folder, false)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing %s: %w", folder, err)
	}
	return keys, nil
}

// storedStopgap returns a valid certificate for the name from the storage: of any issuer,
// or signed again by Caddy's internal CA if nothing else lasts. It returns nothing if the
// issuer's own certificate is fine, as certmagic is about to load that.
func storedStopgap(ctx context.Context, storage certmagic.Storage, holders map[string][]string, issuerKey, name string, have certmagic.Certificate) tls.Certificate {
	longest := have.Certificate
	names := []string{name}
	if _, parent, ok := strings.Cut(name, "."); ok && net.ParseIP(name) == nil && !strings.HasPrefix(name, "*.") {
		names = append(names, "*."+parent)
	}
	now := time.Now()
	for _, stored := range names {
		for _, holder := range holders[certmagic.StorageKeys.Safe(stored)] {
			pair, _, err := storedPair(ctx, storage, holder, stored)
			if err != nil || now.Before(pair.Leaf.NotBefore) || !covers(pair.Leaf, name) {
				continue
			}
			if holder == issuerKey && stored == name && now.Before(pair.Leaf.NotAfter) {
				return tls.Certificate{}
			}
			if lasts(pair, longest.Leaf) {
				longest = pair
			}
		}
	}
	if longest.Leaf == nil {
		return tls.Certificate{}
	}
	if longest.Leaf.NotAfter.Sub(now) <= stopgapMargin {
		if again, err := signAgain(ctx, storage, name, longest); err == nil && lasts(again, longest.Leaf) {
			return again
		}
	}
	if now.After(longest.Leaf.NotAfter) {
		return tls.Certificate{}
	}
	return longest
}

var errNotInternal = errors.New("not a certificate of an internal CA in this storage")

// signAgain signs a certificate of one of Caddy's internal CAs once more, for the one name
// and the same key. Caddy does not renew it any more when the name has another issuer,
// and what is ordered instead can take longer than it lives.
func signAgain(ctx context.Context, storage certmagic.Storage, name string, old tls.Certificate) (tls.Certificate, error) {
	chain := make([]*x509.Certificate, 0, len(old.Certificate))
	above := x509.NewCertPool()
	for _, der := range old.Certificate {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return tls.Certificate{}, fmt.Errorf("parsing a chain: %w", err)
		}
		chain = append(chain, cert)
		above.AddCert(cert)
	}
	authorities, err := list(ctx, storage, "pki/authorities")
	if err != nil {
		return tls.Certificate{}, err
	}
	for _, authority := range authorities {
		root, rootKey, err := loadCA(ctx, storage, authority+"/root")
		if err != nil {
			continue
		}
		roots := x509.NewCertPool()
		roots.AddCert(root)
		if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: above, CurrentTime: chain[0].NotBefore}); err != nil {
			continue
		}
		// The intermediate lives for a week, and is not renewed either when nothing
		// else in the config needs it.
		if parent, key, err := loadCA(ctx, storage, authority+"/intermediate"); err == nil && time.Until(parent.NotAfter) > stopgapLife {
			return signStopgap(name, old.PrivateKey.(crypto.Signer), parent, key, parent.Raw)
		}
		return signStopgap(name, old.PrivateKey.(crypto.Signer), root, rootKey)
	}
	return tls.Certificate{}, errNotInternal
}

// loadCA loads a certificate of an internal CA and its private key.
func loadCA(ctx context.Context, storage certmagic.Storage, path string) (*x509.Certificate, crypto.Signer, error) {
	certPEM, err := storage.Load(ctx, path+".crt")
	if err != nil {
		return nil, nil, fmt.Errorf("loading a CA: %w", err)
	}
	keyPEM, err := storage.Load(ctx, path+".key")
	if err != nil {
		return nil, nil, fmt.Errorf("loading the private key of a CA: %w", err)
	}
	key, err := certmagic.PEMDecodePrivateKey(keyPEM)
	if err != nil {
		return nil, nil, fmt.Errorf("decoding the private key of a CA: %w", err)
	}
	block, _ := pem.Decode(certPEM)
	if block == nil {
		return nil, nil, errors.New("the certificate of a CA is not PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("parsing a CA: %w", err)
	}
	return cert, key, nil
}

// signStopgap signs a certificate for the name. chain follows it.
func signStopgap(name string, subject crypto.Signer, parent *x509.Certificate, key crypto.Signer, chain ...[]byte) (tls.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("choosing a serial number: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(stopgapLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if parent.NotAfter.Before(template.NotAfter) {
		template.NotAfter = parent.NotAfter
	}
	if parent.NotBefore.After(template.NotBefore) {
		template.NotBefore = parent.NotBefore
	}
	template.DNSNames, template.IPAddresses = subjectAltNames(name)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, subject.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("signing for %s: %w", name, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("parsing what was signed for %s: %w", name, err)
	}
	return tls.Certificate{Certificate: append([][]byte{der}, chain...), PrivateKey: subject, Leaf: leaf}, nil
}
