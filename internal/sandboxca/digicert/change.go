package digicert

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
)

func noContent() sandboxca.Answer { return sandboxca.Answer{Status: http.StatusNoContent} }

// randomValue returns the random value of the open order or reissue, a new one if it has
// expired.
func (d *Dialect) randomValue(c *call) sandboxca.Answer {
	books := d.ca.Open()
	defer books.Close()
	f := d.family(books, c, c.args[0])
	if f == nil {
		return d.unknown(c, "order")
	}
	o := f.open()
	if o == nil || o.Held || o.Names[0].Method == sandboxca.MethodEmail {
		return d.refuse(c, http.StatusBadRequest, "invalid_dcv_method", "There is nothing to validate with a token.")
	}
	if !books.Now().Before(o.ProofEnds) {
		setValue(books, o)
		if ref := books.Save(o); ref != nil {
			return d.core(c, ref)
		}
	}
	return d.valueAnswer(o)
}

func (d *Dialect) valueAnswer(o *sandboxca.Order) sandboxca.Answer {
	return sandboxca.JSON(http.StatusOK, map[string]any{
		"dcv_random_value": o.Proof.FileContent, "expiration_date": isoTime(o.ProofEnds),
	})
}

// changeMethod changes the method of all names of the open order or reissue.
func (d *Dialect) changeMethod(c *call) sandboxca.Answer {
	var body struct {
		DCVMethod string `json:"dcv_method"`
	}
	if bad := d.read(c, &body); bad != nil {
		return *bad
	}
	m := methods[body.DCVMethod]
	if m == "" {
		return *d.invalid(c, "dcv_method", "The DCV method is not valid.")
	}
	books := d.ca.Open()
	defer books.Close()
	f := d.family(books, c, c.args[0])
	if f == nil {
		return d.unknown(c, "order")
	}
	o := f.open()
	if o == nil {
		return d.refuse(c, http.StatusBadRequest, "invalid_order_status", "The order is not pending.")
	}
	for _, n := range o.Names {
		if m == sandboxca.MethodHTTP && n.Name[0] == '*' {
			return d.refuse(c, http.StatusBadRequest, "invalid_wildcard_dcv_method", "The DCV method cannot be used for wildcard domains.")
		}
	}
	for _, n := range o.Names {
		n.Method, n.Verified = m, false
	}
	if ref := books.Save(o); ref != nil {
		return d.core(c, ref)
	}
	if m == sandboxca.MethodEmail {
		return noContent()
	}
	return d.valueAnswer(o)
}

// checkDCV checks now, and answers as documented for each method.
func (d *Dialect) checkDCV(c *call) sandboxca.Answer {
	if c.r.ContentLength > 0 {
		return d.refuse(c, http.StatusBadRequest, "bad_request_format", "The sandbox checks all names.")
	}
	books := d.ca.Open()
	f := d.family(books, c, c.args[0])
	var bad *sandboxca.Answer
	switch {
	case f == nil:
		ans := d.unknown(c, "order")
		bad = &ans
	case f.open() == nil || f.open().Held:
		ans := d.refuse(c, http.StatusBadRequest, "invalid_order_status", "The order is not pending.")
		bad = &ans
	case f.open().Names[0].Method == sandboxca.MethodEmail:
		ans := d.refuse(c, http.StatusBadRequest, "invalid_dns_method", "An error occurred while processing your request.")
		bad = &ans
	}
	books.Close()
	if bad != nil {
		return *bad
	}
	d.lookAt(c, true)

	books = d.ca.Open()
	defer books.Close()
	f = d.family(books, c, c.args[0])
	last := f.all[len(f.all)-1]
	missing := slices.ContainsFunc(last.Names, func(n *sandboxca.Name) bool { return !n.Verified })
	switch m := last.Names[0].Method; {
	case missing && m == sandboxca.MethodHTTP:
		return d.refuse(c, http.StatusBadRequest, "file_random_value_not_found",
			"Could not find the random value at the expected file location for one or more domains.")
	case missing && m == sandboxca.MethodTXT && c.quirks.OldDNSCheck:
		return d.refuse(c, http.StatusBadRequest, "invalid_dns_txt", "Could not find a valid TXT record for one or more domains.")
	case missing && m == sandboxca.MethodCNAME && c.quirks.OldDNSCheck:
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
	return sandboxca.JSON(http.StatusOK, map[string]any{
		"order_status": f.status(books.Now()), "certificate_id": c.id(last.CACert),
		"dcv_status": dcv, "dns_name_validations": rows,
	})
}

// revoke revokes all certificates of an order.
func (d *Dialect) revoke(c *call) sandboxca.Answer {
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
	books := d.ca.Open()
	defer books.Close()
	f := d.family(books, c, c.args[0])
	if f == nil {
		return d.unknown(c, "order")
	}
	switch status := f.status(books.Now()); {
	case status == "revoked":
		return d.refuse(c, http.StatusBadRequest, "order_already_revoked", "The order is revoked.")
	case status != "issued":
		return d.refuse(c, http.StatusBadRequest, "invalid_order_status", "The order is "+status+".")
	case !body.SkipApproval || c.quirks.RevokeNeedsApproval:
		return sandboxca.JSON(http.StatusCreated, map[string]any{
			"id": c.id(f.root.CAOrder), "type": "revoke", "status": "pending", "comments": body.Comments,
		})
	}
	for _, o := range f.all {
		o.Status = sandboxca.StatusRevoked
		o.Revoke(books.Now())
	}
	if ref := books.Save(f.all...); ref != nil {
		return d.core(c, ref)
	}
	return noContent()
}

// cancel cancels the open order or reissue. The seller keeps the money until somebody
// asks for it.
func (d *Dialect) cancel(c *call) sandboxca.Answer {
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
	books := d.ca.Open()
	defer books.Close()
	f := d.family(books, c, c.args[0])
	if f == nil {
		return d.unknown(c, "order")
	}
	o := f.open()
	if o == nil {
		return d.refuse(c, http.StatusBadRequest, "invalid_order_status", "The order is not pending.")
	}
	o.Status = sandboxca.StatusCancelled
	if ref := books.Save(o); ref != nil {
		return d.core(c, ref)
	}
	return noContent()
}

// decide approves or rejects a request.
func (d *Dialect) decide(c *call) sandboxca.Answer {
	var body struct {
		Status  string `json:"status"`
		Comment string `json:"processor_comment"`
	}
	if bad := d.read(c, &body); bad != nil {
		return *bad
	}
	books := d.ca.Open()
	defer books.Close()
	var o *sandboxca.Order
	for _, have := range books.Orders(Name, c.key) {
		if have.CAOrder == c.args[0] && have.Held {
			o = have
		}
	}
	if o == nil {
		return d.unknown(c, "request")
	}
	switch body.Status {
	case "approved":
	case "rejected":
		o.Status = sandboxca.StatusFailed
	default:
		return *d.invalid(c, "status", "The status is not valid.")
	}
	o.Held = false
	if ref := books.Save(o); ref != nil {
		return d.core(c, ref)
	}
	return noContent()
}

func (d *Dialect) products(c *call) sandboxca.Answer {
	books := d.ca.Open()
	defer books.Close()
	rows := []any{}
	for _, p := range books.Products() {
		if p.Vendor == brand {
			rows = append(rows, productRow(books, p.Code))
		}
	}
	return sandboxca.JSON(http.StatusOK, map[string]any{"products": rows})
}

func (d *Dialect) product(c *call) sandboxca.Answer {
	p, ok := d.ca.Product(c.args[0])
	if !ok || p.Vendor != brand {
		return d.unknown(c, "product")
	}
	books := d.ca.Open()
	defer books.Close()
	return sandboxca.JSON(http.StatusOK, productRow(books, p.Code))
}

func (d *Dialect) organization(c *call) sandboxca.Answer {
	id, err := strconv.ParseInt(c.args[0], 10, 64)
	if err != nil || !slices.Contains(c.account.Organizations, id) {
		return d.unknown(c, "organization")
	}
	return sandboxca.JSON(http.StatusOK, map[string]any{"id": id, "name": "Analytical Engines", "status": "active", "is_active": true})
}

func (d *Dialect) balance(c *call) sandboxca.Answer {
	books := d.ca.Open()
	defer books.Close()
	funds := sandboxca.Money(books.Balance(c.key))
	return sandboxca.JSON(http.StatusOK, map[string]string{
		"balance": funds.String(), "currency": "USD", "unpaid_invoice_balance": "0.00", "negative_balance_limit": "0.00",
		"used_credit_from_other_containers": "0.00", "total_available_funds": funds.String(),
	})
}

// price estimates the price of an order, in dollars; 0 if there is none.
func (d *Dialect) price(c *call) sandboxca.Answer {
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
	p, ok := d.ca.Product(body.Product)
	if !ok || p.Vendor != brand {
		return d.unknown(c, "product")
	}
	total := json.Number("0")
	if cents, sold := p.PriceCents[12*body.Validity.Years]; sold {
		total = sandboxca.Money(cents)
	}
	return sandboxca.JSON(http.StatusOK, map[string]any{
		"base_price": total, "total_price": total, "addons_price": 0, "currency": "USD", "tax": "0.00", "tax_error": false,
	})
}
