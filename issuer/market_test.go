package issuer

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/internal/test/model"
	"github.com/caddy-commercial/caddy-commercial/issuer/proof"
	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/digicert"
	"github.com/caddy-commercial/caddy-commercial/vendors/howssl"
	"github.com/caddy-commercial/caddy-commercial/vendors/racent"
)

// realVendor is a vendor's own client, as the market of the model needs it.
type realVendor struct {
	name     string
	endpoint string
	paid     []string // the ends of the paths that cost money
	new      func(racent.Config) (vendors.Vendor, error)
	about    vendors.Description

	tellsTerm bool // whether the vendor reports when a term ends
	newID     bool // whether each reissue has one

	// single and multi are the products that the words of the model's configs stand for, for one
	// name and for several. HowSSL's orders for several names are made in its console.
	single, multi map[string]string
}

var (
	sectigoSingle = map[string]string{"dv": "comodo-positivessl", "plus": "comodo-ssl"}
	sectigoMulti  = map[string]string{"dv": "comodo-positive-multi-domain", "plus": "sectigo-multi-domain"}
	digicertMulti = map[string]string{"dv": "ssl_dv_rapidssl", "plus": "ssl_dv_geotrust_flex"}

	realVendors = []realVendor{
		{
			"racent", "http://127.0.0.1:1/ssl", []string{"/place", "/renew"},
			func(cfg racent.Config) (vendors.Vendor, error) { return racent.New(cfg, racent.Options{}) },
			vendors.Description{RenewWindow: 90 * day, RenewKeepsProduct: true}, true, true, sectigoSingle, sectigoMulti,
		},
		{
			"digicert", "http://127.0.0.1:1/services/v2", []string{"/certificate/ssl_dv_rapidssl", "/certificate/ssl_dv_geotrust_flex"},
			func(cfg digicert.Config) (vendors.Vendor, error) { return digicert.New(cfg, digicert.Options{}) },
			vendors.Description{RenewWindow: 90 * day}, true, false, digicertMulti, digicertMulti,
		},
		{
			"howssl", "http://127.0.0.1:1", []string{"/commitOrder"},
			func(cfg howssl.Config) (vendors.Vendor, error) {
				return howssl.New(cfg, howssl.Options{CreateOrderFields: map[string]string{"domains": "domains"}})
			},
			vendors.Description{}, false, false, sectigoSingle, sectigoMulti,
		},
	}
)

// market sells what the real vendors sell in the model: their own clients, at a sandbox for each
// account. What the clients present is on the web or in DNS.
type market struct {
	vendors []realVendor
	web     *web
	tape    *model.Tape
	quiet   bool

	mu      sync.Mutex
	records map[dcv.Record]bool

	places []*place // by vendor, then by account
}

// place is an account of one vendor.
type place struct {
	number  int
	account string
	ca      *hostile.CA
	asked   map[string]time.Time // by the ID of the order
}

// newMarket makes a market whose first vendor is the one of that name.
func newMarket(tb testing.TB, first string) func(*model.Tape) model.Market {
	return func(tape *model.Tape) model.Market {
		m := &market{tape: tape, web: &web{files: make(map[string]string)}, records: make(map[dcv.Record]bool)}
		i := slices.IndexFunc(realVendors, func(v realVendor) bool { return v.name == first })
		m.vendors = []realVendor{realVendors[i], realVendors[(i+1)%len(realVendors)]}
		for number := range m.vendors {
			for _, account := range []string{"", "second"} {
				ca, err := hostile.New(m.config(number, account))
				if err != nil {
					tb.Fatal(err)
				}
				m.places = append(m.places, &place{number, account, ca, make(map[string]time.Time)})
			}
		}
		return m
	}
}

// config returns the config of one account's sandbox, with quirks that every client must cope with.
func (m *market) config(number int, account string) hostile.Config {
	flip := func() bool { return m.tape.Pick(4) == 3 }
	return hostile.Config{
		Core: hostile.Core{
			Accounts:  []hostile.Account{{Token: marketToken(number, account), Balance: 1_000_000_000}},
			Transport: m.web,
			LookupCNAME: func(_ context.Context, host string) (string, error) {
				if found := m.lookup(host, "CNAME"); len(found) > 0 {
					return found[0], nil
				}
				return "", errors.New("there is no such record")
			},
			LookupTXT: func(_ context.Context, host string) ([]string, error) { return m.lookup(host, "TXT"), nil },
		},
		Quirks: hostile.Quirks{
			LooseRefID: true, EmptyUnknownRef: flip(), BareLists: flip(), CRLF: flip(), IncludeRoot: flip(), ReverseChain: flip(),
			NoTwin: flip(), TwinFirst: flip(), TwinInDCVList: flip(), ClipToTerm: flip(), DCVInfo: flip(), NestedUpdate: flip(),
			NoDCVValues: flip(), NumericIDs: flip(), UnknownFields: flip(), Code2WhilePending: flip(), ApplyParamsText: flip(),
			DigiCert: hostile.DigiCertQuirks{AlternateEmpty: flip(), BareEmptyList: flip(), NoMethod: flip(), StringIDs: flip(), ErrorsObject: flip()},
			HowSSL:   hostile.HowSSLQuirks{CommitWithoutID: flip(), ReissueSuccess: flip(), ReissueRecords: flip(), ValidInfoText: flip(), EscapedContent: flip()},
		},
	}
}

func marketToken(number int, account string) string {
	return fmt.Sprintf("%s-%d-%s", testToken, number, account)
}

func (m *market) place(number int, account string) *place {
	return m.places[slices.IndexFunc(m.places, func(p *place) bool { return p.number == number && p.account == account })]
}

// NewVendor implements model.Market.
func (m *market) NewVendor(p *model.Process, number int, account string) vendors.Vendor {
	v, where := m.vendors[number], m.place(number, account)
	about := v.about
	about.Name, about.Account, about.Portal, about.AbsenceAge = v.name, "model.example/"+account, "https://portal.example", p.Params.AbsenceAge
	client, err := v.new(racent.Config{
		Secret: marketToken(number, account), Endpoint: v.endpoint, Timeout: p.Params.PaidTimeout, Logger: p.Logger, Description: about,
		Transport: &marketTransport{m, p, where, v.paid},
	})
	if err != nil {
		panic(err)
	}
	return client
}

// Groups implements model.Market.
func (m *market) Groups(number int) bool { return m.vendors[number].name != "howssl" }

// BuyElsewhere implements model.Market.
func (m *market) BuyElsewhere(number int, names []string) (id string) {
	v, where := m.vendors[number], m.place(number, "")
	about := v.about
	about.Name, about.Account, about.Portal, about.AbsenceAge = v.name, "model.example", "https://portal.example", time.Minute
	cfg := racent.Config{
		Secret: marketToken(number, ""), Endpoint: v.endpoint, Description: about, Transport: where.ca.Transport(),
	}
	client, err := v.new(cfg)
	if err == nil && !m.Groups(number) {
		if id, err = where.ca.CreateAtHowSSL(cfg.Secret, v.multi["dv"], 1, names...); err == nil {
			client, err = howssl.New(cfg, howssl.Options{CheckIDs: []howssl.CheckID{{ID: id, Names: names}}})
		}
	}
	if err == nil {
		id, err = m.buy(client, v.multi["dv"], names)
	}
	if err != nil {
		panic(err)
	}
	return id
}

func (m *market) buy(client vendors.Vendor, product string, names []string) (id string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: names[0]}, DNSNames: names}, key)
	if err != nil {
		return "", err
	}
	ctx := context.Background()
	req := vendors.OrderRequest{
		OrderConfig: vendors.OrderConfig{Product: product, Term: vendors.Term{Years: 1}, Method: vendors.MethodHTTP, Contact: testContact()},
		Reference:   "elsewhere" + strings.ReplaceAll(names[0], ".", ""), Names: names, CSR: csr, Unique: "elsewhere" + names[0][:1],
	}
	if preparer, ok := client.(vendors.Preparer); ok {
		prepared, err := preparer.Prepare(ctx, req)
		if err != nil {
			return "", err
		}
		req.PreparedID = prepared.ID
	}
	order, err := client.Place(ctx, req)
	if err != nil && vendors.VerdictOf(err) != vendors.Uncertain {
		return "", err
	}
	orders := m.places[0].ca.Orders()
	id = orders[len(orders)-1].ID
	for range 20 {
		challenges := order.Challenges
		if predictor, ok := client.(vendors.Predictor); ok && len(challenges) == 0 {
			if challenges, err = predictor.Predict(req); err != nil {
				return "", err
			}
		}
		if err := m.Present(ctx, proof.Proof{ID: req.Reference, Names: names, Method: vendors.MethodHTTP, Challenges: challenges}); err != nil {
			return "", err
		}
		time.Sleep(time.Minute)
		if order, err = client.Status(ctx, id); err != nil || order.Status == vendors.StatusIssued {
			return id, err
		}
	}
	return "", fmt.Errorf("order %s of %v is not issued: %s", id, names, order.Describe())
}

// Present publishes on the web or in the DNS of all names.
func (m *market) Present(ctx context.Context, what proof.Proof) error {
	if what.Method != vendors.MethodDNS {
		return (&webProver{nil, m.web}).Present(ctx, what)
	}
	if err := proof.Check(what); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, ch := range what.Challenges {
		hosts := what.Names
		if ch.Name != "" {
			hosts = []string{ch.Name}
		}
		if ch.Method != vendors.MethodDNS {
			hosts = nil
		}
		for _, host := range hosts {
			record, err := dcv.NewRecord(host, ch.RecordName, ch.RecordType, ch.RecordValue)
			if err != nil {
				return err
			}
			m.records[record] = true
		}
	}
	return nil
}

func (m *market) lookup(host, kind string) (values []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for record := range m.records {
		if record.Name == host && record.Type == kind {
			values = append(values, record.Value)
		}
	}
	return values
}

// product returns what a configuration orders.
func (m *market) product(number int, word string, groups [][]string) string {
	if slices.ContainsFunc(groups, func(g []string) bool { return len(g) > 1 }) {
		return m.vendors[number].multi[word]
	}
	return m.vendors[number].single[word]
}

// Books implements model.Market.
func (m *market) Books(number int, account string) (list []model.Sold) {
	where, v := m.place(number, account), m.vendors[number]
	index := make(map[string]int) // of paid orders
	for _, o := range where.ca.Orders() {
		sold := model.Sold{
			ID: o.ID, Reference: o.RefID, PaidBy: o.PaidBy, Next: o.ReplacedBy, Product: v.word(o.Product), Names: o.Names, Covered: slices.Clone(o.Names),
			Term: time.Duration(o.Years) * 365 * day, Created: o.Created, Issued: o.Issued, Asked: where.asked[o.PaidBy],
			Status: map[string]vendors.Status{
				hostile.StatusPending: vendors.StatusPending, hostile.StatusComplete: vendors.StatusIssued, hostile.StatusCancelled: vendors.StatusCancelled,
				hostile.StatusFailed: vendors.StatusRejected, hostile.StatusReissued: vendors.StatusReplaced, hostile.StatusRevoked: vendors.StatusRevoked,
			}[o.Status],
		}
		if o.TwinVerified {
			sold.Covered = append(sold.Covered, o.Twin)
		}
		if !o.TermEnd.IsZero() && v.tellsTerm {
			sold.Ends = o.TermEnd.Add(-day) // the vendor reports the last day
		}
		if sold.Status == vendors.StatusReplaced && !v.newID {
			sold.Status, sold.Next = vendors.StatusIssued, ""
		}
		if sold.Status == vendors.StatusIssued && !time.Now().Before(o.TermEnd) {
			sold.Status = vendors.StatusExpired
		}
		switch {
		case o.PaidBy == o.ID || v.newID:
			index[o.ID] = len(list)
			list = append(list, sold)
		case !o.Issued.IsZero(): // it is the paid order's certificate now
			root := &list[index[o.PaidBy]]
			root.Covered, root.Issued = sold.Covered, sold.Issued
		}
	}
	return list
}

// word returns the model's word for a product.
func (v realVendor) word(product string) string {
	for _, words := range []map[string]string{v.single, v.multi} {
		for word, code := range words {
			if code == product {
				return word
			}
		}
	}
	return product
}

// Roots implements model.Market.
func (m *market) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, p := range m.places {
		pool.AppendCertsFromPEM(p.ca.RootPEM())
	}
	return pool
}

// Kill implements model.Market.
func (m *market) Kill() {
	for _, p := range m.places {
		for _, o := range p.ca.Orders() {
			if o.Status == hostile.StatusPending {
				if err := p.ca.SetStatus(o.ID, hostile.StatusFailed); err != nil {
					panic(err)
				}
				return
			}
		}
	}
}

// Revoke implements model.Market. HowSSL reports an order whose certificate was revoked before it
// was fetched just like one that has ended.
func (m *market) Revoke() {
	for _, p := range m.places {
		if m.vendors[p.number].name == "howssl" {
			continue
		}
		for _, o := range p.ca.Orders() {
			if o.Status == hostile.StatusComplete && !o.Revoked && o.Serial != "" {
				if err := p.ca.RevokeCertificate(o.ID); err != nil {
					panic(err)
				}
				return
			}
		}
	}
}

// Calm implements model.Market.
func (m *market) Calm() {
	m.quiet = true
	for _, p := range m.places {
		p.takes(0, time.Minute)
	}
}

// haste draws how long a CA takes from now on.
func (m *market) haste(p *place) {
	if m.quiet || m.tape.Pick(4) < 3 {
		return
	}
	p.takes([]time.Duration{0, time.Minute, 3 * time.Hour}[m.tape.Pick(3)],
		[]time.Duration{time.Minute, 10 * time.Minute, 2 * time.Hour, 20 * time.Hour}[m.tape.Pick(4)])
}

// takes sets how long the CA takes until it has an order, and until it signs.
func (p *place) takes(submit, issue time.Duration) {
	if err := p.ca.Update(func(c *hostile.Config) { c.SubmitDelay, c.IssueDelay = submit, issue }); err != nil {
		panic(err)
	}
}

// Close implements model.Market.
func (m *market) Close() {
	for _, p := range m.places {
		p.ca.Close()
	}
}

// marketTransport is the network between a process and a sandbox.
type marketTransport struct {
	m     *market
	p     *model.Process
	where *place
	paid  []string
}

// RoundTrip implements http.RoundTripper.
func (t *marketTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		_ = r.Body.Close()
	}
	paid := slices.ContainsFunc(t.paid, func(end string) bool { return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, end) })
	type answer struct {
		resp *http.Response
		err  error
	}
	answers := make(chan answer, 1) // it may come when nobody waits any longer
	called := t.p.Call(r.Context(), r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:], paid, func(pick func(int) int) {
		t.where.note(r.URL.String() + string(body))
		t.m.haste(t.where)
		mend := t.where.spoil(pick)
		again := r.Clone(context.Background())
		again.Body = io.NopCloser(bytes.NewReader(body))
		resp, err := t.where.ca.Transport().RoundTrip(again)
		answers <- answer{resp, err}
		mend()
	})
	if called != nil {
		return nil, called
	}
	a := <-answers
	return a.resp, a.err
}

// note remembers which orders a request is about.
func (p *place) note(request string) {
	for _, o := range p.ca.Orders() {
		if p.asked[o.PaidBy].IsZero() && strings.Contains(request, o.ID) {
			p.asked[o.PaidBy] = time.Now()
		}
	}
}

// spoil may make the next call fail.
func (p *place) spoil(pick func(int) int) (mend func()) {
	kinds := []hostile.FaultKind{
		hostile.HTTPStatus, hostile.HTML, hostile.Empty, hostile.CutOff, hostile.BadJSON, hostile.Reset, hostile.Redirect, hostile.ExtraFields,
		hostile.Shuffled, hostile.Strange,
	}
	n := pick(1 + 2*len(kinds))
	if n == 0 {
		return func() {}
	}
	n--
	return p.ca.Inject(hostile.Fault{
		Phase: []hostile.Phase{hostile.BeforeEffect, hostile.AfterEffect}[n%2], Kind: kinds[n/2], Times: 1, Seed: uint64(n),
		Status: []int{0, 400, 429, 500, 503}[pick(5)],
	})
}
