package sandboxca

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// racentBrands are the vendor values productList knows, spelt as the service
// wants them.
var racentBrands = []string{"Sectigo", "Certum", "Thawte", "sslTrus", "Digicert"}

func (d *racent) collect(c *racentCall) answer {
	d.ca.lookBriefly(c.get("certId"), false)
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	o := d.ca.find(c.account, c.get("certId"))
	if o == nil {
		return d.refuse(c, unknownOrder())
	}
	code, status := racentOK, o.Status
	if o.pending() {
		if c.quirks.Code2WithoutData {
			return d.failure(racentIssuing, nil)
		}
		if c.quirks.Code2WhilePending {
			code = racentIssuing
		}
		if c.quirks.UnknownStatus != "" {
			status = c.quirks.UnknownStatus
		}
	}
	return jsonAnswer(0, map[string]any{
		"code": code, "status": status, "certStatus": status, "data": d.collectData(c, o),
	})
}

// collectData is the state of an order. The lock is held.
func (d *racent) collectData(c *racentCall, o *order) map[string]any {
	data := d.orderData(c, o)
	data["beginDate"], data["endDate"], data["dueDate"] = date(o.NotBefore), date(o.NotAfter), date(o.TermEnd)
	data["certificate"], data["caCertificate"] = "", ""
	if o.Cert != nil {
		data["certificate"] = pemText(c.quirks, o.Cert)
		data["caCertificate"] = d.ca.chainAbove(c.quirks)
	}
	for _, bundle := range []string{"certPath", "rsaPrivateKey", "jks", "jksPass", "pkcs12", "pkcsPass"} {
		data[bundle] = "" // the service never has the key
	}
	for step, word := range d.steps(o) {
		data[step] = map[string]string{"status": word}
	}
	if d.submitted(o) {
		data["dcvList"] = dcvList(c, o)
	}
	data["applyParams"] = o.Params
	if c.quirks.ApplyParamsText {
		data["applyParams"] = string(o.Params)
	}
	return data
}

// orderData is what place and its like answer: identifiers, and the validation
// values once the CA has the order. The lock is held.
func (d *racent) orderData(c *racentCall, o *order) map[string]any {
	data := map[string]any{"certId": c.id(o.ID), "orderNum": o.Number}
	if !d.submitted(o) {
		return data
	}
	data["vendorId"], data["vendorCertId"] = c.id(o.CAOrder), c.id(o.CACert)
	if c.quirks.NoDCVValues {
		return data
	}
	for key, value := range dcvValues(o, o.Names[0]) {
		data[key] = value
	}
	if c.quirks.DCVInfo {
		info := make(map[string]any)
		for _, n := range o.Names {
			info[n.Name] = dcvValues(o, n)
		}
		data["dcvInfo"] = info
	}
	return data
}

func dcvValues(o *order, n *orderName) map[string]string {
	scheme := "http"
	if n.Method == methodHTTPS {
		scheme = "https"
	}
	return map[string]string{
		"DCVfileName":    o.Challenge.FileName,
		"DCVfileContent": o.Challenge.FileContent,
		"DCVfilePath":    scheme + "://" + hostHeader(n.Name) + validationPath + o.Challenge.FileName,
		"DCVdnsHost":     o.Challenge.DNSLabel,
		"DCVdnsValue":    o.Challenge.DNSTarget,
		"DCVdnsType":     "CNAME",
	}
}

func dcvList(c *racentCall, o *order) []map[string]string {
	names := o.Names
	if c.quirks.TwinInDCVList && o.Twin != nil {
		names = append(slices.Clone(names), o.Twin)
	}
	list := make([]map[string]string, 0, len(names))
	for _, n := range names {
		item := map[string]string{
			"domainName": n.Name, "dcvMethod": racentMethod(n.Method), "dcvEmail": n.Email, "is_verify": "",
		}
		if n.Verified {
			item["is_verify"] = "verified"
		}
		list = append(list, item)
	}
	return list
}

func (d *racent) submitted(o *order) bool {
	return o.Cert != nil || o.submitted(&d.ca.cfg, d.ca.cfg.Now())
}

// steps is the progress of an order: notdone, processing, done.
func (d *racent) steps(o *order) map[string]string {
	cfg, now := &d.ca.cfg, d.ca.cfg.Now()
	steps := map[string]string{"application": "processing", "dcv": "notdone", "issued": "notdone"}
	if o.NeedsOV {
		steps["ov"] = "notdone"
	}
	if !d.submitted(o) {
		return steps
	}
	steps["application"], steps["dcv"] = "done", "processing"
	if !o.Validated.IsZero() {
		steps["dcv"] = "done"
	}
	ovDone := o.Cert != nil || !now.Before(o.organisationDone(cfg))
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

// chainAbove is the PEM text of the certificates above a leaf.
func (c *CA) chainAbove(q Quirks) string {
	auth := c.authority
	switch {
	case q.OmitIntermediate:
		return ""
	case q.ReverseChain:
		return pemText(q, auth.root.Raw, auth.intermediate.Raw)
	case q.IncludeRoot:
		return pemText(q, auth.intermediate.Raw, auth.root.Raw)
	}
	return pemText(q, auth.intermediate.Raw)
}

func pemText(q Quirks, ders ...[]byte) string {
	var buf bytes.Buffer
	for _, der := range ders {
		_ = pem.Encode(&buf, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // a buffer does not fail
	}
	if q.CRLF {
		return strings.ReplaceAll(buf.String(), "\n", "\r\n")
	}
	return buf.String()
}

func date(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.In(chinaTime).Format(racentDateLayout)
}

// certIDByRefID finds the newest order with a reference.
func (d *racent) certIDByRefID(c *racentCall) answer {
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	o := d.ca.st.byRef(c.account, c.get("refId"))
	if o == nil || c.quirks.HideRefs {
		if c.quirks.EmptyUnknownRef {
			return d.success([]any{})
		}
		return d.refuse(c, &refusal{badInput, "refId", "refId is invalid"})
	}
	return d.success(map[string]any{"certId": c.id(o.ID)})
}

func (d *racent) productList(c *racentCall) answer {
	vendor := c.get("vendor")
	list := []map[string]any{}
	d.ca.mu.Lock()
	products := d.ca.cfg.Products
	d.ca.mu.Unlock()
	for _, p := range products {
		if p.Vendor != vendor {
			continue
		}
		prices := make(map[string]json.Number)
		for months, cents := range p.PriceCents {
			prices[fmt.Sprintf("price%03d", months)] = money(cents)
		}
		list = append(list, map[string]any{
			"code": p.Code, "productName": p.Name, "validationType": p.ValidationType,
			"supportWildcard": yesNo(p.Wildcard), "supportStandard": yesNo(p.Standard),
			"supportIp": yesNo(p.IP), "supportSan": yesNo(p.SAN),
			"maxDomain": p.maxDomains(), "maxYear": p.maxYears(),
			"price": map[string]any{"basePrice": prices, "sanPrice": []any{}},
		})
	}
	if len(list) == 0 && !slices.Contains(racentBrands, vendor) {
		return d.refuse(c, &refusal{badInput, "vendor", "vendor invalid"})
	}
	return d.success(list)
}

// list shows all orders, the newest first; endDate is the end of the subscription here.
func (d *racent) list(c *racentCall) answer {
	if c.quirks.NoList {
		return textAnswer(http.StatusNotFound, "404 page not found\n")
	}
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	d.ca.advanceAll()
	list := []map[string]any{}
	for _, o := range slices.Backward(d.ca.st.Orders) {
		if o.Account != c.account {
			continue
		}
		item := map[string]any{
			"certId": c.id(o.ID), "orderNum": o.Number, "commonName": o.Names[0].Name, "domains": o.names(),
			"status": o.Status, "productCode": o.Product, "period": strconv.Itoa(o.Years) + "year",
			"beginDate": date(o.NotBefore), "endDate": date(o.TermEnd),
			"amount": money(o.Cents), "created": date(o.Created),
		}
		for _, p := range d.ca.cfg.Products {
			if p.Code == o.Product {
				item["productName"], item["brand"] = p.Name, p.Vendor
			}
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

func money(cents int64) json.Number {
	return json.Number(fmt.Sprintf("%d.%02d", cents/100, cents%100))
}
