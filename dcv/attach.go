package dcv

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/certmagic"
)

// Attach puts a route with the handler first on each server of the HTTP app that
// is being provisioned with ctx. An issuer calls it from the second and every
// later call of its SetConfig (see caddytls.ConfigSetter). It may be called any
// number of times. A config without an HTTP app is no error.
//
// Why then: apps are provisioned in random order, so that there is no HTTP app yet
// when a policy of the TLS app provisions its issuers, and asking for it at that
// moment would provision it with half a TLS app. But the HTTP app's automatic
// HTTPS phase rebuilds every policy, and so calls SetConfig again, after Caddy has
// decoded the matchers of all routes and before it loads any handler. Only there
// can a route be added to all servers. The one server made later is seen to by
// [Handler.Provision].
func Attach(ctx caddy.Context) error {
	app, err := httpApp(ctx)
	if app == nil || err != nil {
		return err
	}
	for _, srv := range app.Servers {
		if slices.ContainsFunc(srv.Routes, isOurs) {
			continue
		}
		ours := ourRoute()
		ours.HandlersRaw = []json.RawMessage{json.RawMessage(`{"handler":"dcv"}`)}
		srv.Routes = append(caddyhttp.RouteList{ours}, srv.Routes...)
	}
	return nil
}

func httpApp(ctx caddy.Context) (*caddyhttp.App, error) {
	mod, err := ctx.AppIfConfigured("http")
	if errors.Is(err, caddy.ErrNotConfigured) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking for http app: %w", err)
	}
	app, ok := mod.(*caddyhttp.App)
	if !ok {
		return nil, fmt.Errorf("looking for http app: found %T", mod)
	}
	return app, nil
}

// ourRoute returns a route without handlers. Its second matcher set never matches
// anything. It is there because automatic HTTPS inserts its redirects after the
// last route that has a host matcher, and at the very top if no route has one. The
// path comes first in it, too, because a host matcher costs every request more than
// all the rest of this route.
func ourRoute() caddyhttp.Route {
	return caddyhttp.Route{MatcherSets: caddyhttp.MatcherSets{
		{pathMatcher{}},
		{pathMatcher{}, new(caddyhttp.MatchHost)},
	}}
}

func isOurs(route caddyhttp.Route) bool {
	return len(route.MatcherSets) > 0 && len(route.MatcherSets[0]) == 1 && route.MatcherSets[0][0] == pathMatcher{}
}

// pathMatcher matches paths below PathPrefix. Unlike Caddy's path matcher it does
// not clean or fold the path first, because everybody's requests pass through it.
type pathMatcher struct{}

func (pathMatcher) MatchWithError(r *http.Request) (bool, error) {
	return isValidationPath(r.URL.Path), nil
}

// redirectServer is the name that automatic HTTPS gives to the server it makes for
// redirects whose address no server of the user listens on
// (caddyhttp.App.automaticHTTPSPhase1).
const redirectServer = "remaining_auto_https_redirects"

// attachToRedirects puts our route first on the server for redirects. That server
// is made between Attach and the loading of handlers, and the app prepares its
// servers in random order, this one among them. Before it is prepared, adding the
// route is enough. Afterwards its routes are compiled, and only a new server in
// its place will do; Go allows to replace the value of a map that is being ranged
// over.
func (h *Handler) attachToRedirects(ctx caddy.Context, app *caddyhttp.App) error {
	srv := app.Servers[redirectServer]
	// A user may have a server of that name. Automatic HTTPS has been through those
	// and left them a config of it, which it does not give to its own.
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

// rebuild returns a server that is prepared like srv but for its routes. Only an
// app can prepare a server, and there is a second one for that moment. It gets no
// metrics, because an app resets those when it is provisioned; the routes are
// instrumented with those of the real app beforehand and handed over in a
// subroute, which keeps them as they are. Nothing of the second app remains: an
// app starts nothing and registers nothing before it is started.
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

// provisionAs provisions the app under the module ID that its loggers, the access
// log among them, are to be named after. Caddy takes that ID from the module for
// which the context was made, which is this handler.
func (h *Handler) provisionAs(ctx caddy.Context, id caddy.ModuleID, app *caddyhttp.App) error {
	h.id = id
	defer func() { h.id = "" }()
	return app.Provision(ctx)
}

// serves reports whether the routes, which must be provisioned, lead to a handler
// of ours.
func serves(routes caddyhttp.RouteList) bool {
	return slices.ContainsFunc(routes, func(route caddyhttp.Route) bool {
		return slices.ContainsFunc(route.Handlers, func(handler caddyhttp.MiddlewareHandler) bool {
			switch handler := handler.(type) {
			case *Handler:
				return true
			case *caddyhttp.Subroute:
				return serves(handler.Routes)
			}
			return false
		})
	})
}

// HTTPServed reports whether the HTTP app of a config has a server that listens on
// the HTTP port and carries the handler, by Attach or by the user's hand. If not,
// an issuer must [Serve] by itself. It is meant for the time after provisioning;
// the app need not have started.
func HTTPServed(ctx caddy.Context) bool {
	app, err := httpApp(ctx)
	if app == nil || err != nil {
		return false
	}
	for _, srv := range app.Servers {
		if serves(srv.Routes) && slices.ContainsFunc(srv.Listen, func(addr string) bool { return hasPort(addr, HTTPPort(ctx)) }) {
			return true
		}
	}
	return false
}

// HTTPPort returns the port on which a config expects plain HTTP: that of its HTTP
// app, or 80.
func HTTPPort(ctx caddy.Context) int {
	if app, _ := httpApp(ctx); app != nil && app.HTTPPort != 0 {
		return app.HTTPPort
	}
	return caddyhttp.DefaultHTTPPort
}

func hasPort(listen string, port int) bool {
	addr, err := caddy.ParseNetworkAddress(listen)
	return err == nil && !addr.IsUnixNetwork() && !addr.IsFdNetwork() &&
		addr.StartPort <= uint(port) && uint(port) <= addr.EndPort
}

// listenPorts returns a test for the ports on which the app will listen.
func listenPorts(app *caddyhttp.App) func(port int) bool {
	return func(port int) bool {
		for _, srv := range app.Servers {
			if slices.ContainsFunc(srv.Listen, func(addr string) bool { return hasPort(addr, port) }) {
				return true
			}
		}
		return false
	}
}

// ManagedHosts returns the hosts that the routes of a config's HTTP app match, at
// the top level and in subroutes, normalized and sorted. Some may be wildcards. It
// is meant for the time after provisioning.
func ManagedHosts(ctx caddy.Context) []string {
	app, err := httpApp(ctx)
	if app == nil || err != nil {
		return nil
	}
	var hosts []string
	repl := caddy.NewReplacer()
	var collect func(caddyhttp.RouteList)
	collect = func(routes caddyhttp.RouteList) {
		for _, route := range routes {
			for _, set := range route.MatcherSets {
				for _, matcher := range set {
					if hm, ok := matcher.(*caddyhttp.MatchHost); ok {
						for _, host := range *hm {
							hosts = append(hosts, NormalizeHost(repl.ReplaceAll(host, "")))
						}
					}
				}
			}
			for _, handler := range route.Handlers {
				if sub, ok := handler.(*caddyhttp.Subroute); ok {
					collect(sub.Routes)
				}
			}
		}
	}
	for _, srv := range app.Servers {
		collect(srv.Routes)
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// HostMatcher returns a function for [Store.Manage] that is true for the hosts and
// for those that a wildcard among them covers. A single "*" covers all.
func HostMatcher(hosts []string) func(host string) bool {
	exact := make(map[string]struct{}, len(hosts))
	var wildcards []string
	for _, host := range hosts {
		host = NormalizeHost(host)
		if host == "*" {
			return func(string) bool { return true }
		}
		if slices.Contains([]byte(host), '*') {
			wildcards = append(wildcards, host)
		}
		exact[host] = struct{}{}
	}
	return func(host string) bool {
		if _, ok := exact[host]; ok {
			return true
		}
		return slices.ContainsFunc(wildcards, func(w string) bool { return certmagic.MatchWildcard(host, w) })
	}
}

// Interface guards
var _ caddyhttp.RequestMatcherWithError = pathMatcher{}
