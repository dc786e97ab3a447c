package issuer

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/app"
	"github.com/caddy-commercial/caddy-commercial/ledger"
)

// magicSite is the [site] of certmagic.
type magicSite struct {
	magic     *certmagic.Config
	issuerKey string
	allows    func(name string) (configured, exact bool)
	manages   func(name string) bool
}

// Allows implements site. With on-demand TLS, a name that is not written out in the
// configuration is one that a stranger's handshake brought up. The context of a call does
// not tell: certmagic also renews such certificates in the background.
func (s *magicSite) Allows(name string) (configured, onDemand bool) {
	configured, exact := s.allows(name)
	return configured, configured && !exact && s.magic.OnDemand != nil
}

// Manages implements site.
func (s *magicSite) Manages(name string) bool { return s.manages(name) }

// Stored implements site.
func (s *magicSite) Stored(ctx context.Context, name string) (*x509.Certificate, crypto.Signer, error) {
	leaf, _, key, err := app.Stored(ctx, s.magic.Storage, s.issuerKey, name)
	return leaf, key, err
}

// Served implements site.
func (s *magicSite) Served(name string) []*x509.Certificate {
	return app.Served(s.magic, name)
}

// IsServed implements site.
func (s *magicSite) IsServed(name string) bool { return app.IsServed(s.magic, name) }

// Due implements site, as certmagic sees it.
func (s *magicSite) Due(leaf *x509.Certificate) bool {
	return time.Now().After(ledger.RenewalBegins(leaf.NotBefore, leaf.NotAfter, s.magic.RenewalWindowRatio))
}

// NewKey implements site.
func (s *magicSite) NewKey() (crypto.Signer, error) {
	source := s.magic.KeySource
	if source == nil {
		source = certmagic.DefaultKeyGenerator
	}
	key, err := source.GenerateKey()
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T cannot sign", key)
	}
	keys.forget(signer.Public())
	return signer, nil
}

// FindKey implements site.
func (s *magicSite) FindKey(ctx context.Context, name, key string) (crypto.Signer, bool) {
	return storedKey(ctx, s.magic.Storage, []string{s.issuerKey}, name, key)
}

// Deliver implements site.
func (s *magicSite) Deliver(ctx context.Context, name string, key crypto.Signer, cert *certmagic.IssuedCertificate) error {
	return app.Deliver(ctx, s.magic, s.issuerKey, name, key, cert)
}

// Reload implements site.
func (s *magicSite) Reload(ctx context.Context, name string) error {
	return app.Reload(ctx, s.magic, s.issuerKey, name)
}

func issuerKeysOf(magic *certmagic.Config) []string {
	list := make([]string, 0, len(magic.Issuers))
	for _, other := range magic.Issuers {
		list = append(list, other.IssuerKey())
	}
	return list
}

// isTorn reports whether a stored key and certificate do not belong together.
func isTorn(err error) bool {
	_, ok := errors.AsType[*app.TornPairError](err)
	return ok
}

// Interface guard
var _ site = (*magicSite)(nil)
