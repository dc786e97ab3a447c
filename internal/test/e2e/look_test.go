package e2e

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
)

// strangers ask a server for a path of a host twenty times a second, until stop is called
// or the test ends.
type strangers struct {
	misses atomic.Int64 // answers without a file
	stop   func()
}

func (w *world) strangers(n node, host, path string) *strangers {
	ctx, cancel := context.WithCancel(w.t.Context())
	s := new(strangers)
	var group sync.WaitGroup
	group.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			if a, err := w.tryGet(n, host, path); err == nil && a.status != 200 {
				s.misses.Add(1)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	s.stop = func() {
		cancel()
		group.Wait()
	}
	return s
}

// TestFirstLook: the CA comes to a server that did not place the order and has just told
// strangers that there is no such file, and finds the file at its first attempt. With one
// vendor the file is known before the order, and with another only after it.
func TestFirstLook(t *testing.T) {
	const name = "shop.localhost"
	for title, tt := range map[string]struct {
		seller seller
		path   string
	}{
		"known before the order": {sellers[0], "/.well-known/pki-validation/0123456789ABCDEF0123456789ABCDEF.txt"},
		"known after the order":  {sellers[1], "/.well-known/pki-validation/fileauth.txt"},
	} {
		// A server that has the name in its config knows where to look for its files.
		// Both servers would place the order, so this one has another issuer first.
		commercial := func(w *world) string { return w.issuerOf(tt.seller, "") }
		for knows, looker := range map[string]func(w *world, n node) string{
			"name": func(w *world, n node) string {
				return w.localGlobals(n) + site(name, "issuer internal\n"+commercial(w))
			},
			"catch-all": func(w *world, n node) string {
				return w.localGlobals(n, fmt.Sprintf("on_demand_tls {\n\task %s/ask\n}", w.hooks)) + site("https://", "on_demand\n"+commercial(w))
			},
		} {
			t.Run(title+"/"+knows, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, neverIssue)
				looked := w.newNode("looked-at")
				w.update(func(c *hostile.Config) { c.HTTPPort = looked.http })
				other := w.startAt(looked, looker(w, looked))
				other.awaitLog("serving initial configuration")
				crowd := w.strangers(looked, name, tt.path)
				defer crowd.stop()
				told := func() error {
					if crowd.misses.Load() < 20 {
						return errors.New("strangers were not told often enough that there is no file")
					}
					return nil
				}
				w.await("strangers", told)

				s := w.start(w.localGlobals(w.node) + site(name, commercial(w)))
				s.awaitLog("order placed")
				w.await("the CA's first fetch", func() error {
					if len(w.ca.Fetches()) == 0 {
						return errors.New("there is none")
					}
					return nil
				})
				w.fetchedWell(name)
				w.issueNow()
				s.served(name)
				w.fetchedWell(name)
				w.charges(1)
				w.nothingForgotten()
				if len(other.find("order placed")) > 0 {
					t.Error("the other server placed an order")
				}
			})
		}
	}
}
