package sandboxca

import (
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
)

// updateDCV changes the proof of one name.
func (d *howssl) updateDCV(c *howsslCall) answer {
	name := strings.ToLower(c.get("domain"))
	return d.changeDCV(c, func(o *order) ([]*orderName, string) {
		n := o.name(name)
		if n == nil {
			return nil, "domain is not part of the order"
		}
		return []*orderName{n}, ""
	})
}

// batchUpdateDCV changes the proof of all names, while none is proven.
func (d *howssl) batchUpdateDCV(c *howsslCall) answer {
	return d.changeDCV(c, func(o *order) ([]*orderName, string) {
		if slices.ContainsFunc(o.Names, func(n *orderName) bool { return n.Verified }) {
			return nil, "a domain is validated already"
		}
		return o.Names, ""
	})
}

func (d *howssl) changeDCV(c *howsslCall, pick func(*order) ([]*orderName, string)) answer {
	return d.withOrder(c, func(o howsslOrder) answer {
		m := howsslWays[c.get("check_way")]
		switch {
		case d.status(o) != 11:
			return d.refuse(c, "the order is not under review")
		case m == "":
			return d.refuse(c, "check_way is not a known method")
		}
		names, problem := pick(o.head())
		errs := make(fieldErrors)
		for _, n := range names {
			changed := orderName{Name: n.Name, Method: m}
			if m == methodEmail {
				changed.Email = c.get("email_suffix") + "@" + strings.TrimPrefix(n.Name, "*.")
			}
			checkMethod("", &changed, errs)
		}
		if len(errs) > 0 {
			problem = fmt.Sprint(errs.shaped("string"))
		}
		if problem != "" {
			return d.refuse(c, problem)
		}
		for _, n := range names {
			o.head().setMethod(n, m, c.get("email_suffix"))
		}
		if ref := d.ca.saved(); ref != nil {
			return d.refuse(c, ref.text)
		}
		return d.success(nil)
	})
}

// howsslCheckTypes are the numbers of check_type.
var howsslCheckTypes = map[string]method{"1": methodCNAME, "2": methodHTTP, "3": methodEmail}

// reissueSubmit asks for a new certificate, free of charge. Only the plain kind with a
// CSR of the customer's is there.
func (d *howssl) reissueSubmit(c *howsslCall) answer {
	var next *order
	ans := d.withOrder(c, func(o howsslOrder) answer {
		var problem string
		next, problem = d.newReissue(c, o)
		return d.refuse(c, problem)
	})
	if next == nil {
		return ans
	}
	id, ref := d.ca.create(next)
	if ref != nil {
		return d.refuse(c, ref.text)
	}
	d.ca.lookBriefly(id, false)
	return jsonAnswer(0, map[string]any{
		"status": c.quirks.HowSSL.ReissueSuccess, "msg": "Reissue information obtained successfully!",
		"data": map[string]any{"reissue_id": id},
	})
}

// newReissue checks a reissue. The lock is held.
func (d *howssl) newReissue(c *howsslCall, o howsslOrder) (*order, string) {
	switch {
	case d.status(o) != 3:
		return nil, "the order is not completed"
	case o.reissuing():
		return nil, "a reissue is in progress"
	case c.get("reissue_type") != "1" || c.get("add_domain") != "":
		return nil, "domains cannot be added here"
	case c.get("csr_type") != "2":
		return nil, "csr_type must be 2 here"
	}
	head := o.head()
	csr, err := parseCSR(c.get("csr_content"))
	if err == nil {
		err = checkCSRNames(csr, head.names())
	}
	if err != nil {
		return nil, err.Error()
	}
	next := head.successor(KindReplace, "", "")
	next.Params, next.CSR = head.Params, csr.Raw
	for _, n := range head.Names {
		m := n.Method
		if word := c.get("check_type"); word != "" {
			if m = howsslCheckTypes[word]; m == "" || m == methodEmail {
				return nil, "check_type must be 1 or 2 here"
			}
		}
		next.Names = append(next.Names, &orderName{Name: n.Name, Method: m})
	}
	for _, p := range d.ca.cfg.Products {
		if p.Code == head.Product {
			next.prove(c.quirks, p)
		}
	}
	return next, ""
}

func (d *howssl) reissueInfo(c *howsslCall) answer {
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	o := d.ca.find(c.account, c.get("reissue_id"))
	if o == nil || o.Kind != KindReplace {
		return d.refuse(c, "reissue_id does not exist")
	}
	return d.bare(d.reissue(c, o))
}

func (d *howssl) reissueList(c *howsslCall) answer {
	return d.withOrder(c, func(o howsslOrder) answer {
		list := []map[string]any{}
		if len(o.chain) > 1 {
			for _, r := range o.chain[1:] {
				list = append(list, d.reissue(c, r))
			}
		}
		return d.bare(list)
	})
}

// reissue is the state of a reissue. Of the codes, only 0 is documented for reissues;
// 1 and 2 are those of renewals.
func (d *howssl) reissue(c *howsslCall, o *order) map[string]any {
	code, words := 2, "Validated"
	if o.pending() {
		code, words = 0, "To be reviewed"
		if o.submitted(&d.ca.cfg, d.ca.cfg.Now()) {
			code, words = 1, "To be validated"
		}
	}
	data := map[string]any{
		"reissue_id": o.ID, "status_code": code, "status_message": words, "validity_record": nil,
		"csr_content": csrText(o.CSR),
	}
	if !c.quirks.HowSSL.ReissueRecords {
		return data
	}
	var records []map[string]string
	for _, n := range o.Names {
		record := map[string]string{"domain": n.Name, "name": o.Challenge.FileName, "value": o.Challenge.FileContent, "type": "file"}
		if n.Method == methodCNAME {
			record["name"], record["value"], record["type"] = o.Challenge.DNSLabel, o.Challenge.DNSTarget, "CNAME"
		}
		records = append(records, record)
	}
	data["validity_record"] = records
	return data
}

func csrText(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}
