package proof

import (
	"context"
	"encoding/json"
	"strconv"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"
	"github.com/libdns/libdns"
)

func init() {
	caddy.RegisterModule(new(dnsModule))
	caddy.RegisterModule(new(spy))
}

// dnsModule is a DNS provider that cannot change anything.
type dnsModule struct {
	Token string `json:"token,omitempty"`
}

func (*dnsModule) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "dns.providers.proof_test", New: func() caddy.Module { return new(dnsModule) }}
}

func (*dnsModule) SetRecords(context.Context, string, []libdns.Record) ([]libdns.Record, error) {
	return nil, nil
}

func (*dnsModule) GetRecords(context.Context, string) ([]libdns.Record, error) { return nil, nil }

func (*dnsModule) AppendRecords(context.Context, string, []libdns.Record) ([]libdns.Record, error) {
	return nil, nil
}

func (*dnsModule) DeleteRecords(context.Context, string, []libdns.Record) ([]libdns.Record, error) {
	return nil, nil
}

// spy is an app that looks into the TLS app of its config.
type spy struct{ provider any }

var lastSpy *spy

func (*spy) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "proof_test_spy", New: func() caddy.Module { return new(spy) }}
}

func (s *spy) Provision(ctx caddy.Context) error {
	app, err := ctx.App("tls")
	if err == nil {
		s.provider = SharedProvider(app.(*caddytls.TLS))
	}
	lastSpy = s
	return err
}

func (*spy) Start() error { return nil }
func (*spy) Stop() error  { return nil }

// TestSharedProviderIsTheApps fails when another version of Caddy keeps the provider
// elsewhere; see SharedProvider.
func TestSharedProviderIsTheApps(t *testing.T) {
	if got := SharedProvider(nil); got != nil {
		t.Errorf("no app has the provider %v", got)
	}
	for tlsApp, want := range map[string]*dnsModule{
		`{}`: nil,
		`{"dns":{"name":"proof_test","token":"of-all"}}`: {Token: "of-all"},
	} {
		err := caddy.Validate(&caddy.Config{
			Admin:      &caddy.AdminConfig{Disabled: true},
			StorageRaw: json.RawMessage(`{"module":"file_system","root":` + strconv.Quote(t.TempDir()) + `}`),
			AppsRaw:    caddy.ModuleMap{"tls": json.RawMessage(tlsApp), "proof_test_spy": json.RawMessage(`{}`)},
		})
		if err != nil {
			t.Fatal(err)
		}
		got, _ := lastSpy.provider.(*dnsModule)
		if (got == nil) != (want == nil) || got != nil && *got != *want {
			t.Errorf("%s: the provider is %+v, want %+v", tlsApp, lastSpy.provider, want)
		}
	}
}
