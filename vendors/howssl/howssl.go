// Package howssl buys certificates from HowSSL, a reseller with a partner API at
// api.howssl.com.
//
// The API is documented in two public books on kancloud.cn: howssl/api_certificate
// (Chinese, fuller and newer) and howssl/ssl-api (English). Some pages could be read
// in part only, and the page of error codes not at all, so doc comments here say
// "documented" for what a page states, with its number, and "assumed" for what is
// concluded from sibling calls or from examples. Page NNN is
// https://www.kancloud.cn/howssl/api_certificate/NNN.
//
// An order takes two calls: createOrder is free and yields a check_id, and
// commitOrder pays for it. commitOrder is never sent twice for one check_id. The
// service has no call that revokes a certificate, and neither has this package: what
// cancelOrder does to an issued order is not documented, so it is no substitute.
package howssl

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
	caddy.RegisterModule(new(HowSSL))
}

// HowSSL orders certificates from HowSSL. The account needs a balance and permission
// to use the API.
//
// HowSSL's documents do not show how an order names its domain. Either say so in
// create_order_fields, or prepare orders at HowSSL and list them in check_ids.
type HowSSL struct {
	// REQUIRED. The account's API token, from the API settings of HowSSL's
	// console. Placeholders are supported, for example {env.HOWSSL_TOKEN} or
	// {file./run/secrets/howssl}.
	Token string `json:"token,omitempty"`

	// Base URL of the API. Default: https://api.howssl.com. Must be https, except
	// on a loopback host. Placeholders are supported.
	Endpoint string `json:"endpoint,omitempty"`

	// Longest time that one attempt of a call may take. Default: 60s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// A label of your choice for the account. Needed only when several accounts
	// of the same endpoint are used with one storage: it keeps their orders
	// apart. Do not change it later, or paid orders are not found again.
	// Placeholders are supported.
	Account string `json:"account,omitempty"`

	// What HowSSL calls the fields of createOrder, by what they are called here:
	// domains, dcv_method, product, term, csr, auto_info, first_name, last_name,
	// job_title, phone, email, country, postal_code, organization_name,
	// organization_phone, organization_address, organization_city,
	// organization_state, organization_country, organization_postal_code.
	//
	// REQUIRED for domains, unless every name is in check_ids. There is no default
	// because the public documents do not show that field; ask HowSSL. The default
	// of dcv_method, check_way, is assumed from sibling calls. The names for
	// country and postal code are not known either; without one they are not sent.
	// All others have the documented name.
	CreateOrderFields map[string]string `json:"create_order_fields,omitempty"`

	// Orders that were created at HowSSL and wait for payment. Each is paid for
	// once, when its names first need a certificate; after its certificate is
	// issued it is reissued for a key of ours.
	CheckIDs []CheckID `json:"check_ids,omitempty"`

	// Whether the endpoint is a test service on this machine, such as the
	// sandbox, and not a way to the vendor. It may then certify names like
	// demo.localhost, and lost orders are handed to a person sooner. Default: false
	TestService bool `json:"test_service,omitempty"`

	*Orders `json:"-"`
}

// CheckID is an order that was created at HowSSL, and waits for payment.
type CheckID struct {
	// REQUIRED. The order's check_id.
	ID string `json:"id"`

	// REQUIRED. All names of the order. It is used for exactly these.
	Names []string `json:"names"`
}

const (
	moduleName      = "howssl"
	defaultEndpoint = "https://api.howssl.com"

	// defaultPortal stands for the console, whose address the books do not give.
	defaultPortal = "the HowSSL console"

	// absenceAge is for how long it is worth asking what became of a lost
	// commitOrder, before a person has to: 1 min until it is sent, 1 min for a pause
	// just before, 2 min for the call, 11 min for the queue for bulk orders that page
	// 2252011 speaks of, in which a commit may wait. The last is assumed; no page tells.
	absenceAge = 15 * time.Minute

	// testAbsenceAge is that of a test service, where nothing is on the way for
	// long and no money is at stake.
	testAbsenceAge = 10 * time.Second
)

// CaddyModule returns the Caddy module information.
func (*HowSSL) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  vendors.Namespace + "." + moduleName,
		New: func() caddy.Module { return new(HowSSL) },
	}
}

// Provision resolves placeholders and prepares the client. It makes no call.
func (h *HowSSL) Provision(ctx caddy.Context) error {
	repl := caddy.NewReplacer()
	token, err := options.Resolve(repl, "token", h.Token)
	if err != nil {
		return err
	}
	if token == "" {
		return errors.New("token: missing; give the token after the vendor's name, for example: vendor howssl {env.HOWSSL_TOKEN}")
	}
	endpoint, err := options.Resolve(repl, "endpoint", h.Endpoint)
	if err != nil {
		return err
	}
	if endpoint == "" {
		endpoint = defaultEndpoint
	}
	label, err := options.Resolve(repl, "account", h.Account)
	if err != nil {
		return err
	}
	if h.Timeout < 0 {
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
	settings := Settings{
		Token:             token,
		Endpoint:          endpoint,
		Timeout:           time.Duration(h.Timeout),
		Logger:            ctx.Logger(),
		CreateOrderFields: h.CreateOrderFields,
		CheckIDs:          h.CheckIDs,
		Description: vendors.Description{
			Name: moduleName, Account: u.Host, Portal: u.Scheme + "://" + u.Host, AbsenceAge: absenceAge,
		},
	}
	about := &settings.Description
	if endpoint == defaultEndpoint {
		about.Portal = defaultPortal
	}
	if label != "" {
		about.Account += "/" + label
	}
	if h.TestService {
		if !vendorhttp.IsLoopback(u.Hostname()) {
			return fmt.Errorf("test_service: %s is not on this machine", u.Host)
		}
		about.AbsenceAge, about.AnyName = testAbsenceAge, true
	}
	h.Orders, err = New(settings)
	return err
}

// Cleanup ends idle connections.
func (h *HowSSL) Cleanup() error {
	if h.Orders != nil {
		h.Close()
	}
	return nil
}

// UnmarshalCaddyfile sets up the vendor from Caddyfile tokens.
//
//	howssl [<token>] {
//	    token              <token>
//	    endpoint           <url>
//	    timeout            <duration>
//	    account            <label>
//	    create_order_field <our field> <their field>
//	    check_id           <id> <name...>
//	    test_service
//	}
//
// create_order_field and check_id may be repeated.
func (h *HowSSL) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume vendor name
	var given []string
	if d.NextArg() {
		h.Token = d.Val()
		given = append(given, "token")
	}
	return options.Parse(d, options.Table{
		"token":    options.String(&h.Token),
		"endpoint": options.String(&h.Endpoint),
		"timeout":  options.Duration(&h.Timeout),
		"account":  options.String(&h.Account),

		"create_order_field": options.Func(h.unmarshalField).Repeatable(),
		"check_id":           options.Func(h.unmarshalCheckID).Repeatable(),

		"test_service": options.Flag(&h.TestService),
	}, given...)
}

func (h *HowSSL) unmarshalField(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 2 {
		return d.Err("option 'create_order_field' needs our name of the field and theirs")
	}
	if _, twice := h.CreateOrderFields[args[0]]; twice {
		return d.Errf("option 'create_order_field' is given twice for '%s'", args[0])
	}
	if h.CreateOrderFields == nil {
		h.CreateOrderFields = make(map[string]string)
	}
	h.CreateOrderFields[args[0]] = args[1]
	return nil
}

func (h *HowSSL) unmarshalCheckID(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) < 2 {
		return d.Err("option 'check_id' needs the ID and the names of the order")
	}
	h.CheckIDs = append(h.CheckIDs, CheckID{ID: args[0], Names: args[1:]})
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*HowSSL)(nil)
	_ caddy.CleanerUpper    = (*HowSSL)(nil)
	_ caddyfile.Unmarshaler = (*HowSSL)(nil)
	_ vendors.Vendor        = (*HowSSL)(nil)
)
