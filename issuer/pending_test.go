package issuer

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
)

// TestManyPending has many orders pending for a day. No call of Issue lasts, and the vendor
// is asked no more often than the longest poll allows.
func TestManyPending(t *testing.T) {
	n := 60
	if raceEnabled {
		n = 20
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *hostile.Config) { c.IssueDelay = 24 * time.Hour })
		p := w.start(nil, func(f *flow) {
			f.rules.maxWait, f.rules.spend.Orders = time.Minute, 2*n
		})
		names := make([]string, n)
		for i := range names {
			names[i] = fmt.Sprintf("site%d.example.com", i)
			go func() {
				start := time.Now()
				if _, err := p.attempt(context.Background(), names[i]); !is[*PendingError](err) {
					t.Errorf("error = %v", err)
				}
				if took := time.Since(start); took > time.Minute {
					t.Errorf("a call took %s", took)
				}
			}()
		}
		time.Sleep(2 * time.Hour)
		if w.charges() != n {
			t.Fatalf("charges = %d after two hours, want %d", w.charges(), n)
		}
		calls := w.ca.Calls("collect")
		const span = 12 * time.Hour
		time.Sleep(span)
		perOrder := float64(w.ca.Calls("collect")-calls) / float64(n)
		// Six looks while the waits grow.
		if most := float64(span/p.rules.pace.Slow)*1.2 + 6; perOrder > most {
			t.Errorf("%.1f status calls per order in %s, want at most %.1f", perOrder, span, most)
		}
		time.Sleep(14 * time.Hour)
		for _, name := range names {
			if p.site.serving(name) == nil {
				t.Errorf("%s is not served", name)
			}
		}
		if w.charges() != n {
			t.Errorf("charges = %d, want %d", w.charges(), n)
		}
		w.noKeysLeft()
	})
}
