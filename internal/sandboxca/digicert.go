package sandboxca

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// digicert is the Services API v2 of DigiCert CertCentral
// (https://www.digicert.com/services/v2/…, documented on dev.digicert.com). Where
// the pages leave something open, the code says what was assumed.
//
// A reissue is an order of the core like any other, but the API shows it as a
// certificate of the order that paid for it.
type digicert struct{ ca *CA }

const (
	digicertFile    = "fileauth.txt"
	digicertLabel   = "_dnsauth"
	digicertSuffix  = ".dcv.digicert.com"
	digicertBrand   = "DigiCert"
	digicertFirstID = 4_300_000_000 // real IDs have ten digits; these need 33 bits

	// randomValueDays is the life of a random value; sanRevocationDays how long
	// earlier certificates live on after a reissue that dropped a name.
	randomValueDays   = 30
	sanRevocationDays = 3
)

// digicertOrder is what this dialect knows of an order beyond the core.
type digicertOrder struct {
	ValueExpires time.Time `json:"value_expires"`
	Unapproved   bool      `json:"unapproved,omitempty"`
	Comments     string    `json:"comments,omitempty"`
	Organization int64     `json:"organization,omitempty"`
	Payment      string    `json:"payment,omitempty"`
	DropsNames   bool      `json:"drops_names,omitempty"`
}

// checkable reports whether the CA looks for the proofs of an order now. The nil
// order is of another dialect and always is.
func (o *digicertOrder) checkable(now time.Time) bool {
	return o == nil || !o.Unapproved && now.Before(o.ValueExpires)
}

// digicertCall is one call.
type digicertCall struct {
	r       *http.Request
	account Account
	key     string   // the account's
	args    []string // the variable parts of the path
	quirks  Quirks
}

// digicertRoute is a call: its method, and its path with * for variable parts.
type digicertRoute struct {
	name, method, path string
	call               func(*digicert, *digicertCall) answer
}

var digicertRoutes = []digicertRoute{
	{"list", http.MethodGet, "order/certificate", (*digicert).list},
	{"alternate", http.MethodGet, "order/alternate/*", (*digicert).alternate},
	{"status-changes", http.MethodGet, "order/certificate/status-changes", (*digicert).changes},
	{"order", http.MethodPost, "order/certificate/*", (*digicert).order},
	{"info", http.MethodGet, "order/certificate/*", (*digicert).info},
	{"validation", http.MethodGet, "order/certificate/*/validation", (*digicert).validation},
	{"dcv-random-value", http.MethodPut, "order/certificate/*/dcv-random-value", (*digicert).randomValue},
	{"dcv-method", http.MethodPut, "order/certificate/*/dcv-method", (*digicert).changeMethod},
	{"check-dcv", http.MethodPut, "order/certificate/*/check-dcv", (*digicert).checkDCV},
	{"reissue", http.MethodPost, "order/certificate/*/reissue", (*digicert).reissue},
	{"revoke", http.MethodPut, "order/certificate/*/revoke", (*digicert).revoke},
	{"cancel", http.MethodPut, "order/certificate/*/status", (*digicert).cancel},
	{"download", http.MethodGet, "certificate/*/download/format/*", (*digicert).download},
	{"request", http.MethodPut, "request/*/status", (*digicert).decide},
	{"products", http.MethodGet, "product", (*digicert).products},
	{"product", http.MethodGet, "product/*", (*digicert).product},
	{"organization", http.MethodGet, "organization/*", (*digicert).organization},
	{"balance", http.MethodGet, "finance/balance", (*digicert).balance},
	{"price", http.MethodPost, "finance/order-pricing", (*digicert).price},
}

// match returns the variable parts of a path, and whether it is the route's.
func (r digicertRoute) match(method, path string) ([]string, bool) {
	want, have := strings.Split(r.path, "/"), strings.Split(path, "/")
	if method != r.method || len(want) != len(have) {
		return nil, false
	}
	var args []string
	for i := range want {
		switch {
		case want[i] == "*" && have[i] != "":
			args = append(args, have[i])
		case want[i] != have[i]:
			return nil, false
		}
	}
	return args, true
}

func (d *digicert) prefix() string { return "/services/v2/" }

// callName implements namer.
func (d *digicert) callName(method, path string) string {
	for _, route := range digicertRoutes {
		if _, ok := route.match(method, path); ok {
			return route.name
		}
	}
	return path
}

func (d *digicert) failure(code int, errs any) answer {
	text, ok := errs.(string)
	if !ok {
		text = fmt.Sprintf("code_%d", code)
	}
	return d.refuse(new(digicertCall), http.StatusBadRequest, text, "")
}

func (d *digicert) serve(path string, r *http.Request) answer {
	d.ca.mu.Lock()
	call := &digicertCall{r: r, quirks: d.ca.cfg.Quirks}
	d.ca.mu.Unlock()

	acc := d.ca.authenticate(r, r.Header.Get("X-DC-DEVKEY"))
	if acc == nil {
		// As recorded from the live service.
		return d.refuse(call, http.StatusForbidden, "access_denied|access_denied_invalid_key",
			"Access denied due to access_denied_invalid_key.")
	}
	call.account, call.key = *acc, acc.key()
	for _, route := range digicertRoutes {
		args, ok := route.match(r.Method, path)
		if !ok {
			continue
		}
		call.args = args
		if kind := r.Header.Get("Content-Type"); kind != "" && kind != "application/json" {
			return d.refuse(call, http.StatusBadRequest, "bad_request_format", "The content type is not supported.")
		}
		ans := route.call(d, call)
		if call.quirks.UnknownFields {
			ans.body = addFields(ans.body)
		}
		return ans
	}
	return d.refuse(call, http.StatusNotFound, "not_found|route", "The specified route does not exist.")
}

// refuse is an error in the documented form, or in the older one with an object.
func (d *digicert) refuse(c *digicertCall, status int, code, message string) answer {
	one := map[string]string{"code": code, "message": message}
	if c.quirks.DigiCert.ErrorsObject {
		return jsonAnswer(status, map[string]any{"errors": one})
	}
	return jsonAnswer(status, map[string]any{"errors": []any{one}})
}

// invalid refuses a field. The code is documented for values out of range; assumed
// for all other faults of fields.
func (d *digicert) invalid(c *digicertCall, field, message string) *answer {
	ans := d.refuse(c, http.StatusBadRequest, "invalid_value:"+field, message)
	return &ans
}

func (d *digicert) unknown(c *digicertCall, what string) answer {
	return d.refuse(c, http.StatusNotFound, "not_found|"+what, "The specified "+what+" could not be found.")
}

// core translates a refusal of the core. Codes about money and about states are not
// documented and therefore made up.
func (d *digicert) core(c *digicertCall, ref *refusal) answer {
	switch ref.reason {
	case noMoney:
		return d.refuse(c, http.StatusBadRequest, "insufficient_funds", "The account does not have sufficient funds.")
	case internal:
		return d.refuse(c, http.StatusInternalServerError, "internal_error", ref.text)
	default:
		return d.refuse(c, http.StatusBadRequest, "invalid_order_status", ref.text)
	}
}

// read decodes the body strictly. An absent body leaves v as it is if it may.
func (d *digicert) read(c *digicertCall, v any) *answer {
	dec := json.NewDecoder(c.r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		ans := d.refuse(c, http.StatusBadRequest, "bad_request_format", "The body cannot be read: "+err.Error())
		return &ans
	}
	return nil
}

// id is an identifier in an answer: a number, or a string under a quirk.
func (c *digicertCall) id(id string) any {
	if c.quirks.DigiCert.StringIDs {
		return id
	}
	return json.Number(id)
}

// family is a paid order with the reissues it has had.
type family struct {
	root *order
	all  []*order // the order and its reissues, oldest first
}

// family finds an order of the account by its ID, up to date. The lock is held.
func (d *digicert) family(c *digicertCall, id string) *family {
	root := d.ca.st.byID(id)
	if root == nil || root.DigiCert == nil || root.Account != c.key || root.Paid != root.ID {
		return nil
	}
	f := &family{root: root}
	for _, o := range d.ca.st.Orders {
		if o.Paid == root.ID {
			d.ca.advance(o)
			f.all = append(f.all, o)
		}
	}
	f.sweep(d.ca.cfg.Now(), d.ca.cfg.days(sanRevocationDays))
	return f
}

// sweep revokes the certificates before a reissue that dropped a name, when their
// time is over.
func (f *family) sweep(now time.Time, grace time.Duration) {
	for i, o := range f.all {
		if !o.DigiCert.DropsNames || o.Cert == nil || now.Before(o.Issued.Add(grace)) {
			continue
		}
		for _, earlier := range f.all[:i] {
			earlier.Revoked = earlier.Cert != nil
		}
	}
}

// open is the order or reissue that waits for its certificate, nil if none does.
func (f *family) open() *order {
	if last := f.all[len(f.all)-1]; last.pending() {
		return last
	}
	return nil
}

// active is what the order's primary certificate belongs to; before there is one,
// the order itself.
func (f *family) active() *order {
	for _, o := range slices.Backward(f.all) {
		if o.Cert != nil {
			return o
		}
	}
	return f.root
}

// status is the order's status in the API's words.
func (f *family) status(now time.Time) string {
	open := f.open()
	switch {
	case f.root.Status == StatusRevoked:
		return "revoked"
	case open == f.root && f.root.DigiCert.Unapproved:
		return "needs_approval"
	case open == f.root:
		return "pending"
	case f.root.Status == StatusCancelled:
		return "canceled"
	case f.root.Status == StatusFailed:
		return "rejected"
	case f.root.Status != StatusComplete:
		return strings.ToLower(f.root.Status) // see SetStatus
	case !f.root.TermEnd.IsZero() && !now.Before(f.root.TermEnd):
		return "expired"
	case open != nil:
		return "reissue_pending"
	}
	return "issued"
}
