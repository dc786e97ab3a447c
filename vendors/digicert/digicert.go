// Package digicert buys certificates from DigiCert CertCentral: DigiCert, GeoTrust,
// RapidSSL and Thawte products, through the Services API v2.
//
// The API is documented on dev.digicert.com ("Services API") and, for how domains
// are validated, on docs.digicert.com. Its pages exist in many revisions that do
// not always agree, and some tables could not be read to their end, so comments
// here say "documented" for what a page states, "observed" for what published
// clients of the live service rely on or recorded, and "assumed" for the rest.
//
// Three things make it unlike other vendors:
//
//   - The content of the validation file is a random value that exists only once
//     the order is paid, so nothing can be predicted. The file's name never
//     changes: fileauth.txt.
//   - A reissue keeps the order's ID. Until it is validated the order is
//     "reissue_pending" and its active certificate is the old one. A reissue
//     that leaves out a name has all earlier certificates revoked within 72 hours
//     (documented), so names are never dropped.
//   - Our reference does not deduplicate orders: the same request sent twice is
//     paid twice.
//
// Duplicates of a certificate, which the API has besides reissues, are not used:
// they need validations that DV orders never keep, and the order goes on telling
// of its primary certificate only.
package digicert

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
	caddy.RegisterModule(new(DigiCert))
}

// DigiCert orders certificates from DigiCert CertCentral. The account pays from
// its balance unless configured otherwise, and the API key should belong to an
// administrator, because orders of others wait for approval.
type DigiCert struct {
	// REQUIRED. An API key of the account. Placeholders are supported, for example
	// {env.DIGICERT_KEY} or {file./run/secrets/digicert}.
	APIKey string `json:"api_key,omitempty"`

	// Base URL of the API. Default: https://www.digicert.com/services/v2; for
	// accounts on CertCentral Europe: https://certcentral.digicert.eu/services/v2.
	// Must be https, except on a loopback host. Placeholders are supported.
	Endpoint string `json:"endpoint,omitempty"`

	// ID of a validated organization in the account. Required for products that
	// are not domain-validated (OV, EV), which name it; others ignore it.
	OrganizationID int `json:"organization_id,omitempty"`

	// ID of the division that owns and pays the orders. Default: that of the key.
	ContainerID int `json:"container_id,omitempty"`

	// How orders are paid: balance (the account's funds) or profile (the stored
	// payment profile). Default: balance.
	PaymentMethod string `json:"payment_method,omitempty"`

	// Type of the record for proofs by DNS: txt or cname. Both stand at
	// _dnsauth.<name>. Default: txt.
	DNSRecord string `json:"dns_record,omitempty"`

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
	moduleName      = "digicert"
	defaultEndpoint = "https://www.digicert.com/services/v2"

	// absenceAge is how long after its entry an order may stay invisible: 1 min until it
	// is sent, 1 min for a pause just before, 2 min for the call, 1 min until a request
	// that has left is carried out, 5 min until it can be looked up. The last two are
	// assumed ("within minutes"); no page tells.
	absenceAge = 10 * time.Minute

	// testAbsenceAge is that of a test service, where nothing is on the way for
	// long and no money is at stake.
	testAbsenceAge = 10 * time.Second

	// renewWindow is documented on dev.digicert.com ("Update order status") and
	// docs.digicert.com ("Turn on or off automatic certificate renewals").
	renewWindow = 90 * 24 * time.Hour
)

// CaddyModule returns the Caddy module information.
func (*DigiCert) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  vendors.Namespace + "." + moduleName,
		New: func() caddy.Module { return new(DigiCert) },
	}
}

// Provision resolves placeholders and prepares the client. It makes no call.
func (v *DigiCert) Provision(ctx caddy.Context) error {
	repl := caddy.NewReplacer()
	key, err := options.Resolve(repl, "api_key", v.APIKey)
	if err != nil {
		return err
	}
	if key == "" {
		return errors.New("api_key: missing; give the key after the vendor's name, for example: vendor digicert {env.DIGICERT_KEY}")
	}
	endpoint, err := options.Resolve(repl, "endpoint", v.Endpoint)
	if err != nil {
		return err
	}
	if endpoint == "" {
		endpoint = defaultEndpoint
	}
	label, err := options.Resolve(repl, "account", v.Account)
	if err != nil {
		return err
	}
	if err := v.checkNumbers(); err != nil {
		return err
	}
	if endpoint, err = vendorhttp.CheckEndpoint(endpoint); err != nil {
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
	if v.TestService {
		if !vendorhttp.IsLoopback(u.Hostname()) {
			return fmt.Errorf("test_service: %s is not on this machine", u.Host)
		}
		about.AbsenceAge, about.AnyName = testAbsenceAge, true
	}
	v.Orders, err = New(Settings{
		Key:            key,
		Endpoint:       endpoint,
		OrganizationID: v.OrganizationID,
		ContainerID:    v.ContainerID,
		PaymentMethod:  v.PaymentMethod,
		DNSRecord:      v.DNSRecord,
		Timeout:        time.Duration(v.Timeout),
		Logger:         ctx.Logger(),
		Description:    about,
	})
	return err
}

func (v *DigiCert) checkNumbers() error {
	switch {
	case v.Timeout < 0:
		return errors.New("timeout: must not be negative")
	case v.OrganizationID < 0:
		return errors.New("organization_id: must not be negative")
	case v.ContainerID < 0:
		return errors.New("container_id: must not be negative")
	}
	return nil
}

// Cleanup ends idle connections.
func (v *DigiCert) Cleanup() error {
	if v.Orders != nil {
		v.Close()
	}
	return nil
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
//	    timeout         <duration>
//	    account         <label>
//	    test_service
//	}
func (v *DigiCert) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume vendor name
	var given []string
	if d.NextArg() {
		v.APIKey = d.Val()
		given = append(given, "api_key")
	}
	return options.Parse(d, options.Table{
		"api_key":         options.String(&v.APIKey),
		"endpoint":        options.String(&v.Endpoint),
		"organization_id": options.Int(&v.OrganizationID, 1, maxID),
		"container_id":    options.Int(&v.ContainerID, 1, maxID),
		"payment_method":  options.String(&v.PaymentMethod),
		"dns_record":      options.String(&v.DNSRecord),
		"timeout":         options.Duration(&v.Timeout),
		"account":         options.String(&v.Account),

		"test_service": options.Flag(&v.TestService),
	}, given...)
}

// maxID only keeps the table's bounds from cutting real IDs short.
const maxID = int(^uint(0) >> 1)

// Interface guards
var (
	_ caddy.Provisioner     = (*DigiCert)(nil)
	_ caddy.CleanerUpper    = (*DigiCert)(nil)
	_ caddyfile.Unmarshaler = (*DigiCert)(nil)
	_ vendors.Vendor        = (*DigiCert)(nil)
)
