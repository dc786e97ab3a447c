package sandboxca

import (
	"encoding/json"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// racent is the reseller API of Racent (portal.racent.com/ssl/…, in English
// https://www.nicsrs.com/help-detail/10 and its neighbours). Where the pages
// leave something open, the code says what was assumed.
type racent struct{ ca *CA }

// Response codes of Racent.
const (
	racentOK           = 1
	racentIssuing      = 2
	racentBadParams    = -1
	racentUnexpected   = -2
	racentBadProduct   = -3
	racentNoBalance    = -4
	racentRefused      = -6 // by the CA; on validation calls: not yet
	racentWrongStatus  = -7
	racentCancelled    = -8
	racentNotPermitted = 400
	maxPictureBytes    = 2 << 20
	racentDateLayout   = "2006-01-02 15:04:05"
)

// chinaTime is the zone of all dates, which carry none.
var chinaTime = time.FixedZone("UTC+8", 8*60*60)

// racentEndpoint is one call: the form fields it knows, and what it does.
type racentEndpoint struct {
	required, optional []string
	files              []string
	call               func(*racent, *racentCall) answer
}

var racentEndpoints = map[string]racentEndpoint{
	"validate": {
		required: []string{"productCode", "years", "params"},
		optional: []string{"refId"},
		files:    []string{"verificationPic"},
		call:     (*racent).validate,
	},
	"place": {
		required: []string{"productCode", "years", "params"},
		optional: []string{"refId"},
		files:    []string{"verificationPic"},
		call:     (*racent).place,
	},
	"renew": {
		required: []string{"renewId", "years", "params"},
		optional: []string{"refId"},
		call:     (*racent).renew,
	},
	"reissue": {
		required: []string{"certId", "reason"},
		optional: []string{"uniqueValue", "refId"},
		call:     (*racent).reissue,
	},
	"replace": {
		required: []string{"certId", "params"},
		optional: []string{"refId"},
		call:     (*racent).replace,
	},
	"collect": {required: []string{"certId"}, call: (*racent).collect},
	"updateDCV": {
		required: []string{"certId", "dcvMethod"},
		optional: []string{"domainName", "dcvEmail"},
		call:     (*racent).updateDCV,
	},
	"batchUpdateDCV": {
		required: []string{"certId"},
		optional: []string{"dcvMethod", "dcvEmail", "domainInfo"},
		call:     (*racent).batchUpdateDCV,
	},
	"cancel":        {required: []string{"certId", "reason"}, call: (*racent).cancel},
	"revoke":        {required: []string{"certId", "reason"}, call: (*racent).revoke},
	"certIdByrefId": {required: []string{"refId"}, call: (*racent).certIDByRefID},
	"productList":   {required: []string{"vendor"}, call: (*racent).productList},
	"list":          {call: (*racent).list},
}

// racentCall is one call with its form.
type racentCall struct {
	r       *http.Request
	account string // the account's key
	form    url.Values
	files   map[string][]*multipart.FileHeader
	quirks  Quirks
}

func (c *racentCall) get(field string) string { return c.form.Get(field) }

func (d *racent) prefix() string { return "/ssl/" }

func (d *racent) quirks() Quirks {
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	return d.ca.cfg.Quirks
}

func (d *racent) failure(code int, errs any) answer {
	return jsonAnswer(0, map[string]any{"code": code, "errors": errs})
}

func (d *racent) serve(endpoint string, r *http.Request) answer {
	ep, ok := racentEndpoints[endpoint] // paths are case-sensitive
	if !ok {
		return textAnswer(http.StatusNotFound, "404 page not found\n")
	}
	if r.Method != http.MethodPost {
		return textAnswer(http.StatusMethodNotAllowed, "only POST\n")
	}
	call := &racentCall{r: r, quirks: d.quirks()}
	var unreadable *refusal
	if call.form, call.files, unreadable = readForm(r); unreadable != nil {
		return d.refuse(call, unreadable)
	}
	acc := d.ca.authenticate(r, call.get("api_token"))
	if acc == nil {
		return d.failure(racentNotPermitted, "permission denied")
	}
	call.account = acc.key()
	if errs := call.checkForm(ep); len(errs) > 0 {
		return d.invalid(call, errs)
	}
	ans := ep.call(d, call)
	if call.quirks.UnknownFields {
		ans.body = addFields(ans.body)
	}
	return ans
}

// checkForm refuses unknown, repeated and missing fields.
func (c *racentCall) checkForm(ep racentEndpoint) fieldErrors {
	errs := make(fieldErrors)
	for field, values := range c.form {
		switch {
		case field == "api_token", slices.Contains(ep.required, field), slices.Contains(ep.optional, field):
			if len(values) > 1 {
				errs.add(field, field+" is there more than once")
			}
		default:
			errs.add(field, field+" is not a known field")
		}
	}
	for _, field := range ep.required {
		if strings.TrimSpace(c.get(field)) == "" {
			errs.add(field, field+" is required")
		}
	}
	for field, files := range c.files {
		switch {
		case !slices.Contains(ep.files, field):
			errs.add(field, field+" is not a known file")
		case len(files) > 1 || files[0].Size > maxPictureBytes:
			errs.add(field, field+" must be one file of up to 2 MB")
		}
	}
	return errs
}

// fieldErrors are messages by field.
type fieldErrors map[string][]string

func (e fieldErrors) add(field, text string) { e[field] = append(e[field], text) }

// shaped gives the errors one of the forms in which Racent was seen to send
// them.
func (e fieldErrors) shaped(shape string) any {
	fields := make([]string, 0, len(e))
	for field := range e {
		fields = append(fields, field)
	}
	slices.Sort(fields)
	var all []string
	for _, field := range fields {
		all = append(all, e[field]...)
	}
	switch shape {
	case "string":
		return strings.Join(all, "; ")
	case "array":
		return all
	case "null":
		return nil
	case "object-string":
		m := make(map[string]string)
		for field, texts := range e {
			m[field] = texts[0]
		}
		return m
	}
	return e
}

// invalid answers that the parameters are wrong.
func (d *racent) invalid(c *racentCall, errs fieldErrors) answer {
	return d.failure(racentBadParams, errs.shaped(c.quirks.ErrorsShape))
}

// refuse answers a refusal of the core.
func (d *racent) refuse(c *racentCall, ref *refusal) answer {
	codes := map[reason]int{
		badInput:         racentBadParams,
		badProduct:       racentBadProduct,
		noMoney:          racentNoBalance,
		refusedByCA:      racentRefused,
		wrongStatus:      racentWrongStatus,
		alreadyCancelled: racentCancelled,
		busy:             racentRefused,
		internal:         racentUnexpected,
	}
	errs := fieldErrors{ref.field: {ref.text}}
	return d.failure(codes[ref.reason], errs.shaped(c.quirks.ErrorsShape))
}

func (d *racent) success(data any) answer {
	env := map[string]any{"code": racentOK, "errors": nil}
	if data != nil {
		env["data"] = data
	}
	return jsonAnswer(0, env)
}

// id is an identifier in an answer.
func (c *racentCall) id(id string) any {
	if c.quirks.NumericIDs && !strings.ContainsFunc(id, func(r rune) bool { return r < '0' || r > '9' }) {
		return json.Number(id)
	}
	return id
}
