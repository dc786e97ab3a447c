package racent

import (
	"encoding/json"
	"fmt"

	"slices"
	"strconv"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/reseller"
)

// brands are the vendor values productList knows, spelt as the service expects them.
var brands = []string{"Sectigo", "Certum", "Thawte", "sslTrus", "Digicert"}

func (d *Dialect) collect(c *call) sandboxca.Answer {
	d.ca.Look(c.get("certId"), false)
	books := d.ca.Open()
	defer books.Close()
	o := books.Find(Name, c.account, c.get("certId"))
	if o == nil {
		return d.refuse(sandboxca.Unknown())
	}
	return sandboxca.JSON(0, map[string]any{
		"code": codeOK, "status": o.Status, "certStatus": certStatus(o), "data": collectData(books, o),
	})
}

// certStatus is the status again (observed). How it shows a certificate that was revoked
// while its order stays active is not documented, so this is assumed.
func certStatus(o *sandboxca.Order) string {
	if o.Status == sandboxca.StatusComplete && o.Revoked {
		return sandboxca.StatusRevoked
	}
	return o.Status
}

// collectData is the state of an order. The books are open.
func collectData(books sandboxca.Books, o *sandboxca.Order) map[string]any {
	data := orderData(books, o)
	data["beginDate"], data["endDate"], data["dueDate"] = reseller.ChinaDate(o.NotBefore), reseller.ChinaDate(o.NotAfter), reseller.ChinaDate(o.TermEnd)
	data["certificate"], data["caCertificate"] = "", ""
	if o.Cert != nil {
		data["certificate"] = sandboxca.CertificatePEM(o.Cert)
		data["caCertificate"] = sandboxca.CertificatePEM(books.Above()...)
	}
	for _, bundle := range []string{"certPath", "rsaPrivateKey", "jks", "jksPass", "pkcs12", "pkcsPass"} {
		data[bundle] = "" // the service never has the key
	}
	for step, word := range steps(books, o) {
		data[step] = map[string]string{"status": word}
	}
	if books.Submitted(o) {
		data["dcvList"] = dcvList(o)
	}
	data["applyParams"] = o.Params
	return data
}

// orderData is what place and similar calls answer: identifiers, and the validation
// values once the CA has the order.
func orderData(books sandboxca.Books, o *sandboxca.Order) map[string]any {
	data := map[string]any{"certId": o.ID, "orderNum": o.Number}
	if !books.Submitted(o) {
		return data
	}
	data["vendorId"], data["vendorCertId"] = o.CAOrder, o.CACert
	for key, value := range dcvValues(o, o.Names[0]) {
		data[key] = value
	}
	return data
}

func dcvValues(o *sandboxca.Order, n *sandboxca.Name) map[string]string {
	scheme := "http"
	if n.Method == sandboxca.MethodHTTPS {
		scheme = "https"
	}
	return map[string]string{
		"DCVfileName":    o.Proof.FileName,
		"DCVfileContent": o.Proof.FileContent,
		"DCVfilePath":    scheme + "://" + sandboxca.HostHeader(n.Name) + sandboxca.ValidationPath + o.Proof.FileName,
		"DCVdnsHost":     o.Proof.DNSLabel,
		"DCVdnsValue":    o.Proof.DNSTarget,
		"DCVdnsType":     "CNAME",
	}
}

func dcvList(o *sandboxca.Order) []map[string]string {
	list := make([]map[string]string, 0, len(o.Names))
	for _, n := range o.Names {
		item := map[string]string{
			"domainName": n.Name, "dcvMethod": methodWord(n.Method), "dcvEmail": n.Email, "is_verify": "",
		}
		if n.Verified {
			item["is_verify"] = "verified"
		}
		list = append(list, item)
	}
	return list
}

// steps is the progress of an order: notdone, processing, done.
func steps(books sandboxca.Books, o *sandboxca.Order) map[string]string {
	steps := map[string]string{"application": "processing", "dcv": "notdone", "issued": "notdone"}
	if o.NeedsOV {
		steps["ov"] = "notdone"
	}
	if !books.Submitted(o) {
		return steps
	}
	steps["application"], steps["dcv"] = "done", "processing"
	if !o.Validated.IsZero() {
		steps["dcv"] = "done"
	}
	ovDone := books.OrganizationChecked(o)
	if o.NeedsOV {
		steps["ov"] = "processing"
		if ovDone {
			steps["ov"] = "done"
		}
	}
	switch {
	case o.Cert != nil:
		steps["issued"] = "done"
	case steps["dcv"] == "done" && ovDone:
		steps["issued"] = "processing"
	}
	return steps
}

// certIDByRefID finds the newest order with a reference.
func (d *Dialect) certIDByRefID(c *call) sandboxca.Answer {
	books := d.ca.Open()
	defer books.Close()
	o := books.ByReference(Name, c.account, c.get("refId"))
	if o == nil {
		return d.refuse(sandboxca.Refuse(sandboxca.BadInput, "refId", "refId is invalid"))
	}
	return d.success(map[string]any{"certId": o.ID})
}

func (d *Dialect) productList(c *call) sandboxca.Answer {
	vendor := c.get("vendor")
	list := []map[string]any{}
	books := d.ca.Open()
	defer books.Close()
	for _, p := range books.Products() {
		if p.Vendor != vendor {
			continue
		}
		prices := make(map[string]json.Number)
		for months, cents := range p.PriceCents {
			prices[fmt.Sprintf("price%03d", months)] = sandboxca.Money(cents)
		}
		list = append(list, map[string]any{
			"code": p.Code, "productName": p.Name, "validationType": p.ValidationType,
			"supportWildcard": yesNo(p.Wildcard), "supportStandard": yesNo(p.Standard),
			"supportIp": yesNo(p.IP), "supportSan": yesNo(p.SAN),
			"maxDomain": p.Domains(), "maxYear": p.Term(),
			"price": map[string]any{"basePrice": prices, "sanPrice": []any{}},
		})
	}
	if len(list) == 0 && !slices.Contains(brands, vendor) {
		return d.refuse(sandboxca.Refuse(sandboxca.BadInput, "vendor", "vendor invalid"))
	}
	return d.success(list)
}

// list shows all orders, the newest first; endDate is the end of the subscription here.
func (d *Dialect) list(c *call) sandboxca.Answer {
	books := d.ca.Open()
	defer books.Close()
	orders := books.Orders(Name, c.account)
	list := make([]map[string]any, 0, len(orders))
	for _, o := range orders {
		item := map[string]any{
			"certId": o.ID, "orderNum": o.Number, "commonName": o.Names[0].Name, "domains": o.NameList(),
			"status": o.Status, "productCode": o.Product, "period": strconv.Itoa(o.Years) + "year",
			"beginDate": reseller.ChinaDate(o.NotBefore), "endDate": reseller.ChinaDate(o.TermEnd),
			"amount": sandboxca.Money(o.Cents), "created": reseller.ChinaDate(o.Created),
		}
		if p, ok := books.Product(o.Product); ok {
			item["productName"], item["brand"] = p.Name, p.Vendor
		}
		list = append(list, item)
	}
	return d.success(list)
}

func yesNo(b bool) string {
	if b {
		return "Y"
	}
	return "N"
}
