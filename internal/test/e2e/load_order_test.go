package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// rounds is how often each config is started. Caddy loads its apps, and prepares its
// HTTP servers, in random order.
const rounds = 3

// TestFileIsServed: whatever else listens for HTTP, the CA gets its file, and
// everybody else gets what they would have got without the plugin.
func TestFileIsServed(t *testing.T) {
	const name = "shop.localhost"
	plain := func(address, text string) string { return address + " {\n\trespond " + text + "\n}\n" }
	for title, tt := range map[string]struct {
		name   string
		config func(w *world, issuer string) string
	}{
		"no HTTP site": {name, func(w *world, issuer string) string {
			return w.globals(w.node) + site(name, issuer)
		}},
		"no HTTP site, default_bind": {name, func(w *world, issuer string) string {
			return w.localGlobals(w.node) + site(name, issuer)
		}},
		"bind in the site": {name, func(w *world, issuer string) string {
			return w.globals(w.node) + site(name, issuer, "bind 127.0.0.1")
		}},
		"catch-all": {name, func(w *world, issuer string) string {
			return w.globals(w.node) + site(name, issuer) + plain("http://", "caught")
		}},
		"catch-all, default_bind": {name, func(w *world, issuer string) string {
			return w.localGlobals(w.node) + site(name, issuer) + plain("http://", "caught")
		}},
		"HTTP site of the name": {name, func(w *world, issuer string) string {
			return w.globals(w.node) + site(name, issuer) + plain("http://"+name, "plain")
		}},
		"HTTP site that redirects": {name, func(w *world, issuer string) string {
			return w.localGlobals(w.node) + site(name, issuer) +
				"http://" + name + " {\n\tredir https://" + name + "{uri} permanent\n}\n"
		}},
		"HTTP site of another name": {name, func(w *world, issuer string) string {
			return w.globals(w.node) + site(name, issuer) + plain("http://other.localhost", "other")
		}},
		"several policies and issuers": {name, func(w *world, issuer string) string {
			return w.localGlobals(w.node) + site(name, issuer) +
				site("internal.localhost", "issuer internal") +
				site("two.localhost", issuer+"issuer internal\n")
		}},
		"directive": {name, func(w *world, issuer string) string {
			return w.globals(w.node) + site(name, issuer) + "http://" + name + " {\n\tdcv\n\trespond plain\n}\n"
		}},
		// Caddy does not use global issuers for names that are not public.
		"global issuer": {"shop.example.com", func(w *world, issuer string) string {
			return w.localGlobals(w.node, "cert_"+strings.TrimSpace(issuer)) + plain("shop.example.com", "hello")
		}},
	} {
		for round := range rounds {
			t.Run(fmt.Sprintf("%s/%d", title, round), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, nil)
				s := w.start(tt.config(w, w.issuer()))
				s.served(tt.name)
				w.fetchedWell(tt.name)
				if strings.HasPrefix(title, "several") {
					s.served("two.localhost")
					w.fetchedWell("two.localhost")
					w.charges(2)
				} else {
					w.charges(1)
				}
				// The CA adds www by itself, but no site asks for it.
				w.nothingForgotten()
				if extra, err := filepath.Glob(filepath.Join(w.storage, "certificates", "*", "www.*")); err != nil || len(extra) > 0 {
					t.Errorf("a certificate was stored for a name that is not in the config: %q, %v", extra, err)
				}
				for _, e := range s.errors() {
					t.Errorf("the log has an error: %s", e.raw)
				}
				if round > 0 {
					return
				}
				with := w.answers(tt.name)
				s.stop()
				control := w.start(tt.config(w, "issuer internal\n"))
				control.awaitLog("serving initial configuration")
				for request, want := range w.answers(tt.name) {
					if got := with[request]; got != want {
						t.Errorf("%s got %+v, without the plugin it gets %+v", request, got, want)
					}
				}
			})
		}
	}
}

// answers are what visitors of several hosts get for several paths over HTTP.
func (w *world) answers(name string) map[string]answer {
	w.t.Helper()
	got := make(map[string]answer)
	for _, host := range []string{name, "www." + name, "other.localhost", "stranger.localhost", "127.0.0.1"} {
		for _, path := range []string{"/", "/hello", "/.well-known/pki-validation/", "/.well-known/pki-validation/0123456789ABCDEF0123456789ABCDEF.txt"} {
			got[host+path] = w.get(w.node, host, path)
		}
	}
	return got
}
