package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
)

// TestRandomValues: with a vendor whose file's content is known only after the paid
// order, ten lines of config are enough as well, and each name is paid for once.
func TestRandomValues(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *hostile.Config) { c.Perspectives = 2 })
	vendor := strings.TrimSuffix(w.api, "/ssl") + "/services/v2"
	commercial := fmt.Sprintf(`issuer commercial {
	vendor digicert {env.E2E_TOKEN} {
		endpoint %s
		test_service
	}
	product ssl_dv_rapidssl
	poll 50ms 1s
	probe strict
}
`, vendor)
	names := []string{"shop.localhost", "www.shop.localhost", "other.localhost"}
	config := w.localGlobals(w.node)
	for _, name := range names {
		config += site(name, commercial)
	}
	s := w.start(config)
	for _, name := range names {
		s.served(name)
	}
	w.charges(len(names))
}
