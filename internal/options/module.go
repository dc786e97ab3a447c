package options

import (
	"encoding/json"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Module is an option whose first argument names a module of the namespace;
// the rest of the line and the block belong to that module. The target
// receives the module's JSON with its name under inlineKey.
//
//	vendor <name> [<args…>] { … }
func Module(namespace, inlineKey string, target *json.RawMessage) Option {
	return Func(func(d *caddyfile.Dispenser) error {
		option := d.Val()
		if !d.NextArg() {
			return d.Errf("option '%s' needs the name of a module", option)
		}
		raw, err := UnmarshalModule(d, namespace, inlineKey)
		if err != nil {
			return err
		}
		*target = raw
		return nil
	})
}

// UnmarshalModule parses the module of the namespace whose name is the current
// token, with the rest of the line and the block that may follow, and returns
// its JSON with the name under inlineKey.
func UnmarshalModule(d *caddyfile.Dispenser, namespace, inlineKey string) (json.RawMessage, error) {
	name := d.Val()
	id := namespace + "." + name
	if _, err := caddy.GetModule(id); err != nil {
		return nil, d.Errf("there is no module '%s' in %s; is its plugin built in?", name, namespace)
	}
	unm, err := caddyfile.UnmarshalModule(d, id)
	if err != nil {
		return nil, err
	}
	var warnings []caddyconfig.Warning
	raw := caddyconfig.JSONModuleObject(unm, inlineKey, name, &warnings)
	if len(warnings) > 0 {
		return nil, d.Errf("encoding module %s: %s", id, warnings[0].Message)
	}
	return raw, nil
}
