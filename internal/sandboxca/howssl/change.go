package howssl

import (
	"slices"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/reseller"
)

// updateDCV changes the proof of one name.
func (d *Dialect) updateDCV(c *call) sandboxca.Answer {
	name := strings.ToLower(c.get("domain"))
	return d.changeDCV(c, func(o *sandboxca.Order) ([]*sandboxca.Name, string) {
		n := o.Name(name)
		if n == nil {
			return nil, "domain is not part of the order"
		}
		return []*sandboxca.Name{n}, ""
	})
}

// batchUpdateDCV changes the proof of all names, while none is proven.
func (d *Dialect) batchUpdateDCV(c *call) sandboxca.Answer {
	return d.changeDCV(c, func(o *sandboxca.Order) ([]*sandboxca.Name, string) {
		if slices.ContainsFunc(o.Names, func(n *sandboxca.Name) bool { return n.Verified }) {
			return nil, "a domain is validated already"
		}
		return o.Names, ""
	})
}

func (d *Dialect) changeDCV(c *call, pick func(*sandboxca.Order) ([]*sandboxca.Name, string)) sandboxca.Answer {
	return d.withOrder(c, func(books sandboxca.Books, o fullOrder) sandboxca.Answer {
		m := ways[c.get("check_way")]
		switch {
		case status(books, o) != 11:
			return d.refuse(c, "the order is not under review")
		case m == "":
			return d.refuse(c, "check_way is not a known method")
		}
		names, problem := pick(o.head())
		errs := make(reseller.FieldErrors)
		for _, n := range names {
			changed := sandboxca.Name{Name: n.Name, Method: m}
			if m == sandboxca.MethodEmail {
				changed.Email = c.get("email_suffix") + "@" + strings.TrimPrefix(n.Name, "*.")
			}
			reseller.CheckMethod("", &changed, errs)
		}
		if len(errs) > 0 {
			problem = errs.String()
		}
		if problem != "" {
			return d.refuse(c, problem)
		}
		for _, n := range names {
			o.head().SetMethod(n, m, c.get("email_suffix"))
		}
		if ref := books.Save(o.head()); ref != nil {
			return d.refuse(c, ref.Text)
		}
		return d.success(nil)
	})
}

// checkTypes are the numbers of check_type.
var checkTypes = map[string]sandboxca.Method{"1": sandboxca.MethodCNAME, "2": sandboxca.MethodHTTP, "3": sandboxca.MethodEmail}

// reissueSubmit asks for a new certificate, free of charge. Only the plain kind, with the
// customer's own CSR, is supported.
func (d *Dialect) reissueSubmit(c *call) sandboxca.Answer {
	var next *sandboxca.Order
	ans := d.withOrder(c, func(books sandboxca.Books, o fullOrder) sandboxca.Answer {
		var problem string
		next, problem = newReissue(books, c, o)
		return d.refuse(c, problem)
	})
	if next == nil {
		return ans
	}
	id, ref := d.ca.Create(next, rules)
	if ref != nil {
		return d.refuse(c, ref.Text)
	}
	d.ca.Look(id, false)
	return sandboxca.JSON(0, map[string]any{
		"status": c.quirks.ReissueSuccess, "msg": "Reissue information obtained successfully!",
		"data": map[string]any{"reissue_id": id},
	})
}

// newReissue checks a reissue.
func newReissue(books sandboxca.Books, c *call, o fullOrder) (*sandboxca.Order, string) {
	switch {
	case status(books, o) != 3 && !o.living():
		return nil, "the order is not completed"
	case o.reissuing():
		return nil, "a reissue is in progress"
	case c.get("reissue_type") != "1" || c.get("add_domain") != "":
		return nil, "domains cannot be added here"
	case c.get("csr_type") != "2":
		return nil, "csr_type must be 2 here"
	}
	head := o.issued()
	if head.Status == sandboxca.StatusReissued { // by one that failed
		head.Status, head.ReplacedBy = sandboxca.StatusComplete, ""
		if ref := books.Save(head); ref != nil {
			return nil, ref.Text
		}
	}
	csr, err := sandboxca.ParseCSR(c.get("csr_content"))
	if err == nil {
		err = sandboxca.CheckCSRNames(csr, head.NameList())
	}
	if err != nil {
		return nil, err.Error()
	}
	next := head.Successor(sandboxca.KindReplace, "", "")
	next.Params, next.CSR = head.Params, csr.Raw
	for _, n := range head.Names {
		m := n.Method
		if word := c.get("check_type"); word != "" {
			if m = checkTypes[word]; m == "" || m == sandboxca.MethodEmail {
				return nil, "check_type must be 1 or 2 here"
			}
		}
		next.Names = append(next.Names, &sandboxca.Name{Name: n.Name, Method: m})
	}
	if p, ok := books.Product(head.Product); ok {
		prove(next, c.quirks, p)
	}
	return next, ""
}

func (d *Dialect) reissueInfo(c *call) sandboxca.Answer {
	books := d.ca.Open()
	defer books.Close()
	o := books.Find(Name, c.account, c.get("reissue_id"))
	if o == nil || o.Kind != sandboxca.KindReplace {
		return d.refuse(c, "reissue_id does not exist")
	}
	return d.bare(reissue(books, c, o))
}

func (d *Dialect) reissueList(c *call) sandboxca.Answer {
	return d.withOrder(c, func(books sandboxca.Books, o fullOrder) sandboxca.Answer {
		list := []map[string]any{}
		if len(o.chain) > 1 {
			for _, r := range o.chain[1:] {
				list = append(list, reissue(books, c, r))
			}
		}
		return d.bare(list)
	})
}

// reissue is the state of a reissue. Of the codes, only 0 is documented for reissues;
// 1 and 2 are those of renewals.
func reissue(books sandboxca.Books, c *call, o *sandboxca.Order) map[string]any {
	code, words := 2, "Validated"
	if o.Pending() {
		code, words = 0, "To be reviewed"
		if books.Submitted(o) {
			code, words = 1, "To be validated"
		}
	}
	data := map[string]any{
		"reissue_id": o.ID, "status_code": code, "status_message": words, "validity_record": nil,
		"csr_content": sandboxca.RequestPEM(o.CSR),
	}
	if !c.quirks.ReissueRecords {
		return data
	}
	var records []map[string]string
	for _, n := range o.Names {
		record := map[string]string{"domain": n.Name, "name": o.Proof.FileName, "value": o.Proof.FileContent, "type": "file"}
		if n.Method == sandboxca.MethodCNAME {
			record["name"], record["value"], record["type"] = o.Proof.DNSLabel, o.Proof.DNSTarget, "CNAME"
		}
		records = append(records, record)
	}
	data["validity_record"] = records
	return data
}
