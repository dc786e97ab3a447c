package app

import (
	"github.com/caddyserver/caddy/v2"
)

func init() {
	caddy.RegisterModule(new(adminAPI))
}

// adminAPI has no routes. It is there because Caddy provisions the routers of the admin
// endpoint before any app.
type adminAPI struct{}

// CaddyModule returns the Caddy module information.
func (*adminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api." + moduleID, New: func() caddy.Module { return new(adminAPI) }}
}

// Provision has the HTTP app provisioned before all others. It then provisions the TLS
// app while its own servers can still be given routes, in configs of any shape. If that
// fails, Caddy finds the same error when it comes to the HTTP app, and reports it.
func (*adminAPI) Provision(ctx caddy.Context) error {
	_, _ = ctx.AppIfConfigured("http")
	return nil
}

// Routes implements caddy.AdminRouter.
func (*adminAPI) Routes() []caddy.AdminRoute { return nil }

// Interface guards
var (
	_ caddy.Provisioner = (*adminAPI)(nil)
	_ caddy.AdminRouter = (*adminAPI)(nil)
)
