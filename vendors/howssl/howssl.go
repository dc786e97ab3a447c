// Package howssl buys certificates from HowSSL, a reseller with a partner API at
// api.howssl.com.
//
// The API is documented in two public books on kancloud.cn, howssl/api_certificate
// (Chinese, fuller and newer) and howssl/ssl-api (English), neither of which can be read in
// full; docs/howssl.md tells what is known and what is not. Comments say "documented" for
// what a page states, with its number, and "assumed" for what is concluded from sibling calls
// or from examples. Page NNN is https://www.kancloud.cn/howssl/api_certificate/NNN.
//
// An order takes two calls: createOrder is free and yields a check_id, and commitOrder
// pays for it. commitOrder is never sent twice for one check_id. There is no call that
// revokes a certificate; what cancelOrder does to an issued order is not documented, so it
// is no substitute.
package howssl

import (
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-commercial/caddy-commercial/internal/options"
	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

func init() {
	caddy.RegisterModule(new(HowSSL))
}

// HowSSL orders certificates from HowSSL. The account needs a balance and permission
// to use the API.
//
// It is not known what HowSSL calls the field for the domain of an order. Either name
// it in create_order_fields, or create orders at HowSSL and list them in check_ids.
type HowSSL struct {
	// REQUIRED. The account's API token, from the API settings of HowSSL's
	// console. Placeholders are supported, for example {env.HOWSSL_TOKEN} or
	// {file./run/secrets/howssl}.
	Token string `json:"token,omitempty"`

	kit.Account
	Options
	*Orders `json:"-"`
}

// Options are those that only HowSSL has.
type Options struct {
	// HowSSL's names of the fields of createOrder, by the names that they have here:
	// domains, dcv_method, product, term, csr, auto_info, first_name, last_name,
	// job_title, phone, email, country, postal_code, organization_name,
	// organization_phone, organization_address, organization_city,
	// organization_state, organization_country, organization_postal_code.
	//
	// REQUIRED for domains, unless every name is in check_ids: all known copies of
	// HowSSL's documents end before that field. The default for dcv_method, check_way, is
	// assumed from sibling calls. Countries and postal codes have no default, and are sent
	// only if they are given a name. All other fields default to their documented names.
	CreateOrderFields map[string]string `json:"create_order_fields,omitempty"`

	// Orders that were created at HowSSL and wait for payment. Each is paid for
	// once, when its names first need a certificate. Once its certificate is
	// issued, the order is reissued for a private key that Caddy has made.
	CheckIDs []CheckID `json:"check_ids,omitempty"`
}

// CheckID is an order that was created at HowSSL and waits for payment.
type CheckID struct {
	// REQUIRED. The order's check_id.
	ID string `json:"id"`

	// REQUIRED. All names of the order. It is used for exactly these.
	Names []string `json:"names"`
}

const (
	moduleName      = "howssl"
	defaultEndpoint = "https://api.howssl.com"
	console         = "the HowSSL console" // whose address the books do not give

	// absenceAge is for how long it is worth asking what became of a lost commitOrder,
	// before a person is asked to: 1 min until it is sent, 1 min for a pause just before, 2 min
	// for the call, and, assumed, 11 min for the queue for bulk orders of page 2252011.
	absenceAge = 15 * time.Minute
)

// limits are half of what a token may do, which is about 50 requests per second (documented, EN
// 2296837), so that two servers together keep to it. About concurrent requests nothing is documented.
var limits = kit.Limits{AtOnce: 8, Rates: []kit.Limit{{Requests: 25, Per: time.Second}}}

// NewLimiter returns a limiter for those who use Orders without Caddy.
func NewLimiter() *kit.Limiter { return kit.NewLimiter(limits) }

// Pace is how often orders are looked at. A look takes two requests.
var Pace = vendors.Pace{Watch: time.Second}

// CaddyModule returns the Caddy module information.
func (*HowSSL) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: vendors.Namespace + "." + moduleName, New: func() caddy.Module { return new(HowSSL) }}
}

// Provision resolves placeholders and prepares the client. It makes no call.
func (h *HowSSL) Provision(ctx caddy.Context) error {
	cfg, err := h.Config(ctx, "token", h.Token, defaultEndpoint, vendors.Description{
		Name: moduleName, AbsenceAge: absenceAge, Pace: Pace,
	}, limits)
	if err != nil {
		return err
	}
	if cfg.Endpoint == defaultEndpoint {
		cfg.Description.Portal = console
	}
	h.Orders, err = New(cfg, h.Options)
	return err
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
	h.CreateOrderFields = make(map[string]string)
	return h.Unmarshal(d, "token", &h.Token, options.Table{
		"token":              options.String(&h.Token),
		"create_order_field": options.Func(h.unmarshalField).Repeatable(),
		"check_id":           options.Func(h.unmarshalCheckID).Repeatable(),
	})
}

func (h *HowSSL) unmarshalField(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 2 {
		return d.Err("option 'create_order_field' needs our name of the field and theirs")
	}
	if _, twice := h.CreateOrderFields[args[0]]; twice {
		return d.Errf("option 'create_order_field' is given twice for '%s'", args[0])
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
	_ vendors.ConfigChecker = (*HowSSL)(nil)
	_ vendors.Preparer      = (*HowSSL)(nil)
	_ vendors.Finder        = (*HowSSL)(nil)
	_ vendors.Predictor     = (*HowSSL)(nil)
	_ vendors.Reissuer      = (*HowSSL)(nil)
	_ vendors.Rechecker     = (*HowSSL)(nil)
	_ vendors.Canceler      = (*HowSSL)(nil)
	_ vendors.ProductLister = (*HowSSL)(nil)
	_ vendors.Clock         = (*HowSSL)(nil)
	_ vendors.CAAIdentifier = (*HowSSL)(nil)
	_ vendors.Watcher       = (*HowSSL)(nil)
)
