package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
)

// TestReloadWhilePending: reloads neither cancel a paid order nor place another.
func TestReloadWhilePending(t *testing.T) {
	t.Parallel()
	w := newWorld(t, neverIssue)
	const name = "shop.localhost"
	config := w.simple(w.node, name)
	s := w.start(config)
	s.awaitLog("order placed")
	for i := range 10 {
		next := config
		if i%2 == 1 {
			next += fmt.Sprintf("# change %d\n", i)
			next += fmt.Sprintf("http://other%d.localhost {\n\trespond other\n}\n", i)
		}
		s.load(next, i%3 == 0)
	}
	if orders := w.ca.Orders(); len(orders) != 1 || orders[0].Status != hostile.StatusPending {
		t.Fatalf("the reloads did not find the order pending: %+v", orders)
	}
	w.issueNow()
	s.served(name)
	w.charges(1)
	w.nothingForgotten()
	if n := w.ca.Calls("place"); n != 1 {
		t.Errorf("%d orders were placed", n)
	}
}

// TestReloadsLeaveNothing: what a config started ends with it.
func TestReloadsLeaveNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	const name = "shop.localhost"
	config := w.simple(w.node, name)
	s := w.start(config)
	s.served(name)
	s.load(config, true) // a second config makes some goroutines that stay for good
	s.served(name)

	// Goroutines that keep a file lock alive end some seconds after the lock.
	least := s.goroutines()
	settle := time.Now().Add(6 * time.Second)
	w.await("a quiet server", func() error {
		least = min(least, s.goroutines())
		if time.Now().Before(settle) {
			return fmt.Errorf("%d goroutines", least)
		}
		return nil
	})
	for range 10 {
		s.load(config, true)
	}
	s.served(name)
	w.await("the goroutines of old configs to end", func() error {
		if n := s.goroutines(); n > least+2 {
			return fmt.Errorf("%d goroutines, there were %d before 10 reloads", n, least)
		}
		return nil
	})
	w.charges(1)
	if n := w.ca.Calls("replace"); n != 0 {
		t.Errorf("%d reissues were requested", n)
	}
}
