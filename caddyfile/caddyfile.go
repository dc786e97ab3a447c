// Package caddyfile registers the directives of the plugin. The issuer, the vendors
// and the handlers parse their own blocks, beside their types; here the handlers
// become directives.
package caddyfile

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/statuspage"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("dcv", parseDCV)
	// CAs follow redirects badly or not at all, and whatever else a site does
	// with a request, the validation file comes first.
	httpcaddyfile.RegisterDirectiveOrder("dcv", httpcaddyfile.Before, "redir")

	httpcaddyfile.RegisterHandlerDirective("commercial_status", parseStatus)
	// It comes after logins, and after abort and error, which refuse requests.
	httpcaddyfile.RegisterDirectiveOrder("commercial_status", httpcaddyfile.Before, "respond")
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

// parseStatus sets up the handler that shows the orders to people. Syntax:
//
//	commercial_status [<matcher>] {
//		allow_unauthenticated
//	}
func parseStatus(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(statuspage.Handler)
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return handler, nil
}
