package issuer

import (
	"fmt"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-commercial/caddy-commercial/internal/options"
	"github.com/caddy-commercial/caddy-commercial/issuer/proof"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// UnmarshalCaddyfile sets up the issuer from Caddyfile tokens. Syntax:
//
//	... commercial [<vendor> [<credential>]] {
//		vendor <name> [<credential>] { <options of the vendor> }
//		product <code>
//		term <years>y|<days>d
//		contact { <contact> }
//		tech_contact { <contact> }
//		billing_contact { <contact> }
//		organization {
//			name <text>
//			phone <number>
//			address <text>
//			city <text>
//			state <text>
//			postal_code <code>
//			country <code>
//			registration_number <number>
//			id_type <word>
//		}
//		dcv http|https
//		dcv dns [<provider> [<args...>] { <options of the provider> }]
//		propagation_delay <duration>
//		propagation_timeout <duration>|-1
//		resolvers <address...>
//		dns_ttl <duration>
//		override_domain <name>
//		max_wait <duration>
//		poll <min> [<max>]
//		renew_margin <duration>
//		settle <duration>
//		spend_limit <n> per <duration>
//		allow_on_demand
//		watch <interval>|off
//		replace_ended_orders
//		metrics_per_name
//		order <vendor order id> <name...>     # repeatable
//		one_order <name> <name...>            # repeatable
//		probe strict|warn|off
//		http_port <port>
//		bind <address...>
//	}
//
// where <contact> is
//
//	first_name <text>
//	last_name <text>
//	email <address>
//	phone <number>
//	organization <text>
//	job_title <text>
//	address <text>
//	city <text>
//	state <text>
//	postal_code <code>
//	country <code>
//	id_type <word>
//	id_number <number>
//
// The vendor is given either in the first line or in the block.
func (iss *Issuer) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume issuer name
	var given []string
	if d.NextArg() {
		if err := iss.unmarshalShortVendor(d); err != nil {
			return err
		}
		given = append(given, "vendor")
	}
	control := new(DCV)
	err := options.Parse(d, options.Table{
		"vendor":          options.Module(vendors.Namespace, "name", &iss.VendorRaw),
		"product":         options.String(&iss.Product),
		"term":            options.Value(iss.setTerm),
		"contact":         contactOption(&iss.Contact),
		"tech_contact":    contactOption(&iss.TechContact),
		"billing_contact": contactOption(&iss.BillingContact),
		"organization":    organizationOption(&iss.Organization),
		"dcv":             options.Func(control.unmarshalMethod),
		"max_wait":        options.Duration(&iss.MaxWait),
		"poll":            options.Func(iss.unmarshalPoll),
		"renew_margin":    options.Duration(&iss.RenewMargin),
		"settle":          options.Value(iss.setSettle),
		"spend_limit":     options.Func(iss.unmarshalSpendLimit),
		"allow_on_demand": options.Flag(&iss.AllowOnDemand),
		"watch":           options.Value(iss.setWatch),
		"order":           options.Func(iss.unmarshalOrder).Repeatable(),
		"one_order":       options.Func(iss.unmarshalOneOrder).Repeatable(),
		"probe":           options.Value(iss.setProbe),
		"http_port":       options.Port(&iss.HTTPPort),
		"bind":            options.Args(&iss.Bind, 1, 0),

		"replace_ended_orders": options.Flag(&iss.ReplaceEndedOrders),
		"metrics_per_name":     options.Flag(&iss.MetricsPerName),

		"propagation_delay":   options.Duration(&control.PropagationDelay),
		"propagation_timeout": options.Value(control.setPropagationTimeout),
		"resolvers":           options.Args(&control.Resolvers, 1, 0),
		"dns_ttl":             options.Duration(&control.TTL),
		"override_domain":     options.String(&control.OverrideDomain),
	}, given...)
	if control.Method != "" || control.hasRecordOptions() {
		iss.DCV = control
	}
	return err
}

// unmarshalShortVendor reads the vendor's name and arguments from the issuer's own
// line. The block that follows is the issuer's, so the vendor must not see it.
func (iss *Issuer) unmarshalShortVendor(d *caddyfile.Dispenser) error {
	line := []caddyfile.Token{d.Token()}
	for d.NextArg() {
		line = append(line, d.Token())
	}
	vendor := caddyfile.NewDispenser(line)
	vendor.Next()
	raw, err := options.UnmarshalModule(vendor, vendors.Namespace, "name")
	iss.VendorRaw = raw
	return err
}

func (iss *Issuer) setTerm(arg string) error {
	iss.Term = arg
	_, err := parseTerm(arg)
	return err
}

func (iss *Issuer) setSettle(arg string) error {
	d, err := caddy.ParseDuration(arg)
	if err != nil || d < 0 {
		return fmt.Errorf("must be a duration such as 1s, got '%s'", arg)
	}
	iss.Settle = (*caddy.Duration)(&d)
	return nil
}

func (iss *Issuer) setWatch(arg string) error {
	if arg == "off" {
		iss.Watch = -1
		return nil
	}
	d, err := caddy.ParseDuration(arg)
	if err != nil || d <= 0 {
		return fmt.Errorf("must be a duration such as 1h, or off, got '%s'", arg)
	}
	iss.Watch = caddy.Duration(d)
	return nil
}

func (iss *Issuer) setProbe(arg string) error {
	if mode := proof.Mode(arg); mode != proof.ModeStrict && mode != proof.ModeWarn && mode != proof.ModeOff {
		return fmt.Errorf("must be strict, warn or off, got '%s'", arg)
	}
	iss.Probe = arg
	return nil
}

func (iss *Issuer) unmarshalPoll(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) < 1 || len(args) > 2 {
		return d.Errf("option 'poll' needs the shortest wait and may have the longest, got %d arguments", len(args))
	}
	for i, target := range []*caddy.Duration{&iss.PollMin, &iss.PollMax}[:len(args)] {
		wait, err := caddy.ParseDuration(args[i])
		if err != nil || wait <= 0 {
			return d.Errf("option 'poll' must be made of durations such as 5s, got '%s'", args[i])
		}
		*target = caddy.Duration(wait)
	}
	return nil
}

func (iss *Issuer) unmarshalSpendLimit(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 3 || args[1] != "per" {
		return d.Errf("option 'spend_limit' is written as: spend_limit <n> per <duration>")
	}
	n, err := strconv.Atoi(args[0])
	if err != nil || n < 1 {
		return d.Errf("option 'spend_limit' needs a positive number of orders, got '%s'", args[0])
	}
	per, err := caddy.ParseDuration(args[2])
	if err != nil || per <= 0 {
		return d.Errf("option 'spend_limit' needs a duration such as 24h, got '%s'", args[2])
	}
	iss.SpendLimit = &SpendLimit{Orders: n, Per: caddy.Duration(per)}
	return nil
}

func (iss *Issuer) unmarshalOrder(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) < 2 {
		return d.Errf("option 'order' needs the vendor's order ID and at least one name")
	}
	iss.Orders = append(iss.Orders, AdoptedOrder{ID: args[0], Names: args[1:]})
	return nil
}

func (iss *Issuer) unmarshalOneOrder(d *caddyfile.Dispenser) error {
	names := d.RemainingArgs()
	if len(names) < 2 {
		return d.Errf("option 'one_order' needs at least two names")
	}
	iss.OneOrder = append(iss.OneOrder, names)
	return nil
}

func contactOption(target **vendors.Contact) options.Option {
	return options.Func(func(d *caddyfile.Dispenser) error {
		c := new(vendors.Contact)
		*target = c
		return options.Parse(d, options.Table{
			"first_name":   options.String(&c.FirstName),
			"last_name":    options.String(&c.LastName),
			"email":        options.String(&c.Email),
			"phone":        options.String(&c.Phone),
			"organization": options.String(&c.Organization),
			"job_title":    options.String(&c.JobTitle),
			"address":      options.String(&c.Address),
			"city":         options.String(&c.City),
			"state":        options.String(&c.State),
			"postal_code":  options.String(&c.PostalCode),
			"country":      options.String(&c.Country),
			"id_type":      options.String(&c.IDType),
			"id_number":    options.String(&c.IDNumber),
		})
	})
}

func organizationOption(target **vendors.Organization) options.Option {
	return options.Func(func(d *caddyfile.Dispenser) error {
		o := new(vendors.Organization)
		*target = o
		return options.Parse(d, options.Table{
			"name":                options.String(&o.Name),
			"phone":               options.String(&o.Phone),
			"address":             options.String(&o.Address),
			"city":                options.String(&o.City),
			"state":               options.String(&o.State),
			"postal_code":         options.String(&o.PostalCode),
			"country":             options.String(&o.Country),
			"registration_number": options.String(&o.RegistrationNumber),
			"id_type":             options.String(&o.IDType),
		})
	})
}

// Interface guard
var _ caddyfile.Unmarshaler = (*Issuer)(nil)
