// Package howssl is a dialect of the sandbox: the partner API of HowSSL
// (api.howssl.com/Home/…), documented in two books,
// https://www.kancloud.cn/howssl/api_certificate (Chinese, fuller) and
// https://www.kancloud.cn/howssl/ssl-api (English). Where they leave something open,
// Quirks has the choice. The calls for validation emails, zip files and yearly records
// are left out.
package howssl

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/reseller"
)

// Name is the dialect's name among the CA's orders and records.
const Name = "howssl"

// Dialect implements sandboxca.Dialect.
type Dialect struct {
	ca     *sandboxca.CA
	quirks atomic.Pointer[Quirks]

	// committing serializes commits: each reads a draft, makes an order of it and marks
	// the draft.
	committing sync.Mutex

	// The drafts, by check_id and by order_id. The CA's books are open whenever they are
	// accessed.
	byCheck, byOrder map[string]*draft
	queued           map[string]*draft // those with a queued commit, by check_id
}

// New makes the dialect on a CA, without quirks. It fails if the CA has records that it
// cannot read.
func New(ca *sandboxca.CA) (*Dialect, error) {
	d := &Dialect{ca: ca, byCheck: make(map[string]*draft), byOrder: make(map[string]*draft), queued: make(map[string]*draft)}
	d.quirks.Store(new(Quirks))
	ca.KnowAs(Name, reseller.Identities...)
	books := ca.Open()
	defer books.Close()
	for _, record := range books.Records(Name) {
		kept := new(draft)
		if err := json.Unmarshal(record.Data, kept); err != nil {
			return nil, fmt.Errorf("reading draft %s: %w", record.Key, err)
		}
		d.add(kept)
	}
	return d, nil
}

// SetQuirks changes the choices and the deviations.
func (d *Dialect) SetQuirks(q Quirks) { d.quirks.Store(&q) }

// Name implements sandboxca.Dialect.
func (*Dialect) Name() string { return Name }

// Prefix implements sandboxca.Dialect.
func (*Dialect) Prefix() string { return "/Home/" }

// CallName is the name of the call at a path, for faults and counters.
func (*Dialect) CallName(_, path string) string { return path }

const badToken = 501

// endpointSpec is one call: the form fields it knows besides the token, and what it
// does.
type endpointSpec struct {
	required, optional []string
	call               func(*Dialect, *call) sandboxca.Answer
}

var endpoints = map[string]endpointSpec{
	"User/AccountInfo": {call: (*Dialect).accountInfo},

	"Product_info/lists": {optional: []string{"page", "size", "product_name"}, call: (*Dialect).products},
	"ProductInfo/lists":  {optional: []string{"page", "size", "product_name"}, call: (*Dialect).products},

	"Order/createOrder": {
		required: []string{"product_code", "validity_period", "auto_info"},
		optional: append([]string{"csr", "email_suffix"}, slices.Concat(contactFields, companyFields)...),
		call:     (*Dialect).createOrder,
	},
	"Order/fromCheck_idToOrder_id": {required: []string{"check_id"}, call: (*Dialect).fromCheckID},
	"Order/commitOrder":            {required: []string{"check_id"}, call: (*Dialect).commitOrder},
	"Order/getValidity_info":       {required: []string{"order_id"}, call: (*Dialect).validityInfo},
	"Order/getOrderInfo":           {required: []string{"order_id"}, call: (*Dialect).orderInfo},
	"Order/getCertificate":         {required: []string{"order_id"}, call: (*Dialect).certificate},
	"Order/refreshOrder":           {required: []string{"order_id"}, call: (*Dialect).refreshOrder},
	"Order/cancelOrder":            {required: []string{"order_id"}, call: (*Dialect).cancelOrder},
	"Order/getDomainEmail":         {required: []string{"domainName"}, call: (*Dialect).domainEmail},
	"Order/batchUpdateDCV": {
		required: []string{"order_id", "check_way"}, optional: []string{"email_suffix"},
		call: (*Dialect).batchUpdateDCV,
	},
	"Order/updateDCV": {
		required: []string{"order_id", "check_way", "domain"}, optional: []string{"email_suffix"},
		call: (*Dialect).updateDCV,
	},
	"Reissue/submit": {
		required: []string{"order_id", "reissue_type", "csr_type"},
		optional: []string{"add_domain", "csr_content", "check_type", "validity_email"},
		call:     (*Dialect).reissueSubmit,
	},
	"Reissue/info":         {required: []string{"reissue_id"}, call: (*Dialect).reissueInfo},
	"Reissue/orderReissue": {required: []string{"order_id"}, call: (*Dialect).reissueList},
}

// Fields of createOrder that auto_info 0 requires: those of the person and, for products
// that are not DV, those of the company. Spelt as documented.
var (
	contactFields = strings.Fields("contacter_job contacter_phone contacter_email last_name first_name")
	companyFields = strings.Fields("company_province company_city company_phone company_name company_address")
)

// call is one call with its form.
type call struct {
	account string // the account's key
	form    url.Values
	quirks  Quirks
}

func (c *call) get(field string) string { return strings.TrimSpace(c.form.Get(field)) }

// Serve implements sandboxca.Dialect.
func (d *Dialect) Serve(endpoint string, r *http.Request) sandboxca.Answer {
	quirks := *d.quirks.Load()
	ep, ok := endpoints[endpoint] // paths are case-sensitive
	if hidden := map[bool]string{true: "Product_info/lists", false: "ProductInfo/lists"}[quirks.EnglishProducts]; !ok || endpoint == hidden {
		return sandboxca.Text(http.StatusNotFound, "404 page not found\n")
	}
	if r.Method != http.MethodPost {
		return d.refuse(&call{quirks: quirks}, "请求方式错误: only POST")
	}
	c := &call{quirks: quirks}
	form, files, unreadable := reseller.ReadForm(r)
	if unreadable != nil {
		return d.refuse(c, unreadable.Text)
	}
	c.form = form
	acc := d.ca.Authenticate(r, c.form.Get("token"))
	if acc == nil {
		// Printed like this in the documents, with a string for a boolean.
		return sandboxca.JSON(0, map[string]any{
			"status": "false", "code": badToken,
			"msg": "The operation needs the correct Token. Please verify your Token",
		})
	}
	c.account = acc.Key()
	if endpoint == "Order/createOrder" {
		fields := quirks.Fields.withDefaults()
		ep.required = append(slices.Clone(ep.required), fields.Domain, fields.CheckWay)
		ep.optional = append(slices.Clone(ep.optional), fields.Others...)
	}
	if problem := c.checkForm(ep, len(files)); problem != "" {
		return d.refuse(c, problem)
	}
	d.settleQueue(c)
	return ep.call(d, c)
}

// checkForm names what is wrong with the fields.
func (c *call) checkForm(ep endpointSpec, files int) string {
	var problems []string
	for field, values := range c.form {
		switch {
		case field != "token" && !slices.Contains(ep.required, field) && !slices.Contains(ep.optional, field):
			problems = append(problems, field+" is not a known field")
		case len(values) > 1:
			problems = append(problems, field+" is there more than once")
		}
	}
	for _, field := range ep.required {
		if c.get(field) == "" {
			problems = append(problems, field+" is required")
		}
	}
	if files > 0 {
		problems = append(problems, "files are not accepted")
	}
	slices.Sort(problems)
	return strings.Join(problems, "; ")
}

// Failure is a refusal with a code, for faults.
func (*Dialect) Failure(code int, errs any) sandboxca.Answer {
	return sandboxca.JSON(0, map[string]any{"status": false, "code": code, "msg": errs})
}

// refuse answers with a refusal. It is assumed that no failures have a code except those
// about the token.
func (d *Dialect) refuse(c *call, text string) sandboxca.Answer {
	env := map[string]any{"status": false, "msg": "操作失败: " + text}
	if code := c.quirks.RefusalCode; code != 0 {
		env["code"] = code
	}
	return sandboxca.JSON(0, env)
}

// success answers with data and a code, as in most examples.
func (d *Dialect) success(data any) sandboxca.Answer {
	env := map[string]any{"status": true, "msg": "操作成功", "code": 200}
	if data != nil {
		env["data"] = data
	}
	return sandboxca.JSON(0, env)
}

// bare answers without a code, as in the examples of some calls.
func (d *Dialect) bare(data any) sandboxca.Answer {
	return sandboxca.JSON(0, map[string]any{"status": true, "msg": "操作成功", "data": data})
}
