package sandboxca

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// info is the state of an order. The CA looks for the proofs by itself, here when
// somebody asks.
func (d *digicert) info(c *digicertCall) answer {
	d.lookAt(c, false)
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	f := d.family(c, c.args[0])
	if f == nil {
		return d.unknown(c, "order")
	}
	return jsonAnswer(http.StatusOK, d.infoData(c, f))
}

// lookAt has the CA look for the proofs of what is open.
func (d *digicert) lookAt(c *digicertCall, force bool) {
	d.ca.mu.Lock()
	id := ""
	if f := d.family(c, c.args[0]); f != nil && f.open() != nil {
		id = f.open().ID
	}
	d.ca.mu.Unlock()
	if id != "" {
		d.ca.lookBriefly(id, force)
	}
}

// infoData is what Info tells. The lock is held.
func (d *digicert) infoData(c *digicertCall, f *family) map[string]any {
	active, now := f.active(), d.ca.cfg.Now()
	status := f.status(now)
	cert := map[string]any{
		"common_name": active.Names[0].Name, "dns_names": active.names(), "signature_hash": "sha256",
		"date_created":    isoTime(active.Created),
		"server_platform": map[string]any{"id": -1, "name": "OTHER"},
	}
	if !c.quirks.DigiCert.Anonymous {
		cert["csr"] = string(pemRequest(active.CSR))
	}
	if status != "needs_approval" {
		cert["id"] = c.id(active.CACert)
	}
	if active.Cert != nil {
		cert["serial_number"], cert["date_issued"] = strings.ToUpper(active.Serial), isoTime(active.Issued)
		cert["valid_from"], cert["valid_till"] = isoDate(active.NotBefore), isoDate(active.NotAfter)
		cert["days_remaining"] = int(active.NotAfter.Sub(now) / (24 * time.Hour))
		if active.Revoked {
			cert["status"] = "revoked"
		} else if active != f.root {
			cert["status"] = "issued"
		}
	}
	data := map[string]any{
		"id": c.id(f.root.ID), "status": status, "certificate": cert,
		"is_renewal": f.root.Kind == KindRenew, "date_created": isoTime(f.root.Created),
		"organization": []any{}, "product": d.productRow(f.root.Product),
		"requests": d.requestRows(c, f), "payment_method": f.root.DigiCert.Payment, "allow_duplicates": true,
	}
	if f.root.DigiCert.Organization > 0 {
		data["organization"] = map[string]any{"id": f.root.DigiCert.Organization}
	}
	if !f.root.TermEnd.IsZero() {
		data["order_valid_till"] = isoDate(f.root.TermEnd)
	}
	if !c.quirks.DigiCert.NoMethod {
		data["dcv_method"] = digicertMethod(f.all[len(f.all)-1].Names[0].Method)
	}
	if f.root.RefID != "" && c.referenced() {
		data["alternative_order_id"] = f.root.RefID
	}
	return data
}

func (d *digicert) requestRows(c *digicertCall, f *family) []any {
	rows := make([]any, 0, len(f.all))
	for _, o := range f.all {
		kind := "new_request"
		if o.Kind == KindReissue {
			kind = "reissue"
		}
		row := map[string]any{"id": c.id(o.CAOrder), "date": isoTime(o.Created), "type": kind, "status": requestStatus(o)}
		if c.referenced() {
			row["comments"] = o.DigiCert.Comments
		}
		rows = append(rows, row)
	}
	return rows
}

func (d *digicert) productRow(code string) map[string]any {
	row := map[string]any{"name_id": code}
	for _, p := range d.ca.cfg.Products {
		if p.Code == code {
			row["name"], row["validation_type"], row["type"] = p.Name, p.ValidationType, productType(p)
		}
	}
	return row
}

func productType(p Product) string {
	if p.ValidationType == DV {
		return "dv_ssl_certificate"
	}
	return "ssl_certificate"
}

// validation tells what an order waits for. Its order_id is a string.
func (d *digicert) validation(c *digicertCall) answer {
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	f := d.family(c, c.args[0])
	if f == nil {
		return d.unknown(c, "order")
	}
	last := f.all[len(f.all)-1]
	rows := make([]any, 0, len(last.Names))
	for _, n := range last.Names {
		rows = append(rows, map[string]any{
			"name_scope": n.Name, "status": nameStatus(n), "method": digicertMethod(n.Method), "dns_names": []string{n.Name},
		})
	}
	data := map[string]any{
		"order_id": f.root.ID, "order_status": f.status(d.ca.cfg.Now()), "dns_name_validations": rows,
	}
	if !c.quirks.DigiCert.NoMethod {
		data["order_dcv_method"] = digicertMethod(last.Names[0].Method)
	}
	if last.NeedsOV {
		status := "active"
		if last.Cert == nil && d.ca.cfg.Now().Before(last.organisationDone(&d.ca.cfg)) {
			status = "pending"
		}
		data["organization_validations"] = []any{map[string]any{"type": "ov", "name": "OV Organization Validation", "status": status}}
	}
	return jsonAnswer(http.StatusOK, data)
}

func nameStatus(n *orderName) string {
	if n.Verified {
		return "approved"
	}
	return "pending"
}

// alternate finds all orders of a reference.
func (d *digicert) alternate(c *digicertCall) answer {
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	rows := []any{}
	for _, f := range d.families(c) {
		if f.root.RefID == c.args[0] && !c.quirks.DigiCert.HideAlternate {
			rows = append(rows, map[string]any{
				"order_id": c.id(f.root.ID), "certificate_id": c.id(f.root.CACert), "status": f.status(d.ca.cfg.Now()),
			})
		}
	}
	if len(rows) == 0 && !c.quirks.DigiCert.AlternateEmpty {
		return d.unknown(c, "order")
	}
	return d.orders(c, rows, page(len(rows), 1000))
}

// orders is a list of orders.
func (d *digicert) orders(c *digicertCall, rows []any, page map[string]int) answer {
	if len(rows) == 0 && c.quirks.DigiCert.BareEmptyList {
		return jsonAnswer(http.StatusOK, map[string]any{})
	}
	return jsonAnswer(http.StatusOK, map[string]any{"orders": rows, "page": page})
}

// referenced is whether orders show what their clients wrote on them.
func (c *digicertCall) referenced() bool {
	return !c.quirks.DigiCert.Anonymous && !c.quirks.DigiCert.Unreferenced
}

func page(total, limit int) map[string]int {
	return map[string]int{"total": total, "limit": limit, "offset": 0}
}

// families lists the account's orders, newest first. The lock is held.
func (d *digicert) families(c *digicertCall) []*family {
	var list []*family
	for _, o := range slices.Backward(d.ca.st.Orders) {
		if f := d.family(c, o.ID); f != nil {
			list = append(list, f)
		}
	}
	return list
}

// list is the list of orders. Of its many filters it knows those that a client of
// names has a use for.
func (d *digicert) list(c *digicertCall) answer {
	query := c.r.URL.Query()
	limit := 1000
	for key, values := range query {
		switch key {
		case "filters[domain_name]", "filters[common_name]", "filters[status]", "offset":
		case "sort":
			if values[0] != "-date_created" {
				return *d.invalid(c, "sort", "The sandbox sorts by -date_created only.")
			}
		case "limit":
			n, err := strconv.Atoi(values[0])
			if err != nil || n < 1 || n > 1000 {
				return *d.invalid(c, "limit", "The limit is not valid.")
			}
			limit = n
		default:
			return *d.invalid(c, key, "The parameter is not known.")
		}
	}
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	rows := []any{}
	total := 0
	for _, f := range d.families(c) {
		o, status := f.active(), f.status(d.ca.cfg.Now())
		name, cn, word := query.Get("filters[domain_name]"), query.Get("filters[common_name]"), query.Get("filters[status]")
		if name != "" && !slices.Contains(o.names(), name) || cn != "" && o.names()[0] != cn || word != "" && status != word || c.quirks.DigiCert.HideList {
			continue
		}
		if total++; total > limit {
			continue
		}
		rows = append(rows, map[string]any{
			"id": c.id(f.root.ID), "status": status, "date_created": isoTime(f.root.Created), "organization": []any{},
			"certificate": map[string]any{"id": c.id(o.CACert), "common_name": o.names()[0], "dns_names": o.names(), "signature_hash": "sha256"},
			"product":     d.productRow(f.root.Product), "price": f.root.Cents / 100,
		})
	}
	return d.orders(c, rows, page(total, limit))
}

// download gives the certificate with this ID, also one that was reissued since.
func (d *digicert) download(c *digicertCall) answer {
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	i := slices.IndexFunc(d.ca.st.Orders, func(o *order) bool {
		return o.DigiCert != nil && o.Account == c.key && o.CACert == c.args[0]
	})
	if i < 0 {
		return d.unknown(c, "certificate")
	}
	o := d.ca.st.Orders[i]
	d.ca.advance(o)
	if o.Cert == nil {
		return d.refuse(c, http.StatusBadRequest, "certificate_not_issued", "The certificate is not issued.")
	}
	chain := d.chain(c, o)
	switch c.args[1] {
	case "pem_all":
	case "pem_noroot":
		chain = slices.DeleteFunc(chain, func(der []byte) bool { return string(der) == string(d.ca.authority.root.Raw) })
	default:
		return *d.invalid(c, "format", "The format is not known.")
	}
	return answer{
		header: http.Header{"Content-Type": {"application/x-pem-file"}},
		body:   []byte(pemText(c.quirks, chain...)),
	}
}

// chain is leaf, intermediate and root, unless the quirks say otherwise.
func (d *digicert) chain(c *digicertCall, o *order) [][]byte {
	chain := [][]byte{o.Cert}
	if !c.quirks.OmitIntermediate {
		chain = append(chain, d.ca.authority.intermediate.Raw)
	}
	chain = append(chain, d.ca.authority.root.Raw)
	if c.quirks.ReverseChain {
		slices.Reverse(chain)
	}
	return chain
}

func isoTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05+00:00") }

func isoDate(t time.Time) string { return t.UTC().Format(time.DateOnly) }
