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

// Attach puts a route with the handler first on each server of the HTTP app that is
// being provisioned with ctx. Call it in each SetConfig of an issuer (see
// caddytls.ConfigSetter), but in the first one only if the HTTP app is provisioning
// the TLS app and with it the issuer, see [Nested]. A config without an HTTP app is
// no error.
//
// Why then: apps are provisioned in random order, so that there may be no HTTP app
// yet when a policy of the TLS app provisions its issuers, and asking for it at that
// moment would provision it with half a TLS app. But the HTTP app's automatic
// HTTPS phase rebuilds every policy that it finds, and so calls SetConfig again. A
// route can be added to all servers only until the HTTP app loads their handlers,
// and both moments are before. The one server made later is seen to by
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

// Nested reports whether a module is being provisioned as a part of the HTTP app.
func Nested(ctx caddy.Context) bool {
	return slices.ContainsFunc(ctx.Modules(), func(mod caddy.Module) bool {
		_, ok := mod.(*caddyhttp.App)
		return ok
	})
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

// HTTPPort returns the port on which a config expects plain HTTP: that of its HTTP
// app, or 80.
func HTTPPort(ctx caddy.Context) int {
	if app, _ := httpApp(ctx); app != nil && app.HTTPPort != 0 {
		return app.HTTPPort
	}
	return caddyhttp.DefaultHTTPPort
}

// RouteHosts returns the hosts that the routes of a config's HTTP app match, at the
// top level and in subroutes, normalized and sorted. Some may be wildcards. Call it
// after provisioning.
func RouteHosts(ctx caddy.Context) []string {
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

// HostMatcher returns a function that is true for the hosts and for those that a
// wildcard among them covers. A single "*" covers all.
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
