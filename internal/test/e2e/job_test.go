package e2e

import (
	"net/http"
	"testing"
)

// TestMainJob: a config with one name, and it is served with a bought certificate.
func TestMainJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	const name = "shop.localhost"
	s := w.start(w.simple(w.node, name))
	leaf := s.served(name)
	if leaf.Subject.CommonName != name {
		t.Errorf("the common name is %q", leaf.Subject.CommonName)
	}
	w.charges(1)
	w.fetchedWell(name)
	w.nothingForgotten()

	const wrongFile = "/.well-known/pki-validation/0123456789ABCDEF0123456789ABCDEF.txt"
	for _, path := range []string{"/", "/hello", "/.well-known/", wrongFile} {
		got := w.get(w.node, name, path)
		if got.status != http.StatusPermanentRedirect || got.location == "" {
			t.Errorf("%s over HTTP got status %d to %q, want Caddy's redirect", path, got.status, got.location)
		}
	}

	for _, message := range []string{"ordering certificate", "order placed", "certificate issued"} {
		entries := s.find(message)
		if len(entries) != 1 || entries[0].Level != "info" {
			t.Errorf("the log has %d entries %q, want one at level info: %v", len(entries), message, entries)
		}
	}
	for _, e := range s.errors() {
		t.Errorf("the log has an error: %s", e.raw)
	}
}

// TestRestart: a server that comes back makes no calls to the vendor.
func TestRestart(t *testing.T) {
	for title, end := range map[string]func(*server){"stopped": (*server).stop, "killed": (*server).kill} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			const name = "shop.localhost"
			config := w.simple(w.node, name)
			s := w.start(config)
			first := s.served(name)
			end(s)
			before := w.ca.Calls("")

			again := w.start(config).served(name)
			if !again.Equal(first) {
				t.Error("another certificate is served after the restart")
			}
			if n := w.ca.Calls("") - before; n != 0 {
				t.Errorf("%d calls were made after the restart", n)
			}
			w.charges(1)
		})
	}
}
