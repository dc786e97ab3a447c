package sandboxca

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// howsslMailNotice stands in place of proofs when mails are sent.
const howsslMailNotice = "Access email verification to verify email!"

// howsslOrder is an order with its reissues, which keep its ID.
type howsslOrder struct {
	draft *howsslDraft
	chain []*order // the paid order and its reissues, oldest first; empty for a draft
}

// order finds an order of the caller's and brings it up to date. The lock is held.
func (d *howssl) order(c *howsslCall, id string) (howsslOrder, bool) {
	draft := d.draft(c, func(draft *howsslDraft) bool { return draft.OrderID == id })
	if draft == nil {
		return howsslOrder{}, false
	}
	found := howsslOrder{draft: draft}
	if draft.Paid {
		for id := draft.OrderID; id != ""; {
			o := d.ca.find(c.account, id)
			found.chain = append(found.chain, o)
			id = o.ReplacedBy
		}
	}
	return found, true
}

// head is the latest of the paid order and its reissues.
func (o howsslOrder) head() *order {
	if len(o.chain) == 0 {
		return nil
	}
	return o.chain[len(o.chain)-1]
}

func (o howsslOrder) reissuing() bool { return len(o.chain) > 1 && o.head().pending() }

// status is the order_status of appendix 1 (page 2252024).
func (d *howssl) status(o howsslOrder) int {
	if len(o.chain) == 0 {
		return 0
	}
	head := o.head()
	switch {
	case o.reissuing():
		return 3
	case head.pending():
		return 11
	}
	switch head.Status {
	case StatusComplete:
		if !d.ca.cfg.Now().Before(head.TermEnd) {
			return 9
		}
		return 3
	case StatusCancelled:
		return 5
	case StatusRevoked:
		return 8
	case StatusFailed:
		if len(o.chain) > 1 {
			return 3
		}
		return 13
	}
	return 4
}

// withOrder answers a call about the order that order_id names, under the lock.
func (d *howssl) withOrder(c *howsslCall, do func(howsslOrder) answer) answer {
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	o, ok := d.order(c, c.get("order_id"))
	if !ok {
		return d.refuse(c, "order_id does not exist")
	}
	return do(o)
}

func (d *howssl) orderInfo(c *howsslCall) answer {
	return d.withOrder(c, func(o howsslOrder) answer {
		quirks := c.quirks.HowSSL
		code := d.status(o)
		if code == 0 && quirks.RefuseDraftInfo {
			return d.refuse(c, "the order is not submitted")
		}
		var status any = code
		switch {
		case code == 11 && quirks.OrderStatus != "":
			status = json.RawMessage(quirks.OrderStatus)
		case quirks.StatusAsText:
			status = strconv.Itoa(code)
		}
		validity, err := json.Marshal(validityStatus(o, quirks))
		if err != nil {
			return d.refuse(c, err.Error())
		}
		cents := o.draft.Order.Cents
		return d.success(map[string]any{
			"order_status":    status,
			"validity_status": string(validity),
			"total_amount": []map[string]string{
				{"value": string(money(cents)), "unit": "CNY"}, // the labels are swapped in the documents, too
				{"value": string(money(cents * 7)), "unit": "USD"},
			},
		})
	})
}

// validityStatus is display text, and a number for each name.
func validityStatus(o howsslOrder, quirks HowSSLQuirks) []map[string]any {
	list := []map[string]any{}
	of := o.draft.Order
	switch {
	case len(o.chain) > 0:
		of = o.head()
	case quirks.NamelessDrafts:
		return list
	}
	for _, n := range of.Names {
		status := 2
		if n.Verified {
			status = 1
		}
		list = append(list, map[string]any{"value": fmt.Sprintf("域名:%s<br>验证方式: 文件验证<br>", n.Name), "status": status})
	}
	return list
}

func (d *howssl) validityInfo(c *howsslCall) answer {
	return d.withOrder(c, func(o howsslOrder) answer {
		if d.status(o) != 11 {
			return d.refuse(c, "the order is not under review")
		}
		return d.success(map[string]any{"valid_info": validInfo(c.quirks, o.head())})
	})
}

// validInfo is one flat set of proofs for all names, or a sentence for mails.
func validInfo(q Quirks, o *order) any {
	if o.Names[0].Method == methodEmail {
		return howsslMailNotice
	}
	info := map[string]string{
		"DCVdnsHost": o.Challenge.DNSLabel, "DCVdnsValue": o.Challenge.DNSTarget, "DCVdnsType": "CNAME",
		"DCVfileName": o.Challenge.FileName, "DCVfileContent": o.Challenge.FileContent,
	}
	if q.HowSSL.RandomProof {
		info["DCVdnsType"] = "TXT"
	}
	if q.HowSSL.EscapedContent {
		info["DCVfileContent"] = strings.ReplaceAll(info["DCVfileContent"], "\n", `\n`)
	}
	if q.HowSSL.HostileFileName {
		info["DCVfileName"] = "../../" + info["DCVfileName"]
	}
	if text, err := json.Marshal(info); err == nil && q.HowSSL.ValidInfoText {
		return string(text)
	}
	return info
}

// refreshOrder looks at the names again. Nothing else does: whether getOrderInfo would
// is not documented.
func (d *howssl) refreshOrder(c *howsslCall) answer {
	id := ""
	ans := d.withOrder(c, func(o howsslOrder) answer {
		if head := o.head(); head != nil {
			id = head.ID
		}
		return d.success(nil)
	})
	if id != "" {
		d.ca.lookBriefly(id, true)
	}
	return ans
}

func (d *howssl) certificate(c *howsslCall) answer {
	return d.withOrder(c, func(o howsslOrder) answer {
		if d.status(o) != 3 {
			return d.refuse(c, "the order is not completed")
		}
		for _, made := range slices.Backward(o.chain) {
			if made.Cert == nil {
				continue
			}
			key := ""
			if len(o.chain) == 1 {
				key = o.draft.Key
			}
			return d.success(map[string]any{
				"cert_start_time": date(made.NotBefore), "cert_end_time": date(made.NotAfter),
				"paid": true, "ca_order_id": made.CAOrder,
				"certificate": map[string]string{
					"cert": pemText(c.quirks, made.Cert), "ca_cert": d.ca.chainAbove(c.quirks),
					"csr": csrText(made.CSR), "private_key": key,
				},
			})
		}
		return d.refuse(c, "there is no certificate")
	})
}

// cancelOrder takes back what has no certificate. What it does to the rest is not
// documented; here it is refused.
func (d *howssl) cancelOrder(c *howsslCall) answer {
	id := ""
	if ans := d.withOrder(c, func(o howsslOrder) answer {
		if d.status(o) != 11 {
			return d.refuse(c, "the order cannot be cancelled")
		}
		id = o.head().ID
		return d.success(nil)
	}); id == "" {
		return ans
	}
	if ref := d.ca.cancelOrder(c.account, id); ref != nil {
		return d.refuse(c, ref.text)
	}
	return d.success(nil)
}

func (d *howssl) accountInfo(c *howsslCall) answer {
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	return d.success(map[string]any{
		"user_email": "customer@example.com", "user_amount": string(money(d.ca.st.Balances[c.account])),
	})
}

func (d *howssl) domainEmail(c *howsslCall) answer {
	list := make([]string, 0, len(mailboxes))
	for _, box := range mailboxes {
		list = append(list, box+"@"+c.get("domainName"))
	}
	return d.bare(list)
}

// products lists what is sold, page by page.
func (d *howssl) products(c *howsslCall) answer {
	page, size := c.number("page", 1), c.number("size", 10)
	if page < 1 || size < 1 {
		return d.refuse(c, "page and size must be positive")
	}
	d.ca.mu.Lock()
	products := d.ca.cfg.Products
	d.ca.mu.Unlock()
	list := []map[string]any{}
	for _, p := range products {
		if strings.Contains(p.Name, c.get("product_name")) {
			list = append(list, howsslProduct(p))
		}
	}
	total := len(list)
	from := min((page-1)*size, total)
	return jsonAnswer(0, map[string]any{
		"status": true, "msg": "操作成功", "code": 200, "total": total, "data": list[from:min(from+size, total)],
	})
}

func (c *howsslCall) number(field string, other int) int {
	if c.get(field) == "" {
		return other
	}
	n, err := strconv.Atoi(c.get(field))
	if err != nil {
		return 0
	}
	return min(n, 10_000)
}

func howsslProduct(p Product) map[string]any {
	prices := []map[string]string{}
	for _, months := range []int{12, 24, 36, 48, 60} {
		if cents, sold := p.PriceCents[months]; sold {
			price := string(money(cents))
			prices = append(prices, map[string]string{
				"label": strconv.Itoa(months), "country": "美国", "currency": "USD", "real_price": price, "price": price,
				"attachCommonPrice": "0.00", "attachWildcardPrice": "0.00",
			})
		}
	}
	text, _ := json.Marshal(prices) // of texts, which cannot fail
	kind := 1
	if p.SAN {
		kind++
	}
	if p.Wildcard {
		kind += 2
	}
	return map[string]any{
		"product_name": p.Name, "product_code": p.Code, "prices_info": string(text),
		"domain_type": strconv.Itoa(kind), "audit_type": strings.ToUpper(p.ValidationType),
	}
}
