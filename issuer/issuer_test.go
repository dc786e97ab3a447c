package issuer

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http/httptest"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/goleak"

	"github.com/caddy-commercial/caddy-commercial/internal/poll"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/internal/test/tlsconfig"

	_ "github.com/caddy-commercial/caddy-commercial/vendors/racent"
)

// installation is what outlives the configs of a test: a CA on the network, a storage, and
// certmagic's cache.
type installation struct {
	ca      *hostile.CA
	api     string
	storage *certmagic.FileStorage
	port    int // where the CA fetches and we listen
	cache   *certmagic.Cache
	magic   *certmagic.Config
}

func newSite(t *testing.T, change func(*hostile.Config)) *installation {
	t.Helper()
	s := &installation{storage: &certmagic.FileStorage{Path: t.TempDir()}}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.port = ln.Addr().(*net.TCPAddr).Port
	ln.Close()
	cfg := hostile.Config{Core: hostile.Core{Accounts: []hostile.Account{{Token: testToken, Balance: 100_000}}, HTTPPort: s.port}}
	change(&cfg)
	if s.ca, err = hostile.New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.ca.Close)
	server := httptest.NewServer(s.ca)
	t.Cleanup(server.Close)
	s.api = server.URL + "/ssl"
	s.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return s.magic, nil },
	})
	t.Cleanup(s.cache.Stop)
	return s
}

// load provisions an issuer as a config reload does.
func (s *installation) load(t *testing.T) (iss *Issuer, unload func()) {
	t.Helper()
	raw, err := json.Marshal(map[string]any{
		"module":   "commercial",
		"vendor":   map[string]any{"name": "racent", "api_token": testToken, "endpoint": s.api, "test_service": true},
		"product":  "comodo-positivessl",
		"contact":  testContact(),
		"poll_min": "20ms", "poll_max": "100ms", "max_wait": "200ms",
		"http_port": s.port, "bind": []string{"127.0.0.1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	config, err := tlsconfig.New(s.storage.Path, raw)
	if err != nil {
		t.Fatal(err)
	}
	iss = config.Issuers[0].(*Issuer)
	s.magic = certmagic.New(s.cache, certmagic.Config{Storage: s.storage, Issuers: []certmagic.Issuer{iss}})
	iss.SetConfig(s.magic)
	if err := config.Start(); err != nil {
		t.Fatal(err)
	}
	return iss, config.Close
}

// issue does what certmagic does in one attempt.
func (s *installation) issue(ctx context.Context, t *testing.T, iss *Issuer, name string) error {
	t.Helper()
	key, err := s.magic.KeySource.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(nil, &x509.CertificateRequest{DNSNames: []string{name}}, key)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	_, err = iss.Issue(ctx, csr)
	return err
}

// served returns the certificate that certmagic has for the name, if any.
func (s *installation) served(name string) *x509.Certificate {
	for _, cert := range s.cache.AllMatchingCertificates(name) {
		return cert.Leaf
	}
	return nil
}

// noLeaks fails if goroutines are left at the end of the test.
func noLeaks(t *testing.T) {
	before := goleak.IgnoreCurrent()
	// certmagic's file storage may take five seconds to notice that a lock which it keeps fresh was
	// released.
	locks := goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh")
	t.Cleanup(func() { goleak.VerifyNone(t, before, locks) })
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for !ok() {
		if err := poll.Wait(ctx, 20*time.Millisecond); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// TestSlowOrderIsDeliveredInBackground reloads the config while an order is pending. The order is
// not reissued because of that: the key of the first attempt is still known.
func TestSlowOrderIsDeliveredInBackground(t *testing.T) {
	noLeaks(t)
	s := newSite(t, func(c *hostile.Config) { c.IssueDelay = 2 * time.Second })
	first, unload := s.load(t)
	for range 2 {
		err := s.issue(t.Context(), t, first, "demo.localhost")
		if !is[*PendingError](err) || !is[certmagic.ErrNoRetry](err) {
			t.Fatalf("error = %v", err)
		}
	}
	unload()
	second, unload := s.load(t)
	defer unload()
	if err := s.issue(t.Context(), t, second, "demo.localhost"); !is[*PendingError](err) {
		t.Fatalf("error = %v", err)
	}
	if s.served("demo.localhost") != nil {
		t.Fatal("there is a certificate already")
	}
	eventually(t, "the certificate is served", func() bool { return s.served("demo.localhost") != nil })
	leaf := s.served("demo.localhost")
	if err := leaf.VerifyHostname("demo.localhost"); err != nil {
		t.Error(err)
	}
	if len(s.ca.Charges()) != 1 || s.ca.Calls("replace") != 0 || s.ca.Calls("cancel") != 0 {
		t.Errorf("charges %d, replace %d, cancel %d", len(s.ca.Charges()), s.ca.Calls("replace"), s.ca.Calls("cancel"))
	}
	stored, err := s.storage.Load(t.Context(), certmagic.StorageKeys.SiteMeta(second.IssuerKey(), "demo.localhost"))
	if err != nil {
		t.Fatal(err)
	}
	var resource certmagic.CertificateResource
	if err := json.Unmarshal(stored, &resource); err != nil {
		t.Fatal(err)
	}
	if err := second.Revoke(t.Context(), resource, 1); err != nil {
		t.Errorf("revoking what the watch stored: %v", err)
	}
	if !s.ca.Revoked(leaf.SerialNumber) {
		t.Error("the certificate is not revoked")
	}
}

// TestIssuerKeepsVisits: a visit of the CA to the handler of a real config is written to the storage.
func TestIssuerKeepsVisits(t *testing.T) {
	noLeaks(t)
	s := newSite(t, func(c *hostile.Config) { c.IssueDelay = 2 * time.Second })
	iss, unload := s.load(t)
	defer unload()
	if err := s.issue(t.Context(), t, iss, "demo.localhost"); !is[*PendingError](err) {
		t.Fatalf("error = %v", err)
	}
	var running bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&running, 1); err != nil || !strings.Contains(running.String(), "(*flow).keepVisits") {
		t.Errorf("nobody writes visits: %v", err)
	}
	l := iss.flow().ledger
	files, err := s.storage.List(t.Context(), "commercial/dcv/demo.localhost", false)
	if err != nil || len(files) != 1 {
		t.Fatalf("files %q, %v", files, err)
	}
	if shared, err := s.storage.Load(t.Context(), files[0]); err != nil || !strings.Contains(string(shared), `"group":"`+l.Prefix+`"`) {
		t.Errorf("other servers find %s, %v", shared, err)
	}
	eventually(t, "the certificate is served", func() bool { return s.served("demo.localhost") != nil })
	list, err := l.About(t.Context(), "demo.localhost")
	if err != nil || len(list) != 1 || list[0].Attempt.Visits == nil || list[0].Attempt.Visits.Newest[0].Server != hostName() {
		t.Errorf("entries %+v, %v", list, err)
	}
}

// TestCancelledIssue: a call that is cancelled ends at once, and leaves no goroutine and no lost order.
func TestCancelledIssue(t *testing.T) {
	noLeaks(t)
	s := newSite(t, func(c *hostile.Config) { c.IssueDelay = time.Hour })
	iss, unload := s.load(t)
	iss.rules.maxWait = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	s.ca.OnCall(func(endpoint string, phase hostile.Phase) {
		if endpoint == "collect" && phase == hostile.AfterEffect {
			cancel()
		}
	})
	start := time.Now()
	if err := s.issue(ctx, t, iss, "demo.localhost"); !is[*PendingError](err) {
		t.Errorf("error = %v", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
	unload()
	if len(s.ca.Charges()) != 1 || s.ca.Calls("cancel") != 0 {
		t.Errorf("charges %d, cancel %d", len(s.ca.Charges()), s.ca.Calls("cancel"))
	}
}

// TestFailedConfigIsAsked: certmagic keeps asking the issuer of a configuration that failed to load,
// and the running configuration does the work.
func TestFailedConfigIsAsked(t *testing.T) {
	noLeaks(t)
	s := newSite(t, func(*hostile.Config) {})
	_, unload := s.load(t)
	defer unload()
	failed, unloadFailed := s.load(t)
	defer unloadFailed()
	if err := failed.Cleanup(); err != nil {
		t.Fatal(err)
	}
	// The running configuration decides: it has no site for the name.
	if err := s.issue(t.Context(), t, failed, "demo.localhost"); err == nil || !strings.Contains(err.Error(), "is not among the names") {
		t.Errorf("error = %v", err)
	}
}
