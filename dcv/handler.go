package dcv

import (
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

func init() {
	caddy.RegisterModule(Handler{})
}

// Handler serves the validation files that certificate authorities ask for below
// `/.well-known/pki-validation/` while an order is being validated. It answers GET
// and HEAD requests for the exact host and file of such an order and hands
// everything else to the next handler.
//
// It has no options, and it seldom needs to be written down: a commercial issuer
// puts it first on every HTTP server by itself. Place it where that does not
// happen, which is with `auto_https off`, or behind a `route` of your own that
// must come before all else.
type Handler struct {
	logger *zap.Logger
	id     caddy.ModuleID // see provisionAs
}

const moduleID = "http.handlers.dcv"

// CaddyModule returns the Caddy module information.
func (h Handler) CaddyModule() caddy.ModuleInfo {
	info := caddy.ModuleInfo{ID: moduleID, New: func() caddy.Module { return new(Handler) }}
	if h.id != "" {
		info.ID = h.id
	}
	return info
}

// Provision sets up the handler. Being loaded with the routes of an HTTP app that
// carry it, it also sees to the server that this app has for redirects only.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	for _, module := range ctx.Modules() {
		if app, ok := module.(*caddyhttp.App); ok {
			return h.attachToRedirects(ctx, app)
		}
	}
	return nil
}

// Values of response headers, shared by all responses. Nothing may change them.
var (
	textPlain = []string{"text/plain"}
	noStore   = []string{"no-store"}
	noSniff   = []string{"nosniff"}
)

// ServeHTTP answers for a live challenge and calls next for everything else.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if !isValidationPath(r.URL.Path) {
		return next.ServeHTTP(w, r)
	}
	return h.serve(Live, w, r, next)
}

func isValidationPath(path string) bool {
	return len(path) > len(PathPrefix) && path[:len(PathPrefix)] == PathPrefix
}

func (h *Handler) serve(store *Store, w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	// File names need no escapes. A path that has some is somebody playing.
	if r.Method != http.MethodGet && r.Method != http.MethodHead || r.URL.RawPath != "" {
		return next.ServeHTTP(w, r)
	}
	host := NormalizeHost(r.Host)
	f := store.find(host, r.URL.Path)
	if f == nil {
		var err error
		if f, err = store.remote.find(r.Context(), host, r.URL.Path); err != nil {
			h.logger.Warn("reading shared challenges", zap.String("identifier", host), zap.Error(err))
		}
	}
	if f == nil {
		return next.ServeHTTP(w, r)
	}

	header := w.Header()
	header["Content-Type"] = textPlain
	header["Content-Length"] = f.length
	header["Cache-Control"] = noStore
	header["X-Content-Type-Options"] = noSniff
	w.WriteHeader(http.StatusOK)
	var err error
	if r.Method == http.MethodGet {
		_, err = w.Write(f.body)
	}
	h.record(f, host, r)
	return err
}

func (h *Handler) record(f *file, host string, r *http.Request) {
	userAgent := r.UserAgent()
	if userAgent == probeUserAgent {
		return
	}
	if f.visits != nil {
		f.visits.add(Visit{
			Time:       time.Now(),
			Host:       host,
			RemoteAddr: r.RemoteAddr,
			UserAgent:  userAgent,
			Status:     http.StatusOK,
		})
	}
	// Nobody on this instance counts visits to another's challenge, so that the
	// log is the only trace of them.
	level := zap.DebugLevel
	if f.visits == nil {
		level = zap.InfoLevel
	}
	if entry := h.logger.Check(level, "validation file served"); entry != nil {
		entry.Write(
			zap.String("identifier", host),
			zap.String("challenge", f.id),
			zap.String("path", f.path),
			zap.String("remote_addr", r.RemoteAddr),
			zap.String("user_agent", userAgent),
			zap.Bool("distributed", f.visits == nil),
		)
	}
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	dcv
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // directive name
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		return d.Errf("unrecognized option: %s (dcv has none)", d.Val())
	}
	return nil
}

// Interface guards
var (
	_ caddy.Module                = (*Handler)(nil)
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
)
