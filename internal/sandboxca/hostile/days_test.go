package hostile

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/csrtest"
)

// What sellers and their CAs have been seen to do overnight.

// change changes the quirks of a running sandbox.
func (b *bench) change(f func(*Quirks)) {
	b.t.Helper()
	if err := b.Update(func(cfg *Config) { f(&cfg.Quirks) }); err != nil {
		b.t.Fatal(err)
	}
}

// csrOf makes a CSR with a country, or without.
func csrOf(t *testing.T, country, name string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}}
	if country != "" {
		tmpl.Subject.Country = []string{country}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func TestCountryIsSuddenlyDemanded(t *testing.T) {
	b := newBench(t, nil)
	b.placed("comodo-positivessl", "before", "a.example.com")
	b.change(func(q *Quirks) { q.DemandCountry = true })
	charges := len(b.Charges())
	b.want(b.call("validate", orderForm(t, "comodo-positivessl", "", "a.example.com")), 1)
	if r := b.want(b.call("place", orderForm(t, "comodo-positivessl", "", "a.example.com")), -6); !strings.Contains(r.raw, "C=") {
		t.Errorf("answer %s", r.raw)
	}
	b.expectStatus(b.ask("POST", "order/certificate/ssl_dv_rapidssl", digicertOrderBody(t, nil, "a.example.com")), 400, "invalid_value:csr")
	checkID := b.good("Order/createOrder", howsslOrderForm(t, "a.example.com")).field("check_id")
	if r := b.howssl("Order/commitOrder", map[string]string{"check_id": checkID}); r.Status != false || !strings.Contains(r.raw, "C=") {
		t.Errorf("answer %s", r.raw)
	}
	if n := len(b.Charges()); n != charges {
		t.Errorf("%d charges", n-charges)
	}
	params := orderParamsFor(t, "a.example.com")
	params["csr"] = csrOf(t, "GB", "a.example.com")
	form := orderForm(t, "comodo-positivessl", "", "a.example.com")
	form["params"] = asJSON(t, params)
	b.want(b.call("place", form), 1)
}

// TestNoMoney: Racent's answer to an order that the balance does not cover has been seen
// in two forms.
func TestNoMoney(t *testing.T) {
	for bare, code := range map[bool]int{false: -4, true: -2} {
		b := newBench(t, func(cfg *Config) { cfg.Quirks.BareNoMoney = bare })
		if err := b.SetBalance(testToken, 1); err != nil {
			t.Fatal(err)
		}
		r := b.want(b.call("place", orderForm(t, "comodo-positivessl", "", "a.example.com")), code)
		if bare && r.raw != `{"code":-2,"errors":null}` || len(b.Charges()) > 0 {
			t.Errorf("answer %s, charges %v", r.raw, b.Charges())
		}
		b.want(b.call("validate", orderForm(t, "comodo-positivessl", "", "a.example.com")), -4)
	}
}

func TestListsWithoutTheirKey(t *testing.T) {
	b := newBench(t, nil)
	lists := func() string {
		t.Helper()
		var all []string
		all = append(all, b.want(b.call("list", nil), 1).raw)
		all = append(all, b.ask("GET", "order/certificate?filters[domain_name]=b.example.com", "").raw)
		all = append(all, b.howssl("Product_info/lists", map[string]string{"product_name": "nothing"}).raw)
		return strings.Join(all, " ")
	}
	keys := func(text string) string {
		return fmt.Sprint(strings.Contains(text, `"data":[]`), strings.Contains(text, `"orders":[]`), strings.Contains(text, `"certId"`), strings.Contains(text, `"data"`))
	}
	for _, step := range []struct {
		quirks Quirks
		orders int
		want   string
	}{
		{Quirks{}, 0, "true true false true"},
		{Quirks{BareLists: true}, 0, "false false false false"},
		{Quirks{BareLists: true}, 1, "false false true true"},
		{Quirks{KeylessLists: true}, 0, "false false false false"},
	} {
		for range step.orders {
			b.placed("comodo-positivessl", "", "a.example.com")
		}
		b.change(func(q *Quirks) { *q = step.quirks })
		if text := lists(); keys(text) != step.want {
			t.Errorf("%s: %s, want %s", text, keys(text), step.want)
		}
	}
}

// TestRevokedWhileTheOrderLives: the order can be reissued, and DigiCert shows that its
// certificate is revoked.
func TestRevokedWhileTheOrderLives(t *testing.T) {
	b := newBench(t, nil)
	id := b.issued("comodo-positivessl", "", "a.example.com")
	digicert := b.ordered("b.example.com")
	b.expectStatus(b.proven(digicert, "b.example.com"), 200, "")
	for _, have := range []string{id, digicert} {
		if err := b.RevokeCertificate(have); err != nil {
			t.Fatal(err)
		}
	}
	if r := b.want(b.call("collect", map[string]string{"certId": id}), 1); r.Status != StatusComplete || r.CertStatus != StatusRevoked || !b.info(id).Revoked {
		t.Errorf("order %s, certificate %s, revoked %v", r.Status, r.CertStatus, b.info(id).Revoked)
	}
	next := b.want(b.call("reissue", map[string]string{"certId": id, "reason": "x", "uniqueValue": "n"}), 1).field("certId")
	b.prove(next)
	if b.info(next).Revoked {
		t.Error("the reissue is revoked, too")
	}
	info := b.ask("GET", "order/certificate/"+digicert, "")
	if cert := info.fields["certificate"].(map[string]any); info.text("status") != "issued" || cert["status"] != "revoked" {
		t.Errorf("info %s", info.raw)
	}
	if err := b.RevokeCertificate("none"); err == nil {
		t.Error("revoked the certificate of an unknown order")
	}
	if err := b.RevokeCertificate(b.placed("comodo-positivessl", "", "c.example.com")); err == nil {
		t.Error("revoked a certificate that is not issued")
	}
}

func TestEverythingIsRevoked(t *testing.T) {
	b := newBench(t, nil)
	ids := []string{b.issued("comodo-positivessl", "", "a.example.com"), b.issued("comodo-positivessl", "", "b.example.com")}
	pending := b.placed("comodo-positivessl", "", "c.example.com")
	for _, want := range []int{2, 0} {
		if n, err := b.RevokeAll(); n != want || err != nil {
			t.Errorf("revoked %d, %v, want %d", n, err, want)
		}
	}
	for _, id := range ids {
		o := b.info(id)
		serial, _ := new(big.Int).SetString(o.Serial, 16)
		if !o.Revoked || o.Status != StatusComplete || !b.Revoked(serial) {
			t.Errorf("%+v", o)
		}
	}
	b.prove(pending)
	if b.info(pending).Revoked {
		t.Error("a later certificate is revoked")
	}
	der, err := b.CRL()
	if err != nil {
		t.Fatal(err)
	}
	crl, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	issuer := parseCert(t, b.want(b.call("collect", map[string]string{"certId": pending}), 1).field("caCertificate"))
	if err := crl.CheckSignatureFrom(issuer); err != nil {
		t.Error(err)
	}
	if n := len(crl.RevokedCertificateEntries); n != 2 || !crl.RevokedCertificateEntries[0].RevocationTime.Equal(b.clock.Now().Add(-time.Second)) {
		t.Errorf("%d entries: %+v", n, crl.RevokedCertificateEntries)
	}
}

func TestClientAuthIsGoneFromReissues(t *testing.T) {
	b := newBench(t, func(cfg *Config) { cfg.ClientAuth, cfg.Quirks.ServerAuthOnlyAgain = true, true })
	usages := func(id string) []x509.ExtKeyUsage {
		return parseCert(t, b.want(b.call("collect", map[string]string{"certId": id}), 1).field("certificate")).ExtKeyUsage
	}
	id := b.issued("comodo-positivessl", "", "a.example.com")
	if got := usages(id); !slices.Equal(got, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}) {
		t.Errorf("usages %v", got)
	}
	next := b.want(b.call("reissue", map[string]string{"certId": id, "reason": "x", "uniqueValue": "n"}), 1).field("certId")
	b.prove(next)
	if got := usages(next); !slices.Equal(got, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) {
		t.Errorf("usages %v", got)
	}
}

// TestPerspectivesMiss: two of six may, three may not.
func TestPerspectivesMiss(t *testing.T) {
	for missing, want := range map[int]string{2: StatusComplete, 3: StatusPending} {
		b := newBench(t, func(cfg *Config) {
			cfg.Perspectives, cfg.Quorum, cfg.Quirks.MissPerspectives = 6, 4, missing
		})
		id := b.placed("comodo-positivessl", "", "a.example.com")
		b.site.publish(b.info(id), "a.example.com")
		b.clock.add(time.Second)
		if r := b.want(b.call("collect", map[string]string{"certId": id}), 1); r.Status != want {
			t.Errorf("%d miss: %s, want %s", missing, r.Status, want)
		}
	}
}

func TestBogusZone(t *testing.T) {
	b := newBench(t, func(cfg *Config) { cfg.Quirks.BogusZones = []string{"example.com."} })
	id := b.placed("comodo-positivessl", "", "a.example.com")
	b.issued("comodo-positivessl", "", "a.example.org")
	b.site.publish(b.info(id), "a.example.com")
	b.clock.add(time.Second)
	if r := b.want(b.call("collect", map[string]string{"certId": id}), 1); r.Status != StatusPending {
		t.Errorf("status %s", r.Status)
	}
	for _, f := range b.Fetches() {
		if strings.HasSuffix(f.Host, "example.com") && !strings.Contains(f.Result, "SERVFAIL") {
			t.Errorf("fetch %+v", f)
		}
	}
	b.change(func(q *Quirks) { q.BogusZones = nil })
	b.prove(id)
}

// TestRevocationsOfAllSellers: what happens to an order behind its client's back shows in
// each seller's own words, and an active order can be reissued.
func TestRevocationsOfAllSellers(t *testing.T) {
	b := newBench(t, nil)
	racent := b.issued("comodo-positivessl", "", "a.example.com")
	digicert := b.ordered("b.example.com")
	b.expectStatus(b.proven(digicert, "b.example.com"), 200, "")
	_, howssl := b.committed("c.example.com")
	b.completed(howssl)
	words := func() string {
		collected := b.want(b.call("collect", map[string]string{"certId": racent}), 1)
		info := b.ask("GET", "order/certificate/"+digicert, "")
		changes := b.ask("GET", "order/certificate/status-changes?minutes=5", "")
		return fmt.Sprint(collected.Status, " ", collected.CertStatus, ", ", info.text("status"), " ", info.fields["certificate"].(map[string]any)["status"], " ",
			strings.Contains(changes.raw, digicert), ", ", b.orderStatus(howssl))
	}
	later := func() { b.clock.add(time.Hour) }
	later()
	if got, want := words(), "COMPLETE COMPLETE, issued <nil> false, 3"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if n, err := b.RevokeAll(); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	if got, want := words(), "COMPLETE REVOKED, issued revoked true, 8"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	later()
	b.change(func(q *Quirks) { q.DigiCert.UnlistedRevocations = true })
	reissue := b.howssl("Reissue/submit", map[string]string{
		"order_id": howssl, "reissue_type": "1", "csr_type": "2", "csr_content": csrtest.PEM(t, nil, "c.example.com", "c.example.com"), "check_type": "2",
	})
	b.completed(howssl)
	if got, want := words(), "COMPLETE REVOKED, issued revoked false, 3"; got != want {
		t.Errorf("%s, want %s, after %s", got, want, reissue.raw)
	}
	if n, err := b.EndAll(StatusRevoked); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	if got, want := words(), "REVOKED REVOKED, revoked revoked true, 8"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if n, err := b.EndAll(StatusCancelled); n != 0 || err != nil {
		t.Error(n, err)
	}
	orders := b.Orders()
	for _, id := range []string{racent, digicert, orders[len(orders)-1].ID} {
		if err := b.EndOrder(id, StatusCancelled); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := words(), "CANCELLED CANCELLED, canceled revoked true, 5"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if o := b.info(racent); !o.Refunded {
		t.Errorf("%+v", o)
	}
	for id, status := range map[string]string{"none": StatusRevoked, racent: StatusComplete} {
		if err := b.EndOrder(id, status); err == nil {
			t.Errorf("order %s ended as %s", id, status)
		}
	}
}
