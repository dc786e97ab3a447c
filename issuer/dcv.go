package issuer

import (
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/internal/options"
	"github.com/caddy-commercial/caddy-commercial/issuer/proof"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// dnsProviders is Caddy's namespace for DNS provider modules.
const dnsProviders = "dns.providers"

// provisionProofs works out what a prover needs to know, and loads the DNS provider if
// records are how names are proven. The storage and what serves the port become known
// later.
func (iss *Issuer) provisionProofs(repl *caddy.Replacer) error {
	tlsApp := runningTLS(iss.ctx)
	iss.proofs = proof.Config{Mode: iss.rules.probe, About: iss.about, Logger: iss.logger}
	if v, ok := iss.vendor.(vendors.CAAIdentifier); ok {
		iss.proofs.Identities = v.CAAIdentities(iss.order.Product)
	}
	if iss.DCV != nil {
		iss.proofs.Resolvers = iss.DCV.Resolvers
	}
	if len(iss.proofs.Resolvers) == 0 && tlsApp != nil {
		iss.proofs.Resolvers = tlsApp.Resolvers
	}
	if iss.DCV == nil || iss.DCV.Method != vendors.MethodDNS {
		return nil
	}
	config := iss.DCV
	if config.provider == nil {
		mod, err := config.load(iss.ctx, tlsApp)
		if err != nil {
			return err
		}
		provider, ok := mod.(certmagic.DNSProvider)
		if !ok {
			return fmt.Errorf("dcv dns: the DNS provider %T cannot add and delete records", mod)
		}
		config.provider = provider
	}
	override, err := options.Resolve(repl, "override_domain", config.OverrideDomain)
	if err != nil {
		return err
	}
	if override != "" {
		if override = dcv.NormalizeHost(override); override == "" {
			return fmt.Errorf("override_domain: %q is not a name", config.OverrideDomain)
		}
	}
	iss.proofs.Override = override
	iss.proofs.DNS = &dcv.DNS{
		Provider:           config.provider,
		TTL:                time.Duration(config.TTL),
		PropagationDelay:   time.Duration(config.PropagationDelay),
		PropagationTimeout: time.Duration(config.PropagationTimeout),
		Resolvers:          iss.proofs.Resolvers,
		Logger:             iss.logger.Named("dns"),
	}
	return dcv.CheckResolvers(iss.proofs.Resolvers)
}

// load returns the provider of the issuer's own configuration, or else the one that
// the TLS app has for all.
func (config *DCV) load(ctx caddy.Context, tlsApp *caddytls.TLS) (any, error) {
	if len(config.ProviderRaw) > 0 {
		mod, err := ctx.LoadModule(config, "ProviderRaw")
		if err != nil {
			return nil, fmt.Errorf("dcv dns: loading the DNS provider: %w", err)
		}
		return mod, nil
	}
	if mod := proof.SharedProvider(tlsApp); mod != nil {
		return mod, nil
	}
	return nil, errors.New("dcv dns: a DNS provider is required, for example: dcv dns cloudflare {env.CLOUDFLARE_API_TOKEN}; " +
		"or set one for all issuers with the global option dns")
}

// runningTLS is the TLS app of the config that is being loaded. An issuer is always
// provisioned within or after it.
func runningTLS(ctx caddy.Context) *caddytls.TLS {
	app, err := ctx.AppIfConfigured("tls")
	if err != nil {
		return nil
	}
	tlsApp, _ := app.(*caddytls.TLS)
	return tlsApp
}

// check judges the settings of the proof of control.
func (config *DCV) check() error {
	if config == nil {
		return nil
	}
	if config.hasRecordOptions() && config.Method != vendors.MethodDNS {
		return errors.New("dcv: a DNS provider, dns_ttl, propagation_delay, propagation_timeout, resolvers and override_domain are for dcv dns only")
	}
	if config.TTL < 0 || config.PropagationDelay < 0 || config.PropagationTimeout < -1 {
		return errors.New("dcv dns: durations must not be negative, except for a propagation_timeout of -1")
	}
	return nil
}

// hasRecordOptions reports whether anything is set that only records need.
func (config *DCV) hasRecordOptions() bool {
	return len(config.ProviderRaw) > 0 || config.TTL != 0 || config.PropagationDelay != 0 || config.PropagationTimeout != 0 ||
		len(config.Resolvers) > 0 || config.OverrideDomain != ""
}

func (config *DCV) unmarshalMethod(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.Errf("option 'dcv' needs a method: http, https or dns")
	}
	switch config.Method = vendors.Method(d.Val()); config.Method {
	case vendors.MethodHTTP, vendors.MethodHTTPS:
		return nil
	case vendors.MethodDNS:
		if !d.NextArg() {
			return nil
		}
		raw, err := options.UnmarshalModule(d, dnsProviders, "name")
		config.ProviderRaw = raw
		return err
	default:
		return d.Errf("option 'dcv' must be http, https or dns, got '%s'", d.Val())
	}
}

func (config *DCV) setPropagationTimeout(arg string) error {
	if arg == "-1" {
		config.PropagationTimeout = -1
		return nil
	}
	timeout, err := caddy.ParseDuration(arg)
	if err != nil || timeout < 0 {
		return fmt.Errorf("must be a duration such as 5m, or -1 for no look at all, got '%s'", arg)
	}
	config.PropagationTimeout = caddy.Duration(timeout)
	return nil
}
