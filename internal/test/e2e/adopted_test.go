package e2e

import (
	"net/http"
	"strings"
	"testing"
)

// TestOrderOfNamesThatAreHeld configures an order from elsewhere for a name that has an
// order in the ledger. The configuration is refused, and the running one stays in force.
func TestOrderOfNamesThatAreHeld(t *testing.T) {
	t.Parallel()
	const name = "shop.localhost"
	w := newWorld(t, nil)
	s := w.start(w.simple(w.node, name))
	before := s.served(name)
	held := w.entries()[0]
	wrong := w.simple(w.node, name, "order 260101aaaaaaaaaa "+name)
	_, err := s.call(http.MethodPost, "/load", http.Header{"Content-Type": {"text/caddyfile"}}, wrong)
	if err == nil {
		t.Fatal("the configuration was accepted")
	}
	for _, want := range []string{"order: 260101aaaaaaaaaa is given for " + name, held.OrderID, "caddy commercial resolve " + name + " --entry " + held.ID} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not say %q: %v", want, err)
		}
	}
	if after := s.served(name); !after.Equal(before) {
		t.Error("another certificate is served")
	}
	w.charges(1)
}
