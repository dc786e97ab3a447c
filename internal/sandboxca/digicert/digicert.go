// Package digicert is a dialect of the sandbox: the Services API v2 of DigiCert
// CertCentral (https://www.digicert.com/services/v2/…, documented on
// dev.digicert.com). Where the pages leave something open, the code says what was
// assumed, and Quirks has the other choice.
//
// A reissue is an order of the core like any other, but the API shows it as a
// certificate of the order that paid for it.
package digicert

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
)

// Name is the dialect's name among the CA's orders.
const Name = "digicert"

// Dialect implements sandboxca.Dialect.
type Dialect struct {
	ca     *sandboxca.CA
	quirks atomic.Pointer[Quirks]
}

// New makes the dialect on a CA, without quirks.
func New(ca *sandboxca.CA) *Dialect {
	d := &Dialect{ca: ca}
	d.quirks.Store(new(Quirks))
	ca.KnowAs(Name, "digicert.com", "www.digicert.com", "symantec.com", "thawte.com", "geotrust.com", "rapidssl.com")
	return d
}

// SetQuirks changes the deviations from the documented behaviour.
func (d *Dialect) SetQuirks(q Quirks) { d.quirks.Store(&q) }

// Name implements sandboxca.Dialect.
func (*Dialect) Name() string { return Name }

// Prefix implements sandboxca.Dialect.
func (*Dialect) Prefix() string { return "/services/v2/" }

const (
	fileName  = "fileauth.txt"
	dnsLabel  = "_dnsauth"
	dnsSuffix = ".dcv.digicert.com"
	brand     = "DigiCert"
	firstID   = 4_300_000_000 // real IDs have ten digits; these need 33 bits

	// randomValueDays is how long a random value is valid; sanRevocationDays is how long
	// earlier certificates remain valid after a reissue that dropped a name.
	randomValueDays   = 30
	sanRevocationDays = 3
)

// extra is what this dialect knows of an order beyond the core.
type extra struct {
	Comments     string `json:"comments,omitempty"`
	Organization int64  `json:"organization,omitempty"`
	Payment      string `json:"payment,omitempty"`
	DropsNames   bool   `json:"drops_names,omitempty"`
}

// extraOf reads what was kept on an order.
func extraOf(o *sandboxca.Order) extra {
	var e extra
	_ = json.Unmarshal(o.Extra, &e) // written by keep
	return e
}

// keep stores it on an order.
func (e extra) keep(o *sandboxca.Order) {
	o.Extra, _ = json.Marshal(e) // of texts and numbers, which cannot fail
}

// call is one call.
type call struct {
	r       *http.Request
	account sandboxca.Account
	key     string   // the account's
	args    []string // the variable parts of the path
	quirks  Quirks
}

// route is a call: its method, and its path with * for variable parts.
type route struct {
	name, method, path string
	call               func(*Dialect, *call) sandboxca.Answer
}

var routes = []route{
	{"list", http.MethodGet, "order/certificate", (*Dialect).list},
	{"alternate", http.MethodGet, "order/alternate/*", (*Dialect).alternate},
	{"status-changes", http.MethodGet, "order/certificate/status-changes", (*Dialect).changes},
	{"order", http.MethodPost, "order/certificate/*", (*Dialect).order},
	{"info", http.MethodGet, "order/certificate/*", (*Dialect).info},
	{"validation", http.MethodGet, "order/certificate/*/validation", (*Dialect).validation},
	{"dcv-random-value", http.MethodPut, "order/certificate/*/dcv-random-value", (*Dialect).randomValue},
	{"dcv-method", http.MethodPut, "order/certificate/*/dcv-method", (*Dialect).changeMethod},
	{"check-dcv", http.MethodPut, "order/certificate/*/check-dcv", (*Dialect).checkDCV},
	{"reissue", http.MethodPost, "order/certificate/*/reissue", (*Dialect).reissue},
	{"revoke", http.MethodPut, "order/certificate/*/revoke", (*Dialect).revoke},
	{"cancel", http.MethodPut, "order/certificate/*/status", (*Dialect).cancel},
	{"download", http.MethodGet, "certificate/*/download/format/*", (*Dialect).download},
	{"request", http.MethodPut, "request/*/status", (*Dialect).decide},
	{"products", http.MethodGet, "product", (*Dialect).products},
	{"product", http.MethodGet, "product/*", (*Dialect).product},
	{"organization", http.MethodGet, "organization/*", (*Dialect).organization},
	{"balance", http.MethodGet, "finance/balance", (*Dialect).balance},
	{"price", http.MethodPost, "finance/order-pricing", (*Dialect).price},
}

// match returns the variable parts of a path, and whether it is the route's.
func (r route) match(method, path string) ([]string, bool) {
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

// CallName is the name of the call at a path, for faults and counters.
func (*Dialect) CallName(method, path string) string {
	for _, route := range routes {
		if _, ok := route.match(method, path); ok {
			return route.name
		}
	}
	return path
}

// Failure is an answer in the seller's form, for faults.
func (d *Dialect) Failure(code int, errs any) sandboxca.Answer {
	text, ok := errs.(string)
	if !ok {
		text = fmt.Sprintf("code_%d", code)
	}
	return d.refuse(new(call), http.StatusBadRequest, text, "")
}

// Serve implements sandboxca.Dialect.
func (d *Dialect) Serve(path string, r *http.Request) sandboxca.Answer {
	call := &call{r: r, quirks: *d.quirks.Load()}
	acc := d.ca.Authenticate(r, r.Header.Get("X-DC-DEVKEY"))
	if acc == nil {
		// As recorded from the live service.
		return d.refuse(call, http.StatusForbidden, "access_denied|access_denied_invalid_key",
			"Access denied due to access_denied_invalid_key.")
	}
	call.account, call.key = *acc, acc.Key()
	for _, route := range routes {
		args, ok := route.match(r.Method, path)
		if !ok {
			continue
		}
		call.args = args
		if kind := r.Header.Get("Content-Type"); kind != "" && kind != "application/json" {
			return d.refuse(call, http.StatusBadRequest, "bad_request_format", "The content type is not supported.")
		}
		return route.call(d, call)
	}
	return d.refuse(call, http.StatusNotFound, "not_found|route", "The specified route does not exist.")
}

// refuse is an error in the documented form, or in the older one with an object.
func (d *Dialect) refuse(c *call, status int, code, message string) sandboxca.Answer {
	one := map[string]string{"code": code, "message": message}
	if c.quirks.ErrorsObject {
		return sandboxca.JSON(status, map[string]any{"errors": one})
	}
	return sandboxca.JSON(status, map[string]any{"errors": []any{one}})
}

// invalid refuses a field. The code is documented for values out of range, and assumed
// for everything else that is wrong with a field.
func (d *Dialect) invalid(c *call, field, message string) *sandboxca.Answer {
	ans := d.refuse(c, http.StatusBadRequest, "invalid_value:"+field, message)
	return &ans
}

func (d *Dialect) unknown(c *call, what string) sandboxca.Answer {
	return d.refuse(c, http.StatusNotFound, "not_found|"+what, "The specified "+what+" could not be found.")
}

// core translates a refusal of the core. Codes about money and about states are not
// documented and therefore made up.
func (d *Dialect) core(c *call, ref *sandboxca.Refusal) sandboxca.Answer {
	switch ref.Reason {
	case sandboxca.NoMoney:
		return d.refuse(c, http.StatusBadRequest, "insufficient_funds", "The account does not have sufficient funds.")
	case sandboxca.RefusedByCA:
		return d.refuse(c, http.StatusBadRequest, "invalid_value:"+ref.Field, ref.Text)
	case sandboxca.Internal:
		return d.refuse(c, http.StatusInternalServerError, "internal_error", ref.Text)
	default:
		return d.refuse(c, http.StatusBadRequest, "invalid_order_status", ref.Text)
	}
}

// read decodes the body strictly. An absent body is refused, too.
func (d *Dialect) read(c *call, v any) *sandboxca.Answer {
	dec := json.NewDecoder(c.r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		ans := d.refuse(c, http.StatusBadRequest, "bad_request_format", "The body cannot be read: "+err.Error())
		return &ans
	}
	return nil
}

// id is an identifier in an answer: a number, or a string under a quirk.
func (c *call) id(id string) any {
	if c.quirks.StringIDs {
		return id
	}
	return json.Number(id)
}

// family is a paid order with its reissues.
type family struct {
	root *sandboxca.Order
	all  []*sandboxca.Order // the order and its reissues, oldest first
}

// family finds an order of the account by its ID, up to date.
func (d *Dialect) family(books sandboxca.Books, c *call, id string) *family {
	root := books.Find(Name, c.key, id)
	if root == nil || root.Paid != root.ID {
		return nil
	}
	f := &family{root: root, all: books.Term(root.ID)}
	f.sweep(books)
	return f
}

// sweep revokes the certificates issued before a reissue that dropped a name, when their
// time is up.
func (f *family) sweep(books sandboxca.Books) {
	for i, o := range f.all {
		if i == 0 || o.Cert == nil || !extraOf(o).DropsNames || books.Now().Before(o.Issued.Add(books.Days(sanRevocationDays))) {
			continue
		}
		for _, earlier := range f.all[:i] {
			if earlier.Cert != nil && !earlier.Revoked {
				earlier.Revoke(books.Now())
				_ = books.Save(earlier) // again at the next call if it fails
			}
		}
	}
}

// open is the order or reissue that waits for its certificate, nil if none does.
func (f *family) open() *sandboxca.Order {
	if last := f.all[len(f.all)-1]; last.Pending() {
		return last
	}
	return nil
}

// active is what the order's primary certificate belongs to; before there is one,
// the order itself.
func (f *family) active() *sandboxca.Order {
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
	case f.root.Status == sandboxca.StatusRevoked:
		return "revoked"
	case open == f.root && f.root.Held:
		return "needs_approval"
	case open == f.root:
		return "pending"
	case f.root.Status == sandboxca.StatusCancelled:
		return "canceled"
	case f.root.Status == sandboxca.StatusFailed:
		return "rejected"
	case f.root.Status != sandboxca.StatusComplete:
		return strings.ToLower(f.root.Status) // see SetStatus
	case !f.root.TermEnd.IsZero() && !now.Before(f.root.TermEnd):
		return "expired"
	case open != nil:
		return "reissue_pending"
	}
	return "issued"
}
