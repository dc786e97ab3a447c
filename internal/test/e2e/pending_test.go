package e2e

import (
	"cmp"
	"errors"
	"fmt"
	"testing"
)

// keepsKey waits until the private key of the pending order is in the storage, and fails
// unless it is the only one.
func (w *world) keepsKey() {
	w.t.Helper()
	w.await("the private key of the order", func() error {
		if len(w.keptKeys()) == 0 {
			return errors.New("it is not kept")
		}
		return nil
	})
	if kept := w.keptKeys(); len(kept) != 1 {
		w.t.Errorf("the private keys %q are kept for one order", kept)
	}
}

// TestKilledWhilePending: a server that died while its order was pending comes back and
// delivers what was ordered, with the key it was ordered for.
func TestKilledWhilePending(t *testing.T) {
	const name = "shop.localhost"
	for title, issue := range map[string]func(w *world, restart func() *server) *server{
		"issued later": func(w *world, restart func() *server) *server {
			s := restart()
			w.await("the order to be followed", w.calledMore("collect", 2))
			w.issueNow()
			return s
		},
		"issued while nobody was there": func(w *world, restart func() *server) *server {
			w.issueNow()
			return restart()
		},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, neverIssue)
			config := w.simple(w.node, name)
			s := w.start(config)
			s.awaitLog("order placed")
			w.await("the order to be followed", w.calledMore("collect", 1))
			w.keepsKey()
			s = issue(w, func() *server {
				s.kill()
				return w.start(config)
			})
			leaf := s.served(name)
			w.charges(1)
			w.nothingForgotten()
			if n := w.ca.Calls("replace"); n != 0 {
				t.Errorf("the order was reissued %d times; its key was kept", n)
			}
			s.stop()
			if !w.start(config).served(name).Equal(leaf) {
				t.Error("a restart changed the certificate")
			}
		})
	}
}

// TestUnloadedWhilePending: a config without this plugin is loaded while an order is
// pending. It loads, nobody touches the order, and the next config that has the name goes
// on with it.
func TestUnloadedWhilePending(t *testing.T) {
	t.Parallel()
	w := newWorld(t, neverIssue)
	const name = "shop.localhost"
	for title, config := range map[string]string{"HTTP server": w.simple(w.node, name), "none": w.localGlobals(w.node, "auto_https disable_redirects") + site(name, w.issuer("bind 127.0.0.1"))} {
		t.Run(title, func(t *testing.T) {
			s := w.start(config)
			defer s.stop()
			w.await("the order to be followed", w.calledMore("collect", 1))
			const other = "other.localhost"
			s.load(w.localGlobals(w.node)+fmt.Sprintf("http://%s {\n\trespond other\n}\n", other), false)
			w.await("the other site", func() error {
				got, err := w.tryGet(w.node, other, "/")
				if err == nil && got.body != "other" {
					err = fmt.Errorf("it answers %+v", got)
				}
				return cmp.Or(s.alive(), err)
			})
			if orders := w.ca.Orders(); len(orders) != 1 || len(w.keptKeys()) != 1 {
				t.Errorf("orders %+v, keys %q", orders, w.keptKeys())
			}
			s.load(config, false)
			w.await("the order to be followed again", w.calledMore("collect", 2))
		})
	}
	w.issueNow()
	s := w.start(w.simple(w.node, name))
	s.served(name)
	w.charges(1)
	w.nothingForgotten()
	if n := w.ca.Calls("replace"); n != 0 {
		t.Errorf("the order was reissued %d times; its key was kept", n)
	}
}
