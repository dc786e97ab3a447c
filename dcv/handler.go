package dcv

import (
	"cmp"
	"errors"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/internal/metrics"
)

func init() {
	caddy.RegisterModule(Handler{})
}

// Handler serves the validation files that certificate authorities ask for below
// `/.well-known/pki-validation/` while an order is being validated. It answers GET
// and HEAD requests for the exact host and file of such an order and hands
// everything else to the next handler.
//
// It has no options, and it seldom needs to be written down: a commercial issuer puts
// it first on every HTTP server by itself. Write it down where that may not happen,
// as with `admin off` and `auto_https off`, or behind a `route` of your own that must
// come before all else.
type Handler struct {
	logger *zap.Logger
	store  *Store         // nil for Live
	id     caddy.ModuleID // see provisionAs
}

// NewHandler returns a handler that is no part of a config.
func NewHandler(store *Store, logger *zap.Logger) *Handler {
	return &Handler{logger: logger, store: store}
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

// Provision sets up the handler. When it is loaded with the routes of an HTTP app, it
// also adds itself to the server that this app has for redirects only.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	for _, module := range ctx.Modules() {
		if app, ok := module.(*caddyhttp.App); ok {
			return h.attachToRedirects(ctx, app)
		}
	}
	return nil
}

// ServeHTTP answers for a live challenge and calls next for everything else.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if !isValidationPath(r.URL.Path) {
		return next.ServeHTTP(w, r)
	}
	return h.serve(cmp.Or(h.store, Live), w, r, next)
}

func isValidationPath(path string) bool {
	return len(path) > len(PathPrefix) && path[:len(PathPrefix)] == PathPrefix
}

// lookedFor is the variable of a request that has the path for which a handler has looked.
const lookedFor = "dcv.looked_for"

func (h *Handler) serve(store *Store, w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if caddyhttp.GetVar(r.Context(), lookedFor) == r.URL.Path {
		return next.ServeHTTP(w, r) // this handler was placed by hand behind another one
	}
	caddyhttp.SetVar(r.Context(), lookedFor, r.URL.Path)
	host := NormalizeHost(r.Host)
	// File names need no escapes, so a path that has some is not a CA's.
	if r.Method != http.MethodGet && r.Method != http.MethodHead || r.URL.RawPath != "" {
		count(metrics.Missing)
		return h.pass(store, host, w, r, next)
	}
	f, outcome := store.find(host, r.URL.Path), metrics.Missing
	if f == nil {
		var err error
		if f, err = store.remote.find(r.Context(), host, r.URL.Path); err != nil {
			outcome = metrics.Failed
			h.logger.Warn("reading shared validation files failed", zap.String("identifier", host), zap.Error(err))
		}
	}
	if f == nil {
		count(outcome)
		return h.pass(store, host, w, r, next)
	}

	header := w.Header()
	header.Set("Content-Type", "text/plain")
	header.Set("Content-Length", strconv.Itoa(len(f.body)))
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusOK)
	var err error
	if r.Method == http.MethodGet {
		_, err = w.Write(f.body)
	}
	v := visitOf(r, host, http.StatusOK)
	if v.UserAgent == probeUserAgent {
		count(metrics.Probed)
		return err
	}
	count(metrics.Served)
	store.visits.add(f, v)
	h.log(f, v)
	return err
}

// pass leaves a request to the next handler. If it is almost one for a live file, it
// is noted as a visit that missed it, for whoever asks why the CA does not find the
// file.
func (h *Handler) pass(store *Store, host string, w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	f := store.missed(host, r.URL.Path)
	if f == nil {
		return next.ServeHTTP(w, r)
	}
	recorder := caddyhttp.NewResponseRecorder(w, nil, nil)
	err := next.ServeHTTP(recorder, r)
	status := cmp.Or(recorder.Status(), http.StatusOK)
	if err != nil {
		status = http.StatusInternalServerError
		if failed, ok := errors.AsType[caddyhttp.HandlerError](err); ok && failed.StatusCode != 0 {
			status = failed.StatusCode
		}
	}
	v := visitOf(r, host, status)
	v.Missed = true
	store.visits.add(f, v)
	return err
}

func visitOf(r *http.Request, host string, status int) Visit {
	from := r.RemoteAddr
	// Behind proxies that the config trusts, Caddy knows better.
	if ip, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string); ip != "" {
		if host, _, err := net.SplitHostPort(from); err != nil || ip != host { // a Unix socket has no host
			from = ip
		}
	}
	return Visit{Time: time.Now(), Host: host, RemoteAddr: from, UserAgent: r.UserAgent(), Status: status}
}

func (h *Handler) log(f *file, v Visit) {
	// Where another instance has the challenge, nobody asks this one who came.
	level := zap.DebugLevel
	if f.distributed() {
		level = zap.InfoLevel
	}
	if entry := h.logger.Check(level, "validation file served"); entry != nil {
		entry.Write(
			zap.String("identifier", v.Host),
			zap.String("challenge", f.id),
			zap.String("path", f.path),
			zap.String("remote_addr", v.RemoteAddr),
			zap.String("user_agent", v.UserAgent),
			zap.Bool("distributed", f.distributed()),
		)
	}
}

func count(outcome string) { metrics.ValidationRequests.WithLabelValues(outcome).Inc() }

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
