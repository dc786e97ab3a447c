package e2e

import (
	"cmp"
	"testing"
	"time"
)

// awaitStopgap waits until Caddy's own internal issuer serves name.
func (s *server) awaitStopgap(name string) {
	s.w.t.Helper()
	s.w.await("the internal issuer's certificate", func() error {
		roots, err := s.w.localRoots()
		if err != nil {
			return cmp.Or(s.alive(), err)
		}
		if _, err = s.w.handshake(s.node, name, roots); err != nil {
			return cmp.Or(s.alive(), err)
		}
		return nil
	})
}

// TestFallback: while an order takes its time the next issuer serves the site, and
// the bought certificate takes over by itself.
func TestFallback(t *testing.T) {
	const name = "shop.localhost"
	for title, interrupt := range map[string]func(s *server, config string) *server{
		"undisturbed": func(s *server, _ string) *server { return s },
		"reloaded": func(s *server, config string) *server {
			s.load(config, true)
			return s
		},
		"restarted": func(s *server, config string) *server {
			s.stop()
			return s.w.start(config)
		},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, neverIssue)
			config := w.localGlobals(w.node) + site(name, w.issuer("max_wait 1s")+"issuer internal\n")
			s := w.start(config)
			s.awaitStopgap(name)
			s = interrupt(s, config)
			w.issueNow()
			leaf := s.served(name)
			w.charges(1)
			w.nothingForgotten()
			if n := w.ca.Calls("replace"); title == "undisturbed" && n != 0 {
				t.Errorf("the order was reissued %d times; its own certificate would have done", n)
			}
			// A restart must not fall back to what the site made do with.
			s.stop()
			if !w.start(config).served(name).Equal(leaf) {
				t.Error("another certificate is served after a restart")
			}
			w.charges(1)
		})
	}
}

// TestSlowOnlyIssuer: without another issuer the site is served as soon as the order
// is ready, although one call gives up much earlier.
func TestSlowOnlyIssuer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, neverIssue)
	const name = "shop.localhost"
	s := w.start(w.simple(w.node, name, "max_wait 1s"))
	s.awaitLog("the certificate takes its time; going on in the background")
	w.issueNow()
	// certmagic does not retry this soon.
	ready := time.Now()
	s.served(name)
	if late := time.Since(ready); late > 30*time.Second {
		t.Errorf("the certificate was served %s after it was issued", late)
	}
	w.charges(1)
	w.nothingForgotten()
}
