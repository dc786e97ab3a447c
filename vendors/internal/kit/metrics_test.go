package kit

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/metrics"
	"github.com/caddy-commercial/caddy-commercial/internal/metrics/metricstest"
)

func TestRequestsAreMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took := metricstest.Since(t, metrics.VendorRequestSeconds)
		waited := metricstest.Since(t, metrics.LimiterWaitSeconds)
		var answer *http.Response
		l := NewLimiter(Limits{1, []Limit{{1, time.Minute}}})
		c := limitedClient(t, l, func(*http.Request) (*http.Response, error) {
			time.Sleep(2 * time.Second)
			if answer == nil {
				return nil, errors.New("no route")
			}
			return answer, nil
		})
		call := Request{Call: Call{Name: "measured", Path: "/orders/%s", Class: Effect}}
		call.Call = call.With("4711")
		for _, want := range []struct {
			outcome string
			answer  *http.Response
		}{
			{"ok", answered(200)}, {"refused", answered(403)}, {"failed", answered(502)}, {"failed", answered(302)}, {"unanswered", nil}, {"limited", answered(429)},
		} {
			answer = want.answer
			series := fmt.Sprintf(`{endpoint="measured",outcome=%q,vendor="tester"}`, want.outcome)
			before := took("vendor_request_seconds_sum" + series)
			_, _ = c.Do(t.Context(), call) // what it returns does not matter here
			if got := took("vendor_request_seconds_sum"+series) - before; got != 2 {
				t.Errorf("%s: took %v seconds", want.outcome, got)
			}
		}
		if n, sum := waited(`limiter_wait_seconds_count{vendor="tester"}`), waited(`limiter_wait_seconds_sum{vendor="tester"}`); n != 6 || sum != 5*60 {
			t.Errorf("%v waits of %v seconds", n, sum)
		}
	})
}
