package issuer

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
)

const configuredJSON = `{
	"storage": {"module": "file_system", "root": "/x"},
	"apps": {
		"http": {"http_port": 8080, "servers": {
			"plain": {"listen": [":8080"], "routes": [{"match": [{"host": ["plain.example.com"]}]}]},
			"off": {"listen": [":443"], "automatic_https": {"disable": true}, "routes": [{"match": [{"host": ["off.example.com"]}]}]},
			"main": {"listen": [":443"], "automatic_https": {"skip": ["skip.example.com"], "skip_certificates": ["loaded.example.com"]}, "routes": [
				{"match": [{"host": ["A.example.com", "b.example.com"]}, {"host": ["skip.example.com", "loaded.example.com"]}]},
				{"match": [{"host": ["shop.example.net", "www.wild.example", "bücher.example", "lan.localhost"]}]},
				{"match": [{"path": ["/x"]}]}
			]}
		}},
		"tls": {
			"certificates": {"automate": ["auto.example.com"]},
			"automation": {"policies": [
				{"subjects": ["b.example.com"], "issuers": [{"module": "acme"}]},
				{"subjects": ["*.example.net"], "issuers": [{"module": "commercial", "vendor": {"name": "digicert"}}], "on_demand": true},
				{"subjects": ["demo.example.com"], "issuers": [{"module": "commercial", "vendor": {"name": "sandbox"}}]},
				{"issuers": [{"module": "commercial", "vendor": {"name": "racent"}}, {"module": "acme"}]}
			]}
		}
	}
}`

// TestConfiguredNames: a config shows which names have certificates, and from which issuers.
func TestConfiguredNames(t *testing.T) {
	var c configuration
	if err := json.Unmarshal([]byte(configuredJSON), &c); err != nil {
		t.Fatal(err)
	}
	want := []string{"a.example.com", "auto.example.com", "b.example.com", "lan.localhost", "shop.example.net", "www.wild.example", "xn--bcher-kva.example"}
	if got := slices.Sorted(maps.Keys(c.managed())); !slices.Equal(got, want) {
		t.Errorf("managed: %q, want %q", got, want)
	}
	for name, want := range map[string]struct{ policy, racent, digicert int }{
		"a.example.com":    {3, 1, 0},
		"b.example.com":    {0, 0, 0},
		"shop.example.net": {1, 0, 1},
		"demo.example.com": {2, 0, 0},
		"lan.localhost":    {-1, 0, 0}, // Caddy has its own CA for it
	} {
		p, i := c.policyOf(name)
		if i != want.policy || len(p.ours("racent")) != want.racent || len(p.ours("digicert/x")) != want.digicert || len(p.ours("")) != want.racent+want.digicert {
			t.Errorf("%s: policy %d with %d and %d", name, i, len(p.ours("racent")), len(p.ours("digicert/x")))
		}
	}
	for _, tt := range []struct {
		names        []string
		vendor, want string
	}{
		{[]string{"elsewhere.example"}, "", "it has a.example.com, auto.example.com, shop.example.net"},
		{[]string{"elsewhere.example"}, "howssl", "no names with a commercial issuer of howssl"},
		{[]string{"*.wild.example", "wild.example"}, "", "covers www.wild.example by a wildcard"},
	} {
		if err := c.noBuyer(tt.names, tt.vendor); !strings.Contains(err.Error(), tt.want) {
			t.Errorf("error = %v, want %q", err, tt.want)
		}
	}
}
