package e2e

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
)

func (w *world) onDemand(options ...string) string {
	return w.localGlobals(w.node, fmt.Sprintf("on_demand_tls {\n\task %s/ask\n}", w.hooks)) +
		site("https://", "on_demand\n"+w.issuer(options...))
}

// TestOnDemand: strangers' handshakes spend nothing, unless they are allowed to.
func TestOnDemand(t *testing.T) {
	const name = "stranger.localhost"
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, nil)
		s := w.start(w.onDemand())
		w.await("a refused handshake", func() error {
			if _, err := w.handshake(w.node, name, w.ca.Roots()); err == nil {
				return finalError{errors.New("the handshake succeeded")}
			}
			for _, e := range s.errors() {
				if strings.Contains(e.raw, "set allow_on_demand to permit it") && strings.Contains(e.raw, name) {
					return nil
				}
			}
			return cmp.Or(s.alive(), errors.New("no error in the log says why"))
		})
		w.charges(0)
		if n := w.ca.Calls(""); n != 0 {
			t.Errorf("%d calls were made to the vendor", n)
		}
	})
	t.Run("allowed", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, nil)
		s := w.start(w.onDemand("allow_on_demand"))
		s.awaitLog("serving initial configuration")
		var crowd sync.WaitGroup
		for range 5 {
			crowd.Go(func() {
				if _, err := w.handshake(w.node, name, w.ca.Roots()); err != nil {
					t.Errorf("a handshake failed: %v", err)
				}
			})
		}
		crowd.Wait()
		s.served(name)
		w.charges(1)
		w.fetchedWell(name)
	})
	t.Run("not asked for", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, nil)
		w.ask = func(string) bool { return false }
		s := w.start(w.onDemand("allow_on_demand"))
		s.awaitLog("serving initial configuration")
		if _, err := w.handshake(w.node, name, w.ca.Roots()); err == nil {
			t.Error("a handshake succeeded that the ask endpoint refused")
		}
		w.charges(0)
	})
}
