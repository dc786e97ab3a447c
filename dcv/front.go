package dcv

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
)

// Front is what a running config does with HTTP requests: its servers, the sockets
// they have, and what else its TLS app answers over plain HTTP. Make one with
// [NewFront]. The zero value, and nil, has no servers.
type Front struct {
	http *caddyhttp.App
	tls  *caddytls.TLS
}

// NewFront looks at the apps of a config. It is meant for the moment at which all of
// them have started, and for later: before, servers have no sockets, and asking for an
// app would provision it.
func NewFront(ctx caddy.Context) *Front {
	front := new(Front)
	// An app that is not there has nothing to answer.
	front.http, _ = httpApp(ctx)
	if mod, err := ctx.AppIfConfigured("tls"); err == nil {
		front.tls, _ = mod.(*caddytls.TLS)
	}
	return front
}

// UnservedError is about a server whose socket gets what a CA asks for, but that has
// no [Handler] to answer with.
type UnservedError struct {
	Server string // name in the HTTP app
	Addr   string // of its socket
}

func (e *UnservedError) Error() string {
	return fmt.Sprintf("server %s on %s does not serve validation files: "+
		`put {"handle":[{"handler":"dcv"}]} first in its routes, or turn the admin endpoint on`, e.Server, e.Addr)
}

// Serves reports whether the CA's requests to the address are answered by one of the
// config's servers: one that has the very socket, or, where host is a single address
// that no socket is bound to, the one that is bound to all. Other sockets do not
// matter: the kernel prefers the more specific one, so that two side by side both get
// their own. The host is one that [ResolveBind] returned.
//
// The error is an *UnservedError if that server lacks the handler. Then nobody else can
// serve the files, because the kernel would deal the connections between the two.
func (f *Front) Serves(host string, port int) (bool, error) {
	srv, addr := f.server(host, port)
	if srv == nil {
		return false, nil
	}
	if !serves(srv.Routes) {
		return false, &UnservedError{Server: srv.Name(), Addr: addr}
	}
	return true, nil
}

// Unserved returns an *UnservedError for each server with a socket on the port that
// lacks the handler, ordered by name.
func (f *Front) Unserved(port int) []*UnservedError {
	var list []*UnservedError
	f.sockets(port, func(srv *caddyhttp.Server, addr *net.TCPAddr) {
		if !serves(srv.Routes) {
			list = append(list, &UnservedError{Server: srv.Name(), Addr: addr.String()})
		}
	})
	slices.SortFunc(list, func(a, b *UnservedError) int { return strings.Compare(a.Server+a.Addr, b.Server+b.Addr) })
	return list
}

// server returns the server that gets what is sent to the address, and the address of
// its socket.
func (f *Front) server(host string, port int) (found *caddyhttp.Server, addr string) {
	ip := net.ParseIP(host)
	f.sockets(port, func(srv *caddyhttp.Server, at *net.TCPAddr) {
		exact := ip != nil && at.IP.Equal(ip)
		if exact || found == nil && at.IP.IsUnspecified() {
			found, addr = srv, at.String()
		}
	})
	return found, addr
}

// sockets calls do for all TCP sockets of the config's servers on the port. Only the
// listener tells what a server really listens on: a config may name a file descriptor.
func (f *Front) sockets(port int, do func(*caddyhttp.Server, *net.TCPAddr)) {
	if f == nil || f.http == nil {
		return
	}
	for _, srv := range f.http.Servers {
		for _, ln := range srv.Listeners() {
			if addr, ok := ln.Addr().(*net.TCPAddr); ok && addr.Port == port {
				do(srv, addr)
			}
		}
	}
}

// hasPort reports whether one of the servers listens on the port, at any address.
func (f *Front) hasPort(port int) (found bool) {
	f.sockets(port, func(*caddyhttp.Server, *net.TCPAddr) { found = true })
	return found
}

// handleChallenge answers a request of an ACME CA for an HTTP challenge, and reports
// whether it was one.
func (f *Front) handleChallenge(w http.ResponseWriter, r *http.Request) bool {
	return f != nil && f.tls != nil && f.tls.HandleHTTPChallenge(w, r)
}

// ResolveBind returns the IP address that a host to listen on stands for, or "" for all
// addresses. A failure is a *ListenError.
func ResolveBind(ctx context.Context, host string) (string, error) {
	if host == "" {
		return "", nil
	}
	ip := net.ParseIP(host)
	if ip == nil {
		ips, err := net.DefaultResolver.LookupIP(ctx, "ip", host)
		if err != nil {
			return "", &ListenError{Addr: host, Err: err}
		}
		ip = ips[0]
	}
	if ip.IsUnspecified() {
		return "", nil
	}
	return ip.String(), nil
}
