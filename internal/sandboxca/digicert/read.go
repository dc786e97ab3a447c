package digicert

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
)

// info returns the state of an order. DigiCert checks the proofs by itself; the sandbox
// does so when somebody asks.
func (d *Dialect) info(c *call) sandboxca.Answer {
	d.lookAt(c, false)
	books := d.ca.Open()
	defer books.Close()
	f := d.family(books, c, c.args[0])
	if f == nil {
		return d.unknown(c, "order")
	}
	return sandboxca.JSON(http.StatusOK, infoData(books, c, f))
}

// lookAt makes the CA check the proofs of the open order or reissue.
func (d *Dialect) lookAt(c *call, force bool) {
	books := d.ca.Open()
	id := ""
	if f := d.family(books, c, c.args[0]); f != nil && f.open() != nil {
		id = f.open().ID
	}
	books.Close()
	if id != "" {
		d.ca.Look(id, force)
	}
}

// infoData is the body of info's answer.
func infoData(books sandboxca.Books, c *call, f *family) map[string]any {
	active, now, kept := f.active(), books.Now(), extraOf(f.root)
	status := f.status(now)
	cert := map[string]any{
		"common_name": active.Names[0].Name, "dns_names": active.NameList(), "signature_hash": "sha256",
		"date_created":    isoTime(active.Created),
		"server_platform": map[string]any{"id": -1, "name": "OTHER"},
	}
	if !c.quirks.Anonymous {
		cert["csr"] = sandboxca.RequestPEM(active.CSR)
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
		"is_renewal": f.root.Kind == sandboxca.KindRenew, "date_created": isoTime(f.root.Created),
		"organization": []any{}, "product": productRow(books, f.root.Product),
		"requests": requestRows(c, f), "payment_method": kept.Payment, "allow_duplicates": true,
	}
	if kept.Organization > 0 {
		data["organization"] = map[string]any{"id": kept.Organization}
	}
	if !f.root.TermEnd.IsZero() {
		data["order_valid_till"] = isoDate(f.root.TermEnd)
	}
	if !c.quirks.NoMethod {
		data["dcv_method"] = methodWord(f.all[len(f.all)-1].Names[0].Method)
	}
	if f.root.RefID != "" && c.referenced() {
		data["alternative_order_id"] = f.root.RefID
	}
	return data
}

func requestRows(c *call, f *family) []any {
	rows := make([]any, 0, len(f.all))
	for _, o := range f.all {
		kind := "new_request"
		if o.Kind == sandboxca.KindReissue {
			kind = "reissue"
		}
		row := map[string]any{"id": c.id(o.CAOrder), "date": isoTime(o.Created), "type": kind, "status": requestStatus(o)}
		if c.referenced() {
			row["comments"] = extraOf(o).Comments
		}
		rows = append(rows, row)
	}
	return rows
}

func productRow(books sandboxca.Books, code string) map[string]any {
	row := map[string]any{"name_id": code}
	if p, ok := books.Product(code); ok {
		row["name"], row["validation_type"], row["type"] = p.Name, p.ValidationType, productType(p)
	}
	return row
}

func productType(p sandboxca.Product) string {
	if p.ValidationType == sandboxca.DV {
		return "dv_ssl_certificate"
	}
	return "ssl_certificate"
}

// validation returns what an order waits for. Here, order_id is a string.
func (d *Dialect) validation(c *call) sandboxca.Answer {
	books := d.ca.Open()
	defer books.Close()
	f := d.family(books, c, c.args[0])
	if f == nil {
		return d.unknown(c, "order")
	}
	last := f.all[len(f.all)-1]
	rows := make([]any, 0, len(last.Names))
	for _, n := range last.Names {
		rows = append(rows, map[string]any{
			"name_scope": n.Name, "status": nameStatus(n), "method": methodWord(n.Method), "dns_names": []string{n.Name},
		})
	}
	data := map[string]any{
		"order_id": f.root.ID, "order_status": f.status(books.Now()), "dns_name_validations": rows,
	}
	if !c.quirks.NoMethod {
		data["order_dcv_method"] = methodWord(last.Names[0].Method)
	}
	if last.NeedsOV {
		status := "active"
		if !books.OrganizationChecked(last) {
			status = "pending"
		}
		data["organization_validations"] = []any{map[string]any{"type": "ov", "name": "OV Organization Validation", "status": status}}
	}
	return sandboxca.JSON(http.StatusOK, data)
}

func nameStatus(n *sandboxca.Name) string {
	if n.Verified {
		return "approved"
	}
	return "pending"
}

// alternate finds all orders with a reference.
func (d *Dialect) alternate(c *call) sandboxca.Answer {
	books := d.ca.Open()
	defer books.Close()
	rows := []any{}
	for _, f := range d.families(books, c) {
		if f.root.RefID == c.args[0] && !c.quirks.HideAlternate {
			rows = append(rows, map[string]any{
				"order_id": c.id(f.root.ID), "certificate_id": c.id(f.root.CACert), "status": f.status(books.Now()),
			})
		}
	}
	if len(rows) == 0 && !c.quirks.AlternateEmpty {
		return d.unknown(c, "order")
	}
	return d.orders(c, rows, page(len(rows), 1000, 0))
}

// orders is a list of orders.
func (d *Dialect) orders(c *call, rows []any, page map[string]int) sandboxca.Answer {
	if len(rows) == 0 && c.quirks.BareEmptyList {
		return sandboxca.JSON(http.StatusOK, map[string]any{})
	}
	return sandboxca.JSON(http.StatusOK, map[string]any{"orders": rows, "page": page})
}

// referenced reports whether orders show the references and comments of their clients.
func (c *call) referenced() bool {
	return !c.quirks.Anonymous && !c.quirks.Unreferenced
}

func page(total, limit, offset int) map[string]int {
	return map[string]int{"total": total, "limit": limit, "offset": offset}
}

// families lists the account's orders, newest first.
func (d *Dialect) families(books sandboxca.Books, c *call) []*family {
	var list []*family
	for _, o := range books.Orders(Name, c.key) {
		if f := d.family(books, c, o.ID); f != nil {
			list = append(list, f)
		}
	}
	return list
}

// list lists the orders. Of the many filters, it knows those that a client needs to find
// orders by name.
func (d *Dialect) list(c *call) sandboxca.Answer {
	query := c.r.URL.Query()
	limit, offset := 1000, 0
	for key, values := range query {
		switch key {
		case "filters[domain_name]", "filters[common_name]", "filters[status]":
		case "offset":
			n, err := strconv.Atoi(values[0])
			if err != nil || n < 0 {
				return *d.invalid(c, "offset", "The offset is not valid.")
			}
			offset = n
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
	books := d.ca.Open()
	defer books.Close()
	rows := []any{}
	total := 0
	for _, f := range d.families(books, c) {
		o, status := f.active(), f.status(books.Now())
		name, cn, word := query.Get("filters[domain_name]"), query.Get("filters[common_name]"), query.Get("filters[status]")
		if name != "" && !slices.Contains(o.NameList(), name) || cn != "" && o.NameList()[0] != cn || word != "" && status != word || c.quirks.HideList {
			continue
		}
		if total++; total <= offset || total > offset+limit {
			continue
		}
		rows = append(rows, map[string]any{
			"id": c.id(f.root.ID), "status": status, "date_created": isoTime(f.root.Created), "organization": []any{},
			"certificate": map[string]any{"id": c.id(o.CACert), "common_name": o.NameList()[0], "dns_names": o.NameList(), "signature_hash": "sha256"},
			"product":     productRow(books, f.root.Product), "price": f.root.Cents / 100,
		})
	}
	return d.orders(c, rows, page(total, limit, offset))
}

// download returns the certificate with this ID and its chain, even if it was reissued
// since.
func (d *Dialect) download(c *call) sandboxca.Answer {
	books := d.ca.Open()
	defer books.Close()
	o := books.ByCertificate(Name, c.key, c.args[0])
	if o == nil {
		return d.unknown(c, "certificate")
	}
	if o.Cert == nil {
		return d.refuse(c, http.StatusBadRequest, "certificate_not_issued", "The certificate is not issued.")
	}
	chain := books.FullChain(o)
	switch c.args[1] {
	case "pem_all":
	case "pem_noroot":
		chain = slices.DeleteFunc(chain, func(der []byte) bool { return string(der) == string(books.Root()) })
	default:
		return *d.invalid(c, "format", "The format is not known.")
	}
	return sandboxca.Answer{
		Header: http.Header{"Content-Type": {"application/x-pem-file"}},
		Body:   []byte(sandboxca.CertificatePEM(chain...)),
	}
}

func isoTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05+00:00") }

func isoDate(t time.Time) string { return t.UTC().Format(time.DateOnly) }
