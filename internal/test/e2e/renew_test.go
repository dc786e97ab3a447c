package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
)

// TestRenewals: within the paid term certificates are renewed free of charge, when it
// ends exactly one order follows, and no client ever meets an expired certificate.
func TestRenewals(t *testing.T) {
	t.Parallel()
	// Certificates start a minute before they are issued, so one that is good for 12
	// seconds is 72 seconds long in all, and a tenth of that is left for renewing.
	const (
		lifetime = 12 * time.Second
		year     = 40 * time.Second
		margin   = 8 * time.Second // less than the CA's renewal window of year*90/365
	)
	w := newWorld(t, func(c *hostile.Config) { c.Lifetime, c.Year = lifetime, year })
	const name = "shop.localhost"
	s := w.start(w.localGlobals(w.node, "renew_interval 1s", "renewal_window_ratio 0.1") +
		site(name, w.issuer(fmt.Sprintf("renew_margin %s", margin))))
	first := s.served(name)

	// A visitor who connects all the time.
	ctx, cancel := context.WithCancel(t.Context())
	var visitor sync.WaitGroup
	seen := map[string]bool{}
	visitor.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			leaf, err := w.handshake(w.node, name, w.ca.Roots())
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				t.Errorf("a visitor was refused: %v", err)
			} else {
				seen[leaf.SerialNumber.Text(16)] = true
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})

	w.await("three renewals", func() error {
		if n := w.ca.Calls("replace"); n < 3 {
			return fmt.Errorf("%d so far", n)
		}
		return nil
	})
	if time.Now().Before(first.NotBefore.Add(time.Minute).Add(year - margin)) {
		w.charges(1)
	} else {
		t.Error("three renewals took longer than the paid term; the clock of this test is wrong")
	}
	w.await("the order of the next term", func() error {
		if n := len(w.ca.Charges()); n < 2 {
			return fmt.Errorf("%d charges", n)
		}
		return nil
	})
	replaced := w.ca.Calls("replace")
	w.await("renewals in the next term", func() error {
		if n := w.ca.Calls("replace"); n < replaced+2 {
			return fmt.Errorf("%d so far", n-replaced)
		}
		return nil
	})
	cancel()
	visitor.Wait()

	w.charges(2)
	w.nothingForgotten()
	if kinds := w.ca.Charges(); kinds[0].Kind != hostile.KindPlace || kinds[1].Kind != hostile.KindRenew {
		t.Errorf("charged for %s and %s, want an order and its renewal", kinds[0].Kind, kinds[1].Kind)
	}
	if n := w.ca.Calls("place"); n != 1 {
		t.Errorf("place was called %d times", n)
	}
	if len(seen) < 5 {
		t.Errorf("the visitor saw %d certificates, want at least 5", len(seen))
	}
	for _, order := range w.ca.Orders() {
		if order.Kind == hostile.KindReissue {
			t.Errorf("order %s was reissued with its old CSR", order.Parent)
		}
	}
}
