package kit

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-commercial/caddy-commercial/internal/options"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Account is the part of the configuration that every vendor has, to be embedded in its
// module.
type Account struct {
	// Base URL of the API. The default is the vendor's own. Must be https, except on a
	// loopback host. Placeholders are supported.
	Endpoint string `json:"endpoint,omitempty"`

	// Longest time that one attempt of a call may take. Default: 60s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// A label of your choice for the account. Needed only when several accounts
	// of the same endpoint are used with one storage: it keeps their orders
	// apart. Do not change it later, or paid orders are not found again.
	// Placeholders are supported.
	Label string `json:"account,omitempty"`

	// Whether the endpoint is a test service on this machine, such as the
	// sandbox, and not a way to the vendor. It may then certify names like
	// demo.localhost, and lost orders are given up sooner. Default: false
	TestService bool `json:"test_service,omitempty"`

	ends []func() // what Cleanup does
}

// Unmarshal parses a vendor's line and its block. The credential may stand on the line or,
// like all other options, in the block: those of the account and the vendor's own, which
// include the credential under that name. The dispenser stands before the vendor's name.
func (a *Account) Unmarshal(d *caddyfile.Dispenser, credentialName string, credential *string, own options.Table) error {
	d.Next() // consume vendor name
	var given []string
	if d.NextArg() {
		*credential = d.Val()
		given = append(given, credentialName)
	}
	table := options.Table{
		"endpoint":     options.String(&a.Endpoint),
		"timeout":      options.Duration(&a.Timeout),
		"account":      options.String(&a.Label),
		"test_service": options.Flag(&a.TestService),
	}
	maps.Copy(table, own)
	return options.Parse(d, table, given...)
}

// testAbsenceAge is the AbsenceAge of a test service, where nothing is on the way for long
// and no money is at stake.
const testAbsenceAge = 20 * time.Second

// Config resolves the placeholders of the account and of its credential, which is called
// credentialName in the configuration, and judges them. about must have the Name and what
// else is true of the vendor whatever the account; Account is filled in, and Portal, if it is
// empty. The endpoint is used where none is configured. All accounts with the credential
// share the limits, if there are any; those that were loaded last count.
func (a *Account) Config(ctx caddy.Context, credentialName, credential, endpoint string, about vendors.Description, limits Limits) (Config, error) {
	repl := caddy.NewReplacer()
	cfg := Config{Timeout: time.Duration(a.Timeout), Logger: ctx.Logger(), Description: about, account: a}
	var err error
	if cfg.Secret, err = options.Resolve(repl, credentialName, credential); err != nil {
		return cfg, err
	}
	if cfg.Secret == "" {
		// Of api_token the second word: {env.RACENT_TOKEN}.
		variable := about.Name + "_" + credentialName[strings.LastIndexByte(credentialName, '_')+1:]
		return cfg, fmt.Errorf("%s: missing; give it after the vendor's name, for example: vendor %s {env.%s}",
			credentialName, about.Name, strings.ToUpper(variable))
	}
	if strings.ContainsFunc(cfg.Secret, unicode.IsControl) {
		return cfg, fmt.Errorf("%s: must be one line without control characters", credentialName)
	}
	if cfg.Endpoint, err = options.Resolve(repl, "endpoint", a.Endpoint); err != nil {
		return cfg, err
	}
	if cfg.Endpoint == "" {
		cfg.Endpoint = endpoint
	}
	label, err := options.Resolve(repl, "account", a.Label)
	if err != nil {
		return cfg, err
	}
	if a.Timeout < 0 {
		return cfg, errors.New("timeout: must not be negative")
	}
	if cfg.Endpoint, err = CheckEndpoint(cfg.Endpoint); err != nil {
		return cfg, err
	}
	u, err := url.Parse(cfg.Endpoint)
	if err != nil {
		return cfg, fmt.Errorf("endpoint: %w", err)
	}
	desc := &cfg.Description
	if desc.Account = u.Host; label != "" {
		desc.Account += "/" + label
	}
	if desc.Portal == "" {
		desc.Portal = u.Scheme + "://" + u.Host
	}
	if a.TestService {
		if !IsLoopback(u.Hostname()) {
			return cfg, fmt.Errorf("test_service: %s is not on this machine", u.Host)
		}
		desc.AbsenceAge, desc.AnyName = testAbsenceAge, true
	}
	if limits.AtOnce > 0 {
		var release func()
		cfg.Limiter, release = SharedLimiter(cfg, limits)
		a.ends = append(a.ends, release)
	}
	return cfg, nil
}

// Cleanup implements caddy.CleanerUpper for the module: it ends what Config and a client with
// it have begun.
func (a *Account) Cleanup() error {
	for _, end := range a.ends {
		end()
	}
	return nil
}
