package racent

import (
	"crypto/x509"

	"strconv"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/reseller"
)

// bonusDays is what a customer who comes from another seller gets on top of the term.
const bonusDays = 30

// newOrder checks the common part of validate, place and renew.
func (d *Dialect) newOrder(c *call, code string) (*sandboxca.Order, *sandboxca.Answer) {
	fail := func(a sandboxca.Answer) (*sandboxca.Order, *sandboxca.Answer) { return nil, &a }
	p, ok := d.ca.Product(code)
	if !ok {
		return fail(d.refuse(sandboxca.Refuse(sandboxca.BadProduct, "productCode", "the product does not exist")))
	}
	errs := make(reseller.FieldErrors)
	years, err := strconv.Atoi(c.get("years"))
	if err != nil || years < 1 || years > p.Term() {
		errs.Add("years", "years must be a number from 1 to "+strconv.Itoa(p.Term()))
	}
	params := orderParams(c.get("params"), p, errs)
	if len(errs) > 0 {
		return fail(d.invalid(errs))
	}
	cents, sold := p.PriceCents[12*years]
	if !sold {
		return fail(d.refuse(sandboxca.Refuse(sandboxca.BadProduct, "years", "the product has no price for this term")))
	}
	o := &sandboxca.Order{
		Account: c.account,
		RefID:   c.get("refId"),
		Product: p.Code,
		Years:   years,
		Cents:   cents,
		NeedsOV: p.ValidationType != sandboxca.DV,
		Unique:  params.unique,
		Params:  params.raw,
		Dialect: Name,
	}
	o.Names = params.names
	if params.bonus {
		books := d.ca.Open()
		o.Bonus = books.Days(bonusDays)
		books.Close()
	}
	takeCSR(o, params.csr, p)
	return o, nil
}

// takeCSR sets what follows from the CSR and the names.
func takeCSR(o *sandboxca.Order, csr *x509.CertificateRequest, p sandboxca.Product) {
	o.CSR = csr.Raw
	o.Proof = reseller.CSRHash(csr.Raw, o.Unique, "")
	o.AddTwin(p)
}

// validate is free. It checks what place checks of the request, and the
// balance, but neither the reference nor whether the CA has seen the CSR.
func (d *Dialect) validate(c *call) sandboxca.Answer {
	o, fail := d.newOrder(c, c.get("productCode"))
	if fail != nil {
		return *fail
	}
	books := d.ca.Open()
	balance := books.Balance(c.account)
	books.Close()
	if balance < o.Cents {
		return d.refuse(sandboxca.Refuse(sandboxca.NoMoney, "balance", "insufficient balance"))
	}
	return d.success(nil)
}

func (d *Dialect) place(c *call) sandboxca.Answer {
	o, fail := d.newOrder(c, c.get("productCode"))
	if fail != nil {
		return *fail
	}
	o.Kind = sandboxca.KindPlace
	return d.create(c, o)
}

// renew is a new, paid order for the product of the old one. The old order
// stays as it is.
func (d *Dialect) renew(c *call) sandboxca.Answer {
	old, ref := d.order(c, "renewId")
	if ref != nil {
		return d.refuse(ref)
	}
	o, fail := d.newOrder(c, old.Product)
	if fail != nil {
		return *fail
	}
	o.Kind, o.Parent = sandboxca.KindRenew, old.ID
	return d.create(c, o)
}

// reissue makes a new certificate from the stored CSR. It is an order of its own with its
// own certId.
func (d *Dialect) reissue(c *call) sandboxca.Answer {
	old, ref := d.order(c, "certId")
	if ref != nil {
		return d.refuse(ref)
	}
	unique := c.get("uniqueValue")
	if unique != "" && !uniqueValue.MatchString(unique) {
		return d.refuse(sandboxca.Refuse(sandboxca.BadInput, "uniqueValue", "uniqueValue must be 1 to 20 letters and digits"))
	}
	o := old.Successor(sandboxca.KindReissue, c.get("refId"), unique)
	o.CSR, o.Params = old.CSR, old.Params
	for _, n := range old.Names {
		o.Names = append(o.Names, &sandboxca.Name{Name: n.Name, Method: n.Method, Email: n.Email})
	}
	if old.Twin != nil {
		o.Twin = &sandboxca.Name{Name: old.Twin.Name, Method: old.Twin.Method}
	}
	o.Proof = reseller.CSRHash(o.CSR, unique, "")
	return d.create(c, o)
}

// replace makes a new certificate from a new CSR. Its common name must be that
// of the old CSR (https://www.racent.com/help/details/72).
func (d *Dialect) replace(c *call) sandboxca.Answer {
	old, ref := d.order(c, "certId")
	if ref != nil {
		return d.refuse(ref)
	}
	p, ok := d.ca.Product(old.Product)
	if !ok {
		return d.refuse(sandboxca.Refuse(sandboxca.BadProduct, "certId", "the product is no longer there"))
	}
	errs := make(reseller.FieldErrors)
	params := replaceParams(c.get("params"), p, errs)
	if params.csr != nil {
		was, err := x509.ParseCertificateRequest(old.CSR)
		if err != nil || !strings.EqualFold(was.Subject.CommonName, params.csr.Subject.CommonName) {
			errs.Add("csr", "the common name of the csr differs from that of the original")
		}
	}
	if len(errs) > 0 {
		return d.invalid(errs)
	}
	o := old.Successor(sandboxca.KindReplace, c.get("refId"), params.unique)
	o.Params, o.Names = params.raw, params.names
	takeCSR(o, params.csr, p)
	return d.create(c, o)
}

// rules are how Racent takes an order. What happens to a reference that was used before
// is not documented.
var rules = sandboxca.Rules{NewID: newID, Repeat: sandboxca.RepeatIsFirst, FreshCSR: true, Supersedes: true}

// newID is a certId: the date and ten letters.
func newID(_ int64, now time.Time) string {
	return now.In(reseller.ChinaTime).Format("060102") + sandboxca.RandomText("abcdefghijklmnopqrstuvwxyz", 10)
}

// create hands an order to the core and starts the first check of its names. If the check
// fails, the order does not.
func (d *Dialect) create(c *call, o *sandboxca.Order) sandboxca.Answer {
	id, ref := d.ca.Create(o, rules)
	if ref != nil && ref.Field == sandboxca.AboutOrder && o.Kind == sandboxca.KindRenew {
		ref.Field = "renewId" // of the call
	}
	if ref != nil {
		return d.refuse(ref)
	}
	d.ca.Look(id, false)
	books := d.ca.Open()
	defer books.Close()
	return d.success(orderData(books, books.Find(Name, c.account, id)))
}

// order finds the order that a field names. The copy is safe to read: what it
// shares with the original never changes.
func (d *Dialect) order(c *call, field string) (*sandboxca.Order, *sandboxca.Refusal) {
	books := d.ca.Open()
	defer books.Close()
	o := books.Find(Name, c.account, c.get(field))
	if o == nil {
		return nil, sandboxca.Refuse(sandboxca.BadInput, field, field+" is invalid")
	}
	return o.Clone(), nil
}

func (d *Dialect) cancel(c *call) sandboxca.Answer {
	if ref := d.ca.Cancel(Name, c.account, c.get("certId")); ref != nil {
		return d.refuse(ref)
	}
	return d.success(nil)
}

func (d *Dialect) revoke(c *call) sandboxca.Answer {
	if ref := d.ca.Revoke(Name, c.account, c.get("certId")); ref != nil {
		return d.refuse(ref)
	}
	return d.success(nil)
}
