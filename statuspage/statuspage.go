// Package statuspage shows the orders of the commercial issuers to people in a browser: those that
// ask a person, what comes next and when it costs, all orders, and the story of each. The page
// changes nothing, and needs neither scripts nor anything from elsewhere.
package statuspage

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/app"
	"github.com/caddy-commercial/caddy-commercial/internal/options"
	"github.com/caddy-commercial/caddy-commercial/operator"
)

func init() {
	caddy.RegisterModule(new(Handler))
}

// Handler serves a page about the orders of the commercial issuers: which of them ask a person,
// when certificates are renewed and orders paid for, and the story of each. It answers GET and
// HEAD requests, and changes nothing.
//
// It is shown to users who have logged in, by `basic_auth` or any other authentication handler in
// front of it, and to those who open it on the server itself, at a name or an address of the
// loopback interface and not through a proxy. Everybody else gets status 403.
type Handler struct {
	// Show the page to everybody who can reach it. For sites where something else decides who
	// can, such as a firewall, client certificates, or `forward_auth`.
	AllowUnauthenticated bool `json:"allow_unauthenticated,omitempty"`

	logger *zap.Logger
	desk   func() *operator.Desk // nil if no commercial issuer runs
	orders *reader
}

const handlerName = "commercial_status"

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers." + handlerName, New: func() caddy.Module { return new(Handler) }}
}

// Provision sets up the handler.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger, h.orders = ctx.Logger(), newReader()
	h.desk = func() *operator.Desk {
		if a := app.Running(); a != nil {
			return a.Desk()
		}
		return nil
	}
	if h.AllowUnauthenticated {
		h.logger.Warn("the status page is shown without authentication to everybody who can reach it")
	}
	for _, m := range ctx.Modules() {
		if a, ok := m.(*caddyhttp.App); ok {
			for _, name := range withoutAuthentication(a) {
				h.logger.Warn("the status page is shown on this machine only, because the server has no authentication handler", zap.String("server", name))
			}
		}
	}
	return nil
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	commercial_status [<matcher>] {
//		allow_unauthenticated
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume directive name
	return options.Parse(d, options.Table{
		"allow_unauthenticated": options.Flag(&h.AllowUnauthenticated),
	})
}

// patience is how long the storage may take for a page.
const patience = 30 * time.Second

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return caddyhttp.Error(http.StatusMethodNotAllowed, nil)
	}
	setHeader(w.Header())
	if !h.AllowUnauthenticated && !authenticated(r) && !onThisMachine(r) {
		return respond(w, r, http.StatusForbidden, "text/plain; charset=utf-8", []byte(refusal))
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	p, status := h.page(ctx, r.URL.Query())
	var body bytes.Buffer
	if err := templates.ExecuteTemplate(&body, p.template, p); err != nil {
		return caddyhttp.Error(http.StatusInternalServerError, err)
	}
	// Where the site has the directive templates, text from others must not become a template.
	text := bytes.ReplaceAll(body.Bytes(), []byte("{{"), []byte("{&#123;"))
	return respond(w, r, status, "text/html; charset=utf-8", text)
}

func respond(w http.ResponseWriter, r *http.Request, status int, contentType string, body []byte) error {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return nil
	}
	_, err := w.Write(body)
	return err
}

func setHeader(header http.Header) {
	header.Set("Content-Security-Policy", contentSecurityPolicy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cache-Control", "no-store")
}

// page reads what is asked for.
func (h *Handler) page(ctx context.Context, values map[string][]string) (*page, int) {
	p := &page{template: "list", Title: "Orders", Now: time.Now().UTC()}
	desk := h.desk()
	if desk == nil {
		p.template, p.Title = "message", "No commercial issuer runs"
		p.Message = "Either the config has none, or Caddy is just starting."
		return p, http.StatusOK
	}
	release, err := h.orders.turn(ctx)
	if err == nil {
		defer release()
		if about := first(values, "order"); about != "" {
			err = p.show(ctx, desk, about)
		} else {
			err = p.list(ctx, desk, h.orders, values)
		}
	}
	var invalid *invalidError
	switch {
	case err == nil:
		return p, http.StatusOK
	case errors.Is(err, operator.ErrUnknown):
		p.template, p.Title = "message", "No such order"
		p.Message = "No ledger knows a name or an order " + strconv.Quote(first(values, "order")) + "."
		return p, http.StatusNotFound
	case errors.As(err, &invalid):
		p.Message = err.Error()
		return p, http.StatusBadRequest
	}
	if !errors.Is(err, context.Canceled) { // or else nobody waits for the page any more
		h.logger.Error("reading orders for the status page failed", zap.Error(err))
	}
	p.template, p.Title = "message", "The orders cannot be read"
	p.Message = "Caddy's log has the reason."
	return p, http.StatusInternalServerError
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
)
