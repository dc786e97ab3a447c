package app

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// When the issuer of a name that is already served is changed to this one, Caddy takes
// the old certificate out of the cache as soon as the new config has started, and the site
// would be dark until the order is done, which may take days. A stopgap is that old
// certificate, put into the cache once more, as one that Caddy knows nothing about: for
// the one name, unmanaged, and under another hash. It is taken out again when a
// certificate of the name's own issuers is there. All that is known about stopgaps is in
// the cache, so they survive reloads.

const (
	// stopgapTag marks stopgaps in certmagic's cache.
	stopgapTag = "commercial-stopgap"

	// stopgapMargin is how long before its end a stopgap is exchanged for one that lasts
	// longer. Those of Caddy's internal issuer live 12 hours.
	stopgapMargin = 4 * time.Hour
)

// TakeStopgaps keeps names served for which the cache has no valid certificate of the issuer: each
// gets a stopgap of what serves it now, be it managed, loaded by hand or a wildcard, or else of what
// any issuer has in the storage for it, or for the wildcard above it. It returns for how many names
// a stopgap was put.
//
// Call it when a config starts, before Caddy stops the one before, with the names whose
// own policy has the issuer; and then about once an hour for the names that still have no
// certificate, which exchanges what is about to expire.
func TakeStopgaps(ctx context.Context, magic *certmagic.Config, issuerKey string, names []string) int {
	cache := cacheOf(magic)
	if cache == nil {
		return 0
	}
	taken := 0
	var dark []string // or nearly so
	for _, name := range names {
		name = cacheName(name)
		if cachedOf(cache, name, issuerKey) {
			DropStopgap(magic, name)
			continue
		}
		have := stopgapOf(cache, name)
		if have.Leaf != nil && time.Until(have.Leaf.NotAfter) > stopgapMargin {
			continue
		}
		if cert := longest(name, cache.AllMatchingCertificates(name)); lasts(cert.Certificate, have.Leaf) && exchange(ctx, magic, name, cert, have) {
			taken++
			have = stopgapOf(cache, name)
		}
		if have.Leaf == nil || time.Until(have.Leaf.NotAfter) <= stopgapMargin {
			dark = append(dark, name)
		}
	}
	return taken + stopgapsFromStorage(ctx, magic, cache, issuerKey, dark)
}

// stopgapNames are the names that may have a stopgap.
var stopgapNames struct {
	sync.Mutex
	all map[string]struct{}
}

// KeepStopgaps drops the stopgaps of all names but those that keep wants. Call it when a
// config has started, for names that are configured no more.
func KeepStopgaps(magic *certmagic.Config, keep func(name string) bool) {
	stopgapNames.Lock()
	names := slices.Collect(maps.Keys(stopgapNames.all))
	stopgapNames.Unlock()
	for _, name := range names {
		if !keep(name) {
			DropStopgap(magic, name)
		}
	}
}

// DropStopgap removes the stopgap of the name, so that its next certificate is served, also by
// servers that choose by tag.
func DropStopgap(magic *certmagic.Config, name string) {
	cache := cacheOf(magic)
	if cache == nil {
		return
	}
	name = cacheName(name)
	stopgapNames.Lock()
	delete(stopgapNames.all, name)
	stopgapNames.Unlock()
	passTags(magic, name)
	if gap := stopgapOf(cache, name); gap.Leaf != nil {
		cache.Remove([]string{gap.Hash()})
	}
}

// passTags gives the certificates of the config's own issuers the tags of those that are not managed
// and have the very name: of the stopgap, which is about to go, and of what the config before had
// loaded from files. Servers that Caddy has stopped still choose by them, see putStopgap.
func passTags(magic *certmagic.Config, name string) {
	cache := cacheOf(magic)
	var tags []string
	for _, cert := range cachedFor(cache, name) {
		if _, managed := managedBy(cert); !managed {
			tags = append(tags, cert.Tags...)
		}
	}
	tags = slices.DeleteFunc(tags, func(tag string) bool { return tag == stopgapTag })
	if len(tags) == 0 {
		return
	}
	for _, cert := range cache.AllMatchingCertificates(name) {
		if key, managed := managedBy(cert); !managed || !slices.Contains(issuerKeys(magic), key) {
			continue
		}
		// Of a certificate that is cached already, certmagic only adds the tags.
		hash, err := silent(magic).CacheUnmanagedTLSCertificate(context.Background(), cert.Certificate, tags)
		if err != nil {
			magic.Logger.Warn("TLS handshakes that began before the reload may fail", zap.String("identifier", name), zap.Error(err))
			continue
		}
		for _, now := range cachedFor(cache, cert.Names[0]) {
			if _, managed := managedBy(now); now.Hash() == hash && !managed {
				cache.Remove([]string{hash}) // the other one was taken out meanwhile
			}
		}
	}
}

// silent returns the config for putting into the cache what is not new.
func silent(magic *certmagic.Config) *certmagic.Config {
	one := *magic
	one.Logger = zap.NewNop()       // it would warn that the certificate expires soon
	one.OCSP.DisableStapling = true // it would ask a responder for each name; what is stapled stays
	one.OnEvent = nil               // nothing new has come
	return &one
}

// dropReplacedStopgaps drops the stopgaps of the names that have a certificate of the
// config's own issuers by now.
func dropReplacedStopgaps(magic *certmagic.Config, names []string) {
	cache := cacheOf(magic)
	if cache == nil {
		return
	}
	keys := issuerKeys(magic)
	for _, name := range names {
		if cachedOf(cache, name, keys...) {
			DropStopgap(magic, name)
		}
	}
}

func issuerKeys(magic *certmagic.Config) []string {
	keys := make([]string, 0, len(magic.Issuers))
	for _, issuer := range magic.Issuers {
		keys = append(keys, issuer.IssuerKey())
	}
	return keys
}

// stopgapOf returns the stopgap of a name, or a zero value.
func stopgapOf(cache *certmagic.Cache, name string) certmagic.Certificate {
	for _, cert := range cachedFor(cache, name) {
		if cert.HasTag(stopgapTag) {
			return cert
		}
	}
	return certmagic.Certificate{}
}

// longest returns the certificate that serves the name for longest, or a zero value.
func longest(name string, choices []certmagic.Certificate) certmagic.Certificate {
	var longest certmagic.Certificate
	for _, choice := range choices {
		if choice.HasTag(stopgapTag) || !valid(choice) || !signs(choice.Certificate) || !covers(choice.Leaf, name) {
			continue
		}
		if lasts(choice.Certificate, longest.Leaf) {
			longest = choice
		}
	}
	return longest
}

func signs(cert tls.Certificate) bool {
	_, ok := cert.PrivateKey.(crypto.Signer)
	return ok
}

// covers reports whether a client that asks for the name accepts the certificate. A wildcard must be
// among the certificate's own names.
func covers(leaf *x509.Certificate, name string) bool {
	if strings.HasPrefix(name, "*.") {
		return slices.ContainsFunc(leaf.DNSNames, func(san string) bool { return strings.EqualFold(san, name) })
	}
	return leaf.VerifyHostname(name) == nil
}

// lasts reports whether a certificate, which may be empty, outlasts another one, which
// may be nil.
func lasts(cert tls.Certificate, than *x509.Certificate) bool {
	return cert.Leaf != nil && (than == nil || cert.Leaf.NotAfter.After(than.NotAfter))
}

// exchange puts a stopgap in the place of the one before, if there is one.
func exchange(ctx context.Context, magic *certmagic.Config, name string, cert, before certmagic.Certificate) bool {
	if err := putStopgap(ctx, magic, name, cert); err != nil {
		magic.Logger.Warn("a name cannot be served with its earlier certificate while its order is under way",
			zap.String("identifier", name), zap.Error(err))
		return false
	}
	if before.Leaf != nil {
		cacheOf(magic).Remove([]string{before.Hash()})
	}
	return true
}

// putStopgap puts a copy of the certificate into the cache that serves only the one name. It has the
// certificate's tags, too: on a reload, Caddy does not wait for the handshakes of the servers that
// it stops (caddyhttp/app.go:864 of v2.11.9). They choose certificates from files by tag
// (certselection.go:89), while Caddy takes these out of the cache (caddytls/tls.go:570).
func putStopgap(ctx context.Context, magic *certmagic.Config, name string, served certmagic.Certificate) error {
	cert, tags := served.Certificate, append(slices.Clone(served.Tags), stopgapTag)
	if len(cert.Certificate) == 0 || cert.Leaf == nil {
		return errors.New("the certificate is empty")
	}
	leaf := *cert.Leaf
	leaf.Subject = pkix.Name{}
	leaf.EmailAddresses, leaf.URIs = nil, nil
	leaf.DNSNames, leaf.IPAddresses = subjectAltNames(name)
	cert.Leaf = &leaf
	one := silent(magic)
	// certmagic knows certificates by the hash of their chain. With one more certificate at the end,
	// which clients ignore, this is not the one that Caddy removes. For the first name that is
	// served, the chain's last one will do; each further name needs one of its own.
	chain := slices.Clip(cert.Certificate)
	cert.Certificate = append(chain, chain[len(chain)-1])
	hash, err := one.CacheUnmanagedTLSCertificate(ctx, cert, tags)
	if err == nil && !isCached(cacheOf(magic), name, hash) {
		var marker []byte
		if marker, err = stopgapMarker(name); err == nil {
			cert.Certificate = append(chain, marker)
			_, err = one.CacheUnmanagedTLSCertificate(ctx, cert, tags)
		}
	}
	if err != nil {
		return fmt.Errorf("putting a stopgap into the cache: %w", err)
	}
	stopgapNames.Lock()
	defer stopgapNames.Unlock()
	if stopgapNames.all == nil {
		stopgapNames.all = make(map[string]struct{})
	}
	stopgapNames.all[name] = struct{}{}
	return nil
}

// isCached reports whether the certificate with the hash is cached for the very name.
func isCached(cache *certmagic.Cache, name, hash string) bool {
	return slices.ContainsFunc(cachedFor(cache, name), func(cert certmagic.Certificate) bool { return cert.Hash() == hash })
}

// subjectAltNames returns the name as the fields of a certificate.
func subjectAltNames(name string) (dns []string, ips []net.IP) {
	if ip := net.ParseIP(name); ip != nil {
		return nil, []net.IP{ip}
	}
	return []string{name}, nil
}

// markerKey signs the markers of this process. Nobody has to trust them.
var markerKey = sync.OnceValues(func() (*ecdsa.PrivateKey, error) {
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
})

// stopgapMarker returns a small certificate that differs from name to name.
func stopgapMarker(name string) ([]byte, error) {
	key, err := markerKey()
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	digest := sha256.Sum256([]byte(name))
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(digest[:16]), Subject: pkix.Name{CommonName: "stopgap"},
		NotBefore: now, NotAfter: now.AddDate(1, 0, 0),
	}
	return x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
}
