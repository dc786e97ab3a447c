// Package tlsconfig makes Caddy configs that have a TLS app and nothing else, for tests
// that load issuers by themselves. Several may exist side by side, as during a reload,
// and none of them is the one that Caddy runs.
package tlsconfig

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"unsafe"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
)

func init() {
	caddy.RegisterModule(new(place))
}

// Config is a config that has been provisioned.
type Config struct {
	// Context is the one that an issuer of the TLS app is provisioned with.
	Context caddy.Context

	// Issuers are those that New was given, in the only policy of the config.
	Issuers []certmagic.Issuer

	config *caddy.Config
}

// New provisions a config whose names have the given issuers, with its storage in the
// folder, if one is given. Close it.
func New(folder string, issuers ...json.RawMessage) (*Config, error) {
	return NewLogging(nil, folder, issuers...)
}

// NewLogging is New for a config with this logging. Nil means Caddy's default.
func NewLogging(logging *caddy.Logging, folder string, issuers ...json.RawMessage) (*Config, error) {
	provisioning.Lock()
	defer provisioning.Unlock()
	tlsApp, err := json.Marshal(&caddytls.TLS{
		DisableStorageClean: true,
		Automation: &caddytls.AutomationConfig{Policies: []*caddytls.AutomationPolicy{{
			IssuersRaw: append(issuers, json.RawMessage(`{"module":"test_place"}`)),
		}}},
	})
	if err != nil {
		return nil, err
	}
	c := &Config{config: &caddy.Config{
		Admin:   &caddy.AdminConfig{Disabled: true},
		Logging: logging,
		AppsRaw: caddy.ModuleMap{"tls": tlsApp},
	}}
	if folder != "" {
		if c.config.StorageRaw, err = json.Marshal(map[string]string{"module": "file_system", "root": folder}); err != nil {
			return nil, err
		}
	}
	ctx, err := caddy.ProvisionContext(c.config)
	if err != nil {
		return nil, err
	}
	c.Context = provisioning.at
	mod, err := ctx.App("tls")
	if err != nil {
		return nil, err
	}
	policy := mod.(*caddytls.TLS).Automation.Policies[0]
	c.Issuers = policy.Issuers[:len(policy.Issuers)-1]
	return c, nil
}

// Start tells the app commercial that all apps of the config have started.
func (c *Config) Start() error {
	mod, err := c.Context.App("commercial")
	if err != nil {
		return err
	}
	app, ok := mod.(caddy.App)
	if !ok {
		return fmt.Errorf("%T is not an app", mod)
	}
	if err := app.Start(); err != nil {
		return err
	}
	mod, err = c.Context.App("events")
	if err != nil {
		return err
	}
	events, ok := mod.(*caddyevents.App)
	if !ok {
		return fmt.Errorf("%T is not the app for events", mod)
	}
	events.Emit(c.Context, "started", nil)
	return nil
}

// Close cleans up as Caddy does when a config has been replaced. Only Caddy can reach
// the function that does it.
func (c *Config) Close() {
	// The process has one certificate cache for all configs. It goes away with the last
	// one, so no other may be about to use it.
	provisioning.Lock()
	defer provisioning.Unlock()
	field := reflect.ValueOf(c.config).Elem().FieldByName("cancelFunc")
	cancel := *(*context.CancelCauseFunc)(unsafe.Pointer(field.UnsafeAddr())) //nolint:gosec // reads a function of this very type; a test fails if the field moves
	cancel(errors.New("closed by the test"))
}

// place is an issuer that exists only to note the context it is provisioned with.
type place struct{}

// provisioning makes sure that only one config at a time is provisioned or cleaned up.
var provisioning struct {
	sync.Mutex
	at caddy.Context // of the newest place
}

// CaddyModule returns the Caddy module information.
func (*place) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tls.issuance.test_place", New: func() caddy.Module { return new(place) }}
}

// Provision implements caddy.Provisioner.
func (*place) Provision(ctx caddy.Context) error {
	provisioning.at = ctx
	return nil
}

// IssuerKey implements certmagic.Issuer.
func (*place) IssuerKey() string { return "test_place" }

// Issue implements certmagic.Issuer.
func (*place) Issue(context.Context, *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	return nil, errors.ErrUnsupported
}

// Interface guards
var (
	_ certmagic.Issuer  = (*place)(nil)
	_ caddy.Provisioner = (*place)(nil)
)
