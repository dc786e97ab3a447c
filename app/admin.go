package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

func init() {
	caddy.RegisterModule(new(adminAPI))
}

// adminAPI is the part of the admin endpoint below /commercial/, see docs/admin-api.md. Caddy
// provisions it before any app, whether or not the config has a commercial issuer.
type adminAPI struct{}

// CaddyModule returns the Caddy module information.
func (*adminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api." + moduleID, New: func() caddy.Module { return new(adminAPI) }}
}

// Provision makes Caddy provision the HTTP app before all others. That app then provisions
// the TLS app while routes can still be added to its servers, whatever the shape of the
// config. If it fails, Caddy meets the same error when it comes to the HTTP app, and reports
// it.
func (*adminAPI) Provision(ctx caddy.Context) error {
	_, _ = ctx.AppIfConfigured("http")
	return nil
}

// AdminPath is where the admin API is.
const AdminPath = "/" + moduleID + "/"

// Routes implements caddy.AdminRouter.
func (*adminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: AdminPath, Handler: caddy.AdminHandlerFunc(serveAdmin)}}
}

// maxPage is how many rows a page has at most, which is also the default.
const maxPage = 10_000

func serveAdmin(w http.ResponseWriter, r *http.Request) error {
	app := Running()
	if r.URL.Path == AdminPath && r.Method == http.MethodGet {
		var about operator.About
		if app != nil {
			about.Issuers = len(app.members)
		}
		return answer(w, about)
	}
	if app == nil {
		return apiError(http.StatusNotFound, errors.New("the running config has no commercial issuer"))
	}
	what, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, AdminPath), "/")
	switch {
	case (operator.IsAction(what) || what == reconcile) && rest == "":
		return act(w, r, app.Desk(), what)
	case what == "forecast" && rest == "":
		return forecast(w, r, app.Desk())
	case what == "orders" && r.Method != http.MethodGet:
		return apiError(http.StatusMethodNotAllowed, fmt.Errorf("method %s is not allowed here", r.Method))
	case what == "orders" && rest == "":
		return listOrders(w, r, app.Desk())
	case what == "orders":
		return showOrder(w, r, app.Desk(), rest)
	}
	return apiError(http.StatusNotFound, fmt.Errorf("there is nothing at %s", r.URL.Path))
}

func apiError(status int, err error) error { return caddy.APIError{HTTPStatus: status, Err: err} }

// listOrders answers with one page of rows.
func listOrders(w http.ResponseWriter, r *http.Request, desk *operator.Desk) error {
	q, err := operator.ParseQuery(r.URL.Query())
	if err != nil {
		return apiError(http.StatusBadRequest, err)
	}
	if q.Limit == 0 || q.Limit > maxPage {
		q.Limit = maxPage
	}
	// The link to the next page is in the header, so the rows must be read before it is sent.
	rows := []operator.Row{}
	if err := desk.List(r.Context(), q, func(row operator.Row) error {
		rows = append(rows, row)
		return nil
	}); err != nil {
		return apiError(http.StatusInternalServerError, err)
	}
	if len(rows) == q.Limit {
		next := r.URL.Query()
		next.Set("after", rows[len(rows)-1].Cursor)
		next.Set("limit", strconv.Itoa(q.Limit))
		w.Header().Set("Link", fmt.Sprintf("<%s?%s>; rel=\"next\"", r.URL.Path, next.Encode()))
	}
	return answer(w, rows)
}

func forecast(w http.ResponseWriter, r *http.Request, desk *operator.Desk) error {
	if r.Method != http.MethodGet {
		return apiError(http.StatusMethodNotAllowed, fmt.Errorf("method %s is not allowed here", r.Method))
	}
	o, err := operator.ParseOutlook(r.URL.Query())
	if err != nil {
		return apiError(http.StatusBadRequest, err)
	}
	f, err := desk.Forecast(r.Context(), o)
	if err != nil {
		return apiError(statusOf(err), err)
	}
	return answer(w, f)
}

func showOrder(w http.ResponseWriter, r *http.Request, desk *operator.Desk, about string) error {
	if plain, err := url.PathUnescape(about); err == nil {
		about = plain
	}
	stories, err := desk.Show(r.Context(), about)
	switch {
	case errors.Is(err, operator.ErrUnknown):
		return apiError(http.StatusNotFound, err)
	case err != nil:
		return apiError(http.StatusInternalServerError, err)
	}
	return answer(w, stories)
}

// reconcile is the action that is not about one order.
const reconcile = "reconcile"

// maxBody bounds the body of a request.
const maxBody = 1 << 20

// act does what a person asks for, or tells what that would be, see operator.Desk.
func act(w http.ResponseWriter, r *http.Request, desk *operator.Desk, what string) error {
	if r.Method != http.MethodPost {
		return apiError(http.StatusMethodNotAllowed, fmt.Errorf("method %s is not allowed here", r.Method))
	}
	// What a browser sends across sites without a preflight request is of another type.
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return apiError(http.StatusUnsupportedMediaType, errors.New("the body must be JSON, with the Content-Type application/json"))
	}
	var with any
	var err error
	if what == reconcile {
		var wish operator.Reconciliation
		if err := readBody(w, r, &wish); err != nil {
			return err
		}
		with, err = desk.Reconcile(r.Context(), wish)
	} else {
		var action operator.Action
		if err := readBody(w, r, &action); err != nil {
			return err
		}
		with, err = desk.Do(r.Context(), what, action)
	}
	if err != nil {
		return apiError(statusOf(err), err)
	}
	return answer(w, with)
}

func readBody(w http.ResponseWriter, r *http.Request, into any) error {
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	body.DisallowUnknownFields()
	if err := body.Decode(into); err != nil {
		return apiError(http.StatusBadRequest, fmt.Errorf("reading the body: %w", err))
	}
	return nil
}

// statusOf is the HTTP status that an error of an action has.
func statusOf(err error) int {
	_, refused := errors.AsType[*operator.RefusedError](err)
	_, ofVendor := errors.AsType[*vendors.Error](err)
	switch {
	case errors.Is(err, operator.ErrUnknown):
		return http.StatusNotFound
	case errors.Is(err, ledger.ErrConflict), errors.Is(err, operator.ErrChanged):
		return http.StatusConflict
	case ofVendor:
		return http.StatusBadGateway
	case refused:
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

func answer(w http.ResponseWriter, with any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(with)
}

// Interface guards
var (
	_ caddy.Provisioner = (*adminAPI)(nil)
	_ caddy.AdminRouter = (*adminAPI)(nil)
)
