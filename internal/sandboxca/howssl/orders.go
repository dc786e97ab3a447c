package howssl

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/reseller"
)

// draft is an order that was created and perhaps committed. Its order ID is temporary
// before the commit and final after it.
type draft struct {
	CheckID string           `json:"check_id"`
	OrderID string           `json:"order_id"`
	Paid    bool             `json:"paid"`
	Queued  time.Time        `json:"queued,omitzero"` // when a queued commit takes effect, zero if none
	Order   *sandboxca.Order `json:"order"`           // as it was created; what became of it is among the orders
	Key     string           `json:"key,omitempty"`
}

// ways are the words of check_way.
var ways = map[string]sandboxca.Method{"EMAIL": sandboxca.MethodEmail, "FILE": sandboxca.MethodHTTP, "DNS": sandboxca.MethodCNAME}

// createOrder checks an order and keeps it, free of charge.
func (d *Dialect) createOrder(c *call) sandboxca.Answer {
	draft, problem := d.newDraft(c)
	if problem != "" {
		return d.refuse(c, problem)
	}
	books := d.ca.Open()
	defer books.Close()
	if ref := d.put(books, draft); ref != nil {
		return d.refuse(c, ref.Text)
	}
	return d.success(map[string]any{"check_id": draft.CheckID})
}

func (d *Dialect) newDraft(c *call) (*draft, string) {
	p, ok := d.ca.Product(c.get("product_code"))
	if !ok {
		return nil, "product_code does not exist"
	}
	months, err := strconv.Atoi(c.get("validity_period"))
	cents, sold := p.PriceCents[months]
	if err != nil || !slices.Contains([]int{12, 24, 36, 48, 60}, months) || !sold {
		return nil, "validity_period is not sold"
	}
	errs := make(reseller.FieldErrors)
	c.checkPeople(p, errs)
	fields := c.quirks.Fields.withDefaults()
	n := &sandboxca.Name{Name: strings.ToLower(c.get(fields.Domain)), Method: ways[c.get(fields.CheckWay)]}
	if n.Method == sandboxca.MethodEmail {
		n.Email = c.get("email_suffix") + "@" + strings.TrimPrefix(n.Name, "*.")
	}
	if n.Method == "" {
		errs.Add(fields.CheckWay, fields.CheckWay+" is not a known method")
	}
	reseller.CheckName(fields.Domain, n, p, errs)
	draft := &draft{Order: &sandboxca.Order{
		Account: c.account, Dialect: Name, Kind: sandboxca.KindPlace, Product: p.Code, Years: months / 12, Cents: cents,
		NeedsOV: p.ValidationType != sandboxca.DV, Params: json.RawMessage("{}"),
		Progress: sandboxca.Progress{Names: []*sandboxca.Name{n}},
	}}
	if len(errs) == 0 {
		draft.takeCSR(c.get("csr"), errs)
	}
	if len(errs) > 0 {
		return nil, errs.String()
	}
	draft.identify(c.quirks, p)
	return draft, ""
}

// checkPeople applies the rules of auto_info.
func (c *call) checkPeople(p sandboxca.Product, errs reseller.FieldErrors) {
	var required []string
	switch auto := c.get("auto_info"); {
	case auto == "1" && p.ValidationType != sandboxca.DV:
		errs.Add("auto_info", "auto_info must be 0 for this product")
	case auto == "1":
	case auto != "0":
		errs.Add("auto_info", "auto_info must be 0 or 1")
	case p.ValidationType == sandboxca.DV:
		required = contactFields
	default:
		required = slices.Concat(contactFields, companyFields)
	}
	for _, field := range required {
		if c.get(field) == "" {
			errs.Add(field, field+" is required")
		}
	}
}

// takeCSR sets the CSR, or makes one if there is none: it is documented as optional.
func (draft *draft) takeCSR(text string, errs reseller.FieldErrors) {
	names := draft.Order.NameList()
	if text == "" {
		der, key, err := makeCSR(names)
		if err != nil {
			errs.Add("csr", err.Error())
			return
		}
		draft.Order.CSR, draft.Key = der, string(key)
		return
	}
	csr, err := sandboxca.ParseCSR(text)
	if err == nil {
		err = sandboxca.CheckCSRNames(csr, names)
	}
	if err != nil {
		errs.Add("csr", err.Error())
		return
	}
	draft.Order.CSR = csr.Raw
}

func makeCSR(names []string) (der, keyText []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
	}, key)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	return der, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), err
}

// identify gives the draft its IDs and what follows from its CSR.
func (draft *draft) identify(q Quirks, p sandboxca.Product) {
	draft.CheckID, draft.OrderID = randomText(16), "t"+randomText(5)
	o := draft.Order
	o.RefID = draft.CheckID
	prove(o, q, p)
}

// prove sets the proofs of control and the twin.
func prove(o *sandboxca.Order, q Quirks, p sandboxca.Product) {
	o.Proof = reseller.CSRHash(o.CSR, o.Unique, "")
	if q.RandomProof {
		token := randomText(16)
		o.Proof = sandboxca.Proof{FileName: "fileauth.txt", FileContent: token, DNSLabel: "_dnsauth", DNSTarget: token}
	}
	o.AddTwin(p)
}

func randomText(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, see its documentation
	return hex.EncodeToString(b)
}

// CreateInConsole does what a customer does in the console of HowSSL: it creates an
// unpaid order, with a CSR of HowSSL's own and validation by file, and returns its
// check_id. It takes several names, for which createOrder has no documented way.
func (d *Dialect) CreateInConsole(token, product string, years int, names ...string) (checkID string, err error) {
	p, ok := d.ca.Product(product)
	cents, sold := p.PriceCents[12*years]
	if !ok || !sold || len(names) == 0 || len(names) > p.Domains() {
		return "", errors.New("no such product, term or number of names")
	}
	draft := &draft{Order: &sandboxca.Order{
		Account: sandboxca.Account{Token: token}.Key(), Dialect: Name, Kind: sandboxca.KindPlace, Product: product, Years: years, Cents: cents,
		NeedsOV: p.ValidationType != sandboxca.DV, Params: json.RawMessage("{}"),
	}}
	for _, name := range names {
		draft.Order.Names = append(draft.Order.Names, &sandboxca.Name{Name: name, Method: sandboxca.MethodHTTP})
	}
	errs := make(reseller.FieldErrors)
	if draft.takeCSR("", errs); len(errs) > 0 {
		return "", fmt.Errorf("making CSR: %s", errs)
	}
	draft.identify(*d.quirks.Load(), p)
	books := d.ca.Open()
	defer books.Close()
	return draft.CheckID, d.put(books, draft).Err()
}

// add indexes a draft, replacing any with the same check_id.
func (d *Dialect) add(kept *draft) {
	d.byCheck[kept.CheckID], d.byOrder[kept.OrderID] = kept, kept
	if kept.Queued.IsZero() {
		delete(d.queued, kept.CheckID)
	} else {
		d.queued[kept.CheckID] = kept
	}
}

// put stores a draft. The books are open.
func (d *Dialect) put(books sandboxca.Books, kept *draft) *sandboxca.Refusal {
	ref := books.Put(kept.record())
	if ref == nil {
		d.add(kept)
	}
	return ref
}

func (draft *draft) record() sandboxca.Record {
	data, _ := json.Marshal(draft) // of texts, times and bytes, which cannot fail
	return sandboxca.Record{Dialect: Name, Key: draft.CheckID, Data: data}
}

// found finds a draft of the caller's by its check_id. The books are open.
func (d *Dialect) found(c *call) *draft {
	if kept := d.byCheck[c.get("check_id")]; kept != nil && kept.Order.Account == c.account {
		return kept
	}
	return nil
}

func (d *Dialect) fromCheckID(c *call) sandboxca.Answer {
	books := d.ca.Open()
	defer books.Close()
	draft := d.found(c)
	if draft == nil {
		return d.refuse(c, "check_id does not exist")
	}
	return d.bare(map[string]any{"order_id": draft.OrderID})
}

// commitOrder pays for a draft.
func (d *Dialect) commitOrder(c *call) sandboxca.Answer {
	d.committing.Lock()
	defer d.committing.Unlock()
	quirks := c.quirks

	books := d.ca.Open()
	draft := d.found(c)
	if draft == nil {
		books.Close()
		return d.refuse(c, "check_id does not exist")
	}
	again, queue := draft.Paid || !draft.Queued.IsZero(), quirks.CommitQueue
	if !again && queue > 0 {
		draft.Queued = books.Now().Add(queue)
		_ = d.put(books, draft) // if it fails, the commit is never carried out
	}
	books.Close()

	var ref *sandboxca.Refusal
	switch {
	case again && quirks.RefuseSecondCommit:
		return d.refuse(c, "the order is paid already")
	case again:
		ref = d.chargeAgain(draft)
	case queue > 0:
		return d.success(nil)
	default:
		ref = d.commit(draft)
	}
	if ref != nil {
		return d.refuse(c, ref.Text)
	}
	if quirks.CommitRefusedAfterCharge {
		return d.refuse(c, "the CA is busy")
	}
	books = d.ca.Open()
	defer books.Close()
	return d.success(committed(books, c, d.byCheck[draft.CheckID]))
}

// committed is the data that commitOrder answers.
func committed(books sandboxca.Books, c *call, draft *draft) map[string]any {
	data := map[string]any{"order_id": draft.OrderID}
	if c.quirks.CommitWithoutID {
		delete(data, "order_id")
	}
	switch c.quirks.CommitValidInfo {
	case "string":
		data["valid_info"] = mailNotice
	case "null":
		data["valid_info"] = nil
	case "absent":
	default:
		data["valid_info"] = validInfo(c.quirks, books.Order(draft.OrderID))
	}
	return data
}

// rules are how HowSSL takes an order. A commit that is sent again never gets here.
var rules = sandboxca.Rules{NewID: newID, Repeat: sandboxca.RepeatIsFirst, FreshCSR: true, Supersedes: true}

// newID is the date and ten letters; what final order IDs look like is not documented.
func newID(_ int64, now time.Time) string {
	return now.In(reseller.ChinaTime).Format("060102") + sandboxca.RandomText("abcdefghijklmnopqrstuvwxyz", 10)
}

// commit makes an order of a draft, charges it, and checks its names for the first time.
// The lock committing is held.
func (d *Dialect) commit(old *draft) *sandboxca.Refusal {
	paid := *old
	paid.Paid, paid.Queued = true, time.Time{}
	rules := rules
	rules.Record = func(o *sandboxca.Order) sandboxca.Record {
		paid.OrderID = o.ID
		return paid.record()
	}
	id, ref := d.ca.Create(old.Order.Clone(), rules)
	if ref != nil {
		return ref
	}
	books := d.ca.Open()
	delete(d.byOrder, old.OrderID)
	d.add(&paid)
	books.Close()
	d.ca.Look(id, false)
	return nil
}

// chargeAgain charges for a second commit.
func (d *Dialect) chargeAgain(draft *draft) *sandboxca.Refusal {
	books := d.ca.Open()
	defer books.Close()
	return books.Charge(draft.Order, draft.OrderID)
}

// settleQueue carries out the queued commits that are due.
func (d *Dialect) settleQueue(c *call) {
	d.committing.Lock()
	defer d.committing.Unlock()
	books := d.ca.Open()
	now := books.Now()
	var due []*draft
	for _, draft := range d.queued {
		if draft.Order.Account == c.account && !now.Before(draft.Queued) {
			due = append(due, draft)
		}
	}
	books.Close()
	slices.SortFunc(due, func(a, b *draft) int { return a.Queued.Compare(b.Queued) })
	for _, draft := range due {
		_ = d.commit(draft) // if it fails, it stays queued
	}
}
