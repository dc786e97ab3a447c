// Package racent buys certificates from Racent (锐成信息) and from its
// international brand NicSRS, which runs the same API on another host.
//
// The API is documented on help.racent.com ("SSL 开发参考") and www.nicsrs.com/help-detail/NN,
// of which not every page can be read. Comments say "documented" for what a page of the vendor
// states, "observed" for what published clients of the live service rely on, and "assumed"
// for the rest. docs/racent.md has a table of all parameters.
package racent

import (
	"errors"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-commercial/caddy-commercial/internal/options"
	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

func init() {
	caddy.RegisterModule(new(Racent))
}

// Racent orders certificates from Racent or NicSRS. The account needs a balance, an API
// token, and usually this machine's address on its allow-list. The default endpoint is
// https://portal.racent.com/ssl; that of NicSRS is https://portal.nicsrs.com/ssl.
type Racent struct {
	// REQUIRED. The account's API token, which Racent's support hands out. Placeholders
	// are supported, for example {env.RACENT_TOKEN} or {file./run/secrets/racent}.
	APIToken string `json:"api_token,omitempty"`

	kit.Account
	Options

	*Orders `json:"-"`
}

// Options are the options of the vendor besides its account.
type Options struct {
	// The kind of server that the certificate is for, in Racent's words, such as nginx
	// or tomcat. It changes nothing for Caddy. Default: other
	Server string `json:"server,omitempty"`

	// A file that proves the organization of OV and EV orders, such as a scan of its
	// business licence: jpg, jpeg, png, gif, bmp, rar, zip or pdf, of up to 2 MB. It is
	// read when the configuration is loaded. Placeholders are supported.
	VerificationDocument string `json:"verification_document,omitempty"`
}

const (
	moduleName      = "racent"
	defaultEndpoint = "https://portal.racent.com/ssl"

	// absenceAge is how long after its entry an order may stay invisible: 1 min until it
	// is sent, 1 min for a pause just before, 2 min for the call, 2 min until a request
	// that has left is carried out, 4 min until it can be looked up. The last two are
	// assumed: no page tells, and one client saw orders "within seconds".
	absenceAge  = 10 * time.Minute
	renewWindow = 90 * 24 * time.Hour // documented on www.nicsrs.com/help-detail/18
)

// CaddyModule returns the Caddy module information.
func (*Racent) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: vendors.Namespace + "." + moduleName, New: func() caddy.Module { return new(Racent) }}
}

// Provision resolves placeholders and prepares the client. It makes no call.
func (r *Racent) Provision(ctx caddy.Context) error {
	about := vendors.Description{Name: moduleName, AbsenceAge: absenceAge, RenewWindow: renewWindow}
	cfg, err := r.Config(ctx, "api_token", r.APIToken, defaultEndpoint, about, kit.Limits{})
	if err != nil {
		return err
	}
	opts := r.Options
	if opts.VerificationDocument, err = options.Resolve(caddy.NewReplacer(), "verification_document", opts.VerificationDocument); err != nil {
		return err
	}
	r.Orders, err = New(cfg, opts)
	return err
}

// UnmarshalCaddyfile sets up the vendor from Caddyfile tokens.
//
//	racent [<api_token>] {
//	    api_token <token>
//	    endpoint  <url>
//	    timeout   <duration>
//	    account   <label>
//	    test_service
//	    server <word>
//	    verification_document <file>
//	}
func (r *Racent) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return r.Unmarshal(d, "api_token", &r.APIToken, options.Table{
		"api_token":             options.String(&r.APIToken),
		"server":                options.String(&r.Server),
		"verification_document": options.String(&r.VerificationDocument),

		// Parameters of the API that there is no option for.
		"private_key": options.Refused(errors.New("not supported: Caddy makes the keys, and they do not leave it")),
		"dcv_email":   options.Refused(errors.New("not supported: Caddy has no inbox, and CAs end validation by e-mail in 2028; use dcv http, https or dns")),
		"domain_verification_document": options.Refused(errors.New("not supported: people at CFCA decide on a document (VERIFY_DOCUMENT), " +
			"and no proof of control can be presented or tried before the order; use dcv http, https or dns")),
	})
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Racent)(nil)
	_ caddy.CleanerUpper    = (*Racent)(nil)
	_ caddyfile.Unmarshaler = (*Racent)(nil)
	_ vendors.Vendor        = (*Racent)(nil)
	_ vendors.Validator     = (*Racent)(nil)
	_ vendors.ConfigChecker = (*Racent)(nil)
	_ vendors.Finder        = (*Racent)(nil)
	_ vendors.OrderLister   = (*Racent)(nil)
	_ vendors.Auditor       = (*Racent)(nil)
	_ vendors.Predictor     = (*Racent)(nil)
	_ vendors.Reissuer      = (*Racent)(nil)
	_ vendors.Renewer       = (*Racent)(nil)
	_ vendors.Rechecker     = (*Racent)(nil)
	_ vendors.Canceler      = (*Racent)(nil)
	_ vendors.Revoker       = (*Racent)(nil)
	_ vendors.ProductLister = (*Racent)(nil)
	_ vendors.Clock         = (*Racent)(nil)
	_ vendors.CAAIdentifier = (*Racent)(nil)
)
