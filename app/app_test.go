package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"

	"github.com/caddy-commercial/caddy-commercial/dcv"
)

// TestLifeOfAConfig: each event comes once, in order, and configs that fail are stopped, too.
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
				t.Errorf("%d servers have no handler", n)
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
			t.Fatal("the bad config was loaded")
		}
		a := newest.Load()
		<-a.ctx.Done()
		failed++
		// In half of them, our app was started before the one that fails.
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
		t.Errorf("only %d configs were seen", len(moments))
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

// TestOutsideTheTLSApp: an issuer that is loaded after everything has started would wait forever.
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

// TestManaged: the first policy that applies decides, as in the TLS app.
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
		t.Error("a field that does not exist was read")
	}
	if got := (&App{listening: make(chan struct{})}).Names(); got != nil {
		t.Errorf("names before everything has started: %v", got)
	}
}

// TestAttachWithoutSecondSetConfig: files are served even if SetConfig is called only once, as when
// automatic HTTPS is off or has nothing to do, unless the order of the apps prevents it. Then that
// is reported.
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
	// Without the admin endpoint, the order of the apps is random.
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
				t.Errorf("%q does not say %q", err, part)
			}
		}
	}
	if n := s.logged("validation files are not served by this config"); n != alarms {
		t.Errorf("%d alarms in the log, want %d", n, alarms)
	}
	// Nobody needs files, so there is no alarm.
	apps["tls"].(object)["automation"].(object)["policies"].([]object)[0]["issuers"] = []object{{"module": "apptest", "no_files": true}}
	for range 6 {
		if err := s.load(s.config(false, apps)).Served(); err != nil {
			t.Error(err)
		}
	}
	t.Log(seen)
}
