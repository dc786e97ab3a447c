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
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"
	_ "github.com/caddyserver/caddy/v2/modules/logging"
	"github.com/caddyserver/certmagic"
	"go.uber.org/goleak"

	"github.com/caddy-commercial/caddy-commercial/dcv"
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
		// Caddy keeps one certificate cache across configs, and certmagic's file locks
		// notice after a few seconds that they were released.
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

// testApp is another app. It takes its time, and fails to start, if it is told to.
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
		// Only another config ends an admin endpoint.
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

// config is a config with the apps. Without an admin endpoint apps are provisioned in
// random order.
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

// logged is how often the message is in the log.
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

// tlsApp is a TLS app whose policies are given as pairs of subjects and issuers.
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

// httpApp is an HTTP app without automatic HTTPS whose server listens at the addresses
// and answers everything.
func (s *site) httpApp(listen ...string) object {
	return object{"http_port": s.http, "grace_period": "1s", "servers": object{"web": object{
		"listen": listen, "automatic_https": object{"disable": true},
		"routes": []object{{"handle": []object{{"handler": "static_response", "body": "web"}}}},
	}}}
}

// get asks an address over plain HTTP. Servers that are shutting down share a socket with
// others and drop what they accept, so that it asks again.
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

// Each moment comes once, in order, and the end comes to configs that fail, too.
func TestLifeOfAConfig(t *testing.T) {
	s := newSite(t)
	var mu sync.Mutex
	moments := make(map[*App][]string)
	note := func(a *App, moment string) func() {
		return func() {
			mu.Lock()
			defer mu.Unlock()
			moments[a] = append(moments[a], moment)
		}
	}
	onProvision = func(a *App) {
		a.OnStart(note(a, "start"))
		a.OnListening(func() {
			note(a, "listening")()
			if n := len(a.front.Unserved(s.http)); n != 0 {
				t.Errorf("%d servers without handler", n)
			}
			if got := get(net.JoinHostPort("127.0.0.1", strconv.Itoa(s.http)), "/"); got != "200 web" {
				t.Errorf("the server does not listen: %s", got)
			}
		})
		a.OnStop(note(a, "stop"))
	}
	defer func() { onProvision = nil }()
	apps := func(fail bool) object {
		return object{
			"tls": tlsApp(nil, policy("apptest", "shop.example.com")), "apptest": object{"fail": fail},
			"http": s.httpApp(fmt.Sprintf("127.0.0.1:%d", s.http)),
		}
	}
	good, bad := s.config(true, apps(false)), s.config(true, apps(true))
	running := s.load(good)
	failed := 0
	for range 10 {
		if err := caddy.Load(bad, true); err == nil {
			t.Fatal("the bad config has been loaded")
		}
		a := newest.Load()
		<-a.ctx.Done()
		failed++
		// In half of them our app was to be started before the one that fails.
		if got := moments[a]; len(got) != 0 && !slices.Equal(got, []string{"start", "stop"}) {
			t.Errorf("a config that failed: %v", got)
		}
		if err := a.WaitListening(t.Context()); !errors.Is(err, ErrNotStarted) {
			t.Errorf("waiting for a config that failed: %v", err)
		}
		next := s.load(good)
		if got := moments[running]; !slices.Equal(got, []string{"start", "listening", "stop"}) {
			t.Errorf("a config that was replaced: %v", got)
		}
		if err := running.Cleanup(); err != nil {
			t.Error(err)
		}
		if got := moments[next]; !slices.Equal(got, []string{"start", "listening"}) {
			t.Errorf("the running config: %v", got)
		}
		running = next
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	if got := moments[running]; len(got) != 3 {
		t.Errorf("a config that was stopped: %v", got)
	}
	if len(moments) < failed+1 {
		t.Errorf("%d configs have been seen", len(moments))
	}
}

func TestWaiting(t *testing.T) {
	fresh := func(ctx context.Context) *App {
		return &App{ctx: caddy.Context{Context: ctx}, started: make(chan struct{}), listening: make(chan struct{})}
	}
	for title, wait := range map[string]struct {
		patience time.Duration
		call     func(*App, context.Context) error
		reached  func(*App) chan struct{}
	}{
		"start":     {time.Minute, (*App).WaitStarted, func(a *App) chan struct{} { return a.started }},
		"listening": {10 * time.Second, (*App).WaitListening, func(a *App) chan struct{} { return a.listening }},
	} {
		t.Run(title, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				a := fresh(t.Context())
				if err := wait.call(a, t.Context()); !errors.Is(err, ErrNotStarted) || time.Since(begin) != wait.patience {
					t.Errorf("never: %v after %s", err, time.Since(begin))
				}
				time.AfterFunc(time.Second, func() { close(wait.reached(a)) })
				if err := wait.call(a, t.Context()); err != nil {
					t.Error(err)
				}
				done, cancel := context.WithCancel(t.Context())
				cancel()
				if err := wait.call(a, done); err != nil {
					t.Errorf("reached long ago: %v", err)
				}
				if err := wait.call(fresh(t.Context()), done); !errors.Is(err, ErrNotStarted) || !errors.Is(err, context.Canceled) {
					t.Errorf("cancelled: %v", err)
				}
				if err := wait.call(fresh(done), t.Context()); !errors.Is(err, ErrNotStarted) {
					t.Errorf("unloaded: %v", err)
				}
			})
		})
	}
}

// An issuer that is loaded after everything has started would wait for nothing.
func TestOutsideTheTLSApp(t *testing.T) {
	s := newSite(t)
	var config object
	if err := json.Unmarshal(s.config(true, object{"tls": tlsApp(nil, policy("apptest"))}), &config); err != nil {
		t.Fatal(err)
	}
	config["admin"].(object)["identity"] = object{"identifiers": []string{"admin.example.com"}, "issuers": []object{{"module": "apptest"}}}
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := caddy.Load(text, true); err == nil || !strings.Contains(err.Error(), "identity of the admin endpoint") {
		t.Errorf("got %v", err)
	}
}

// The first policy that applies decides, as the TLS app has it.
func TestManaged(t *testing.T) {
	s := newSite(t)
	web := s.httpApp(fmt.Sprintf("127.0.0.1:%d", s.http))
	web["servers"].(object)["web"].(object)["routes"] = []object{
		{"match": []object{{"host": []string{"Routed.example.org"}}}, "handle": []object{{"handler": "subroute", "routes": []object{
			{"match": []object{{"host": []string{"deep.example.org"}}}, "handle": []object{{"handler": "static_response"}}},
		}}}},
	}
	type answer struct{ ours, exact bool }
	for title, tc := range map[string]struct {
		tls  object
		want map[string]answer
	}{
		"subjects": {
			tlsApp([]string{"auto.example.net"}, policy("apptest_other", "lan.example.com"), policy("apptest", "shop.example.com", "*.example.com", "Bücher.example", "auto.example.net"),
				policy("apptest_other", "late.example.com", "*.example.org")),
			map[string]answer{
				"shop.example.com": {true, true}, "lan.example.com": {}, "any.example.com": {true, false}, "late.example.com": {true, true},
				"a.b.example.com": {}, "example.com": {}, "xn--bcher-kva.example": {true, true}, "auto.example.net": {true, true},
				"routed.example.org": {}, "": {}, "127.0.0.1": {}, "::1": {},
			},
		},
		"all names": {
			tlsApp([]string{"auto.example.net"}, policy("apptest_other", "*.example.com", "*.*.example.com"), policy("apptest"), policy("apptest_other", "late.example.org")),
			map[string]answer{
				"any.example.com": {}, "a.b.example.com": {}, "a.b.c.example.com": {true, false}, "stranger.example.org": {true, false}, "late.example.org": {true, true},
				"routed.example.org": {true, true}, "deep.example.org": {true, true}, "auto.example.net": {true, true}, "localhost": {true, false},
			},
		},
		"another issuer for all names": {
			tlsApp(nil, policy("apptest_other"), policy("apptest", "shop.example.com")),
			map[string]answer{"shop.example.com": {}, "other.example.com": {}},
		},
	} {
		t.Run(title, func(t *testing.T) {
			for _, apps := range []object{{"tls": tc.tls, "http": web}, {"tls": tc.tls, "http": web, "apptest": object{}}} {
				a := s.load(s.config(false, apps))
				for host, want := range tc.want {
					if ours, exact := a.Managed(host); ours != want.ours || exact != want.exact {
						t.Errorf("%q: %v, %v, want %+v", host, ours, exact, want)
					}
				}
			}
		})
	}
}

// TestFieldsOfTheTLSApp fails when Caddy keeps the managed names elsewhere; see
// managing.go.
func TestFieldsOfTheTLSApp(t *testing.T) {
	s := newSite(t)
	s.load(s.config(false, object{"tls": tlsApp([]string{"auto.example.net", "own.example.com", "shop.example.com", "*.example.com"},
		policy("apptest_other", "own.example.com"), policy("apptest"))}))
	mod, err := caddy.ActiveContext().AppIfConfigured("tls")
	if err != nil {
		t.Fatal(err)
	}
	names, ok := managing(mod.(*caddytls.TLS))
	slices.Sort(names)
	if want := []string{"*.example.com", "auto.example.net", "own.example.com", "shop.example.com"}; !ok || !slices.Equal(names, want) {
		t.Errorf("managing: %v, %v, want %v", names, ok, want)
	}
	loaded := automated(mod.(*caddytls.TLS))
	slices.Sort(loaded)
	if !slices.Equal(loaded, names) {
		t.Errorf("automated: %v", loaded)
	}
	a := newest.Load()
	if got, want := a.Names(), []string{"*.example.com", "auto.example.net", "shop.example.com"}; !slices.Equal(got, want) {
		t.Errorf("Names: %v, want %v", got, want)
	}
	if _, ok := keysOf(mod.(*caddytls.TLS), "gone"); ok {
		t.Error("a field that is not there has been read")
	}
	if got := (&App{listening: make(chan struct{})}).Names(); got != nil {
		t.Errorf("names before everything has started: %v", got)
	}
}

// An automatic HTTPS that is off, or has nothing to do, calls SetConfig but once.
func TestAttachWithoutSecondSetConfig(t *testing.T) {
	publish(t)
	s := newSite(t)
	addr := fmt.Sprintf("127.0.0.1:%d", s.http)
	apps := object{"tls": tlsApp([]string{"shop.example.com"}, policy("apptest", "shop.example.com")), "http": s.httpApp(addr)}
	for range 10 {
		a := s.load(s.config(true, apps))
		if got := get(addr, testFile); got != "200 the file" {
			t.Fatalf("the file: %s", got)
		}
		if err := a.Served(); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.logged("validation files are not served by this config"); n != 0 {
		t.Errorf("%d false alarms", n)
	}
	// Without the admin endpoint the order of the apps is left to chance.
	seen, alarms := make(map[bool]int), 0
	for loads := 0; len(seen) < 2; loads++ {
		if loads == 200 {
			t.Fatalf("not both orders came: %v", seen)
		}
		a := s.load(s.config(false, apps))
		err := a.Served()
		seen[err == nil]++
		if err == nil {
			if got := get(addr, testFile); got != "200 the file" {
				t.Errorf("the file: %s", got)
			}
			continue
		}
		alarms++
		release, refusal := a.Listen(t.Context(), nil, s.http)
		release()
		if _, ok := errors.AsType[*dcv.UnservedError](refusal); !ok || refusal.Error() != err.Error() {
			t.Errorf("Listen: %v, Served: %v", refusal, err)
		}
		for _, part := range []string{"web", addr, `{"handle":[{"handler":"dcv"}]}`, "admin endpoint"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not tell %q", err, part)
			}
		}
	}
	if n := s.logged("validation files are not served by this config"); n != alarms {
		t.Errorf("%d alarms in the log, want %d", n, alarms)
	}
	// Nobody needs files: no alarm.
	apps["tls"].(object)["automation"].(object)["policies"].([]object)[0]["issuers"] = []object{{"module": "apptest", "no_files": true}}
	for range 6 {
		if err := s.load(s.config(false, apps)).Served(); err != nil {
			t.Error(err)
		}
	}
	t.Log(seen)
}
