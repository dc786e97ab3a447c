package sandboxca

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// howssl is the partner API of HowSSL (api.howssl.com/Home/…), documented in two
// books, https://www.kancloud.cn/howssl/api_certificate (Chinese, fuller) and
// https://www.kancloud.cn/howssl/ssl-api (English). Where they leave something open,
// HowSSLQuirks has the choice. Left out are the calls for validation mails, zip files
// and yearly records.
type howssl struct {
	ca *CA

	// committing makes commits one after the other: each reads a draft, makes an
	// order of it and marks the draft.
	committing sync.Mutex
}

const howsslBadToken = 501

// howsslEndpoint is one call: the form fields it knows besides the token, and what it
// does.
type howsslEndpoint struct {
	required, optional []string
	call               func(*howssl, *howsslCall) answer
}

var howsslEndpoints = map[string]howsslEndpoint{
	"User/AccountInfo": {call: (*howssl).accountInfo},

	"Product_info/lists": {optional: []string{"page", "size", "product_name"}, call: (*howssl).products},
	"ProductInfo/lists":  {optional: []string{"page", "size", "product_name"}, call: (*howssl).products},

	"Order/createOrder": {
		required: []string{"product_code", "validity_period", "auto_info"},
		optional: append([]string{"csr", "email_suffix"}, slices.Concat(howsslContact, howsslCompany)...),
		call:     (*howssl).createOrder,
	},
	"Order/fromCheck_idToOrder_id": {required: []string{"check_id"}, call: (*howssl).fromCheckID},
	"Order/commitOrder":            {required: []string{"check_id"}, call: (*howssl).commitOrder},
	"Order/getValidity_info":       {required: []string{"order_id"}, call: (*howssl).validityInfo},
	"Order/getOrderInfo":           {required: []string{"order_id"}, call: (*howssl).orderInfo},
	"Order/getCertificate":         {required: []string{"order_id"}, call: (*howssl).certificate},
	"Order/refreshOrder":           {required: []string{"order_id"}, call: (*howssl).refreshOrder},
	"Order/cancelOrder":            {required: []string{"order_id"}, call: (*howssl).cancelOrder},
	"Order/getDomainEmail":         {required: []string{"domainName"}, call: (*howssl).domainEmail},
	"Order/batchUpdateDCV": {
		required: []string{"order_id", "check_way"}, optional: []string{"email_suffix"},
		call: (*howssl).batchUpdateDCV,
	},
	"Order/updateDCV": {
		required: []string{"order_id", "check_way", "domain"}, optional: []string{"email_suffix"},
		call: (*howssl).updateDCV,
	},
	"Reissue/submit": {
		required: []string{"order_id", "reissue_type", "csr_type"},
		optional: []string{"add_domain", "csr_content", "check_type", "validity_email"},
		call:     (*howssl).reissueSubmit,
	},
	"Reissue/info":         {required: []string{"reissue_id"}, call: (*howssl).reissueInfo},
	"Reissue/orderReissue": {required: []string{"order_id"}, call: (*howssl).reissueList},
}

// Fields of createOrder that auto_info 0 requires: of the person, and for products
// that are not DV of the company. Spelt as documented.
var (
	howsslContact = strings.Fields("contacter_job contacter_phone contacter_email last_name first_name")
	howsslCompany = strings.Fields("company_province company_city company_phone company_name company_address")
)

// howsslCall is one call with its form.
type howsslCall struct {
	account string // the account's key
	form    url.Values
	quirks  Quirks
}

func (c *howsslCall) get(field string) string { return strings.TrimSpace(c.form.Get(field)) }

func (d *howssl) prefix() string { return "/Home/" }

func (d *howssl) serve(endpoint string, r *http.Request) answer {
	d.ca.mu.Lock()
	quirks := d.ca.cfg.Quirks
	d.ca.mu.Unlock()
	ep, ok := howsslEndpoints[endpoint] // paths are case-sensitive
	if hidden := map[bool]string{true: "Product_info/lists", false: "ProductInfo/lists"}[quirks.HowSSL.EnglishProducts]; !ok || endpoint == hidden {
		return textAnswer(http.StatusNotFound, "404 page not found\n")
	}
	if r.Method != http.MethodPost {
		return d.refuse(&howsslCall{quirks: quirks}, "请求方式错误: only POST")
	}
	c := &howsslCall{quirks: quirks}
	form, files, unreadable := readForm(r)
	if unreadable != nil {
		return d.refuse(c, unreadable.text)
	}
	c.form = form
	acc := d.ca.authenticate(r, c.form.Get("token"))
	if acc == nil {
		// Printed so in the documents, with a text for a boolean.
		return jsonAnswer(0, map[string]any{
			"status": "false", "code": howsslBadToken,
			"msg": "The operation needs the correct Token. Please verify your Token",
		})
	}
	c.account = acc.key()
	if endpoint == "Order/createOrder" {
		fields := quirks.HowSSL.Fields.withDefaults()
		ep.required = append(slices.Clone(ep.required), fields.Domain, fields.CheckWay)
		ep.optional = append(slices.Clone(ep.optional), fields.Others...)
	}
	if problem := c.checkForm(ep, len(files)); problem != "" {
		return d.refuse(c, problem)
	}
	d.settleQueue(c)
	ans := ep.call(d, c)
	if quirks.UnknownFields {
		ans.body = addFields(ans.body)
	}
	return ans
}

// checkForm names what is wrong with the fields.
func (c *howsslCall) checkForm(ep howsslEndpoint, files int) string {
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

// failure is a refusal with a code, for faults.
func (d *howssl) failure(code int, errs any) answer {
	return jsonAnswer(0, map[string]any{"status": false, "code": code, "msg": errs})
}

// refuse answers a refusal. That failures other than about the token have no code is
// assumed.
func (d *howssl) refuse(c *howsslCall, text string) answer {
	env := map[string]any{"status": false, "msg": "操作失败: " + text}
	if code := c.quirks.HowSSL.RefusalCode; code != 0 {
		env["code"] = code
	}
	return jsonAnswer(0, env)
}

// success answers with data and a code, as most examples have it.
func (d *howssl) success(data any) answer {
	env := map[string]any{"status": true, "msg": "操作成功", "code": 200}
	if data != nil {
		env["data"] = data
	}
	return jsonAnswer(0, env)
}

// bare answers without a code, as the examples of some calls do.
func (d *howssl) bare(data any) answer {
	return jsonAnswer(0, map[string]any{"status": true, "msg": "操作成功", "data": data})
}
