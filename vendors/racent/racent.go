// Package racent buys certificates from Racent (锐成信息) and from its
// international brand NicSRS, which runs the same API on another host.
//
// The API is documented on help.racent.com ("SSL 开发参考") and, in English, on
// www.nicsrs.com/help-detail/NN. Not every page can be read in full, so doc
// comments here say "documented" for what a page of the vendor states,
// "observed" for what published clients of the live service rely on, and
// "assumed" for the rest.
package racent

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-commercial/caddy-commercial/internal/options"
	"github.com/caddy-commercial/caddy-commercial/internal/vendorhttp"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

func init() {
	caddy.RegisterModule(new(Racent))
}

// Racent orders certificates from Racent or NicSRS. The account needs a balance,
// an API token, and usually this machine's address on its allow-list.
type Racent struct {
	// REQUIRED. The account's API token, which Racent's support hands out.
	// Placeholders are supported, for example {env.RACENT_TOKEN} or
	// {file./run/secrets/racent}.
	APIToken string `json:"api_token,omitempty"`

	// Base URL of the API. Default: https://portal.racent.com/ssl; for NicSRS:
	// https://portal.nicsrs.com/ssl. Must be https, except on a loopback host.
	// Placeholders are supported.
	Endpoint string `json:"endpoint,omitempty"`

	// Longest time that one attempt of a call may take. Default: 60s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// A label of your choice for the account. Needed only when several accounts
	// of the same endpoint are used with one storage: it keeps their orders
	// apart. Do not change it later, or paid orders are not found again.
	// Placeholders are supported.
	Account string `json:"account,omitempty"`

	// Whether the endpoint is a test service on this machine, such as the
	// sandbox, and not a way to the vendor. It may then certify names like
	// demo.localhost, and lost orders are given up sooner. Default: false
	TestService bool `json:"test_service,omitempty"`

	*Orders `json:"-"`
}

const (
	moduleName      = "racent"
	defaultEndpoint = "https://portal.racent.com/ssl"

	// absenceAge is how long after its entry an order may stay invisible: 1 min until it
	// is sent, 1 min for a pause just before, 2 min for the call, 2 min until a request
	// that has left is carried out, the CA's answer included, 4 min until it can be
	// looked up. The last two are assumed: no page tells, and one client saw orders
	// "within seconds".
	absenceAge = 10 * time.Minute

	// testAbsenceAge is that of a test service, where nothing is on the way for
	// long and no money is at stake.
	testAbsenceAge = 10 * time.Second

	// renewWindow is documented on www.nicsrs.com/help-detail/18.
	renewWindow = 90 * 24 * time.Hour
)

// CaddyModule returns the Caddy module information.
func (*Racent) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  vendors.Namespace + "." + moduleName,
		New: func() caddy.Module { return new(Racent) },
	}
}

// Provision resolves placeholders and prepares the client. It makes no call.
func (r *Racent) Provision(ctx caddy.Context) error {
	repl := caddy.NewReplacer()
	token, err := options.Resolve(repl, "api_token", r.APIToken)
	if err != nil {
		return err
	}
	if token == "" {
		return errors.New("api_token: missing; give the token after the vendor's name, for example: vendor racent {env.RACENT_TOKEN}")
	}
	endpoint, err := options.Resolve(repl, "endpoint", r.Endpoint)
	if err != nil {
		return err
	}
	if endpoint == "" {
		endpoint = defaultEndpoint
	}
	label, err := options.Resolve(repl, "account", r.Account)
	if err != nil {
		return err
	}
	if r.Timeout < 0 {
		return errors.New("timeout: must not be negative")
	}
	endpoint, err = vendorhttp.CheckEndpoint(endpoint)
	if err != nil {
		return err
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return fmt.Errorf("endpoint: %w", err)
	}
	account := u.Host
	if label != "" {
		account += "/" + label
	}
	about := vendors.Description{
		Name:        moduleName,
		Account:     account,
		Portal:      u.Scheme + "://" + u.Host,
		AbsenceAge:  absenceAge,
		RenewWindow: renewWindow,
	}
	if r.TestService {
		if !vendorhttp.IsLoopback(u.Hostname()) {
			return fmt.Errorf("test_service: %s is not on this machine", u.Host)
		}
		about.AbsenceAge, about.AnyName = testAbsenceAge, true
	}
	r.Orders, err = New(Settings{
		Token:       token,
		Endpoint:    endpoint,
		Timeout:     time.Duration(r.Timeout),
		Logger:      ctx.Logger(),
		Description: about,
	})
	return err
}

// Cleanup ends idle connections.
func (r *Racent) Cleanup() error {
	if r.Orders != nil {
		r.Close()
	}
	return nil
}

// UnmarshalCaddyfile sets up the vendor from Caddyfile tokens.
//
//	racent [<api_token>] {
//	    api_token <token>
//	    endpoint  <url>
//	    timeout   <duration>
//	    account   <label>
//	    test_service
//	}
func (r *Racent) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume vendor name
	var given []string
	if d.NextArg() {
		r.APIToken = d.Val()
		given = append(given, "api_token")
	}
	return options.Parse(d, options.Table{
		"api_token": options.String(&r.APIToken),
		"endpoint":  options.String(&r.Endpoint),
		"timeout":   options.Duration(&r.Timeout),
		"account":   options.String(&r.Account),

		"test_service": options.Flag(&r.TestService),
	}, given...)
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Racent)(nil)
	_ caddy.CleanerUpper    = (*Racent)(nil)
	_ caddyfile.Unmarshaler = (*Racent)(nil)
	_ vendors.Vendor        = (*Racent)(nil)
)
