package metrics_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/caddy-commercial/caddy-commercial/internal/metrics/metricstest"
)

// TestNames: dashboards and alerts of other people depend on these names, types and labels.
func TestNames(t *testing.T) {
	const want = `
caddy_commercial_certificate_expiry_seconds gauge vendor name
caddy_commercial_charges_total counter vendor
caddy_commercial_limiter_wait_seconds histogram vendor
caddy_commercial_oldest_order_seconds gauge vendor
caddy_commercial_order_seconds histogram vendor
caddy_commercial_orders gauge vendor state
caddy_commercial_scheduler_waiting gauge
caddy_commercial_term_end_seconds gauge vendor name
caddy_commercial_validation_requests_total counter outcome
caddy_commercial_vendor_request_seconds histogram vendor endpoint outcome
`
	got := "\n"
	for _, m := range metricstest.All(t) {
		got += fmt.Sprintln(strings.Join(append([]string{m.Name, m.Type}, m.Labels...), " "))
	}
	if got != want {
		t.Errorf("got %s", got)
	}
}
