// Package digicert buys certificates from DigiCert CertCentral: DigiCert, GeoTrust,
// RapidSSL and Thawte products, through the Services API v2.
//
// The API's pages exist in many revisions that do not always agree. Comments here say
// "documented" for what a page of dev.digicert.com or docs.digicert.com states, "observed"
// for what published clients of the live service rely on or recorded, and "assumed" for the
// rest; docs/digicert.md has it in one place. Three things make it unlike other vendors:
//
//   - The content of the validation file is a random value that exists only once
//     the order is paid, so nothing can be predicted.
//   - A reissue keeps the order's ID, and until it is validated the old certificate is the
//     active one.
//   - Our reference does not deduplicate orders: the same request sent twice is
//     paid twice.
package digicert

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-commercial/caddy-commercial/internal/options"
	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

func init() {
	caddy.RegisterModule(new(DigiCert))
}

// DigiCert orders certificates from DigiCert CertCentral. The account pays from
// its balance unless configured otherwise. The API key should belong to an
// administrator, because orders placed with other keys wait for approval. For accounts
// on CertCentral Europe the endpoint is https://certcentral.digicert.eu/services/v2.
type DigiCert struct {
	// REQUIRED. An API key of the account. Placeholders are supported, for example
	// {env.DIGICERT_KEY} or {file./run/secrets/digicert}.
	APIKey string `json:"api_key,omitempty"`

	// Number of servers, or other programs, that use the API key at the same time. DigiCert
	// limits the requests of a key; each server keeps to its share of them. Default: 1
	RateShare int `json:"rate_share,omitempty"`

	Options
	kit.Account
	*Orders `json:"-"`
}

// Options are the options that orders have besides those of the account.
type Options struct {
	// ID of a validated organization in the account. Required for products that
	// are not domain-validated (OV, EV), which name it; others ignore it.
	OrganizationID int `json:"organization_id,omitempty"`

	// ID of the division that owns and pays for the orders. Default: that of the key.
	ContainerID int `json:"container_id,omitempty"`

	// How orders are paid: balance (the account's funds) or profile (the stored
	// payment profile). Default: balance.
	PaymentMethod string `json:"payment_method,omitempty"`

	// Type of the record for proofs by DNS: txt or cname. Both stand at
	// _dnsauth.<name>. Default: txt.
	DNSRecord string `json:"dns_record,omitempty"`
}

const (
	moduleName      = "digicert"
	defaultEndpoint = "https://www.digicert.com/services/v2"

	// absenceAge is how long after its entry an order may stay invisible: 1 min until it
	// is sent, 1 min for a pause just before, 2 min for the call, 1 min until a request
	// that has left is carried out, 5 min until it can be looked up. The last two are
	// assumed ("within minutes"); no page tells.
	absenceAge = 10 * time.Minute

	// renewWindow is documented on dev.digicert.com ("Update order status") and
	// docs.digicert.com ("Turn on or off automatic certificate renewals").
	renewWindow = 90 * 24 * time.Hour

	// maxShare is how many servers can share a key: then each has one request of the shorter limit.
	maxShare = 100
)

// limits is a share of what a key may do (documented, "Rate limits"). One request at a time
// is what the page "Best practices" asks for.
func limits(share int) kit.Limits {
	share = max(share, 1)
	return kit.Limits{AtOnce: 1, Rates: []kit.Limit{
		{Requests: 100 / share, Per: 5 * time.Second}, {Requests: 1000 / share, Per: 3 * time.Minute},
	}}
}

// NewLimiter returns a limiter for those who use Orders without Caddy. Share is how many servers
// use the key, each with an equal part of what it may do.
func NewLimiter(share int) *kit.Limiter { return kit.NewLimiter(limits(share)) }

// Pace is how often each of the servers that share a key looks at orders.
func Pace(share int) vendors.Pace {
	return vendors.Pace{Slow: slowPace, Watch: watchPace * time.Duration(max(share, 1))}
}

// slowPace is how often DigiCert looks for the proofs itself on the first day (documented,
// "Automatic domain control validation (DCV) check"). One call tells of all orders.
const slowPace = 15 * time.Minute

// watchPace takes a fifth of what a key may do for looks at issued orders.
const watchPace = time.Second

// CaddyModule returns the Caddy module information.
func (*DigiCert) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  vendors.Namespace + "." + moduleName,
		New: func() caddy.Module { return new(DigiCert) },
	}
}

// Provision resolves placeholders and prepares the client. It makes no call.
func (v *DigiCert) Provision(ctx caddy.Context) error {
	switch {
	case v.OrganizationID < 0:
		return errors.New("organization_id: must not be negative")
	case v.ContainerID < 0:
		return errors.New("container_id: must not be negative")
	case v.RateShare < 0 || v.RateShare > maxShare:
		return fmt.Errorf("rate_share: must be 1 to %d, got %d", maxShare, v.RateShare)
	}
	cfg, err := v.Config(ctx, "api_key", v.APIKey, defaultEndpoint, vendors.Description{
		Name: moduleName, AbsenceAge: absenceAge, RenewWindow: renewWindow, Pace: Pace(v.RateShare),
	}, limits(v.RateShare))
	if err != nil {
		return err
	}
	v.Orders, err = New(cfg, v.Options)
	return err
}

// UnmarshalCaddyfile sets up the vendor from Caddyfile tokens.
//
//	digicert [<api_key>] {
//	    api_key         <key>
//	    endpoint        <url>
//	    organization_id <id>
//	    container_id    <id>
//	    payment_method  balance|profile
//	    dns_record      txt|cname
//	    rate_share      <servers>
//	    timeout         <duration>
//	    account         <label>
//	    test_service
//	}
func (v *DigiCert) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return v.Unmarshal(d, "api_key", &v.APIKey, options.Table{
		"api_key":         options.String(&v.APIKey),
		"organization_id": options.Int(&v.OrganizationID, 1, math.MaxInt),
		"container_id":    options.Int(&v.ContainerID, 1, math.MaxInt),
		"payment_method":  options.String(&v.PaymentMethod),
		"dns_record":      options.String(&v.DNSRecord),
		"rate_share":      options.Int(&v.RateShare, 1, maxShare),
	})
}

// Interface guards
var (
	_ caddy.Provisioner     = (*DigiCert)(nil)
	_ caddy.CleanerUpper    = (*DigiCert)(nil)
	_ caddyfile.Unmarshaler = (*DigiCert)(nil)
	_ vendors.Vendor        = (*DigiCert)(nil)
	_ vendors.Validator     = (*DigiCert)(nil)
	_ vendors.ConfigChecker = (*DigiCert)(nil)
	_ vendors.Finder        = (*DigiCert)(nil)
	_ vendors.OrderLister   = (*DigiCert)(nil)
	_ vendors.Auditor       = (*DigiCert)(nil)
	_ vendors.Reissuer      = (*DigiCert)(nil)
	_ vendors.Renewer       = (*DigiCert)(nil)
	_ vendors.Rechecker     = (*DigiCert)(nil)
	_ vendors.Canceler      = (*DigiCert)(nil)
	_ vendors.Revoker       = (*DigiCert)(nil)
	_ vendors.ProductLister = (*DigiCert)(nil)
	_ vendors.Clock         = (*DigiCert)(nil)
	_ vendors.Funder        = (*DigiCert)(nil)
	_ vendors.Pricer        = (*DigiCert)(nil)
	_ vendors.CAAIdentifier = (*DigiCert)(nil)
	_ vendors.Watcher       = (*DigiCert)(nil)
	_ vendors.ChangeLister  = (*DigiCert)(nil)
)
