package e2e

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestMetricsAndEvents reads the metrics of a real Caddy after a certificate was bought
// and after a reload, and the events that its handlers get.
func TestMetricsAndEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	const name = "shop.localhost"
	config := w.simple(w.node, name, "metrics_per_name")
	s := w.start(config)
	s.served(name)
	w.charges(1)
	for range 2 {
		var m map[string]float64
		w.await("the order to be over", func() error {
			if m = s.metrics(); m[`orders{state="issued",vendor="racent"}`] != 1 || m["scheduler_waiting"] != 0 {
				return errors.New("it is not")
			}
			return nil
		})
		for series, want := range map[string]float64{
			`charges_total{vendor="racent"}`:                                                  1,
			`orders{state="open",vendor="racent"}`:                                            0,
			`orders{state="flagged",vendor="racent"}`:                                         0,
			`order_seconds_count{vendor="racent"}`:                                            1,
			`oldest_order_seconds{vendor="racent"}`:                                           0,
			`vendor_request_seconds_count{endpoint="place",outcome="ok",vendor="racent"}`:     1,
			`vendor_request_seconds_count{endpoint="place",outcome="failed",vendor="racent"}`: 0,
			`validation_requests_total{outcome="missing"}`:                                    0,
		} {
			if m[series] != want {
				t.Errorf("%s is %v, want %v", series, m[series], want)
			}
		}
		for _, series := range []string{
			`certificate_expiry_seconds{name="shop.localhost",vendor="racent"}`, `term_end_seconds{name="shop.localhost",vendor="racent"}`,
			`validation_requests_total{outcome="served"}`, `validation_requests_total{outcome="probed"}`,
		} {
			if m[series] <= 0 {
				t.Errorf("%s is %v", series, m[series])
			}
		}
		s.load(config, true)
		s.served(name)
	}
	for _, event := range []string{"order_placed", "validation_waiting", "validation_passed", "issued"} {
		told := slices.DeleteFunc(s.find("event"), func(e logEntry) bool { return !strings.Contains(e.raw, `"commercial_`+event+`"`) })
		if len(told) != 1 || !strings.Contains(told[0].raw, `"origin":"commercial.events"`) || !strings.Contains(told[0].raw, `"names":"`+name+`"`) {
			t.Errorf("%s: %v", event, told)
		}
	}
}

// metrics returns the values of the admin endpoint that are the plugin's.
func (s *server) metrics() map[string]float64 {
	s.w.t.Helper()
	text, err := s.call(http.MethodGet, "/metrics", nil, "")
	if err != nil {
		s.w.t.Fatal(err)
	}
	values := make(map[string]float64)
	for line := range strings.Lines(text) {
		line, ours := strings.CutPrefix(strings.TrimSpace(line), "caddy_commercial_")
		series, value, found := strings.Cut(line, " ")
		if !ours || !found {
			continue
		}
		if values[series], err = strconv.ParseFloat(value, 64); err != nil {
			s.w.t.Fatal(err)
		}
	}
	return values
}
