package issuer

import (
	"crypto/x509"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/internal/options"
	"github.com/caddy-commercial/caddy-commercial/issuer/proof"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Defaults of the rules.
const (
	defaultMaxWait = 10 * time.Minute
	defaultPollMin = 5 * time.Second
	defaultPollMax = 10 * time.Minute
	defaultTerm    = "1y"
)

// provisionOrder resolves the part of the configuration that goes into orders.
func (iss *Issuer) provisionOrder(repl *caddy.Replacer) error {
	var err error
	if iss.order.Product, err = options.Resolve(repl, "product", iss.Product); err != nil {
		return err
	}
	text := iss.Term
	if text == "" {
		text = defaultTerm
	}
	if iss.order.Term, err = parseTerm(text); err != nil {
		return fmt.Errorf("term: %w", err)
	}
	iss.order.Method = vendors.MethodHTTP
	if iss.DCV != nil && iss.DCV.Method != "" {
		iss.order.Method = iss.DCV.Method
	}
	if iss.Contact != nil {
		if iss.order.Contact, err = resolveContact(repl, "contact", *iss.Contact); err != nil {
			return err
		}
	}
	if iss.order.Tech, err = resolveOptional(repl, "tech_contact", iss.TechContact, resolveContact); err != nil {
		return err
	}
	if iss.order.Billing, err = resolveOptional(repl, "billing_contact", iss.BillingContact, resolveContact); err != nil {
		return err
	}
	iss.order.Organization, err = resolveOptional(repl, "organization", iss.Organization, resolveOrganization)
	return err
}

// provisionRules fills in the bounds that were not configured.
func (iss *Issuer) provisionRules() error {
	iss.rules = rules{
		pollMin:       orDefault(iss.PollMin, defaultPollMin),
		pollMax:       orDefault(iss.PollMax, defaultPollMax),
		maxWait:       orDefault(iss.MaxWait, defaultMaxWait),
		renewMargin:   time.Duration(iss.RenewMargin),
		spend:         SpendLimit{defaultSpendOrders, caddy.Duration(defaultSpendPer)},
		allowOnDemand: iss.AllowOnDemand,
		probe:         proof.Mode(iss.Probe),
	}
	if iss.PollMax == 0 {
		iss.rules.pollMax = max(iss.rules.pollMax, iss.rules.pollMin)
	}
	if l := iss.SpendLimit; l != nil {
		if l.Orders > 0 {
			iss.rules.spend.Orders = l.Orders
		}
		iss.rules.spend.Per = caddy.Duration(orDefault(l.Per, defaultSpendPer))
	}
	for _, group := range iss.OneOrder {
		names, err := normalNames("one_order", group)
		if err != nil {
			return err
		}
		if len(names) < 2 {
			return fmt.Errorf("one_order: a group needs at least two names, got %q", names)
		}
		iss.rules.groups = append(iss.rules.groups, names)
	}
	for _, o := range iss.Orders {
		names, err := normalNames("order", o.Names)
		if err != nil {
			return err
		}
		if o.ID == "" || len(names) == 0 {
			return fmt.Errorf("order: an order ID and at least one name are required")
		}
		iss.rules.adopted = append(iss.rules.adopted, AdoptedOrder{o.ID, names})
	}
	return nil
}

func orDefault(d caddy.Duration, fallback time.Duration) time.Duration {
	if d == 0 {
		return fallback
	}
	return time.Duration(d)
}

// check judges the rules.
func (r rules) check() error {
	if r.pollMin <= 0 || r.pollMax < r.pollMin {
		return fmt.Errorf("poll: the longest wait (%s) must not be shorter than the shortest (%s)", r.pollMax, r.pollMin)
	}
	if r.maxWait < 0 || r.renewMargin < 0 || r.spend.Per < 0 || r.spend.Orders < 0 {
		return fmt.Errorf("durations and numbers must not be negative")
	}
	switch r.probe {
	case proof.ModeDefault, proof.ModeStrict, proof.ModeWarn, proof.ModeOff:
	default:
		return fmt.Errorf("probe: must be strict, warn or off, got %q", r.probe)
	}
	owner := make(map[string]string)
	claim := func(option string, names []string) error {
		for _, name := range names {
			if other, taken := owner[name]; taken {
				return fmt.Errorf("%s: %s is already in an option %s", option, name, other)
			}
			owner[name] = option
		}
		return nil
	}
	for _, group := range r.groups {
		if err := claim("one_order", group); err != nil {
			return err
		}
	}
	for _, a := range r.adopted {
		if err := claim("order", a.Names); err != nil {
			return err
		}
	}
	return nil
}

func normalNames(option string, names []string) ([]string, error) {
	var normal []string
	for _, name := range names {
		n := dcv.NormalizeHost(name)
		if n == "" {
			return nil, fmt.Errorf("%s: %q is not a name", option, name)
		}
		normal = append(normal, n)
	}
	return normal, nil
}

// parseTerm reads a paid term such as 1y or 365d.
func parseTerm(text string) (vendors.Term, error) {
	fail := fmt.Errorf("must be a number of years or days such as 1y or 365d, got %q", text)
	if len(text) < 2 {
		return vendors.Term{}, fail
	}
	n, err := strconv.Atoi(text[:len(text)-1])
	if err != nil || n < 1 {
		return vendors.Term{}, fail
	}
	switch text[len(text)-1] {
	case 'y':
		return vendors.Term{Years: n}, nil
	case 'd':
		return vendors.Term{Days: n}, nil
	}
	return vendors.Term{}, fail
}

func resolveOptional[T any](repl *caddy.Replacer, field string, v *T, resolve func(*caddy.Replacer, string, T) (T, error)) (*T, error) {
	if v == nil {
		return nil, nil
	}
	out, err := resolve(repl, field, *v)
	return &out, err
}

func resolveContact(repl *caddy.Replacer, field string, c vendors.Contact) (vendors.Contact, error) {
	return c, resolveAll(repl, field, map[string]*string{
		"first_name": &c.FirstName, "last_name": &c.LastName, "email": &c.Email, "phone": &c.Phone,
		"organization": &c.Organization, "job_title": &c.JobTitle, "address": &c.Address, "city": &c.City,
		"state": &c.State, "postal_code": &c.PostalCode, "country": &c.Country,
	})
}

func resolveOrganization(repl *caddy.Replacer, field string, o vendors.Organization) (vendors.Organization, error) {
	return o, resolveAll(repl, field, map[string]*string{
		"name": &o.Name, "phone": &o.Phone, "address": &o.Address, "city": &o.City, "state": &o.State,
		"postal_code": &o.PostalCode, "country": &o.Country, "registration_number": &o.RegistrationNumber,
	})
}

func resolveAll(repl *caddy.Replacer, field string, targets map[string]*string) error {
	for name, target := range targets {
		resolved, err := options.Resolve(repl, field+" "+name, *target)
		if err != nil {
			return err
		}
		*target = resolved
	}
	return nil
}

// legal refuses names that no order could be placed for.
func (iss *Issuer) legal(csr *x509.CertificateRequest) error {
	if len(csr.IPAddresses) > 0 {
		return fmt.Errorf("%s is an IP address; %s is asked for certificates of host names only",
			joinIPs(csr.IPAddresses), iss.about.Name)
	}
	if len(csr.EmailAddresses) > 0 || len(csr.URIs) > 0 || len(csr.DNSNames) == 0 {
		return fmt.Errorf("the CSR is not for a host name")
	}
	for _, name := range csr.DNSNames {
		if strings.HasPrefix(name, "*.") && iss.order.Method != vendors.MethodDNS {
			return fmt.Errorf("%s is a wildcard, which CAs do not validate by a file (dcv %s); use dcv dns", name, iss.order.Method)
		}
		if iss.about.NeedsCommonName && len(name) > maxCommonName {
			return fmt.Errorf("%s has %d bytes, but %s needs it as common name, which holds at most %d (RFC 5280, ub-common-name)",
				name, len(name), iss.about.Name, maxCommonName)
		}
		public := strings.Contains(name, ".") && certmagic.SubjectQualifiesForPublicCert(name)
		if !iss.about.AnyName && !public {
			return fmt.Errorf("%s is not a public name, so no commercial CA certifies it (the sandbox does)", name)
		}
	}
	return nil
}

func joinIPs(ips []net.IP) string {
	var texts []string
	for _, ip := range ips {
		texts = append(texts, ip.String())
	}
	return strings.Join(texts, ", ")
}
