package issuer

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/app"
	"github.com/caddy-commercial/caddy-commercial/dcv"
)

// configuration is the part of a config that tells which names have certificates, and from where.
// None of it is provisioned, because that may change something: the pki app makes CAs, for example.
type configuration struct {
	Storage json.RawMessage `json:"storage"`
	Apps    struct {
		HTTP struct {
			Port    int `json:"http_port"`
			Servers map[string]struct {
				Listen []string `json:"listen"`
				Routes []struct {
					Match []struct {
						Host []string `json:"host"`
					} `json:"match"`
				} `json:"routes"`
				AutoHTTPS struct {
					Disabled     bool     `json:"disable"`
					DisableCerts bool     `json:"disable_certificates"`
					Skip         []string `json:"skip"`
					SkipCerts    []string `json:"skip_certificates"`
				} `json:"automatic_https"`
			} `json:"servers"`
		} `json:"http"`
		TLS struct {
			Certificates struct {
				Automate []string `json:"automate"`
			} `json:"certificates"`
			DNS        json.RawMessage `json:"dns"`
			Resolvers  []string        `json:"resolvers"`
			Automation struct {
				Policies []policy `json:"policies"`
			} `json:"automation"`
		} `json:"tls"`
	} `json:"apps"`
}

// policy is an automation policy of the TLS app.
type policy struct {
	Subjects []string          `json:"subjects"`
	Issuers  []json.RawMessage `json:"issuers"`
	OnDemand bool              `json:"on_demand"`
	Ratio    float64           `json:"renewal_window_ratio"`
	Storage  json.RawMessage   `json:"storage"`
}

// ours returns those of the policy's issuers that buy from the vendor, or from any if that is
// empty. The sandbox does not count: it runs inside the server.
func (p policy) ours(vendor string) []json.RawMessage {
	vendor, _, _ = strings.Cut(vendor, "/")
	var found []json.RawMessage
	for _, raw := range p.Issuers {
		var is struct {
			Module string `json:"module"`
			Vendor struct {
				Name string `json:"name"`
			} `json:"vendor"`
		}
		if json.Unmarshal(raw, &is) != nil || is.Module != "commercial" || is.Vendor.Name == "sandbox" || vendor != "" && is.Vendor.Name != vendor {
			continue
		}
		found = append(found, raw)
	}
	return found
}

// managed returns the names that the config has certificates for: those of its sites, and those
// to automate.
func (c *configuration) managed() map[string]bool {
	repl := caddy.NewReplacer()
	names := c.sites()
	for _, name := range c.Apps.TLS.Certificates.Automate {
		if name := dcv.NormalizeHost(repl.ReplaceAll(name, "")); name != "" {
			names[name] = true
		}
	}
	return names
}

// sites returns the names that servers have certificates for, as the HTTP app finds them
// (automaticHTTPSPhase1).
func (c *configuration) sites() map[string]bool {
	repl := caddy.NewReplacer()
	names := make(map[string]bool)
	httpPort := fmt.Sprint(cmp.Or(c.Apps.HTTP.Port, 80))
	for _, server := range c.Apps.HTTP.Servers {
		auto := server.AutoHTTPS
		plain := len(server.Listen) > 0 && !slices.ContainsFunc(server.Listen, func(address string) bool {
			return address[strings.LastIndexByte(address, ':')+1:] != httpPort
		})
		if auto.Disabled || auto.DisableCerts || plain {
			continue
		}
		for _, route := range server.Routes {
			for _, match := range route.Match {
				for _, host := range match.Host {
					host = repl.ReplaceAll(host, "")
					if name := dcv.NormalizeHost(host); name != "" && !slices.Contains(auto.Skip, host) && !slices.Contains(auto.SkipCerts, host) {
						names[name] = true
					}
				}
			}
		}
	}
	return names
}

// needed returns those of the managed names that have a certificate of their own, sorted. The TLS
// app leaves out what a wildcard covers (managingWildcardFor), unless automate lists it.
func (c *configuration) needed(managed map[string]bool) (names []string) {
	for name := range managed {
		labels := strings.Split(name, ".")
		covered := false
		for i := range labels {
			if labels[i] == "*" {
				continue
			}
			labels[i] = "*"
			covered = covered || managed[strings.Join(labels, ".")]
		}
		if !covered || slices.ContainsFunc(c.Apps.TLS.Certificates.Automate, func(n string) bool { return dcv.NormalizeHost(n) == name }) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// policyOf returns the policy that applies to the name, and its index, -1 if there is none.
func (c *configuration) policyOf(name string) (policy, int) {
	repl := caddy.NewReplacer()
	policies := c.Apps.TLS.Automation.Policies
	subjects := make([][]string, 0, len(policies))
	for _, p := range policies {
		list := make([]string, 0, len(p.Subjects))
		for _, subject := range p.Subjects {
			list = append(list, repl.ReplaceAll(subject, ""))
		}
		subjects = append(subjects, list)
	}
	i := app.FirstPolicy(subjects, name)
	if i < 0 || len(subjects[i]) == 0 && !certmagic.SubjectQualifiesForPublicCert(name) {
		return policy{}, -1 // the HTTP app leaves names that are not public to Caddy's own CA
	}
	return policies[i], i
}

// buyer is an issuer of a config, and those names of a certificate that it is configured for.
type buyer struct {
	iss     *Issuer
	names   []string
	ratio   float64 // see policy
	storage json.RawMessage
}

// buyersOf returns the issuers that the config has for names of a certificate, each account
// once, in the order of their names. ctx provisions vendors.
func (c *configuration) buyersOf(ctx caddy.Context, names []string, vendor string) ([]*buyer, error) {
	managed := c.managed()
	buyers := make(map[string]*buyer)
	for _, name := range names {
		p, i := c.policyOf(name)
		if i < 0 || !managed[name] && !p.OnDemand {
			continue
		}
		for _, raw := range p.ours(vendor) {
			iss := new(Issuer)
			if err := json.Unmarshal(raw, iss); err != nil {
				return nil, fmt.Errorf("reading the issuer of %s from the config: %w", name, err)
			}
			if err := iss.settings(ctx); err != nil {
				return nil, fmt.Errorf("loading the issuer of %s: %w", name, err)
			}
			if _, account, given := strings.Cut(vendor, "/"); given && account != iss.about.Account {
				continue
			}
			storage := p.Storage
			if len(storage) == 0 {
				storage = c.Storage
			}
			key := iss.IssuerKey() + " " + string(storage)
			b := buyers[key]
			if b == nil {
				b = &buyer{iss: iss, ratio: p.Ratio, storage: storage}
				buyers[key] = b
			}
			if !slices.Contains(b.names, name) {
				b.names = append(b.names, name)
			}
		}
	}
	var list []*buyer
	for _, key := range slices.Sorted(maps.Keys(buyers)) {
		list = append(list, buyers[key])
	}
	return list, nil
}

// settings provisions as much of an issuer as needs no other part of the config.
func (iss *Issuer) settings(ctx caddy.Context) error {
	iss.ctx, iss.logger = ctx, ctx.Logger()
	if err := iss.loadVendor(ctx); err != nil {
		return err
	}
	if err := iss.provisionOrder(caddy.NewReplacer()); err != nil {
		return err
	}
	return iss.provisionRules()
}

// buyerOf returns the one issuer that the config has for names of a certificate.
func (c *configuration) buyerOf(ctx caddy.Context, names []string, vendor string) (*buyer, error) {
	list, err := c.buyersOf(ctx, names, vendor)
	if err != nil {
		return nil, err
	}
	if len(list) == 1 {
		return list[0], nil
	}
	if len(list) > 1 {
		var which []string
		for _, b := range list {
			which = append(which, fmt.Sprintf("--vendor %s/%s (for %s)", b.iss.about.Name, b.iss.about.Account, strings.Join(b.names, ", ")))
		}
		slices.Sort(which)
		if which = slices.Compact(which); len(which) == 1 {
			return nil, errors.New("the names of the certificate are in several storages of the config; import it with a config that has one of them")
		}
		return nil, fmt.Errorf("the config has several commercial issuers for names of the certificate; say which account it was bought from: %s", strings.Join(which, "; "))
	}
	return nil, c.noBuyer(names, vendor)
}

// noBuyer explains why no commercial issuer is configured for any of the names.
func (c *configuration) noBuyer(names []string, vendor string) error {
	var ours, wild []string
	for name := range c.managed() {
		p, i := c.policyOf(name)
		if i < 0 || len(p.ours(vendor)) == 0 {
			continue
		}
		ours = append(ours, name)
		if _, rest, ok := strings.Cut(name, "."); ok && slices.Contains(names, "*."+rest) {
			wild = append(wild, name)
		}
	}
	slices.Sort(ours)
	slices.Sort(wild)
	with := "a commercial issuer"
	if vendor != "" {
		with += " of " + vendor
	}
	switch {
	case len(ours) == 0:
		return fmt.Errorf("the config has no names with %s (the sandbox is none); name the file with --config", with)
	case len(wild) > 0:
		return fmt.Errorf("the certificate is for %s and covers %s by a wildcard, but the config has no site for the wildcard itself. Write one for it, "+
			"with the other names in it; each name that is written apart would get an order of its own", strings.Join(names, ", "), strings.Join(wild, ", "))
	}
	if more := len(ours) - 10; more > 0 {
		ours = append(ours[:10], fmt.Sprintf("%d more", more))
	}
	return fmt.Errorf("the certificate is for %s, and the config has none of these with %s; it has %s", strings.Join(names, ", "), with, strings.Join(ours, ", "))
}
