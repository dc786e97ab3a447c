package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/caddypki"
	_ "github.com/caddyserver/caddy/v2/modules/caddytls"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"
	"github.com/caddyserver/certmagic"
)

// switchIssuer is an issuer whose orders take longer than the test. It does with its config what an
// issuer of this plugin does.
type switchIssuer struct {
	Names []string `json:"names,omitempty"`

	app *switchApp
	cfg *certmagic.Config
}

// switchApp takes the stopgaps when a config starts.
type switchApp struct {
	ctx     caddy.Context
	issuers []*switchIssuer
}

// switched holds what belongs to the newest config.
var switched struct {
	sync.Mutex
	issuer *switchIssuer
	asks   atomic.Int32
	taken  atomic.Int32
}

func init() {
	caddy.RegisterModule(new(switchIssuer))
	caddy.RegisterModule(new(switchApp))
}

func (*switchIssuer) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tls.issuance.switchtest", New: func() caddy.Module { return new(switchIssuer) }}
}

func (*switchApp) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "switchtest", New: func() caddy.Module { return new(switchApp) }}
}

func (iss *switchIssuer) Provision(ctx caddy.Context) error {
	app, err := ctx.App("switchtest")
	if err != nil {
		return err
	}
	iss.app = app.(*switchApp)
	iss.app.issuers = append(iss.app.issuers, iss)
	return nil
}

func (iss *switchIssuer) SetConfig(cfg *certmagic.Config) {
	iss.cfg = cfg
	Quiet(cfg, nil)
	switched.Lock()
	defer switched.Unlock()
	switched.issuer = iss
}

func (*switchIssuer) IssuerKey() string { return "switchtest" }

func (*switchIssuer) Issue(context.Context, *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	switched.asks.Add(1)
	return nil, certmagic.ErrNoRetry{Err: &PendingError{errors.New("order 1 is being validated")}}
}

func (a *switchApp) Provision(ctx caddy.Context) error { a.ctx = ctx; return nil }

func (a *switchApp) Start() error {
	for _, iss := range a.issuers {
		switched.taken.Add(int32(TakeStopgaps(a.ctx, iss.cfg, iss.IssuerKey(), iss.Names)))
	}
	return nil
}

func (a *switchApp) Stop() error { return nil }

// switchSite is a Caddy in this process that clients visit all the time.
type switchSite struct {
	t       *testing.T
	dir     string
	port    int
	ok, bad atomic.Int64
	last    atomic.Pointer[x509.Certificate]
}

func newSwitchSite(t *testing.T) *switchSite {
	// certmagic's jobs outlive a config by a moment, and would write into a directory that is being
	// removed.
	dir, err := os.MkdirTemp("", "switch")
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	site := &switchSite{t: t, dir: dir, port: listener.Addr().(*net.TCPAddr).Port}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	return site
}

// load loads a config in which a policy with the issuer applies to the hosts.
func (s *switchSite) load(issuer string, hosts []string, more string) {
	s.t.Helper()
	names, err := json.Marshal(hosts)
	if err != nil {
		s.t.Fatal(err)
	}
	config := fmt.Sprintf(`{"admin": {"disabled": true, "config": {"persist": false}},
		"logging": {"logs": {"default": {"level": "PANIC"}}},
		"storage": {"module": "file_system", "root": %q},
		"apps": {
			"pki": {"certificate_authorities": {"local": {"install_trust": false}}},
			"http": {"http_port": 1, "https_port": %d, "servers": {"s": {
				"listen": ["127.0.0.1:%d"], "automatic_https": {"disable_redirects": true},
				"routes": [{"match": [{"host": %s}]}], "tls_connection_policies": [{}]}}},
			"tls": {%s "automation": {"policies": [{"subjects": %s, "issuers": [%s]}]}}}}`,
		filepath.Join(s.dir, "storage"), s.port, s.port, names, more, names, issuer)
	if err := caddy.Load([]byte(config), true); err != nil {
		s.t.Fatal(err)
	}
}

// ours is the JSON of an issuer whose order is pending for the names.
func (s *switchSite) ours(names ...string) string {
	list, err := json.Marshal(names)
	if err != nil {
		s.t.Fatal(err)
	}
	return fmt.Sprintf(`{"module": "switchtest", "names": %s}`, list)
}

// look makes one handshake. Failures before TLS have nothing to do with certificates.
func (s *switchSite) look(name string) (*x509.Certificate, error) {
	for {
		conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port), &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err == nil {
			defer conn.Close()
			return conn.ConnectionState().PeerCertificates[0], nil
		}
		if _, ok := errors.AsType[tls.AlertError](err); ok || strings.Contains(err.Error(), "remote error") {
			return nil, err
		}
	}
}

// watch makes handshakes until the test ends.
func (s *switchSite) watch(name string) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for ctx.Err() == nil {
				if leaf, err := s.look(name); err != nil {
					s.bad.Add(1)
				} else {
					s.last.Store(leaf)
					s.ok.Add(1)
				}
			}
		})
	}
	s.t.Cleanup(func() { cancel(); all.Wait() })
}

// more waits for more handshakes, and fails if one has failed.
func (s *switchSite) more(when string) {
	s.t.Helper()
	before := s.ok.Load() + s.bad.Load()
	waitFor(s.t, func() bool { return s.ok.Load()+s.bad.Load() > before+40 })
	if bad := s.bad.Load(); bad > 0 {
		s.t.Errorf("%s: %d of %d handshakes failed", when, bad, bad+s.ok.Load())
	}
}

// TestSwitchOfIssuer: a site changes to an issuer whose order takes a while, and no handshake fails:
// not on the reload, not on a second one, and not when the certificate arrives.
func TestSwitchOfIssuer(t *testing.T) {
	const name = "a.example.com"
	internal := `{"module": "internal"}`
	ca := newCA(t, "manual")
	key := newKey(t)
	keyPEM, err := certmagic.PEMEncodePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	manual := fmt.Sprintf(`"certificates": {"load_pem": [{"certificate": %q, "key": %q}]},`, ca.sign(t, key.Public(), year, "www.example.net", name), keyPEM)
	for what, test := range map[string]struct {
		before, after []string // the hosts
		more          string   // of the config before
	}{
		"internal":             {before: []string{name}, after: []string{name}},
		"manual":               {before: []string{name}, after: []string{name}, more: manual},
		"wildcard to name":     {before: []string{"*.example.com"}, after: []string{name}},
		"wildcard to wildcard": {before: []string{"*.example.com"}, after: []string{"*.example.com"}},
	} {
		t.Run(what, func(t *testing.T) {
			site := newSwitchSite(t)
			site.load(internal, test.before, test.more)
			waitFor(t, func() bool { _, err := site.look(name); return err == nil })
			site.watch(name)
			site.more("before")

			switched.asks.Store(0)
			switched.taken.Store(0)
			site.load(site.ours(test.after...), test.after, "")
			waitFor(t, func() bool { return switched.asks.Load() > 0 })
			site.more("after the reload")
			site.load(site.ours(test.after...), test.after, `"disable_ocsp_stapling": true,`)
			waitFor(t, func() bool { return switched.asks.Load() > 1 })
			site.more("after another one")
			if taken := switched.taken.Load(); taken != 1 {
				t.Errorf("%d stopgaps", taken)
			}

			switched.Lock()
			cfg := switched.issuer.cfg
			switched.Unlock()
			chain := deliver(t, cfg, newCA(t, "ours"), "switchtest", test.after[0], year)
			site.more("after the delivery")
			if last := site.last.Load(); !last.Equal(leafOf(t, chain)) {
				t.Errorf("served in the end: %s", last.Issuer)
			}
			asked := switched.asks.Load()
			site.load(site.ours(test.after...), test.after, "")
			site.more("after a last reload")
			if last := site.last.Load(); !last.Equal(leafOf(t, chain)) || switched.asks.Load() != asked {
				t.Errorf("served in the end: %s, asked %d more times", last.Issuer, switched.asks.Load()-asked)
			}
			t.Logf("%d handshakes succeeded, %d failed", site.ok.Load(), site.bad.Load())
		})
	}
}

// TestSwitchSurvivesRestart: Caddy is restarted while the order is pending: the storage has what was
// served before.
func TestSwitchSurvivesRestart(t *testing.T) {
	const name = "a.example.com"
	site := newSwitchSite(t)
	site.load(`{"module": "internal"}`, []string{name}, "")
	waitFor(t, func() bool { _, err := site.look(name); return err == nil })
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	site.load(site.ours(name), []string{name}, "")
	site.watch(name)
	site.more("after the restart")
}
