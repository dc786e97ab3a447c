package sandboxca

import (
	"encoding/json"
	"encoding/pem"
	"net/http"
	"slices"
	"strconv"
)

func noContent() answer { return answer{status: http.StatusNoContent} }

func pemRequest(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// randomValue tells the value of what is open, a new one if it has expired.
func (d *digicert) randomValue(c *digicertCall) answer {
	fresh, err := randomValue()
	if err != nil {
		return d.core(c, &refusal{internal, "", "unexpected error"})
	}
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	f := d.family(c, c.args[0])
	if f == nil {
		return d.unknown(c, "order")
	}
	o := f.open()
	if o == nil || o.DigiCert.Unapproved || o.Names[0].Method == methodEmail {
		return d.refuse(c, http.StatusBadRequest, "invalid_dcv_method", "There is nothing to validate with a token.")
	}
	if now := d.ca.cfg.Now(); !now.Before(o.DigiCert.ValueExpires) {
		d.setValue(o, fresh, now)
		if ref := d.ca.saved(); ref != nil {
			return d.core(c, ref)
		}
	}
	return d.valueAnswer(o)
}

func (d *digicert) valueAnswer(o *order) answer {
	return jsonAnswer(http.StatusOK, map[string]any{
		"dcv_random_value": o.Challenge.FileContent, "expiration_date": isoTime(o.DigiCert.ValueExpires),
	})
}

// changeMethod changes the method of all names of what is open.
func (d *digicert) changeMethod(c *digicertCall) answer {
	var body struct {
		DCVMethod string `json:"dcv_method"`
	}
	if bad := d.read(c, &body); bad != nil {
		return *bad
	}
	m := digicertMethods[body.DCVMethod]
	if m == "" {
		return *d.invalid(c, "dcv_method", "The DCV method is not valid.")
	}
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	f := d.family(c, c.args[0])
	if f == nil {
		return d.unknown(c, "order")
	}
	o := f.open()
	if o == nil {
		return d.refuse(c, http.StatusBadRequest, "invalid_order_status", "The order is not pending.")
	}
	for _, n := range o.Names {
		if m == methodHTTP && n.Name[0] == '*' {
			return d.refuse(c, http.StatusBadRequest, "invalid_wildcard_dcv_method", "The DCV method cannot be used for wildcard domains.")
		}
	}
	for _, n := range o.Names {
		n.Method, n.Verified = m, false
	}
	if ref := d.ca.saved(); ref != nil {
		return d.core(c, ref)
	}
	if m == methodEmail {
		return noContent()
	}
	return d.valueAnswer(o)
}

// checkDCV looks now, and answers as documented for each method.
func (d *digicert) checkDCV(c *digicertCall) answer {
	if c.r.ContentLength > 0 {
		return d.refuse(c, http.StatusBadRequest, "bad_request_format", "The sandbox checks all names.")
	}
	d.ca.mu.Lock()
	f := d.family(c, c.args[0])
	var bad *answer
	switch {
	case f == nil:
		ans := d.unknown(c, "order")
		bad = &ans
	case f.open() == nil || f.open().DigiCert.Unapproved:
		ans := d.refuse(c, http.StatusBadRequest, "invalid_order_status", "The order is not pending.")
		bad = &ans
	case f.open().Names[0].Method == methodEmail:
		ans := d.refuse(c, http.StatusBadRequest, "invalid_dns_method", "An error occurred while processing your request.")
		bad = &ans
	}
	d.ca.mu.Unlock()
	if bad != nil {
		return *bad
	}
	d.lookAt(c, true)

	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	f = d.family(c, c.args[0])
	last := f.all[len(f.all)-1]
	missing := slices.ContainsFunc(last.Names, func(n *orderName) bool { return !n.Verified })
	switch m := last.Names[0].Method; {
	case missing && m == methodHTTP:
		return d.refuse(c, http.StatusBadRequest, "file_random_value_not_found",
			"Could not find the random value at the expected file location for one or more domains.")
	case missing && m == methodTXT && c.quirks.DigiCert.OldDNSCheck:
		return d.refuse(c, http.StatusBadRequest, "invalid_dns_txt", "Could not find a valid TXT record for one or more domains.")
	case missing && m == methodCNAME && c.quirks.DigiCert.OldDNSCheck:
		return d.refuse(c, http.StatusBadRequest, " invalid_dns_cname", "Requested domain does not have a valid cname.")
	}
	rows := make([]any, 0, len(last.Names))
	for _, n := range last.Names {
		rows = append(rows, map[string]string{"dns_name": n.Name, "status": nameStatus(n)})
	}
	dcv := "valid"
	if missing {
		dcv = "pending"
	}
	return jsonAnswer(http.StatusOK, map[string]any{
		"order_status": f.status(d.ca.cfg.Now()), "certificate_id": c.id(last.CACert),
		"dcv_status": dcv, "dns_name_validations": rows,
	})
}

// revoke revokes all certificates of an order.
func (d *digicert) revoke(c *digicertCall) answer {
	var body struct {
		Reason       string `json:"revocation_reason"`
		Comments     string `json:"comments"`
		SkipApproval bool   `json:"skip_approval"`
	}
	if bad := d.read(c, &body); bad != nil {
		return *bad
	}
	switch body.Reason {
	case "", "unspecified", "keyCompromise", "affiliationChanged", "superseded", "cessationOfOperation":
	default:
		return *d.invalid(c, "revocation_reason", "The revocation reason is not valid.")
	}
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	f := d.family(c, c.args[0])
	if f == nil {
		return d.unknown(c, "order")
	}
	switch status := f.status(d.ca.cfg.Now()); {
	case status == "revoked":
		return d.refuse(c, http.StatusBadRequest, "order_already_revoked", "The order is revoked.")
	case status != "issued":
		return d.refuse(c, http.StatusBadRequest, "invalid_order_status", "The order is "+status+".")
	case !body.SkipApproval || c.quirks.DigiCert.RevokeNeedsApproval:
		return jsonAnswer(http.StatusCreated, map[string]any{
			"id": c.id(f.root.CAOrder), "type": "revoke", "status": "pending", "comments": body.Comments,
		})
	}
	for _, o := range f.all {
		o.Status, o.Revoked = StatusRevoked, o.Cert != nil
	}
	if ref := d.ca.saved(); ref != nil {
		return d.core(c, ref)
	}
	return noContent()
}

// cancel takes back what is open. The money of an order stays with the seller until
// somebody asks for it.
func (d *digicert) cancel(c *digicertCall) answer {
	var body struct {
		Status string `json:"status"`
		Note   string `json:"note"`
	}
	if bad := d.read(c, &body); bad != nil {
		return *bad
	}
	if body.Status != "canceled" {
		return *d.invalid(c, "status", "The status is not valid.")
	}
	if body.Note == "" {
		return *d.invalid(c, "note", "The note is required.")
	}
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	f := d.family(c, c.args[0])
	if f == nil {
		return d.unknown(c, "order")
	}
	o := f.open()
	if o == nil {
		return d.refuse(c, http.StatusBadRequest, "invalid_order_status", "The order is not pending.")
	}
	o.Status = StatusCancelled
	if ref := d.ca.saved(); ref != nil {
		return d.core(c, ref)
	}
	return noContent()
}

// decide approves or rejects a request.
func (d *digicert) decide(c *digicertCall) answer {
	var body struct {
		Status  string `json:"status"`
		Comment string `json:"processor_comment"`
	}
	if bad := d.read(c, &body); bad != nil {
		return *bad
	}
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	i := slices.IndexFunc(d.ca.st.Orders, func(o *order) bool {
		return o.DigiCert != nil && o.Account == c.key && o.CAOrder == c.args[0] && o.DigiCert.Unapproved
	})
	if i < 0 {
		return d.unknown(c, "request")
	}
	o := d.ca.st.Orders[i]
	switch body.Status {
	case "approved":
	case "rejected":
		o.Status = StatusFailed
	default:
		return *d.invalid(c, "status", "The status is not valid.")
	}
	o.DigiCert.Unapproved = false
	if ref := d.ca.saved(); ref != nil {
		return d.core(c, ref)
	}
	return noContent()
}

func (d *digicert) products(c *digicertCall) answer {
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	rows := []any{}
	for _, p := range d.ca.cfg.Products {
		if p.Vendor == digicertBrand {
			rows = append(rows, d.productRow(p.Code))
		}
	}
	return jsonAnswer(http.StatusOK, map[string]any{"products": rows})
}

func (d *digicert) product(c *digicertCall) answer {
	p, ok := d.ca.product(c.args[0])
	if !ok || p.Vendor != digicertBrand {
		return d.unknown(c, "product")
	}
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	return jsonAnswer(http.StatusOK, d.productRow(p.Code))
}

func (d *digicert) organization(c *digicertCall) answer {
	id, err := strconv.ParseInt(c.args[0], 10, 64)
	if err != nil || !slices.Contains(c.account.Organizations, id) {
		return d.unknown(c, "organization")
	}
	return jsonAnswer(http.StatusOK, map[string]any{"id": id, "name": "Analytical Engines", "status": "active", "is_active": true})
}

func (d *digicert) balance(c *digicertCall) answer {
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	funds := money(d.ca.st.Balances[c.key])
	return jsonAnswer(http.StatusOK, map[string]string{
		"balance": funds.String(), "currency": "USD", "unpaid_invoice_balance": "0.00", "negative_balance_limit": "0.00",
		"used_credit_from_other_containers": "0.00", "total_available_funds": funds.String(),
	})
}

// price is an estimate: money in whole units, 0 where there is none.
func (d *digicert) price(c *digicertCall) answer {
	var body struct {
		Certificate struct {
			DNSNames []string `json:"dns_names"`
		} `json:"certificate"`
		Validity struct {
			Years int `json:"years"`
			Days  int `json:"days"`
		} `json:"order_validity"`
		Product string `json:"product_name_id"`
	}
	if bad := d.read(c, &body); bad != nil {
		return *bad
	}
	p, ok := d.ca.product(body.Product)
	if !ok || p.Vendor != digicertBrand {
		return d.unknown(c, "product")
	}
	total := json.Number("0")
	if cents, sold := p.PriceCents[12*body.Validity.Years]; sold {
		total = money(cents)
	}
	return jsonAnswer(http.StatusOK, map[string]any{
		"base_price": total, "total_price": total, "addons_price": 0, "currency": "USD", "tax": "0.00", "tax_error": false,
	})
}
