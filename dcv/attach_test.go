package dcv

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

const (
	testFile = "A1B2C3D4E5F60718293A4B5C6D7E8F90.txt"
	testBody = "c0ffee\nsectigo.com\nunique"
)

// attachCases are configs in which Caddy serves HTTP, and what it answers there besides our file.
var attachCases = []struct {
	name           string
	globals, sites string
	others         map[string]string // host → status and body or location of /other
}{
	{
		name:   "no http site",
		sites:  "shop.example.com {\nrespond secure\n}",
		others: map[string]string{"shop.example.com": "308 https://shop.example.com/other", "else.example.com": "308 https://else.example.com/other"},
	},
	{
		name:   "http catch-all",
		sites:  "shop.example.com {\nrespond secure\n}\nhttp:// {\nrespond plain\n}",
		others: map[string]string{"shop.example.com": "308 https://shop.example.com/other", "else.example.com": "200 plain"},
	},
	{
		name:   "http site of the same name",
		sites:  "shop.example.com {\nrespond secure\n}\nhttp://shop.example.com {\nrespond plain\n}",
		others: map[string]string{"shop.example.com": "200 plain", "else.example.com": "308 https://else.example.com/other"},
	},
	{
		name:   "http site of another name",
		sites:  "shop.example.com {\nrespond secure\n}\nhttp://blog.example.com {\nrespond blog\n}",
		others: map[string]string{"blog.example.com": "200 blog", "shop.example.com": "308 https://shop.example.com/other"},
	},
	{
		name:   "bind",
		sites:  "shop.example.com {\nbind 127.0.0.1\nrespond secure\n}",
		others: map[string]string{"shop.example.com": "308 https://shop.example.com/other"},
	},
	{
		name: "several policies and issuers",
		sites: "shop.example.com {\ntls {\nissuer dcvtest one\nissuer dcvtest two\n}\nrespond secure\n}\n" +
			"blog.example.com {\ntls {\nissuer dcvtest three\n}\nrespond blog\n}\nfeed.example.com {\nrespond feed\n}",
		others: map[string]string{"shop.example.com": "308 https://shop.example.com/other", "blog.example.com": "308 https://blog.example.com/other"},
	},
	{
		name:    "on-demand catch-all",
		globals: "on_demand_tls {\nask http://127.0.0.1:HTTP/ask\n}",
		sites:   "https:// {\ntls {\non_demand\n}\nrespond secure\n}",
		others:  map[string]string{"shop.example.com": "308 https://shop.example.com/other"},
	},
	{
		name:    "redirects disabled but an http site",
		globals: "auto_https disable_redirects",
		sites:   "shop.example.com {\nrespond secure\n}\nhttp://blog.example.com {\nrespond blog\n}",
		others:  map[string]string{"blog.example.com": "200 blog", "shop.example.com": "200 "},
	},
	{
		name:    "metrics and access log",
		globals: "metrics {\nper_host\n}",
		sites:   "shop.example.com {\nlog {\nlevel ERROR\n}\nrespond secure\n}",
		others:  map[string]string{"shop.example.com": "308 https://shop.example.com/other"},
	},
	{
		name:    "explicit directive with auto https off",
		globals: "auto_https off",
		sites:   "http://shop.example.com, http://www.shop.example.com {\nroute {\ndcv\nrespond plain\n}\n}",
		others:  map[string]string{"shop.example.com": "200 plain"},
	},
}

func (a answer) String() string {
	if a.location != "" {
		return fmt.Sprintf("%d %s", a.status, a.location)
	}
	return fmt.Sprintf("%d %s", a.status, a.body)
}

func (s *site) wantServed(others map[string]string) {
	s.t.Helper()
	for _, host := range []string{"shop.example.com", "WWW.Shop.Example.com"} {
		got := s.get(host, PathPrefix+testFile)
		if got.status != http.StatusOK || got.body != testBody {
			s.t.Fatalf("GET %s: got %v, want the file", host, got)
		}
	}
	for host, want := range others {
		for _, path := range []string{"/other", PathPrefix + "unknown.txt"} {
			want := strings.ReplaceAll(want, "/other", path)
			if got := s.get(host, path).String(); got != want {
				s.t.Errorf("GET %s%s: got %q, want %q", host, path, got, want)
			}
		}
	}
	if served, err := NewFront(observed.ctx).Serves("127.0.0.1", s.HTTP); !served || err != nil {
		s.t.Errorf("Serves: %v, %v", served, err)
	}
	if got := HTTPPort(observed.ctx); got != s.HTTP {
		s.t.Errorf("HTTPPort: got %d, want %d", got, s.HTTP)
	}
}

// TestAttach: every config is loaded, reloaded unchanged and reloaded with a change.
func TestAttach(t *testing.T) {
	present(t, "attach", testFile, testBody, "shop.example.com")
	for _, tc := range attachCases {
		t.Run(tc.name, func(t *testing.T) {
			s := newSite(t)
			config := s.adapt("cert_issuer dcvtest\n"+tc.globals, tc.sites)
			changed := s.adapt("cert_issuer dcvtest\nshutdown_delay 0s\n"+tc.globals, tc.sites+"\nnew.example.com:"+fmt.Sprint(s.HTTPS)+" {\nrespond new\n}")
			for range 2 {
				s.load(config)
				s.wantServed(tc.others)
				s.load(config)
				s.wantServed(tc.others)
				if tc.name == "on-demand catch-all" || strings.Contains(tc.globals, "auto_https off") {
					continue // a second site would change what the others get
				}
				s.load(changed)
				s.wantServed(tc.others)
			}
		})
	}
}

// maxLoads is how often a config is loaded at most until every random order has been seen. The
// rarest comes about once in eight loads.
const maxLoads = 400

// TestAttachInEveryOrder: apps and servers are provisioned in random order. The test continues until
// each order has occurred, and fails rather than pass without one of them.
func TestAttachInEveryOrder(t *testing.T) {
	present(t, "order", testFile, testBody, "shop.example.com")
	s := newSite(t)
	config := s.adapt("cert_issuer dcvtest", "shop.example.com {\nrespond secure\n}")
	seen := make(map[string]int)
	for loads := 0; loads < 30 || len(seen) < 4; loads++ {
		if loads == maxLoads {
			t.Fatalf("not all orders came in %d loads: %v", loads, seen)
		}
		s.load(config)
		s.wantServed(map[string]string{"shop.example.com": "308 https://shop.example.com/other"})
		seen[fmt.Sprintf("http app first: %v", observed.httpAppFirst)]++
		seen[fmt.Sprintf("redirect server replaced: %v", observed.redirectsLate)]++
	}
	t.Log(seen)
}

// TestAttachToUsersServerOfThatName: a server of the user may have the name that Caddy gives to its
// own server.
func TestAttachToUsersServerOfThatName(t *testing.T) {
	present(t, "name", testFile, testBody, "shop.example.com")
	s := newSite(t)
	for _, autoHTTPS := range []string{"", "auto_https off"} {
		config := s.adapt("cert_issuer dcvtest\n"+autoHTTPS, "http://shop.example.com, http://www.shop.example.com {\nroute {\ndcv\nrespond plain\n}\n}")
		config = patch(t, config, func(tree map[string]any) {
			servers := tree["apps"].(map[string]any)["http"].(map[string]any)["servers"].(map[string]any)
			servers[redirectServer] = servers["srv0"]
			delete(servers, "srv0")
		})
		for range 5 {
			s.load(config)
			s.wantServed(map[string]string{"shop.example.com": "200 plain"})
		}
	}
}

// TestRedirectServerKeepsLogsAndMetrics: the rebuilt redirect server must keep what Caddy would have
// given it.
func TestRedirectServerKeepsLogsAndMetrics(t *testing.T) {
	present(t, "logs", testFile, testBody, "shop.example.com")
	s := newSite(t)
	logFile := t.TempDir() + "/access.log"
	config := s.adapt("cert_issuer dcvtest\nmetrics", "shop.example.com {\nlog {\noutput file "+logFile+" {\nroll_disabled\n}\n}\nrespond secure\n}\nhttp://:"+fmt.Sprint(freePort(t))+" {\nmetrics /metrics\n}")
	for late := map[bool]int{}; len(late) < 2; {
		s.load(config)
		s.get("shop.example.com", "/redirected")
		s.get("shop.example.com", PathPrefix+testFile)
		late[observed.redirectsLate]++
		if n := late[true] + late[false]; n > maxLoads {
			t.Fatalf("not both orders came in %d loads", n)
		}
		app, err := observed.ctx.AppIfConfigured("http")
		if err != nil {
			t.Fatal(err)
		}
		srv := app.(*caddyhttp.App).Servers[redirectServer]
		if srv.Name() != redirectServer || srv.Logs == nil || srv.AutoHTTPS != nil {
			t.Errorf("late %v: name %q, logs %v, auto_https %v", observed.redirectsLate, srv.Name(), srv.Logs, srv.AutoHTTPS)
		}
		// An old server may have answered while it was shutting down, and counted
		// for its own config.
		handlers := countedHandlers(t, redirectServer)
		for retries := 0; len(handlers) < 2 && retries < 20; retries++ {
			s.get("shop.example.com", "/redirected")
			s.get("shop.example.com", PathPrefix+testFile)
			handlers = countedHandlers(t, redirectServer)
		}
		if !handlers["dcv"] || !handlers["static_response"] {
			t.Errorf("late %v: metrics of handlers %v, want dcv and static_response", observed.redirectsLate, handlers)
		}
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	lines := readLines(t, logFile)
	for _, path := range []string{"/redirected", PathPrefix + testFile} {
		n := 0
		for _, line := range lines {
			if strings.Contains(line, `"uri":"`+path+`"`) {
				if !strings.Contains(line, `"logger":"http.log.access`) {
					t.Errorf("logger: %s", line)
				}
				n++
			}
		}
		if n < 2 {
			t.Errorf("access log has %d lines for %s", n, path)
		}
	}
}

// countedHandlers returns the handlers whose requests the newest config has counted
// on a server.
func countedHandlers(t *testing.T, server string) map[string]bool {
	t.Helper()
	families, err := observed.ctx.GetMetricsRegistry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	handlers := make(map[string]bool)
	for _, family := range families {
		if family.GetName() != "caddy_http_requests_total" {
			continue
		}
		for _, metric := range family.GetMetric() {
			labels := make(map[string]string)
			for _, label := range metric.GetLabel() {
				labels[label.GetName()] = label.GetValue()
			}
			if labels["server"] == server {
				handlers[labels["handler"]] = true
			}
		}
	}
	return handlers
}

// TestHTTPNotServed: if Caddy does not listen on the HTTP port, the caller learns that, and if a
// server has no handler, what to do about it.
func TestHTTPNotServed(t *testing.T) {
	s := newSite(t)
	for _, tc := range []struct{ globals, sites, unserved string }{
		{"auto_https disable_redirects", "shop.example.com {\nrespond secure\n}", ""},
		{"auto_https off", "https://shop.example.com {\nrespond secure\n}", ""},
		{"auto_https off", "http://shop.example.com {\nrespond plain\n}", "srv0"},
	} {
		s.load(s.adapt("cert_issuer dcvtest\n"+tc.globals, tc.sites))
		front := NewFront(observed.ctx)
		served, err := front.Serves("127.0.0.1", s.HTTP)
		var unserved *UnservedError
		if served || errors.As(err, &unserved) != (tc.unserved != "") {
			t.Errorf("%s with %s: Serves: %v, %v", tc.globals, tc.sites, served, err)
		}
		if unserved == nil {
			continue
		}
		if list := front.Unserved(s.HTTP); len(list) != 1 || *list[0] != *unserved || unserved.Server != tc.unserved {
			t.Errorf("Unserved: %v, Serves: %v", list, err)
		}
		if !strings.Contains(err.Error(), `"handler":"dcv"`) {
			t.Errorf("%q does not say what to do", err)
		}
	}
	if err := caddy.Load([]byte(`{"admin":{"disabled":true,"config":{"persist":false}},"apps":{"tls":{"automation":{"policies":[{"issuers":[{"module":"dcvtest"}]}]}}}}`), true); err != nil {
		t.Fatal(err)
	}
	if served, err := NewFront(observed.ctx).Serves("", 80); served || err != nil || HTTPPort(observed.ctx) != 80 || RouteHosts(observed.ctx) != nil {
		t.Error("a config without http app serves HTTP")
	}
	if err := Attach(observed.ctx); err != nil {
		t.Errorf("Attach without http app: %v", err)
	}
}

func TestRouteHosts(t *testing.T) {
	s := newSite(t)
	s.load(s.adapt("cert_issuer dcvtest", "Shop.Example.com {\nrespond secure\n}\n*.example.org {\n@sub host deep.example.org\nhandle @sub {\nrespond deep\n}\n}"))
	got := RouteHosts(observed.ctx)
	want := []string{"*.example.org", "deep.example.org", "shop.example.com"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	managed := HostMatcher(got)
	for host, want := range map[string]bool{"shop.example.com": true, "any.example.org": true, "a.b.example.org": false, "example.net": false} {
		if managed(host) != want {
			t.Errorf("%s: got %v", host, !want)
		}
	}
	if !HostMatcher([]string{"*"})("anything") {
		t.Error("* does not match")
	}
}
