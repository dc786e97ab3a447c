package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/caddyserver/caddy/v2/modules/filestorage"
	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/internal/test/tlsconfig"

	_ "github.com/caddy-commercial/caddy-commercial/issuer"
	_ "github.com/caddy-commercial/caddy-commercial/vendors/digicert"
	_ "github.com/caddy-commercial/caddy-commercial/vendors/howssl"
	_ "github.com/caddy-commercial/caddy-commercial/vendors/racent"
)

// seller is how one vendor is configured, in a Caddyfile and in JSON.
type seller struct {
	name, credential, path, options, product string
	revokes                                  bool
}

var sellers = []seller{
	{"racent", "api_token", "/ssl", "", "comodo-positivessl", true},
	{"digicert", "api_key", "/services/v2", "", "ssl_dv_rapidssl", true},
	{"howssl", "token", "", "create_order_field domains domains", "comodo-positivessl", false},
}

// issuerOf is an issuer that buys from the world's CA in the seller's dialect.
func (w *world) issuerOf(s seller, options string) string {
	return fmt.Sprintf(`issuer commercial {
	vendor %s {env.E2E_TOKEN} {
		endpoint %s
		%s
		test_service
	}
	product %s
	poll 50ms 1s
	probe strict
	%s
	%s
}
`, s.name, w.hooks+s.path, s.options, s.product, contact, options)
}

// TestAllSellers takes each vendor, by file and by record, through the life of a
// certificate: the first order, a restart, a renewal within the term, revocation.
func TestAllSellers(t *testing.T) {
	const name = "shop.example.com"
	for _, seller := range sellers {
		for _, method := range []string{"http", "dns"} {
			t.Run(seller.name+" "+method, func(t *testing.T) {
				t.Parallel()
				var w *world
				options := ""
				if method == "dns" {
					var n *nameServer
					w, n = newDNSWorld(t, nil)
					options = n.dcv(keySecret)
					defer func() { w.clean(n) }()
				} else {
					w = newWorld(t, func(c *hostile.Config) { c.Perspectives = 2 })
				}
				config := w.localGlobals(w.node) + site(name, w.issuerOf(seller, options))
				s := w.start(config)
				first := s.served(name)
				s.stop()

				s = w.start(config)
				if again := s.served(name); !again.Equal(first) {
					t.Error("a restart changed the certificate")
				}
				s.stop()

				// Without its certificate a new one is requested, as for a renewal.
				if err := os.RemoveAll(filepath.Join(w.storage, "certificates")); err != nil {
					t.Fatal(err)
				}
				s = w.start(config)
				renewed := s.served(name)
				if renewed.Equal(first) {
					t.Error("the certificate was not renewed")
				}
				w.charges(1)
				w.nothingForgotten()
				s.stop()

				err := w.revoke(seller, w.metadata(name))
				switch {
				case seller.revokes && err != nil:
					t.Errorf("revoking: %v", err)
				case seller.revokes && !w.ca.Revoked(renewed.SerialNumber):
					t.Error("the certificate is not revoked")
				case !seller.revokes && (err == nil || !strings.Contains(err.Error(), "cannot revoke")):
					t.Errorf("revoking at a vendor that cannot: %v", err)
				}
				if n := len(w.ca.Charges()); n != 1 {
					t.Errorf("charged %d times", n)
				}
			})
		}
	}
}

// metadata is what certmagic stored alongside the name's certificate.
func (w *world) metadata(name string) []byte {
	w.t.Helper()
	files, err := filepath.Glob(filepath.Join(w.storage, "certificates", "*", name, name+".json"))
	if err != nil || len(files) != 1 {
		w.t.Fatalf("metadata of %s: %q, %v", name, files, err)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		w.t.Fatal(err)
	}
	return data
}

// revoke does what certmagic does to revoke a stored certificate.
func (w *world) revoke(s seller, metadata []byte) error {
	w.t.Helper()
	vendor := map[string]any{"name": s.name, s.credential: apiToken, "endpoint": w.hooks + s.path, "test_service": true}
	if s.name == "howssl" {
		vendor["create_order_fields"] = map[string]string{"domains": "domains"}
	}
	raw, err := json.Marshal(map[string]any{"module": "commercial", "vendor": vendor, "product": s.product, "contact": map[string]string{
		"first_name": "Ada", "last_name": "Lovelace", "email": "ada@example.com", "phone": "+44.2012345678",
		"organization": "Engines", "job_title": "Analyst", "address": "1 Square", "city": "London",
		"state": "London", "postal_code": "W1", "country": "GB",
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	config, err := tlsconfig.New(filepath.Join(w.dir, "revoking"), raw)
	if err != nil {
		w.t.Fatal(err)
	}
	defer config.Close()
	var resource certmagic.CertificateResource
	if err := json.Unmarshal(metadata, &resource); err != nil {
		w.t.Fatal(err)
	}
	return config.Issuers[0].(certmagic.Revoker).Revoke(w.t.Context(), resource, 1)
}
