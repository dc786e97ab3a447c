package dcv

import (
	"fmt"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// This file exists because automatic HTTPS makes a server of its own for redirects and
// lets nobody add a route to it. A hook between its first phase and the preparation of
// servers, or an exported way to prepare one server, would replace all of it.

// redirectServer is the name that automatic HTTPS gives to the server it makes for
// redirects whose address no server of the user listens on
// (caddyhttp.App.automaticHTTPSPhase1).
const redirectServer = "remaining_auto_https_redirects"

// attachToRedirects puts our route first on the server for redirects. That server is
// made between Attach and the loading of handlers, and the app prepares its servers in
// random order, this one among them. Before it is prepared, adding the route is
// enough. Afterwards its routes are compiled, and only a new server in its place will
// do; Go allows replacing the value of a map that is being ranged over.
func (h *Handler) attachToRedirects(ctx caddy.Context, app *caddyhttp.App) error {
	srv := app.Servers[redirectServer]
	// A user may have a server of that name. Automatic HTTPS has been through those
	// and set their AutoHTTPS, which it does not do for its own.
	if srv == nil || srv.AutoHTTPS != nil || serves(srv.Routes) {
		return nil
	}
	ours := ourRoute()
	ours.Handlers = []caddyhttp.MiddlewareHandler{h}
	routes := append(caddyhttp.RouteList{ours}, srv.Routes...)
	if len(srv.Protocols) == 0 { // preparing fills them in
		srv.Routes = routes
		return nil
	}
	fresh, err := h.rebuild(ctx, app, srv, routes)
	if err != nil {
		return fmt.Errorf("serving validation files beside redirects: %w", err)
	}
	app.Servers[redirectServer] = fresh
	return nil
}

// rebuild returns a server that is prepared like srv but for its routes. Only an app
// can prepare a server, so a second app is made just for that. It gets no metrics,
// because an app resets those when it is provisioned; the routes are instrumented with
// those of the real app beforehand and handed over in a subroute, which keeps them as
// they are. Nothing of the second app remains: an app starts nothing and registers
// nothing before it is started.
func (h *Handler) rebuild(ctx caddy.Context, app *caddyhttp.App, srv *caddyhttp.Server, routes caddyhttp.RouteList) (*caddyhttp.Server, error) {
	routes = slices.Clone(routes)
	if err := routes.ProvisionHandlers(ctx, app.Metrics); err != nil {
		return nil, err
	}
	fresh := &caddyhttp.Server{
		Listen:    srv.Listen,
		Logs:      srv.Logs,
		Routes:    caddyhttp.RouteList{{Handlers: []caddyhttp.MiddlewareHandler{&caddyhttp.Subroute{Routes: routes}}}},
		AutoHTTPS: &caddyhttp.AutoHTTPSConfig{Disabled: true},
	}
	second := &caddyhttp.App{
		HTTPPort:  app.HTTPPort,
		HTTPSPort: app.HTTPSPort,
		Servers:   map[string]*caddyhttp.Server{redirectServer: fresh},
	}
	if err := h.provisionAs(ctx, "http", second); err != nil {
		return nil, err
	}
	fresh.AutoHTTPS = nil
	return fresh, nil
}

// provisionAs provisions the app under the module ID that its loggers, the access log
// among them, should be named after. Caddy takes that ID from the module for which the
// context was made, which is this handler.
func (h *Handler) provisionAs(ctx caddy.Context, id caddy.ModuleID, app *caddyhttp.App) error {
	h.id = id
	defer func() { h.id = "" }()
	return app.Provision(ctx)
}
