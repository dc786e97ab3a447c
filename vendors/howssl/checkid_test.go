package howssl

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"strings"
	"testing"
	"time"

	sandboxca "github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// request returns a good order and the key of its CSR.
func request(t *testing.T, names ...string) (vendors.OrderRequest, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	return vendors.OrderRequest{OrderConfig: goodConfig(), Reference: "ref", Names: names, CSR: der}, key
}

// issue proves an order and returns its leaf.
func (s *service) issue(o *Orders, order vendors.Order) *x509.Certificate {
	s.t.Helper()
	s.Prove(order)
	got, err := o.Status(s.t.Context(), order.ID)
	if err != nil || got.Status != vendors.StatusIssued || len(got.Certificates) != 2 {
		s.t.Fatalf("%+v, %v", got, err)
	}
	leaf, err := x509.ParseCertificate(got.Certificates[0])
	if err != nil {
		s.t.Fatal(err)
	}
	return leaf
}

// An order that was created at HowSSL is paid for once, issued for HowSSL's key, and
// reissued for ours, without createOrder and without a name for its fields.
func TestOrderCreatedAtHowSSL(t *testing.T) {
	s := newService(t, nil)
	s.fields = nil
	names := []string{"a.example.com", "b.example.com"}
	id, err := s.ca.CreateAtHowSSL(testToken, "comodo-multi-dv", 1, names...)
	if err != nil {
		t.Fatal(err)
	}
	o := s.open(s.url, testToken, CheckID{ID: id, Names: []string{"B.example.com", "a.example.com"}})
	req, key := request(t, names...)
	if req.PreparedID, err = o.Prepare(t.Context(), req); err != nil || req.PreparedID != id {
		t.Fatalf("prepared %q, %v", req.PreparedID, err)
	}
	if n := s.Charges(); n != 0 {
		t.Fatalf("charged %d times before the commit", n)
	}
	order, err := o.Place(t.Context(), req)
	if err != nil || !o.ForeignCSR(id) || o.ForeignCSR("another") || len(order.Challenges) != 2 {
		t.Fatalf("%+v, %v", order, err)
	}
	if leaf := s.issue(o, order); key.PublicKey.Equal(leaf.PublicKey) {
		t.Fatal("the first certificate is for our key")
	}
	next, err := o.Reissue(t.Context(), vendors.ReissueRequest{
		OrderConfig: req.OrderConfig, OrderID: order.ID, Names: names, CSR: req.CSR,
	})
	if err != nil || next.ID != order.ID {
		t.Fatalf("%+v, %v", next, err)
	}
	leaf := s.issue(o, next)
	if !key.PublicKey.Equal(leaf.PublicKey) || leaf.VerifyHostname(names[1]) != nil {
		t.Errorf("the certificate is for another key, or for %v", leaf.DNSNames)
	}
	if n := s.Charges(); n != 1 {
		t.Errorf("charged %d times", n)
	}
	if n := s.ca.Calls("Order/createOrder"); n != 0 {
		t.Errorf("created %d orders", n)
	}

	// Once paid for, it is no way to another order.
	_, err = o.Prepare(t.Context(), req)
	if vendors.VerdictOf(err) != vendors.Permanent || err == nil || !strings.Contains(err.Error(), "use it with: order "+order.ID+" a.example.com b.example.com") {
		t.Errorf("preparing again: %v", err)
	}
}

func TestUnusableCheckIDs(t *testing.T) {
	for name, quirks := range map[string]sandboxca.HowSSLQuirks{
		"unknown": {}, "state not told": {RefuseDraftInfo: true},
	} {
		s := newService(t, &quirks)
		id, err := s.ca.CreateAtHowSSL(testToken, testProduct, 1, "a.example.com")
		if err != nil {
			t.Fatal(err)
		}
		if name == "unknown" {
			id += "x"
		}
		req, _ := request(t, "a.example.com")
		o := s.open(s.url, testToken, CheckID{ID: id, Names: req.Names})
		if _, err := o.Prepare(t.Context(), req); vendors.VerdictOf(err) != vendors.Permanent || !errors.Is(err, errRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A commit that waits in a queue is neither repeated nor taken for absent.
func TestCommitInAQueue(t *testing.T) {
	s := newService(t, &sandboxca.HowSSLQuirks{CommitQueue: time.Hour})
	o := s.open(s.url, testToken)
	req, _ := request(t, "a.example.com")
	var err error
	if req.PreparedID, err = o.Prepare(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Place(t.Context(), req); vendors.VerdictOf(err) != vendors.Uncertain || err == nil {
		t.Fatalf("placing: %v", err)
	}
	lookup := vendors.Lookup{PreparedID: req.PreparedID}
	s.pass(59 * time.Minute)
	if ids, err := o.Find(t.Context(), lookup); ids != nil || !errors.Is(err, vendors.ErrUndecidable) {
		t.Errorf("in the queue: %v, %v", ids, err)
	}
	s.pass(time.Minute)
	if ids, err := o.Find(t.Context(), lookup); len(ids) != 1 || err != nil {
		t.Errorf("behind the queue: %v, %v", ids, err)
	}
	if n := s.Charges(); n != 1 {
		t.Errorf("charged %d times", n)
	}
}

func TestCheckIDsInTheConfig(t *testing.T) {
	for want, list := range map[string][]CheckID{
		"check_id: the ID is missing":                 {{Names: []string{"a.example"}}},
		"check_id: x has no names":                    {{ID: "x"}},
		"check_id: x is given twice":                  {{ID: "x", Names: []string{"a.example"}}, {ID: "x", Names: []string{"b.example"}}},
		"check_id: a.example is a name of both x and": {{ID: "x", Names: []string{"a.example"}}, {ID: "y", Names: []string{"b.example", "A.example"}}},
		`check_id: "" is not a name`:                  {{ID: "x", Names: []string{""}}},
	} {
		if _, err := newCheckIDs(list); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s", list, err, want)
		}
	}
	ids, err := newCheckIDs([]CheckID{{ID: "x", Names: []string{"Bücher.example", "*.a.example"}}})
	if err != nil {
		t.Fatal(err)
	}
	if id, err := ids.find([]string{"xn--bcher-kva.example", "*.a.example"}); id != "x" || err != nil {
		t.Errorf("found %q, %v", id, err)
	}
	if id, err := ids.find([]string{"other.example"}); id != "" || err != nil {
		t.Errorf("found %q, %v", id, err)
	}
}
