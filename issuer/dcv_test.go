package issuer

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/libdns/libdns"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

func init() {
	caddy.RegisterModule(new(dnsModule))
	caddy.RegisterModule(new(readOnlyDNS))
}

// dnsModule is a DNS provider that fails any test that makes it change something, because loading a
// config must not.
type dnsModule struct {
	Token string `json:"token,omitempty"`
}

func (*dnsModule) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "dns.providers.issuer_test", New: func() caddy.Module { return new(dnsModule) }}
}

func (p *dnsModule) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		p.Token = d.Val()
	}
	for d.NextBlock(0) {
		if d.Val() != "token" || !d.Args(&p.Token) {
			return d.Errf("unrecognized option '%s'", d.Val())
		}
	}
	return nil
}

func (p *dnsModule) AppendRecords(context.Context, string, []libdns.Record) ([]libdns.Record, error) {
	panic("a record was added while a config was loaded")
}

func (p *dnsModule) DeleteRecords(context.Context, string, []libdns.Record) ([]libdns.Record, error) {
	panic("a record was deleted while a config was loaded")
}

func (p *dnsModule) SetRecords(context.Context, string, []libdns.Record) ([]libdns.Record, error) {
	panic("a record was set while a config was loaded")
}

func (p *dnsModule) GetRecords(context.Context, string) ([]libdns.Record, error) {
	panic("a zone was listed while a config was loaded")
}

// readOnlyDNS is a DNS provider that cannot change anything.
type readOnlyDNS struct{}

func (*readOnlyDNS) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "dns.providers.issuer_test_readonly", New: func() caddy.Module { return new(readOnlyDNS) }}
}

func (*readOnlyDNS) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return nil
}

func (*readOnlyDNS) GetRecords(context.Context, string) ([]libdns.Record, error) { return nil, nil }

// validateWith adapts and validates a config with global options, and returns the error of either.
func validateWith(t *testing.T, globals, block string) error {
	t.Helper()
	text := "{\n\tadmin off\n\tstorage file_system " + t.TempDir() + "\n" + globals + "\n}\n" +
		"*.example.com {\n\ttls {\n\t\tissuer commercial {\n" + block + "\n\t\t}\n\t}\n}\n"
	raw, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), nil)
	if err != nil {
		return err
	}
	cfg := new(caddy.Config)
	if err := json.Unmarshal(raw, cfg); err != nil {
		t.Fatal(err)
	}
	return caddy.Validate(cfg)
}

const goodDNS = "dcv dns issuer_test {\n\ttoken x\n}\n"

func TestDNSConfigs(t *testing.T) {
	t.Setenv("COMMERCIAL_TEST_NAME", "proofs.example.com")
	for title, c := range map[string]struct {
		globals, block string
		want           string // in the error; empty is none
	}{
		"own provider":    {"", goodDNS, ""},
		"in one line":     {"", "dcv dns issuer_test x\n", ""},
		"shared provider": {"dns issuer_test x", "dcv dns\n", ""},
		"own over shared": {"dns issuer_test x", goodDNS, ""},
		"all options": {"", "propagation_delay 5s\npropagation_timeout 1h\nresolvers 192.0.2.1 [2001:db8::1]:53\ndns_ttl 1m\n" +
			"override_domain {env.COMMERCIAL_TEST_NAME}\n" + goodDNS, ""},
		"no look":          {"", goodDNS + "propagation_timeout -1\n", ""},
		"shared resolvers": {"tls_resolvers 192.0.2.1:53", goodDNS, ""},

		"no provider":         {"", "dcv dns\n", "a DNS provider is required, for example: dcv dns cloudflare {env.CLOUDFLARE_API_TOKEN}"},
		"unknown provider":    {"", "dcv dns nowhere_dns\n", "there is no module 'nowhere_dns' in dns.providers; is its plugin built in?"},
		"read-only provider":  {"", "dcv dns issuer_test_readonly\n", "cannot add and delete records"},
		"provider's option":   {"", "dcv dns issuer_test {\n\twrong\n}\n", "unrecognized option 'wrong'"},
		"block of nobody":     {"dns issuer_test x", "dcv dns {\n\ttoken x\n}\n", "takes no block here"},
		"second argument":     {"", "dcv http now\n", "unexpected argument 'now'"},
		"bad resolver":        {"", goodDNS + "resolvers 192.0.2.1 https://dns.example\n", `"https://dns.example" is not a host with an optional port`},
		"bad shared resolver": {"tls_resolvers 192.0.2.1:many", goodDNS, `"192.0.2.1:many" is not a host`},
		"negative delay":      {"", goodDNS + "propagation_delay -5s\n", "option 'propagation_delay' must be a duration"},
		"negative timeout":    {"", goodDNS + "propagation_timeout -5s\n", "option 'propagation_timeout': must be a duration such as 5m, or -1"},
		"unset override":      {"", goodDNS + "override_domain {env.COMMERCIAL_TEST_UNSET}\n", "override_domain: placeholder {env.COMMERCIAL_TEST_UNSET}"},
		"options of records":  {"", "dcv http\ndns_ttl 1m\n", "are for dcv dns only"},
		"no method":           {"", "resolvers 192.0.2.1\n", "are for dcv dns only"},
		"twice":               {"", "dcv http\n" + goodDNS, "option 'dcv' is given twice"},
		"other method":        {"", "dcv ftp\n", "option 'dcv' must be http, https or dns, got 'ftp'"},
	} {
		err := validateWith(t, c.globals, goodBlock+c.block)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: error = %v, want %q", title, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), configSecret) {
			t.Errorf("%s: the token is in the error: %v", title, err)
		}
	}
}

// TestDNSBadJSON: what the Caddyfile refuses is refused in JSON, too.
func TestDNSBadJSON(t *testing.T) {
	for want, config := range map[string]*DCV{
		"durations must not be negative":               {Method: vendors.MethodDNS, PropagationTimeout: -2},
		"durations must not be negative, except":       {Method: vendors.MethodDNS, TTL: -1},
		"durations must not be negative, except for a": {Method: vendors.MethodDNS, PropagationDelay: -1},
		"are for dcv dns only":                         {Method: vendors.MethodHTTPS, OverrideDomain: "x.example"},
	} {
		if err := config.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error = %v, want %s", config, err, want)
		}
	}
	if err := (*DCV)(nil).check(); err != nil {
		t.Error(err)
	}
}
