package e2e

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"syscall"
	"testing"
)

// TestNoHTTPServer: if Caddy does not listen for plain HTTP, the plugin does, for as long
// as the order is pending.
func TestNoHTTPServer(t *testing.T) {
	const name = "shop.localhost"
	for title, start := range map[string]func(w *world) (s *server, ready func() error){
		"disable_redirects": func(w *world) (*server, func() error) {
			s := w.start(w.localGlobals(w.node, "auto_https disable_redirects") + site(name, w.issuer("bind 127.0.0.1")))
			return s, func() error {
				_, err := w.handshake(w.node, name, w.ca.Roots())
				return err
			}
		},
		"tls app alone": func(w *world) (*server, func() error) {
			s := w.launch(w.node, "caddy.json", w.tlsAppAlone(name))
			return s, func() error {
				files, err := filepath.Glob(filepath.Join(w.storage, "certificates", "*", name, name+".crt"))
				if err == nil && len(files) == 0 {
					err = errors.New("no certificate in the storage")
				}
				return err
			}
		},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, neverIssue)
			s, ready := start(w)
			s.awaitLog("order placed")
			if got := w.get(w.node, name, "/"); got.status != http.StatusNotFound {
				t.Errorf("/ over HTTP got status %d while the order is pending", got.status)
			}
			w.issueNow()
			w.await("the certificate", func() error { return cmp.Or(ready(), s.alive()) })
			w.fetchedWell(name)
			w.charges(1)
			w.await("the port to be closed", func() error {
				_, err := w.tryGet(w.node, name, "/")
				if !errors.Is(err, syscall.ECONNREFUSED) {
					return fmt.Errorf("asking there gives %w", err)
				}
				return nil
			})
			for _, e := range s.errors() {
				t.Errorf("the log has an error: %s", e.raw)
			}
		})
	}
}

// tlsAppAlone is a config that has no HTTP app.
func (w *world) tlsAppAlone(name string) string {
	w.t.Helper()
	type object = map[string]any
	config := object{
		"admin":   object{"listen": fmt.Sprintf("127.0.0.1:%d", w.node.admin), "config": object{"persist": false}},
		"storage": object{"module": "e2e_points", "root": w.storage, "report": w.hooks + "/point"},
		"logging": object{"logs": object{"default": object{"level": "DEBUG", "encoder": object{"format": "json"}}}},
		"apps": object{"pki": object{
			// The machine must not be made to trust anything of this test.
			"certificate_authorities": object{"local": object{"install_trust": false}},
		}, "tls": object{
			"certificates": object{"automate": []string{name}},
			"automation": object{"policies": []object{{
				"subjects": []string{name},
				"issuers": []object{{
					"module":  "commercial",
					"vendor":  object{"name": "racent", "api_token": "{env.E2E_TOKEN}", "endpoint": w.api, "test_service": true},
					"product": "comodo-positivessl",
					"contact": object{
						"first_name": "Ada", "last_name": "Lovelace", "email": "ada@example.com", "phone": "+44.2012345678",
						"organization": "Analytical Engines", "job_title": "Analyst", "address": "12 St James's Square",
						"city": "London", "state": "London", "postal_code": "SW1Y", "country": "GB",
					},
					"poll_min": "50ms", "poll_max": "1s", "probe": "strict",
					"http_port": w.node.http, "bind": []string{"127.0.0.1"},
				}},
			}}},
		}},
	}
	text, err := json.Marshal(config)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}
