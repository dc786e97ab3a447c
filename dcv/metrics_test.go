package dcv

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddy-commercial/caddy-commercial/internal/metrics"
	"github.com/caddy-commercial/caddy-commercial/internal/metrics/metricstest"
)

func TestRequestsAreCounted(t *testing.T) {
	grown := metricstest.Since(t, metrics.ValidationRequests)
	s := NewStore()
	must(t, s.Present(t.Context(), nil, challenge(t, "a", "a.txt", "one", "example.com")))
	for _, r := range []struct{ method, target, agent string }{
		{"GET", "a.txt", ""}, {"HEAD", "a.txt", "a CA"}, {"GET", "a.txt", probeUserAgent}, {"GET", "b.txt", ""}, {"POST", "a.txt", ""},
	} {
		req := httptest.NewRequest(r.method, "http://example.com"+PathPrefix+r.target, nil)
		req.Header.Set("User-Agent", r.agent)
		ask(t, newHandler(), s, req)
	}
	must(t, newHandler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "http://example.com/", nil), next))
	for outcome, want := range map[string]float64{"served": 2, "probed": 1, "missing": 2, "failed": 0} {
		if got := grown(`validation_requests_total{outcome="` + outcome + `"}`); got != want {
			t.Errorf("%s: %v", outcome, got)
		}
	}
}
