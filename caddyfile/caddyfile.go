// Package caddyfile is the Caddyfile face of the plugin where it is more than a
// method of one module. The issuer, the vendors and the handler parse their own
// blocks, beside their types; what is here makes directives of them.
package caddyfile

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-commercial/caddy-commercial/dcv"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("dcv", parseDCV)
	// CAs follow redirects badly or not at all, and whatever else a site does
	// with a request, the validation file comes first.
	httpcaddyfile.RegisterDirectiveOrder("dcv", httpcaddyfile.Before, "redir")
}

// parseDCV sets up the handler that serves validation files, for sites where it is
// to be placed by hand. Syntax:
//
//	dcv [<matcher>]
func parseDCV(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(dcv.Handler)
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return handler, nil
}
