package statuspage

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// refusal is the answer to those who are not shown the page.
const refusal = `403 Forbidden

This page lists the orders of certificates. It is shown to people who have logged in, and on the
server itself.

Put a login in front of it in the Caddyfile:

	basic_auth {
		<user> <hash, as caddy hash-password makes it>
	}
	commercial_status

Or open it on the server, at a site that is bound to the loopback interface:

	http://localhost:<port> {
		bind 127.0.0.1 ::1
		commercial_status
	}

If something else decides who can reach this site, such as forward_auth, client certificates or a
firewall, say so:

	commercial_status {
		allow_unauthenticated
	}
`

// authenticated reports whether an authentication handler has let the request pass.
func authenticated(r *http.Request) bool {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return false
	}
	user, ok := repl.GetString("http.auth.user.id")
	return ok && user != ""
}

// onThisMachine reports whether the request was made on this machine, and to a name or an address
// of the loopback interface. Connections that a proxy on this machine makes for others do not
// count, as far as they are recognized: by the header fields that proxies add, by HTTP/1.0, which
// nginx spoke before 1.29.7, or by a host that is not this machine, which also keeps out DNS
// rebinding.
func onThisMachine(r *http.Request) bool {
	if !r.ProtoAtLeast(1, 1) {
		return false
	}
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Forwarded-") || name == "Forwarded" || name == "Via" || name == "X-Real-Ip" {
			return false
		}
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && isLoopback(local.String()) && isLoopback(r.RemoteAddr) && isLocalHost(r.Host)
}

func isLoopback(addr string) bool {
	at, err := netip.ParseAddrPort(addr)
	return err == nil && at.Addr().Unmap().IsLoopback()
}

// isLocalHost reports whether a host, with or without a port, is a name or an address of the
// loopback interface. RFC 6761, section 6.3, says so of all names below localhost.
func isLocalHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap().IsLoopback()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// withoutAuthentication are the servers that can be reached from elsewhere, and show the page on
// this machine only, because they have no authentication handler. It is called while the routes are
// being provisioned, and returns all such servers for the first page, and none for further ones.
func withoutAuthentication(app *caddyhttp.App) (names []string) {
	for name, server := range app.Servers {
		switch {
		case loaded(server.Routes, handlerName):
			return nil
		case !mentioned(server.Routes, handlerName) || mentioned(server.Routes, "allow_unauthenticated"):
		case mentioned(server.Routes, "authentication") || loaded(server.Routes, "authentication"):
		case slices.ContainsFunc(server.Listen, isPublic):
			names = append(names, name)
		}
	}
	return names
}

func isPublic(listen string) bool {
	addr, err := caddy.ParseNetworkAddress(listen)
	return err == nil && !isLocalHost(addr.Host)
}

// mentioned reports whether a word stands in routes that are not provisioned yet.
func mentioned(routes caddyhttp.RouteList, word string) bool {
	return slices.ContainsFunc(routes, func(route caddyhttp.Route) bool {
		return slices.ContainsFunc(route.HandlersRaw, func(raw json.RawMessage) bool {
			return bytes.Contains(raw, []byte(`"`+word+`"`))
		})
	})
}

// loaded reports whether routes that are provisioned have a handler of that name.
func loaded(routes caddyhttp.RouteList, name string) bool {
	return slices.ContainsFunc(routes, func(route caddyhttp.Route) bool {
		return slices.ContainsFunc(route.Handlers, func(handler caddyhttp.MiddlewareHandler) bool {
			if sub, ok := handler.(*caddyhttp.Subroute); ok {
				return loaded(sub.Routes, name)
			}
			m, ok := handler.(caddy.Module)
			return ok && m.CaddyModule().ID.Name() == name
		})
	})
}
