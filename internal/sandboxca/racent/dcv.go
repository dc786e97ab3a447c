package racent

import (
	"encoding/json"

	"strings"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/reseller"
)

// updateDCV changes the method of one name, or keeps it, and checks again at once.
func (d *Dialect) updateDCV(c *call) sandboxca.Answer {
	name := strings.ToLower(c.get("domainName"))
	ref := d.changeDCV(c, func(o *sandboxca.Order, errs reseller.FieldErrors) {
		if name == "" && len(o.Names) == 1 {
			name = o.Names[0].Name
		}
		changeMethod(o, "", name, c.get("dcvMethod"), c.get("dcvEmail"), errs)
	})
	if ref != nil {
		return *ref
	}
	d.ca.Look(c.get("certId"), true)

	books := d.ca.Open()
	defer books.Close()
	return d.success(orderData(books, books.Find(Name, c.account, c.get("certId"))))
}

// batchUpdateDCV changes many names. It is asynchronous at the seller: the next check
// happens when it is due, not within the call.
func (d *Dialect) batchUpdateDCV(c *call) sandboxca.Answer {
	ref := d.changeDCV(c, func(o *sandboxca.Order, errs reseller.FieldErrors) {
		uniform, list := c.get("dcvMethod"), c.get("domainInfo")
		switch {
		case list != "": // takes precedence over the uniform method here, unlike in place
			var items []map[string]json.RawMessage
			if err := json.Unmarshal([]byte(list), &items); err != nil {
				errs.Add("domainInfo", "domainInfo must be an array of objects")
				return
			}
			for _, item := range items {
				refuseUnknown("domainInfo.", item, errs, "domainName", "dcvMethod", "dcvEmail")
				changeMethod(o, "domainInfo.", strings.ToLower(readString("domainName", item, errs)),
					readString("dcvMethod", item, errs), readString("dcvEmail", item, errs), errs)
			}
		case uniform == "EMAIL":
			errs.Add("dcvMethod", "all names at once cannot be changed to EMAIL")
		case uniform != "":
			for _, n := range o.Names {
				changeMethod(o, "", n.Name, uniform, "", errs)
			}
		}
	})
	if ref != nil {
		return *ref
	}
	return d.success(nil)
}

// changeDCV applies a change to a copy of a pending order's names, and keeps it
// only if nothing was wrong with it.
func (d *Dialect) changeDCV(c *call, change func(*sandboxca.Order, reseller.FieldErrors)) *sandboxca.Answer {
	fail := func(a sandboxca.Answer) *sandboxca.Answer { return &a }
	trial, ref := d.order(c, "certId")
	switch {
	case ref != nil:
		return fail(d.refuse(ref))
	case !trial.Pending():
		return fail(d.refuse(sandboxca.Refuse(sandboxca.WrongStatus, "certId", "the order is not in process")))
	}
	books := d.ca.Open()
	submitted := books.Submitted(trial)
	books.Close()
	if !submitted {
		return fail(d.refuse(sandboxca.Refuse(sandboxca.Busy, "certId", "the CA does not have the order yet")))
	}
	errs := make(reseller.FieldErrors)
	change(trial, errs)
	if len(errs) > 0 {
		return fail(d.invalid(errs))
	}

	books = d.ca.Open()
	defer books.Close()
	o := books.Order(trial.ID)
	for i, n := range trial.Names {
		o.Names[i].Method, o.Names[i].Email = n.Method, n.Email
	}
	if o.Twin != nil {
		o.Twin.Method = trial.Twin.Method
	}
	if ref := books.Save(o); ref != nil {
		return fail(d.refuse(ref))
	}
	return nil
}

// changeMethod changes one name of an order.
func changeMethod(o *sandboxca.Order, path, name, word, email string, errs reseller.FieldErrors) {
	n := o.Name(name)
	m := methods[word]
	switch {
	case name == "":
		errs.Add(path+"domainName", "domainName is required")
	case n == nil:
		errs.Add(path+"domainName", "domainName is not part of the order ("+name+")")
	case m == "":
		errs.Add(path+"dcvMethod", "dcvMethod is not a known method")
	default:
		changed := sandboxca.Name{Name: name, Method: m, Email: email}
		reseller.CheckMethod(path, &changed, errs)
		o.SetMethod(n, m, email)
	}
}
