package issuer

import (
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-commercial/caddy-commercial/internal/options"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

const dnsProviders = "dns.providers"

func (iss *Issuer) provisionProofs(*caddy.Replacer) error { return nil }

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
