package app

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"
	_ "github.com/caddyserver/caddy/v2/modules/logging"
	"github.com/caddyserver/certmagic"
	"go.uber.org/goleak"

	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/operator"
)

// storageRoot outlives the tests, because certmagic's jobs outlive a config by a moment.
var storageRoot string

func TestMain(m *testing.M) {
	var err error
	if storageRoot, err = os.MkdirTemp("", "app"); err != nil {
		panic(err)
	}
	caddy.RegisterModule(new(testIssuer))
	caddy.RegisterModule(new(otherIssuer))
	caddy.RegisterModule(new(testApp))
	goleak.VerifyTestMain(m,
		goleak.Cleanup(func(code int) {
			os.RemoveAll(storageRoot)
			os.Exit(code)
		}),
		// Caddy keeps one certificate cache across configs, and certmagic's file locks take a few
		// seconds to notice that they were released.
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.(*Cache).maintainAssets"),
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"),
	)
}

// testIssuer is an issuer of ours that issues nothing.
type testIssuer struct {
	NoFiles bool `json:"no_files,omitempty"`

	app      *App
	unmanage func()
}

// newest is the app of the config that was provisioned last.
var newest atomic.Pointer[App]

// onProvision is called with the app of each issuer.
var onProvision func(*App)

func (*testIssuer) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tls.issuance.apptest", New: func() caddy.Module { return new(testIssuer) }}
}

func (iss *testIssuer) Provision(ctx caddy.Context) (err error) {
	if iss.app, err = Of(ctx); err != nil {
		return err
	}
	if ours, exact := iss.app.Managed("shop.example.com"); ours || exact {
		return errors.New("a host is known before Start")
	}
	newest.Store(iss.app)
	iss.app.Register(ctx, iss)
	iss.app.Register(ctx, iss)
	if onProvision != nil {
		onProvision(iss.app)
	}
	return nil
}

func (iss *testIssuer) SetConfig(magic *certmagic.Config) {
	if iss.unmanage == nil {
		iss.unmanage = dcv.Live.Manage(magic.Storage, iss.app.Managed)
	}
	if err := iss.app.Attach(iss); err != nil {
		panic(err)
	}
}

func (iss *testIssuer) Cleanup() error {
	if iss.unmanage != nil {
		iss.unmanage()
	}
	return nil
}

func (iss *testIssuer) ServesFiles() bool { return !iss.NoFiles }

func (iss *testIssuer) Account() (operator.Account, bool) { return operator.Account{}, false }

func (*testIssuer) IssuerKey() string { return "apptest" }

func (*testIssuer) Issue(context.Context, *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	return nil, certmagic.ErrNoRetry{Err: errors.New("this is a test")}
}

func (*testIssuer) Round(context.Context, string) (time.Duration, bool) { return 0, false }

var (
	_ Member                = (*testIssuer)(nil)
	_ caddytls.ConfigSetter = (*testIssuer)(nil)
)

// otherIssuer is one that is not ours.
type otherIssuer struct{}

func (*otherIssuer) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tls.issuance.apptest_other", New: func() caddy.Module { return new(otherIssuer) }}
}

func (*otherIssuer) IssuerKey() string { return "other" }

func (*otherIssuer) Issue(context.Context, *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	return nil, certmagic.ErrNoRetry{Err: errors.New("this is a test")}
}

// testApp is another app. It is slow, or fails to start, if it is told to.
type testApp struct {
	Fail bool           `json:"fail,omitempty"`
	Slow caddy.Duration `json:"slow,omitempty"`
}

func (*testApp) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "apptest", New: func() caddy.Module { return new(testApp) }}
}

func (a *testApp) Provision(caddy.Context) error {
	a.wait()
	return nil
}

func (a *testApp) wait() { <-time.After(time.Duration(a.Slow)) }

func (a *testApp) Start() error {
	a.wait()
	if a.Fail {
		return errors.New("told to fail")
	}
	return nil
}

func (*testApp) Stop() error { return nil }

type object = map[string]any

// site is a Caddy of this process.
type site struct {
	t    *testing.T
	http int
	dir  string
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, http: freePort(t)}
	var err error
	if s.dir, err = os.MkdirTemp(storageRoot, "site"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// An admin endpoint ends only with the next config.
		if err := caddy.Load(s.config(false, nil), true); err != nil {
			t.Error(err)
		}
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func freePort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// config returns a config with the apps. Without an admin endpoint, apps are provisioned in random
// order.
func (s *site) config(admin bool, apps object) []byte {
	s.t.Helper()
	endpoint := object{"disabled": true, "config": object{"persist": false}}
	if admin {
		endpoint = object{"listen": fmt.Sprintf("127.0.0.1:%d", freePort(s.t)), "config": object{"persist": false}}
	}
	out, err := json.Marshal(object{
		"admin":   endpoint,
		"storage": object{"module": "file_system", "root": s.dir},
		"logging": object{"logs": object{"default": object{"writer": object{"output": "file", "filename": s.log(), "roll": false}}}},
		"apps":    apps,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *site) log() string { return s.dir + "/log.json" }

// logged returns how often the message is in the log.
func (s *site) logged(message string) int {
	data, err := os.ReadFile(s.log())
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.Count(string(data), message)
}

func (s *site) load(config []byte) *App {
	s.t.Helper()
	if err := caddy.Load(config, true); err != nil {
		s.t.Fatalf("loading: %v\n%s", err, config)
	}
	return newest.Load()
}

// tlsApp returns a TLS app with the policies, which automates the given names.
func tlsApp(automate []string, policies ...object) object {
	app := object{"automation": object{"policies": policies}}
	if automate != nil {
		app["certificates"] = object{"automate": automate}
	}
	return app
}

func policy(module string, subjects ...string) object {
	return object{"subjects": subjects, "issuers": []object{{"module": module}}}
}

// httpApp returns an HTTP app without automatic HTTPS, whose server listens at the addresses and
// answers everything.
func (s *site) httpApp(listen ...string) object {
	return object{"http_port": s.http, "grace_period": "1s", "servers": object{"web": object{
		"listen": listen, "automatic_https": object{"disable": true},
		"routes": []object{{"handle": []object{{"handler": "static_response", "body": "web"}}}},
	}}}
}

// get requests a path over plain HTTP. Servers that are shutting down share a socket with others and
// drop what they accept, so it tries again.
func get(addr, path string) (answer string) {
	for range 20 {
		var ok bool
		if answer, ok = getOnce(addr, path); ok {
			break
		}
	}
	return answer
}

func getOnce(addr, path string) (answer string, ok bool) {
	transport := &http.Transport{DisableKeepAlives: true}
	req, err := http.NewRequest(http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return err.Error(), false
	}
	req.Host = "shop.example.com"
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err.Error(), false
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error(), false
	}
	return fmt.Sprintf("%d %s", resp.StatusCode, strings.TrimSpace(string(body))), true
}

const testFile = dcv.PathPrefix + "A1B2C3.txt"

// publish puts a file into the process-wide store for the test's duration.
func publish(t *testing.T) {
	t.Helper()
	ch, err := dcv.NewChallenge("app", []string{"shop.example.com"}, strings.TrimPrefix(testFile, dcv.PathPrefix), "the file")
	if err != nil {
		t.Fatal(err)
	}
	if err := dcv.Live.Present(t.Context(), nil, ch); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dcv.Live.CleanUp(context.Background(), nil, "app", nil); err != nil {
			t.Error(err)
		}
	})
}
