package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/dcv"
)

// floodReloads is how often a config is replaced under load.
const floodReloads = 100

// pendingFile waits until an order is pending and returns the path of its file.
func (w *world) pendingFile(s *server) string {
	w.t.Helper()
	var path string
	w.await("a validated order", func() error {
		for _, f := range w.ca.Fetches() {
			if u, err := url.Parse(f.URL); err == nil && f.Status == http.StatusOK {
				path = u.Path
				return nil
			}
		}
		return cmp.Or(s.alive(), errors.New("the CA has fetched nothing"))
	})
	return path
}

// publishElsewhere puts a file into the storage as another server would.
func (w *world) publishElsewhere(name string) (path, body string) {
	w.t.Helper()
	ch, err := dcv.NewChallenge("elsewhere", []string{name}, "ELSEWHERE.txt", "from elsewhere")
	if err != nil {
		w.t.Fatal(err)
	}
	if err := dcv.NewStore().Present(w.t.Context(), &certmagic.FileStorage{Path: w.storage}, ch); err != nil {
		w.t.Fatal(err)
	}
	return ch.Path, string(ch.Body)
}

// TestReloadsUnderFlood: strangers ask for files below the validation path while slow
// configs come and go. Nothing crashes, no file is lost, neither that of the pending
// order nor one of another server, and nothing is left behind.
func TestReloadsUnderFlood(t *testing.T) {
	const name = "shop.localhost"
	for title, option := range map[string]string{"plain": "", "ECH": "ech ech.localhost"} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, neverIssue)
			config := w.localGlobals(w.node, "e2e_slow 5ms 5ms", option) + site(name, w.issuer(), "e2e_slow 5ms")
			s := w.start(config)
			path := w.pendingFile(s)
			elsewhere, body := w.publishElsewhere(name)
			s.load(config, true)

			ctx, stop := context.WithCancel(t.Context())
			var crowd sync.WaitGroup
			defer crowd.Wait()
			defer stop()
			for i := range 4 {
				crowd.Go(func() {
					for n := 0; ctx.Err() == nil; n++ {
						host := []string{name, "www." + name, "stranger.localhost"}[n%3]
						if i == 3 { // one who never has to wait for the storage asks at any moment
							host = "stranger.localhost"
						}
						// Dropped connections are part of a reload.
						_, _ = w.tryGet(w.node, host, fmt.Sprintf("%sSTRANGER%d-%d.txt", dcv.PathPrefix, i, n))
					}
				})
			}
			found := make(map[string]int)
			crowd.Go(func() {
				for ctx.Err() == nil {
					for _, p := range []string{path, elsewhere} {
						got, err := w.tryGet(w.node, name, p)
						if err != nil {
							continue
						}
						if got.status != http.StatusOK || p == elsewhere && got.body != body {
							t.Errorf("%s: %+v", p, got)
						}
						found[p]++
					}
				}
			})
			begin := time.Now()
			for range floodReloads {
				s.load(config, true)
			}
			t.Logf("%d reloads in %s", floodReloads, time.Since(begin).Round(time.Second))
			stop()
			crowd.Wait()
			if found[path] == 0 || found[elsewhere] == 0 {
				t.Errorf("fetched: %v", found)
			}
			w.issueNow()
			s.served(name)
			w.charges(1)
			w.nothingForgotten()
			for _, part := range []string{"concurrent map", "goroutine "} {
				if lines := s.log.with(part); len(lines) > 0 {
					t.Errorf("the log has %q:\n%s", part, strings.Join(lines, "\n"))
				}
			}
			n := s.goroutines()
			w.await("the goroutines of old configs to end", func() error {
				if n = s.goroutines(); n > 100 {
					return fmt.Errorf("%d goroutines after %d reloads", n, floodReloads)
				}
				return nil
			})
		})
	}
}

// TestOtherConfigsWhilePending: with the temporary listener open any config can be loaded,
// and its visitors get what they should.
func TestOtherConfigsWhilePending(t *testing.T) {
	t.Parallel()
	w := newWorld(t, neverIssue)
	const name = "shop.localhost"
	pending := w.localGlobals(w.node, "auto_https disable_redirects") + site(name, w.issuer("bind 127.0.0.1"))
	s := w.start(pending)
	path := w.pendingFile(s)
	without := w.localGlobals(w.node, "e2e_slow 1ms 300ms") + "http:// {\n\trespond plain\n}\n"
	with := w.localGlobals(w.node, "e2e_slow 1ms 300ms") + site(name, w.issuer("bind 127.0.0.1"))
	failing := []string{
		w.localGlobals(w.node, "e2e_slow 1ms 50ms fail") + "http:// {\n\trespond plain\n}\n",
		w.localGlobals(w.node, "e2e_slow 1ms 50ms fail", "auto_https disable_redirects") + site(name, w.issuer("bind 127.0.0.1")),
	}
	answers := func(want string) {
		t.Helper()
		for range 20 {
			if got, err := w.tryGet(w.node, "other.localhost", "/"); err == nil && got.body != want && got.status != http.StatusPermanentRedirect {
				t.Errorf("a visitor got %+v, want %q", got, want)
			}
		}
	}
	fetch := func(when string) {
		t.Helper()
		w.await("the file "+when, func() error {
			if got, err := w.tryGet(w.node, name, path); err != nil || got.status != http.StatusOK {
				return cmp.Or(s.alive(), fmt.Errorf("%+v, %w", got, err))
			}
			return nil
		})
	}
	header := http.Header{"Content-Type": {"text/caddyfile"}}
	for range 3 {
		fetch("from the temporary listener")
		for _, config := range failing {
			if _, err := s.callOnce(http.MethodPost, "/load", header, config); err == nil {
				t.Error("the failing config has been loaded")
			}
			// What the failing config's own socket had accepted is dropped, but somebody
			// listens.
			if _, err := w.tryGet(w.node, name, path); errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("after a config that failed: %v", err)
			}
			fetch("after a config that failed")
		}
		s.load(without, true)
		answers("plain")
		s.load(pending, true)
		fetch("with the first config again")
		s.load(with, true)
		fetch("from Caddy's own server")
		s.load(pending, true)
	}
	w.issueNow()
	s.served(name)
	w.charges(1)
	w.nothingForgotten()
}

// TestOtherSockets: a site that is bound elsewhere does not keep anybody from the file.
func TestOtherSockets(t *testing.T) {
	const name = "shop.localhost"
	for title, other := range map[string]string{
		"another address": "http://other.localhost {\n\tbind 127.0.0.2\n\trespond other\n}\n",
		"unix socket":     "http://other.localhost {\n\tbind unix/SOCKET\n\trespond other\n}\n",
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			s := w.start(w.globals(w.node, "auto_https disable_redirects") +
				site(name, w.issuer(), "bind 127.0.0.1") + strings.ReplaceAll(other, "SOCKET", w.dir+"/http.sock"))
			s.served(name)
			w.fetchedWell(name)
			w.charges(1)
			for _, e := range s.errors() {
				t.Errorf("the log has an error: %s", e.raw)
			}
		})
	}
}
