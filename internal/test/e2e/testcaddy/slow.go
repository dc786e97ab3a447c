package main

import (
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(new(SlowApp))
	caddy.RegisterModule(new(SlowHandler))
	httpcaddyfile.RegisterGlobalOption("e2e_slow", parseSlow)
	httpcaddyfile.RegisterHandlerDirective("e2e_slow", parseSlowHandler)
	httpcaddyfile.RegisterDirectiveOrder("e2e_slow", httpcaddyfile.Before, "respond")
}

// SlowApp is an app that needs the TLS app and takes its time, like apps that fetch
// something when they are provisioned or started. It makes races likely.
type SlowApp struct {
	// How long provisioning takes, after the TLS app has been provisioned.
	Provisioning caddy.Duration `json:"provisioning,omitempty"`

	// How long starting takes.
	Starting caddy.Duration `json:"starting,omitempty"`

	// Whether starting fails.
	Fail bool `json:"fail,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*SlowApp) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "e2e_slow", New: func() caddy.Module { return new(SlowApp) }}
}

// Provision implements caddy.Provisioner.
func (a *SlowApp) Provision(ctx caddy.Context) error {
	_, err := ctx.App("tls")
	time.Sleep(time.Duration(a.Provisioning))
	return err
}

// Start implements caddy.App.
func (a *SlowApp) Start() error {
	time.Sleep(time.Duration(a.Starting))
	if a.Fail {
		return http.ErrServerClosed
	}
	return nil
}

// Stop implements caddy.App.
func (*SlowApp) Stop() error { return nil }

// SlowHandler is a handler that takes its time to be provisioned, like one that compiles
// rules.
type SlowHandler struct {
	// How long provisioning takes.
	Provisioning caddy.Duration `json:"provisioning,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*SlowHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.e2e_slow", New: func() caddy.Module { return new(SlowHandler) }}
}

// Provision implements caddy.Provisioner.
func (h *SlowHandler) Provision(caddy.Context) error {
	time.Sleep(time.Duration(h.Provisioning))
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (*SlowHandler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return next.ServeHTTP(w, r)
}

// parseSlow reads the global option
//
//	e2e_slow <provisioning> [<starting> [fail]]
func parseSlow(d *caddyfile.Dispenser, _ any) (any, error) {
	d.Next() // option name
	args := d.RemainingArgs()
	if len(args) == 0 || len(args) > 3 || len(args) == 3 && args[2] != "fail" {
		return nil, d.ArgErr()
	}
	app := SlowApp{Fail: len(args) == 3}
	for i, target := range []*caddy.Duration{&app.Provisioning, &app.Starting} {
		if i >= len(args) {
			break
		}
		duration, err := caddy.ParseDuration(args[i])
		if err != nil {
			return nil, d.Errf("parsing a duration: %v", err)
		}
		*target = caddy.Duration(duration)
	}
	var warnings []caddyconfig.Warning
	return httpcaddyfile.App{Name: "e2e_slow", Value: caddyconfig.JSON(app, &warnings)}, nil
}

// parseSlowHandler reads the directive
//
//	e2e_slow <provisioning>
func parseSlowHandler(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	var text string
	h.Next() // directive name
	if !h.AllArgs(&text) {
		return nil, h.ArgErr()
	}
	duration, err := caddy.ParseDuration(text)
	return &SlowHandler{Provisioning: caddy.Duration(duration)}, err
}

// Interface guards
var (
	_ caddy.App                   = (*SlowApp)(nil)
	_ caddy.Provisioner           = (*SlowApp)(nil)
	_ caddy.Provisioner           = (*SlowHandler)(nil)
	_ caddyhttp.MiddlewareHandler = (*SlowHandler)(nil)
)
