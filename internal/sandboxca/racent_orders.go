package sandboxca

import (
	"crypto/x509"
	"strconv"
	"strings"
)

// newOrder checks the common part of validate, place and renew.
func (d *racent) newOrder(c *racentCall, code string) (*order, *answer) {
	fail := func(a answer) (*order, *answer) { return nil, &a }
	p, ok := d.ca.product(code)
	if !ok {
		return fail(d.refuse(c, &refusal{badProduct, "productCode", "the product does not exist"}))
	}
	errs := make(fieldErrors)
	years, err := strconv.Atoi(c.get("years"))
	if err != nil || years < 1 || years > p.maxYears() {
		errs.add("years", "years must be a number from 1 to "+strconv.Itoa(p.maxYears()))
	}
	params := orderParams(c.get("params"), p, errs)
	if len(errs) > 0 {
		return fail(d.invalid(c, errs))
	}
	cents, sold := p.PriceCents[12*years]
	if !sold {
		return fail(d.refuse(c, &refusal{badProduct, "years", "the product has no price for this term"}))
	}
	o := &order{
		Account: c.account,
		RefID:   c.get("refId"),
		Product: p.Code,
		Years:   years,
		Cents:   cents,
		NeedsOV: p.ValidationType != DV,
		Unique:  params.unique,
		Params:  params.raw,
		Names:   params.names,
	}
	if params.bonus {
		d.ca.mu.Lock()
		o.Bonus = d.ca.cfg.days(bonusDays)
		d.ca.mu.Unlock()
	}
	o.takeCSR(c, params.csr, p)
	return o, nil
}

// takeCSR sets what follows from the CSR and the names.
func (o *order) takeCSR(c *racentCall, csr *x509.CertificateRequest, p Product) {
	o.CSR = csr.Raw
	o.Challenge = csrHash(csr.Raw, o.Unique, c.quirks.Trailer)
	if !p.SAN && !c.quirks.NoTwin && !isIPName(o.Names[0].Name) {
		o.Twin = &orderName{Name: twinOf(o.Names[0].Name), Method: o.Names[0].Method}
	}
}

// validate is free. It checks what place checks of the request, and the
// balance, but neither the reference nor whether the CA has seen the CSR.
func (d *racent) validate(c *racentCall) answer {
	o, fail := d.newOrder(c, c.get("productCode"))
	if fail != nil {
		return *fail
	}
	d.ca.mu.Lock()
	balance := d.ca.st.Balances[c.account]
	d.ca.mu.Unlock()
	if balance < o.Cents {
		return d.refuse(c, &refusal{noMoney, "balance", "insufficient balance"})
	}
	return d.success(nil)
}

func (d *racent) place(c *racentCall) answer {
	o, fail := d.newOrder(c, c.get("productCode"))
	if fail != nil {
		return *fail
	}
	o.Kind = KindPlace
	return d.create(c, o)
}

// renew is a new, paid order for the product of the old one. The old order
// stays as it is.
func (d *racent) renew(c *racentCall) answer {
	old, ref := d.order(c, "renewId")
	if ref != nil {
		return d.refuse(c, ref)
	}
	o, fail := d.newOrder(c, old.Product)
	if fail != nil {
		return *fail
	}
	o.Kind, o.Parent = KindRenew, old.ID
	return d.create(c, o)
}

// reissue makes a new certificate from the stored CSR. It is a record of its
// own with its own certId.
func (d *racent) reissue(c *racentCall) answer {
	old, ref := d.order(c, "certId")
	if ref != nil {
		return d.refuse(c, ref)
	}
	unique := c.get("uniqueValue")
	if unique != "" && !uniqueValue.MatchString(unique) {
		return d.refuse(c, &refusal{badInput, "uniqueValue", "uniqueValue must be 1 to 20 letters and digits"})
	}
	o := old.successor(KindReissue, c.get("refId"), unique)
	o.CSR, o.Params = old.CSR, old.Params
	for _, n := range old.Names {
		o.Names = append(o.Names, &orderName{Name: n.Name, Method: n.Method, Email: n.Email})
	}
	if old.Twin != nil {
		o.Twin = &orderName{Name: old.Twin.Name, Method: old.Twin.Method}
	}
	o.Challenge = csrHash(o.CSR, unique, c.quirks.Trailer)
	return d.create(c, o)
}

// replace makes a new certificate from a new CSR. Its common name must be that
// of the old CSR (https://www.racent.com/help/details/72).
func (d *racent) replace(c *racentCall) answer {
	old, ref := d.order(c, "certId")
	if ref != nil {
		return d.refuse(c, ref)
	}
	p, ok := d.ca.product(old.Product)
	if !ok {
		return d.refuse(c, &refusal{badProduct, "certId", "the product is no longer there"})
	}
	errs := make(fieldErrors)
	params := replaceParams(c.get("params"), p, errs)
	if params.csr != nil {
		was, err := x509.ParseCertificateRequest(old.CSR)
		if err != nil || !strings.EqualFold(was.Subject.CommonName, params.csr.Subject.CommonName) {
			errs.add("csr", "the common name of the csr differs from that of the original")
		}
	}
	if len(errs) > 0 {
		return d.invalid(c, errs)
	}
	o := old.successor(KindReplace, c.get("refId"), params.unique)
	o.Params, o.Names = params.raw, params.names
	o.takeCSR(c, params.csr, p)
	return d.create(c, o)
}

// successor is the common part of a reissue and a replacement.
func (o *order) successor(kind, ref, unique string) *order {
	return &order{
		Account: o.Account, RefID: ref, Kind: kind, Parent: o.ID,
		Product: o.Product, Years: o.Years, NeedsOV: o.NeedsOV, Unique: unique,
	}
}

// create hands an order to the core and has its first look at the names. A look
// that fails is no failure of the order.
func (d *racent) create(c *racentCall, o *order) answer {
	id, ref := d.ca.create(o)
	if ref != nil {
		if ref.reason == noMoney && c.quirks.BareNoMoney {
			return d.failure(racentUnexpected, nil)
		}
		return d.refuse(c, ref)
	}
	d.ca.lookBriefly(id, false)
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	return d.success(d.orderData(c, d.ca.find(c.account, id)))
}

// order finds the order that a field names. The copy is safe to read: what it
// shares with the original never changes.
func (d *racent) order(c *racentCall, field string) (*order, *refusal) {
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	o := d.ca.find(c.account, c.get(field))
	if o == nil {
		return nil, &refusal{badInput, field, field + " is invalid"}
	}
	snapshot := *o
	snapshot.Names = nil
	for _, n := range o.Names {
		name := *n
		snapshot.Names = append(snapshot.Names, &name)
	}
	if o.Twin != nil {
		twin := *o.Twin
		snapshot.Twin = &twin
	}
	return &snapshot, nil
}

func (d *racent) cancel(c *racentCall) answer {
	if ref := d.ca.cancelOrder(c.account, c.get("certId")); ref != nil {
		return d.refuse(c, ref)
	}
	return d.success(nil)
}

func (d *racent) revoke(c *racentCall) answer {
	if ref := d.ca.revokeOrder(c.account, c.get("certId")); ref != nil {
		return d.refuse(c, ref)
	}
	return d.success(nil)
}
