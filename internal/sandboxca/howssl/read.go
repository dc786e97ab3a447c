package howssl

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/reseller"
)

// mailNotice stands in place of the proofs when validation is by email.
const mailNotice = "Access email verification to verify email!"

// fullOrder is an order with its reissues, which keep its ID.
type fullOrder struct {
	draft *draft
	chain []*sandboxca.Order // the paid order and its reissues, oldest first; empty for a draft
}

// order finds an order of the caller's and brings it up to date.
func (d *Dialect) order(books sandboxca.Books, c *call, id string) (fullOrder, bool) {
	draft := d.byOrder[id]
	if draft == nil || draft.Order.Account != c.account {
		return fullOrder{}, false
	}
	found := fullOrder{draft: draft}
	if draft.Paid {
		for id := draft.OrderID; id != ""; {
			o := books.Find(Name, c.account, id)
			found.chain = append(found.chain, o)
			id = o.ReplacedBy
		}
	}
	return found, true
}

// head is the latest of the paid order and its reissues.
func (o fullOrder) head() *sandboxca.Order {
	if len(o.chain) == 0 {
		return nil
	}
	return o.chain[len(o.chain)-1]
}

// issued is the latest of them that has a certificate: a reissue that failed leaves the
// order as it was.
func (o fullOrder) issued() *sandboxca.Order {
	for _, one := range slices.Backward(o.chain) {
		if one.Cert != nil {
			return one
		}
	}
	return o.head()
}

func (o fullOrder) reissuing() bool { return len(o.chain) > 1 && o.head().Pending() }

// living reports whether the order can be reissued, whatever became of its certificates.
func (o fullOrder) living() bool {
	head := o.head()
	return head != nil && (head.Status == sandboxca.StatusComplete || head.Status == sandboxca.StatusFailed && len(o.chain) > 1)
}

// status is the order_status of appendix 1 (page 2252024). That it is 8 for an active
// order whose certificate was revoked is assumed.
func status(books sandboxca.Books, o fullOrder) int {
	if len(o.chain) == 0 {
		return 0
	}
	head := o.head()
	switch {
	case o.reissuing():
		return 3
	case head.Pending():
		return 11
	}
	living := 3
	if o.issued().Revoked {
		living = 8
	}
	switch head.Status {
	case sandboxca.StatusComplete:
		if !books.Now().Before(head.TermEnd) {
			return 9
		}
		return living
	case sandboxca.StatusCancelled:
		return 5
	case sandboxca.StatusRevoked:
		return 8
	case sandboxca.StatusFailed:
		if len(o.chain) > 1 {
			return living
		}
		return 13
	}
	return 4
}

// withOrder answers a call about the order that order_id names, with the books open.
func (d *Dialect) withOrder(c *call, do func(sandboxca.Books, fullOrder) sandboxca.Answer) sandboxca.Answer {
	books := d.ca.Open()
	defer books.Close()
	o, ok := d.order(books, c, c.get("order_id"))
	if !ok {
		return d.refuse(c, "order_id does not exist")
	}
	return do(books, o)
}

func (d *Dialect) orderInfo(c *call) sandboxca.Answer {
	return d.withOrder(c, func(books sandboxca.Books, o fullOrder) sandboxca.Answer {
		quirks := c.quirks
		code := status(books, o)
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
				{"value": string(sandboxca.Money(cents)), "unit": "CNY"}, // the labels are swapped in the documents, too
				{"value": string(sandboxca.Money(cents * 7)), "unit": "USD"},
			},
		})
	})
}

// validityStatus is display text, and a number for each name.
func validityStatus(o fullOrder, quirks Quirks) []map[string]any {
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

func (d *Dialect) validityInfo(c *call) sandboxca.Answer {
	return d.withOrder(c, func(books sandboxca.Books, o fullOrder) sandboxca.Answer {
		if status(books, o) != 11 {
			return d.refuse(c, "the order is not under review")
		}
		return d.success(map[string]any{"valid_info": validInfo(c.quirks, o.head())})
	})
}

// validInfo is one flat set of proofs for all names, or a sentence if validation is by
// email.
func validInfo(q Quirks, o *sandboxca.Order) any {
	if o.Names[0].Method == sandboxca.MethodEmail {
		return mailNotice
	}
	info := map[string]string{
		"DCVdnsHost": o.Proof.DNSLabel, "DCVdnsValue": o.Proof.DNSTarget, "DCVdnsType": "CNAME",
		"DCVfileName": o.Proof.FileName, "DCVfileContent": o.Proof.FileContent,
	}
	if q.RandomProof {
		info["DCVdnsType"] = "TXT"
	}
	if q.EscapedContent {
		info["DCVfileContent"] = strings.ReplaceAll(info["DCVfileContent"], "\n", `\n`)
	}
	if q.HostileFileName {
		info["DCVfileName"] = "../../" + info["DCVfileName"]
	}
	if text, err := json.Marshal(info); err == nil && q.ValidInfoText {
		return string(text)
	}
	return info
}

// refreshOrder checks the names again. No other call does: whether getOrderInfo would is
// not documented.
func (d *Dialect) refreshOrder(c *call) sandboxca.Answer {
	id := ""
	ans := d.withOrder(c, func(books sandboxca.Books, o fullOrder) sandboxca.Answer {
		if head := o.head(); head != nil {
			id = head.ID
		}
		return d.success(nil)
	})
	if id != "" {
		d.ca.Look(id, true)
	}
	return ans
}

func (d *Dialect) certificate(c *call) sandboxca.Answer {
	return d.withOrder(c, func(books sandboxca.Books, o fullOrder) sandboxca.Answer {
		if status(books, o) != 3 {
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
				"cert_start_time": reseller.ChinaDate(made.NotBefore), "cert_end_time": reseller.ChinaDate(made.NotAfter),
				"paid": true, "ca_order_id": made.CAOrder,
				"certificate": map[string]string{
					"cert": sandboxca.CertificatePEM(made.Cert), "ca_cert": sandboxca.CertificatePEM(books.Above()...),
					"csr": sandboxca.RequestPEM(made.CSR), "private_key": key,
				},
			})
		}
		return d.refuse(c, "there is no certificate")
	})
}

// cancelOrder cancels an order that has no certificate. What it does to others is not
// documented; here they are refused.
func (d *Dialect) cancelOrder(c *call) sandboxca.Answer {
	id := ""
	if ans := d.withOrder(c, func(books sandboxca.Books, o fullOrder) sandboxca.Answer {
		if status(books, o) != 11 {
			return d.refuse(c, "the order cannot be cancelled")
		}
		id = o.head().ID
		return d.success(nil)
	}); id == "" {
		return ans
	}
	if ref := d.ca.Cancel(Name, c.account, id); ref != nil {
		return d.refuse(c, ref.Text)
	}
	return d.success(nil)
}

func (d *Dialect) accountInfo(c *call) sandboxca.Answer {
	books := d.ca.Open()
	defer books.Close()
	return d.success(map[string]any{
		"user_email": "customer@example.com", "user_amount": string(sandboxca.Money(books.Balance(c.account))),
	})
}

func (d *Dialect) domainEmail(c *call) sandboxca.Answer {
	list := make([]string, 0, len(sandboxca.Mailboxes))
	for _, box := range sandboxca.Mailboxes {
		list = append(list, box+"@"+c.get("domainName"))
	}
	return d.bare(list)
}

// products lists what is sold, page by page.
func (d *Dialect) products(c *call) sandboxca.Answer {
	page, size := c.number("page", 1), c.number("size", 10)
	if page < 1 || size < 1 {
		return d.refuse(c, "page and size must be positive")
	}
	books := d.ca.Open()
	products := books.Products()
	books.Close()
	list := []map[string]any{}
	for _, p := range products {
		if strings.Contains(p.Name, c.get("product_name")) {
			list = append(list, productRow(p))
		}
	}
	total := len(list)
	from := min((page-1)*size, total)
	return sandboxca.JSON(0, map[string]any{
		"status": true, "msg": "操作成功", "code": 200, "total": total, "data": list[from:min(from+size, total)],
	})
}

func (c *call) number(field string, other int) int {
	if c.get(field) == "" {
		return other
	}
	n, err := strconv.Atoi(c.get(field))
	if err != nil {
		return 0
	}
	return min(n, 10_000)
}

func productRow(p sandboxca.Product) map[string]any {
	prices := []map[string]string{}
	for _, months := range []int{12, 24, 36, 48, 60} {
		if cents, sold := p.PriceCents[months]; sold {
			price := string(sandboxca.Money(cents))
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
