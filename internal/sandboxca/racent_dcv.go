package sandboxca

import (
	"encoding/json"
	"net/netip"
	"strings"
)

// updateDCV changes the method of one name, or keeps it, and looks again at
// once.
func (d *racent) updateDCV(c *racentCall) answer {
	name := strings.ToLower(c.get("domainName"))
	ref := d.changeDCV(c, func(o *order, errs fieldErrors) {
		if name == "" && len(o.Names) == 1 {
			name = o.Names[0].Name
		}
		changeMethod(o, "", name, c.get("dcvMethod"), c.get("dcvEmail"), errs)
	})
	if ref != nil {
		return *ref
	}
	d.ca.lookBriefly(c.get("certId"), true)

	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	data := d.orderData(c, d.ca.find(c.account, c.get("certId")))
	if c.quirks.NestedUpdate {
		data = map[string]any{"data": data}
	}
	return d.success(data)
}

// batchUpdateDCV changes many names. It is asynchronous at the seller: the next
// look happens when one is due, not within the call.
func (d *racent) batchUpdateDCV(c *racentCall) answer {
	ref := d.changeDCV(c, func(o *order, errs fieldErrors) {
		uniform, list := c.get("dcvMethod"), c.get("domainInfo")
		switch {
		case list != "": // wins over the uniform method here, unlike in place
			var items []map[string]json.RawMessage
			if err := json.Unmarshal([]byte(list), &items); err != nil {
				errs.add("domainInfo", "domainInfo must be an array of objects")
				return
			}
			for _, item := range items {
				refuseUnknown("domainInfo.", item, errs, "domainName", "dcvMethod", "dcvEmail")
				changeMethod(o, "domainInfo.", strings.ToLower(readString("domainName", item, errs)),
					readString("dcvMethod", item, errs), readString("dcvEmail", item, errs), errs)
			}
		case uniform == "EMAIL":
			errs.add("dcvMethod", "all names at once cannot be changed to EMAIL")
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
func (d *racent) changeDCV(c *racentCall, change func(*order, fieldErrors)) *answer {
	fail := func(a answer) *answer { return &a }
	trial, ref := d.order(c, "certId")
	switch {
	case ref != nil:
		return fail(d.refuse(c, ref))
	case !trial.pending():
		return fail(d.refuse(c, &refusal{wrongStatus, "certId", "the order is not in process"}))
	}
	d.ca.mu.Lock()
	submitted := d.submitted(trial)
	d.ca.mu.Unlock()
	if !submitted {
		return fail(d.refuse(c, &refusal{busy, "certId", "the CA does not have the order yet"}))
	}
	errs := make(fieldErrors)
	change(trial, errs)
	if len(errs) > 0 {
		return fail(d.invalid(c, errs))
	}

	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	o := d.ca.st.byID(trial.ID)
	for i, n := range trial.Names {
		o.Names[i].Method, o.Names[i].Email = n.Method, n.Email
	}
	if o.Twin != nil {
		o.Twin.Method = trial.Twin.Method
	}
	if ref := d.ca.saved(); ref != nil {
		return fail(d.refuse(c, ref))
	}
	return nil
}

// changeMethod changes one name of an order.
func changeMethod(o *order, path, name, word, email string, errs fieldErrors) {
	n := o.name(name)
	m := racentMethods[word]
	switch {
	case name == "":
		errs.add(path+"domainName", "domainName is required")
	case n == nil:
		errs.add(path+"domainName", "domainName is not part of the order ("+name+")")
	case m == "":
		errs.add(path+"dcvMethod", "dcvMethod is not a known method")
	default:
		changed := orderName{Name: name, Method: m, Email: email}
		checkMethod(path, &changed, errs)
		o.setMethod(n, m, email)
	}
}

func isIPName(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil
}
