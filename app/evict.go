package app

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"golang.org/x/net/idna"
)

// certmagic offers no way to say that a certificate takes the place of others: a new one
// is served when those before it have expired, and its own AsReplacement deadlocks
// (certificates.go:433 of v0.25.6). So the cache of a config is used directly. certmagic
// keeps it in a private field; a test fails if that moves, and without it nothing is
// evicted and no stopgap is taken, as a stopgap that cannot be removed would be served in
// place of what it waits for.

// cacheOf returns the cache of a config, or nil if this certmagic keeps it elsewhere.
func cacheOf(magic *certmagic.Config) *certmagic.Cache {
	field := reflect.ValueOf(magic).Elem().FieldByName("certCache")
	if !field.IsValid() || field.Type() != reflect.TypeFor[*certmagic.Cache]() {
		return nil
	}
	return (*certmagic.Cache)(field.UnsafePointer())
}

// managedBy returns whether certmagic manages a cached certificate, and the key of the
// issuer that it came from, which is empty for others.
func managedBy(cert certmagic.Certificate) (issuerKey string, managed bool) {
	v := reflect.ValueOf(cert)
	if field := v.FieldByName("managed"); !field.IsValid() || field.Kind() != reflect.Bool || !field.Bool() {
		return "", false
	}
	if field := v.FieldByName("issuerKey"); field.IsValid() && field.Kind() == reflect.String {
		issuerKey = field.String()
	}
	return issuerKey, true
}

// cacheName returns a name as certificates have it: in lower case and ASCII.
func cacheName(name string) string {
	if ascii, err := idna.ToASCII(name); err == nil {
		name = ascii
	}
	return strings.ToLower(name)
}

// cachedFor returns the cached certificates that have the very name, in the order in which
// certmagic considers them. A wildcard has only its own name.
func cachedFor(cache *certmagic.Cache, name string) []certmagic.Certificate {
	var exact []certmagic.Certificate
	for _, cert := range cache.AllMatchingCertificates(name) { // a wildcard's come twice
		known := func(other certmagic.Certificate) bool { return other.Hash() == cert.Hash() }
		if slices.Contains(cert.Names, name) && !slices.ContainsFunc(exact, known) {
			exact = append(exact, cert)
		}
	}
	return exact
}

// cachedOf reports whether a managed certificate of one of the issuers is served, or could
// be, for the very name.
func cachedOf(cache *certmagic.Cache, name string, issuerKeys ...string) bool {
	for _, cert := range cachedFor(cache, name) {
		if key, managed := managedBy(cert); managed && slices.Contains(issuerKeys, key) && valid(cert) {
			return true
		}
	}
	return false
}

// valid reports whether now is within a certificate's validity period.
func valid(cert certmagic.Certificate) bool {
	now := time.Now()
	return cert.Leaf != nil && !now.Before(cert.Leaf.NotBefore) && now.Before(cert.Leaf.NotAfter)
}

// evict takes out of the cache what the certificate replaces for the name: the managed
// certificates of the name, whichever issuer they are of, and the stopgap. Certificates
// that the operator loaded stay. Names that only the replaced certificate served keep it
// as a stopgap.
func evict(ctx context.Context, magic *certmagic.Config, name string, by certmagic.Certificate) {
	cache := cacheOf(magic)
	if cache == nil {
		magic.Logger.Warn("cannot take replaced certificates out of the cache of this version of certmagic; "+
			"the new certificate is served when they have expired", zap.String("identifier", name))
		return
	}
	var replaced []string
	for _, old := range cachedFor(cache, name) {
		if _, managed := managedBy(old); !managed || old.Hash() == by.Hash() {
			continue
		}
		for _, other := range old.Names {
			if covers(by.Leaf, other) || served(cache, other, old.Hash()) {
				continue
			}
			if err := putStopgap(ctx, magic, other, old); err != nil {
				magic.Logger.Warn("a name is not served any more: the certificate that replaces its own does not cover it",
					zap.String("identifier", other), zap.Error(err))
			}
		}
		replaced = append(replaced, old.Hash())
	}
	cache.Remove(replaced)
	DropStopgap(magic, name) // by may be a wildcard's
	for _, covered := range by.Names {
		DropStopgap(magic, covered)
	}
}

// served reports whether a valid certificate other than the one with the hash is cached
// for the name.
func served(cache *certmagic.Cache, name, hash string) bool {
	return slices.ContainsFunc(cachedFor(cache, name), func(cert certmagic.Certificate) bool {
		return cert.Hash() != hash && valid(cert)
	})
}
