package app

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
)

// TestPrivateFieldsOfCertmagic: if this fails, certmagic has changed what evict.go reads.
func TestPrivateFieldsOfCertmagic(t *testing.T) {
	magic := newMagic(t, certmagic.Config{}, certmagic.CacheOptions{})
	ca := newCA(t, "ca")
	if cacheOf(magic) == nil {
		t.Fatal("the cache is no longer where it was")
	}
	key := newKey(t)
	keyPEM, err := certmagic.PEMEncodePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := magic.CacheUnmanagedCertificatePEMBytes(t.Context(), ca.sign(t, key.Public(), year, "manual.example.com"), keyPEM, nil); err != nil {
		t.Fatal(err)
	}
	deliver(t, magic, ca, "ours", "managed.example.com", year)
	for name, want := range map[string]string{"manual.example.com": "", "managed.example.com": "ours"} {
		certs := cachedFor(cacheOf(magic), name)
		if len(certs) != 1 {
			t.Fatalf("%s: %d certificates in the cache", name, len(certs))
		}
		if key, managed := managedBy(certs[0]); key != want || managed != (want != "") {
			t.Errorf("%s: managed %v by %q", name, managed, key)
		}
	}
	cacheOf(magic).Remove([]string{cachedFor(cacheOf(magic), "manual.example.com")[0].Hash()})
	if len(cachedFor(cacheOf(magic), "manual.example.com")) != 0 {
		t.Error("not removed")
	}
}

func TestDeliver(t *testing.T) {
	for _, name := range []string{"a.example.com", "*.example.com", "bücher.example", "CAPS.example.com"} {
		t.Run(name, func(t *testing.T) {
			told := new(events)
			ours := &issuer{key: "ours"}
			magic := newMagic(t, certmagic.Config{Issuers: []certmagic.Issuer{ours}, OnEvent: told.on}, certmagic.CacheOptions{})
			ca := newCA(t, "ca")
			asked := strings.Replace(cacheName(name), "*", "x", 1)

			key := newKey(t)
			cert := ca.issue(t, key.Public(), year, cacheName(name))
			for range 2 { // the second finds everything done
				if err := Deliver(t.Context(), magic, "ours", name, key, cert); err != nil {
					t.Fatal(err)
				}
			}
			wantServed(t, magic, asked, cert.Certificate)
			if got := told.count("cert_obtained"); got != 1 {
				t.Errorf("%d events", got)
			}
			leaf, chain, stored, err := Stored(t.Context(), magic.Storage, "ours", name)
			if err != nil || !slices.Equal(chain, cert.Certificate) || !key.Equal(stored) || !leaf.Equal(leafOf(t, chain)) {
				t.Errorf("stored: %v %v", leaf, err)
			}

			// A renewal of a certificate that is not due is served at once.
			second := deliver(t, magic, ca, "ours", cacheName(name), 2*year)
			wantServed(t, magic, asked, second)
			if got := len(cachedFor(cacheOf(magic), cacheName(name))); got != 1 {
				t.Errorf("%d certificates in the cache", got)
			}
			if ours.asks.Load() != 0 {
				t.Error("the issuer was asked")
			}
			// certmagic treats what was delivered as its own.
			if err := magic.ManageSync(t.Context(), []string{name}); err != nil || ours.asks.Load() != 0 {
				t.Errorf("managing it: %v, %d asks", err, ours.asks.Load())
			}
		})
	}
}

func TestDeliverRefusesWhatDoesNotFit(t *testing.T) {
	magic := newMagic(t, certmagic.Config{}, certmagic.CacheOptions{})
	ca := newCA(t, "ca")
	if err := Deliver(t.Context(), magic, "ours", "a.example.com", newKey(t), ca.issue(t, newKey(t).Public(), year, "a.example.com")); err == nil {
		t.Error("delivered with another key")
	}
	if _, _, _, err := Stored(t.Context(), magic.Storage, "ours", "a.example.com"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stored: %v", err)
	}
}

func TestDeliverRefusesAnotherName(t *testing.T) {
	ca, magic := newCA(t, "ca"), newMagic(t, certmagic.Config{}, certmagic.CacheOptions{})
	old := deliver(t, magic, ca, "ours", "a.example.com", year)
	key := newKey(t)
	if err := Deliver(t.Context(), magic, "ours", "a.example.com", key, ca.issue(t, key.Public(), year, "b.example.com")); err == nil {
		t.Error("delivered a certificate for another name")
	}
	wantServed(t, magic, "a.example.com", old)
}

// TestDeliverWildcardForName: the order for a name may be for a wildcard.
func TestDeliverWildcardForName(t *testing.T) {
	ca, magic := newCA(t, "ca"), newMagic(t, certmagic.Config{}, certmagic.CacheOptions{})
	deliver(t, magic, ca, "internal", "a.example.com", year)
	TakeStopgaps(t.Context(), magic, "ours", []string{"a.example.com"})
	key := newKey(t)
	cert := ca.issue(t, key.Public(), year, "*.example.com")
	if err := Deliver(t.Context(), magic, "ours", "a.example.com", key, cert); err != nil {
		t.Fatal(err)
	}
	wantServed(t, magic, "a.example.com", cert.Certificate)
}

// TestDeliverMends: whatever a crash or a bad disk has left behind is overwritten with the right pair.
func TestDeliverMends(t *testing.T) {
	const name = "a.example.com"
	otherKey, err := certmagic.PEMEncodePrivateKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	site := certmagic.StorageKeys
	for what, damage := range map[string]map[string][]byte{
		"another key":      {site.SitePrivateKey("ours", name): otherKey},
		"no key":           {site.SitePrivateKey("ours", name): nil},
		"damaged key":      {site.SitePrivateKey("ours", name): []byte("x")},
		"no certificate":   {site.SiteCert("ours", name): nil},
		"damaged":          {site.SiteCert("ours", name): []byte("x")},
		"no metadata":      {site.SiteMeta("ours", name): nil},
		"damaged metadata": {site.SiteMeta("ours", name): []byte("{")},
		"all damaged":      {site.SiteCert("ours", name): []byte("x"), site.SiteMeta("ours", name): []byte("x"), site.SitePrivateKey("ours", name): []byte("x")},
	} {
		t.Run(what, func(t *testing.T) {
			magic := newMagic(t, certmagic.Config{Issuers: []certmagic.Issuer{&issuer{key: "ours"}}}, certmagic.CacheOptions{})
			ca := newCA(t, "ca")
			deliver(t, magic, ca, "ours", name, year)
			for file, content := range damage {
				var err error
				if content == nil {
					err = magic.Storage.Delete(t.Context(), file)
				} else {
					err = magic.Storage.Store(t.Context(), file, content)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			_, _, _, err := Stored(t.Context(), magic.Storage, "ours", name)
			var torn *TornPairError
			switch isTorn := errors.As(err, &torn); {
			case strings.HasPrefix(what, "no "):
				if !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("stored: %v", err)
				}
			case !isTorn || torn.Name != name || torn.IssuerKey != "ours":
				t.Errorf("stored: %v", err)
			}
			// Another certificate, and then the same one again.
			key := newKey(t)
			cert := ca.issue(t, key.Public(), year, name)
			for range 2 {
				if err := Deliver(t.Context(), magic, "ours", name, key, cert); err != nil {
					t.Fatal(err)
				}
			}
			wantServed(t, magic, name, cert.Certificate)
			if _, err := magic.CacheManagedCertificate(t.Context(), name); err != nil {
				t.Errorf("certmagic cannot load it: %v", err)
			}
		})
	}
}

// TestDeliverReplacesFallback: a fallback's certificate that was issued later neither hides ours nor
// comes back.
func TestDeliverReplacesFallback(t *testing.T) {
	fallbackCA, ca := newCA(t, "fallback"), newCA(t, "ours")
	fallback := &issuer{key: "fallback", t: t, ca: fallbackCA}
	ours := &issuer{key: "ours", err: errors.New("not yet")}
	magic := newMagic(t, certmagic.Config{Issuers: []certmagic.Issuer{ours, fallback}}, certmagic.CacheOptions{})
	key := newKey(t)
	cert := ca.issue(t, key.Public(), year, "a.example.com") // signed first
	if err := magic.ManageSync(t.Context(), []string{"a.example.com"}); err != nil {
		t.Fatal(err)
	}
	if got, err := handshake(magic, "a.example.com"); err != nil || got.Issuer.CommonName != "fallback" {
		t.Fatalf("served %v %v", got, err)
	}
	if err := Deliver(t.Context(), magic, "ours", "a.example.com", key, cert); err != nil {
		t.Fatal(err)
	}
	wantServed(t, magic, "a.example.com", cert.Certificate)
}

// TestEvictKeepsOtherNames: a certificate that is replaced for one of its names is still served for
// the others.
func TestEvictKeepsOtherNames(t *testing.T) {
	ca := newCA(t, "ca")
	magic := newMagic(t, certmagic.Config{Issuers: []certmagic.Issuer{&issuer{key: "ours"}}}, certmagic.CacheOptions{})
	both := deliver(t, magic, ca, "ours", "a.example.com", year, "b.example.com")
	alone := deliver(t, magic, ca, "ours", "a.example.com", year)
	wantServed(t, magic, "a.example.com", alone)
	wantServed(t, magic, "b.example.com", both)
	// But only until they have their own.
	own := deliver(t, magic, ca, "ours", "b.example.com", year)
	wantServed(t, magic, "a.example.com", alone)
	wantServed(t, magic, "b.example.com", own)
	if got := len(cachedFor(cacheOf(magic), "b.example.com")); got != 1 {
		t.Errorf("%d certificates in the cache", got)
	}
}

// TestEvictKeepsManual: what the operator has loaded stays in the cache.
func TestEvictKeepsManual(t *testing.T) {
	ca := newCA(t, "ca")
	magic := newMagic(t, certmagic.Config{}, certmagic.CacheOptions{})
	key := newKey(t)
	keyPEM, err := certmagic.PEMEncodePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := magic.CacheUnmanagedCertificatePEMBytes(t.Context(), ca.sign(t, key.Public(), year, "a.example.com"), keyPEM, nil)
	if err != nil {
		t.Fatal(err)
	}
	deliver(t, magic, ca, "ours", "a.example.com", year)
	if got := cachedFor(cacheOf(magic), "a.example.com"); len(got) != 2 || got[0].Hash() != hash {
		t.Errorf("%d certificates in the cache", len(got))
	}
}

// TestReload: when another server has delivered, this one loads that, although its local copies are old.
func TestReload(t *testing.T) {
	for _, local := range []bool{false, true} {
		ca := newCA(t, "ca")
		storage := &certmagic.FileStorage{Path: t.TempDir()}
		cfg := certmagic.Config{Storage: storage, Issuers: []certmagic.Issuer{&issuer{key: "ours"}}}
		there := newMagic(t, cfg, certmagic.CacheOptions{})
		if local {
			cfg.LocalCache = &certmagic.FileStorage{Path: t.TempDir()}
		}
		here := newMagic(t, cfg, certmagic.CacheOptions{})
		old := deliver(t, here, ca, "ours", "a.example.com", year)
		wantServed(t, here, "a.example.com", old)
		renewed := deliver(t, there, ca, "ours", "a.example.com", 2*year)
		wantServed(t, here, "a.example.com", old)
		for range 2 {
			if err := Reload(t.Context(), here, "ours", "a.example.com"); err != nil {
				t.Fatal(err)
			}
			wantServed(t, here, "a.example.com", renewed)
		}
		// A torn pair does not affect what is served.
		keyPEM, err := certmagic.PEMEncodePrivateKey(newKey(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := storage.Store(t.Context(), certmagic.StorageKeys.SitePrivateKey("ours", "a.example.com"), keyPEM); err != nil {
			t.Fatal(err)
		}
		var torn *TornPairError
		if err := Reload(t.Context(), here, "ours", "a.example.com"); !errors.As(err, &torn) {
			t.Errorf("a torn pair: %v", err)
		}
		wantServed(t, here, "a.example.com", renewed)
	}
}

// TestDeliverAfterContext: delivery continues when the config ends.
func TestDeliverAfterContext(t *testing.T) {
	ca := newCA(t, "ca")
	magic := newMagic(t, certmagic.Config{}, certmagic.CacheOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	key := newKey(t)
	cert := ca.issue(t, key.Public(), year, "a.example.com")
	if err := Deliver(ctx, magic, "ours", "a.example.com", key, cert); err != nil {
		t.Fatal(err)
	}
	wantServed(t, magic, "a.example.com", cert.Certificate)
}

// waitFor waits until the condition holds.
func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatal("it did not come about within a minute")
		case <-tick.C:
		}
	}
}
