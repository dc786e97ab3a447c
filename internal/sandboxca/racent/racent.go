// Package racent is a dialect of the sandbox: the reseller API of Racent
// (portal.racent.com/ssl/…, in English https://www.nicsrs.com/help-detail/10 and its
// neighbours). Where the pages leave something open, the code says what was assumed.
package racent

import (
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/reseller"
)

// Name is the dialect's name among the CA's orders.
const Name = "racent"

// Dialect implements sandboxca.Dialect.
type Dialect struct{ ca *sandboxca.CA }

// New makes the dialect on a CA.
func New(ca *sandboxca.CA) *Dialect {
	ca.KnowAs(Name, reseller.Identities...)
	return &Dialect{ca: ca}
}

// Name implements sandboxca.Dialect.
func (*Dialect) Name() string { return Name }

// Prefix implements sandboxca.Dialect.
func (*Dialect) Prefix() string { return "/ssl/" }

// Response codes of Racent.
const (
	codeOK           = 1
	codeIssuing      = 2
	codeBadParams    = -1
	codeUnexpected   = -2
	codeBadProduct   = -3
	codeNoBalance    = -4
	codeRefused      = -6 // by the CA; on validation calls: not yet
	codeWrongStatus  = -7
	codeCancelled    = -8
	codeNotPermitted = 400
)

// maxPictureBytes bounds the picture of an organization's papers.
const maxPictureBytes = 2 << 20

// endpointSpec is one call: the form fields it knows, and what it does.
type endpointSpec struct {
	required, optional []string
	files              []string
	call               func(*Dialect, *call) sandboxca.Answer
}

var endpoints = map[string]endpointSpec{
	"validate": {
		required: []string{"productCode", "years", "params"},
		optional: []string{"refId"},
		files:    []string{"verificationPic"},
		call:     (*Dialect).validate,
	},
	"place": {
		required: []string{"productCode", "years", "params"},
		optional: []string{"refId"},
		files:    []string{"verificationPic"},
		call:     (*Dialect).place,
	},
	"renew": {
		required: []string{"renewId", "years", "params"},
		optional: []string{"refId"},
		call:     (*Dialect).renew,
	},
	"reissue": {
		required: []string{"certId", "reason"},
		optional: []string{"uniqueValue", "refId"},
		call:     (*Dialect).reissue,
	},
	"replace": {
		required: []string{"certId", "params"},
		optional: []string{"refId"},
		call:     (*Dialect).replace,
	},
	"collect": {required: []string{"certId"}, call: (*Dialect).collect},
	"updateDCV": {
		required: []string{"certId", "dcvMethod"},
		optional: []string{"domainName", "dcvEmail"},
		call:     (*Dialect).updateDCV,
	},
	"batchUpdateDCV": {
		required: []string{"certId"},
		optional: []string{"dcvMethod", "dcvEmail", "domainInfo"},
		call:     (*Dialect).batchUpdateDCV,
	},
	"cancel":        {required: []string{"certId", "reason"}, call: (*Dialect).cancel},
	"revoke":        {required: []string{"certId", "reason"}, call: (*Dialect).revoke},
	"certIdByrefId": {required: []string{"refId"}, call: (*Dialect).certIDByRefID},
	"productList":   {required: []string{"vendor"}, call: (*Dialect).productList},
	"list":          {call: (*Dialect).list},
}

// call is one call with its form.
type call struct {
	r       *http.Request
	account string // the account's key
	form    url.Values
	files   map[string][]*multipart.FileHeader
}

func (c *call) get(field string) string { return c.form.Get(field) }

// CallName is the name of the call at a path, for faults and counters.
func (*Dialect) CallName(_, path string) string { return path }

// Failure is an answer in the seller's form.
func (*Dialect) Failure(code int, errs any) sandboxca.Answer {
	return sandboxca.JSON(0, map[string]any{"code": code, "errors": errs})
}

// Serve implements sandboxca.Dialect.
func (d *Dialect) Serve(endpoint string, r *http.Request) sandboxca.Answer {
	ep, ok := endpoints[endpoint] // paths are case-sensitive
	if !ok {
		return sandboxca.Text(http.StatusNotFound, "404 page not found\n")
	}
	if r.Method != http.MethodPost {
		return sandboxca.Text(http.StatusMethodNotAllowed, "only POST\n")
	}
	c := &call{r: r}
	var unreadable *sandboxca.Refusal
	if c.form, c.files, unreadable = reseller.ReadForm(r); unreadable != nil {
		return d.refuse(unreadable)
	}
	acc := d.ca.Authenticate(r, c.get("api_token"))
	if acc == nil {
		return d.Failure(codeNotPermitted, "permission denied")
	}
	c.account = acc.Key()
	if errs := c.checkForm(ep); len(errs) > 0 {
		return d.invalid(errs)
	}
	return ep.call(d, c)
}

// checkForm refuses unknown, repeated and missing fields.
func (c *call) checkForm(ep endpointSpec) reseller.FieldErrors {
	errs := make(reseller.FieldErrors)
	for field, values := range c.form {
		switch {
		case field == "api_token", slices.Contains(ep.required, field), slices.Contains(ep.optional, field):
			if len(values) > 1 {
				errs.Add(field, field+" is there more than once")
			}
		default:
			errs.Add(field, field+" is not a known field")
		}
	}
	for _, field := range ep.required {
		if strings.TrimSpace(c.get(field)) == "" {
			errs.Add(field, field+" is required")
		}
	}
	for field, files := range c.files {
		switch {
		case !slices.Contains(ep.files, field):
			errs.Add(field, field+" is not a known file")
		case len(files) > 1 || files[0].Size > maxPictureBytes:
			errs.Add(field, field+" must be one file of up to 2 MB")
		}
	}
	return errs
}

// invalid answers that the parameters are wrong.
func (d *Dialect) invalid(errs reseller.FieldErrors) sandboxca.Answer {
	return d.Failure(codeBadParams, errs)
}

// refuse answers a refusal of the core.
func (d *Dialect) refuse(ref *sandboxca.Refusal) sandboxca.Answer {
	codes := map[sandboxca.Reason]int{
		sandboxca.BadInput:         codeBadParams,
		sandboxca.BadProduct:       codeBadProduct,
		sandboxca.NoMoney:          codeNoBalance,
		sandboxca.RefusedByCA:      codeRefused,
		sandboxca.WrongStatus:      codeWrongStatus,
		sandboxca.AlreadyCancelled: codeCancelled,
		sandboxca.Busy:             codeRefused,
		sandboxca.Internal:         codeUnexpected,
	}
	field := ref.Field
	switch field {
	case sandboxca.AboutOrder:
		field = "certId"
	case sandboxca.AboutReference:
		field = "refId"
	}
	errs := reseller.FieldErrors{field: {ref.Text}}
	return d.Failure(codes[ref.Reason], errs)
}

func (d *Dialect) success(data any) sandboxca.Answer {
	env := map[string]any{"code": codeOK, "errors": nil}
	if data != nil {
		env["data"] = data
	}
	return sandboxca.JSON(0, env)
}
