package sandboxca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// howsslDraft is an order that was created and perhaps committed. Its order ID is
// temporary before, and final after.
type howsslDraft struct {
	CheckID string    `json:"check_id"`
	OrderID string    `json:"order_id"`
	Paid    bool      `json:"paid"`
	Queued  time.Time `json:"queued"` // when a queued commit takes effect, zero if none
	Order   *order    `json:"order"`  // as it was created; what became of it is among the orders
	Key     string    `json:"key,omitempty"`
}

// howsslWays are the words of check_way.
var howsslWays = map[string]method{"EMAIL": methodEmail, "FILE": methodHTTP, "DNS": methodCNAME}

// createOrder checks an order and keeps it, free of charge.
func (d *howssl) createOrder(c *howsslCall) answer {
	draft, problem := d.newDraft(c)
	if problem != "" {
		return d.refuse(c, problem)
	}
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	d.ca.st.HowSSL = append(d.ca.st.HowSSL, draft)
	if ref := d.ca.saved(); ref != nil {
		return d.refuse(c, ref.text)
	}
	return d.success(map[string]any{"check_id": draft.CheckID})
}

func (d *howssl) newDraft(c *howsslCall) (*howsslDraft, string) {
	p, ok := d.ca.product(c.get("product_code"))
	if !ok {
		return nil, "product_code does not exist"
	}
	months, err := strconv.Atoi(c.get("validity_period"))
	cents, sold := p.PriceCents[months]
	if err != nil || !slices.Contains([]int{12, 24, 36, 48, 60}, months) || !sold {
		return nil, "validity_period is not sold"
	}
	errs := make(fieldErrors)
	c.checkPeople(p, errs)
	fields := c.quirks.HowSSL.Fields.withDefaults()
	n := &orderName{Name: strings.ToLower(c.get(fields.Domain)), Method: howsslWays[c.get(fields.CheckWay)]}
	if n.Method == methodEmail {
		n.Email = c.get("email_suffix") + "@" + strings.TrimPrefix(n.Name, "*.")
	}
	if n.Method == "" {
		errs.add(fields.CheckWay, fields.CheckWay+" is not a known method")
	}
	checkName(fields.Domain, n, p, errs)
	draft := &howsslDraft{Order: &order{
		Account: c.account, Kind: KindPlace, Product: p.Code, Years: months / 12, Cents: cents,
		NeedsOV: p.ValidationType != DV, Params: json.RawMessage("{}"), Names: []*orderName{n},
	}}
	if len(errs) == 0 {
		draft.takeCSR(c.get("csr"), errs)
	}
	if len(errs) > 0 {
		return nil, fmt.Sprint(errs.shaped("string"))
	}
	draft.identify(c.quirks, p)
	return draft, ""
}

// checkPeople applies the rules of auto_info.
func (c *howsslCall) checkPeople(p Product, errs fieldErrors) {
	var required []string
	switch auto := c.get("auto_info"); {
	case auto == "1" && p.ValidationType != DV:
		errs.add("auto_info", "auto_info must be 0 for this product")
	case auto == "1":
	case auto != "0":
		errs.add("auto_info", "auto_info must be 0 or 1")
	case p.ValidationType == DV:
		required = howsslContact
	default:
		required = slices.Concat(howsslContact, howsslCompany)
	}
	for _, field := range required {
		if c.get(field) == "" {
			errs.add(field, field+" is required")
		}
	}
}

// takeCSR sets the CSR, or has one made if there is none: documented to be optional.
func (draft *howsslDraft) takeCSR(text string, errs fieldErrors) {
	names := draft.Order.names()
	if text == "" {
		der, key, err := makeCSR(names)
		if err != nil {
			errs.add("csr", err.Error())
			return
		}
		draft.Order.CSR, draft.Key = der, string(key)
		return
	}
	csr, err := parseCSR(text)
	if err == nil {
		err = checkCSRNames(csr, names)
	}
	if err != nil {
		errs.add("csr", err.Error())
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
	keyText, err = keyPEM(key)
	return der, keyText, err
}

// identify gives the draft its IDs and what follows from its CSR.
func (draft *howsslDraft) identify(q Quirks, p Product) {
	draft.CheckID, draft.OrderID = randomText(16), "t"+randomText(5)
	o := draft.Order
	o.RefID = draft.CheckID
	o.prove(q, p)
}

// prove sets the proofs of control and the twin.
func (o *order) prove(q Quirks, p Product) {
	o.Challenge = csrHash(o.CSR, o.Unique, q.Trailer)
	if q.HowSSL.RandomProof {
		token := randomText(16)
		o.Challenge = challenge{FileName: "fileauth.txt", FileContent: token, DNSLabel: "_dnsauth", DNSTarget: token}
	}
	if !p.SAN && !q.NoTwin && !isIPName(o.Names[0].Name) {
		o.Twin = &orderName{Name: twinOf(o.Names[0].Name), Method: o.Names[0].Method}
	}
}

func randomText(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, see its documentation
	return hex.EncodeToString(b)
}

// CreateAtHowSSL does what a customer does in the console of HowSSL: it creates an
// unpaid order, with a CSR of HowSSL's own and validation by file, and returns its
// check_id. It takes several names, which createOrder has no documented way for.
func (c *CA) CreateAtHowSSL(token, product string, years int, names ...string) (checkID string, err error) {
	p, ok := c.product(product)
	cents, sold := p.PriceCents[12*years]
	if !ok || !sold || len(names) == 0 || len(names) > p.maxDomains() {
		return "", errors.New("no such product, term or number of names")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	draft := &howsslDraft{Order: &order{
		Account: Account{Token: token}.key(), Kind: KindPlace, Product: product, Years: years, Cents: cents,
		NeedsOV: p.ValidationType != DV, Params: json.RawMessage("{}"),
	}}
	for _, name := range names {
		draft.Order.Names = append(draft.Order.Names, &orderName{Name: name, Method: methodHTTP})
	}
	errs := make(fieldErrors)
	if draft.takeCSR("", errs); len(errs) > 0 {
		return "", fmt.Errorf("making CSR: %v", errs)
	}
	draft.identify(c.cfg.Quirks, p)
	c.st.HowSSL = append(c.st.HowSSL, draft)
	return draft.CheckID, c.save()
}

// draft finds a draft of the caller's. The lock is held.
func (d *howssl) draft(c *howsslCall, is func(*howsslDraft) bool) *howsslDraft {
	for _, draft := range d.ca.st.HowSSL {
		if draft.Order.Account == c.account && is(draft) {
			return draft
		}
	}
	return nil
}

func (d *howssl) fromCheckID(c *howsslCall) answer {
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	draft := d.draft(c, func(draft *howsslDraft) bool { return draft.CheckID == c.get("check_id") })
	if draft == nil {
		return d.refuse(c, "check_id does not exist")
	}
	return d.bare(map[string]any{"order_id": draft.OrderID})
}

// commitOrder pays for a draft.
func (d *howssl) commitOrder(c *howsslCall) answer {
	d.committing.Lock()
	defer d.committing.Unlock()
	quirks := c.quirks.HowSSL

	d.ca.mu.Lock()
	draft := d.draft(c, func(draft *howsslDraft) bool { return draft.CheckID == c.get("check_id") })
	if draft == nil {
		d.ca.mu.Unlock()
		return d.refuse(c, "check_id does not exist")
	}
	again, queue := draft.Paid || !draft.Queued.IsZero(), quirks.CommitQueue
	if !again && queue > 0 {
		draft.Queued = d.ca.cfg.Now().Add(queue)
		d.ca.keep()
	}
	d.ca.mu.Unlock()

	var ref *refusal
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
		return d.refuse(c, ref.text)
	}
	if quirks.CommitRefusedAfterCharge {
		return d.refuse(c, "the CA is busy")
	}
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	return d.success(d.committed(c, draft))
}

// committed is the data that commitOrder answers. The lock is held.
func (d *howssl) committed(c *howsslCall, draft *howsslDraft) map[string]any {
	data := map[string]any{"order_id": draft.OrderID}
	if c.quirks.HowSSL.CommitWithoutID {
		delete(data, "order_id")
	}
	switch c.quirks.HowSSL.CommitValidInfo {
	case "string":
		data["valid_info"] = howsslMailNotice
	case "null":
		data["valid_info"] = nil
	case "absent":
	default:
		data["valid_info"] = validInfo(c.quirks, d.ca.st.byID(draft.OrderID))
	}
	return data
}

// commit makes an order of a draft, charges it, and has a first look at its names.
// Commits are made one after the other.
func (d *howssl) commit(draft *howsslDraft) *refusal {
	o := *draft.Order
	id, ref := d.ca.create(&o)
	if ref != nil {
		return ref
	}
	d.ca.mu.Lock()
	draft.OrderID, draft.Paid, draft.Queued = id, true, time.Time{}
	ref = d.ca.saved()
	d.ca.mu.Unlock()
	d.ca.lookBriefly(id, false)
	return ref
}

// chargeAgain is what a second commit costs.
func (d *howssl) chargeAgain(draft *howsslDraft) *refusal {
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	o := draft.Order
	if d.ca.st.Balances[o.Account] < o.Cents {
		return &refusal{noMoney, "balance", "insufficient balance"}
	}
	d.ca.st.Balances[o.Account] -= o.Cents
	d.ca.st.Charges = append(d.ca.st.Charges, Charge{
		Time: d.ca.cfg.Now(), OrderID: draft.OrderID, Reference: o.RefID, Product: o.Product,
		Names: o.names(), Cents: o.Cents, Kind: KindPlace,
	})
	return d.ca.saved()
}

// settleQueue carries out the queued commits whose time has come.
func (d *howssl) settleQueue(c *howsslCall) {
	d.committing.Lock()
	defer d.committing.Unlock()
	d.ca.mu.Lock()
	now := d.ca.cfg.Now()
	var due []*howsslDraft
	for _, draft := range d.ca.st.HowSSL {
		if draft.Order.Account == c.account && !draft.Queued.IsZero() && !now.Before(draft.Queued) {
			due = append(due, draft)
		}
	}
	d.ca.mu.Unlock()
	for _, draft := range due {
		_ = d.commit(draft) // it stays queued
	}
}
