package digicert

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/csrtest"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

const day = 24 * time.Hour

func life(t *testing.T, change func(*hostile.Config)) (*service, *Orders) {
	t.Helper()
	s := newService(t, change)
	return s, s.open(testKey, s.URL)
}

func (s *service) request(names ...string) vendors.OrderRequest {
	return vendors.OrderRequest{OrderConfig: goodConfig(), Reference: "ref-" + strings.Trim(names[0][:1], "*"), Names: names, CSR: csrtest.DER(s.T, names...)}
}

// must returns the order of a call that must not fail.
func (s *service) must(order vendors.Order, err error) vendors.Order {
	s.T.Helper()
	if err != nil {
		s.T.Fatal(err)
	}
	return order
}

// issue publishes what an order asks for, and expects its certificate.
func (s *service) issue(v *Orders, order vendors.Order) *x509.Certificate {
	s.T.Helper()
	s.Prove(order)
	got := s.must(v.Status(s.T.Context(), order.ID))
	if got.Status != vendors.StatusIssued {
		s.T.Fatalf("order is %s; fetches %+v", got.Describe(), s.CA.Fetches())
	}
	leaf, err := x509.ParseCertificate(got.Certificates[0])
	if err != nil {
		s.T.Fatal(err)
	}
	return leaf
}

func (s *service) charged(want int) {
	s.T.Helper()
	if got := s.Charges(); got != want {
		s.T.Errorf("charged %d times, want %d", got, want)
	}
}

// TestYear goes through a paid year: certificates of 199 days, reissues that keep the order's ID and
// its old certificate until they are validated, a last certificate that ends with the order, and the
// renewal.
func TestYear(t *testing.T) {
	s, v := life(t, nil)
	req := s.request("a.example.com")
	order := s.must(v.Place(t.Context(), req))
	first := s.issue(v, order)
	if lives := first.NotAfter.Sub(first.NotBefore); lives < 198*day || lives > 200*day {
		t.Errorf("the first certificate lasts %v", lives)
	}
	term := s.must(v.Status(t.Context(), order.ID)).TermEnds
	if left := term.Sub(s.Now()); left < 363*day || left > 366*day {
		t.Errorf("the term ends in %v", left)
	}

	reissue := func() vendors.Order {
		return s.must(v.Reissue(t.Context(), order.ID, vendors.OrderRequest{
			OrderConfig: req.OrderConfig, Reference: "ref-r", Names: req.Names, CSR: csrtest.DER(t, req.Names...),
		}))
	}
	s.Pass(133 * day)
	next := reissue()
	if next.ID != order.ID || len(next.Challenges) != 1 || next.Challenges[0] == order.Challenges[0] {
		t.Errorf("reissue: %+v after %+v", next, order)
	}
	if got := s.must(v.Status(t.Context(), order.ID)); got.Status != vendors.StatusPending || got.RawStatus != "reissue_pending" || len(got.Certificates) > 0 {
		t.Errorf("while the reissue is validated: %+v", got)
	}
	if _, err := v.Reissue(t.Context(), order.ID, vendors.OrderRequest{OrderConfig: req.OrderConfig, Names: req.Names, CSR: req.CSR}); !errors.Is(err, vendors.ErrWrongState) {
		t.Errorf("second reissue meanwhile: %v", err)
	}
	second := s.issue(v, next)
	if second.SerialNumber.Cmp(first.SerialNumber) == 0 || second.NotAfter.Sub(second.NotBefore) < 198*day {
		t.Errorf("second certificate ends %v", second.NotAfter)
	}
	if s.CA.Revoked(first.SerialNumber) {
		t.Error("the first certificate was revoked")
	}

	s.Pass(133 * day)
	last := s.issue(v, reissue())
	if over := last.NotAfter.Sub(term); over > 2*day || over < -2*day {
		t.Errorf("last certificate ends %v, the term %v", last.NotAfter, term)
	}
	s.charged(1)

	s.Pass(70 * day)
	again := s.request("b.example.com")
	again.Names, again.CSR = req.Names, csrtest.DER(t, req.Names...)
	renewal := s.must(v.Renew(t.Context(), order.ID, again))
	if renewal.ID == order.ID {
		t.Error("the renewal has the old order's ID")
	}
	s.issue(v, renewal)
	s.charged(2)
	if ch := s.CA.Charges()[1]; ch.Kind != hostile.KindRenew || ch.Reference != again.Reference {
		t.Errorf("second charge: %+v", ch)
	}
}

func TestMultiYearPlan(t *testing.T) {
	s, v := life(t, nil)
	req := s.request("a.example.com")
	req.Term.Years = 3
	order := s.must(v.Place(t.Context(), req))
	leaf := s.issue(v, order)
	got := s.must(v.Status(t.Context(), order.ID))
	if left := got.TermEnds.Sub(s.Now()); left < 3*364*day || leaf.NotAfter.Sub(s.Now()) > 200*day {
		t.Errorf("the term ends %v, the certificate %v", got.TermEnds, leaf.NotAfter)
	}
}

func TestExpiredRandomValueIsRenewed(t *testing.T) {
	s, v := life(t, nil)
	order := s.must(v.Place(t.Context(), s.request("a.example.com")))
	s.Pass(31 * day)
	s.Prove(order)
	got := s.must(v.Status(t.Context(), order.ID))
	if got.Status != vendors.StatusPending || len(got.Challenges) != 1 || got.Challenges[0] == order.Challenges[0] {
		t.Fatalf("with the old value: %+v", got)
	}
	s.issue(v, got)
	s.charged(1)
}

func TestNamesShareOneFile(t *testing.T) {
	s, v := life(t, nil)
	order := s.must(v.Place(t.Context(), s.request("example.com", "www.example.com")))
	publish := func(host string) {
		s.Put(host+"/.well-known/pki-validation/fileauth.txt", order.Challenges[0].FileContent)
	}
	if err := v.Recheck(t.Context(), order.ID, nil, vendors.MethodHTTP); !errors.Is(err, vendors.ErrStillIssuing) {
		t.Errorf("nothing published: %v", err)
	}
	publish("example.com")
	if err := v.Recheck(t.Context(), order.ID, nil, vendors.MethodHTTP); !errors.Is(err, vendors.ErrStillIssuing) {
		t.Errorf("one of two published: %v", err)
	}
	got := s.must(v.Status(t.Context(), order.ID))
	if !slices.Equal(got.Names, []vendors.NameStatus{{Name: "example.com", Verified: true}, {Name: "www.example.com"}}) {
		t.Errorf("names: %+v", got.Names)
	}
	publish("www.example.com")
	if err := v.Recheck(t.Context(), order.ID, nil, vendors.MethodHTTP); err != nil {
		t.Error(err)
	}
	if got := s.must(v.Status(t.Context(), order.ID)); got.Status != vendors.StatusIssued {
		t.Errorf("order is %s", got.Describe())
	}
}

func TestProofByDNS(t *testing.T) {
	for _, record := range []string{recordTXT, recordCNAME} {
		for _, old := range []bool{false, true} {
			var s *service
			find := func(host string) string { return s.Get(host) }
			var v *Orders
			s, v = life(t, func(cfg *hostile.Config) {
				cfg.Quirks.DigiCert.OldDNSCheck = old
				cfg.LookupTXT = func(_ context.Context, host string) ([]string, error) { return []string{find(host)}, nil }
				cfg.LookupCNAME = func(_ context.Context, host string) (string, error) { return find(host), nil }
			})
			v.options.DNSRecord = record
			req := s.request("*.example.com")
			req.Product, req.Method = "wildcard_dv_rapidssl", vendors.MethodDNS
			order := s.must(v.Place(t.Context(), req))
			if err := v.Recheck(t.Context(), order.ID, nil, vendors.MethodDNS); old != errors.Is(err, vendors.ErrStillIssuing) || !old && err != nil {
				t.Errorf("%s, old %v: %v", record, old, err)
			}
			ch := order.Challenges[0]
			if ch.RecordType != strings.ToUpper(record) {
				t.Errorf("%+v", ch)
			}
			s.Put(ch.RecordName+".example.com", ch.RecordValue)
			s.issue(v, order)
		}
	}
}

func TestValidatedOrganizationIssuesAtOnce(t *testing.T) {
	s, v := life(t, func(cfg *hostile.Config) { cfg.Quirks.DigiCert.Immediate = true })
	req := s.request("a.example.com")
	req.Product = "ssl_basic"
	if err := v.Validate(t.Context(), req); err != nil {
		t.Error(err)
	}
	order := s.must(v.Place(t.Context(), req))
	if got := s.must(v.Status(t.Context(), order.ID)); got.Status != vendors.StatusIssued || len(got.Certificates) != 3 || len(order.Challenges) > 0 {
		t.Errorf("%+v, then %+v", order, got)
	}
	s.issue(v, order)

	v.options.OrganizationID = 42
	if err := v.Validate(t.Context(), req); vendors.VerdictOf(err) != vendors.Permanent {
		t.Errorf("wrong organization, dry: %v", err)
	}
	if _, err := v.Place(t.Context(), req); vendors.VerdictOf(err) != vendors.Permanent || !strings.Contains(err.Error(), "not_found|organization") {
		t.Errorf("wrong organization: %v", err)
	}
	s.charged(1)
}

func TestOrganizationIsChecked(t *testing.T) {
	s, v := life(t, func(cfg *hostile.Config) { cfg.OVDelay = time.Hour })
	req := s.request("a.example.com")
	req.Product = "ssl_ev_basic"
	order := s.must(v.Place(t.Context(), req))
	s.Prove(order)
	if got := s.must(v.Status(t.Context(), order.ID)); got.Status != vendors.StatusPending || !strings.Contains(got.Describe(), "organization: ") {
		t.Errorf("%s", got.Describe())
	}
	s.Pass(time.Hour)
	s.issue(v, order)
}

func TestApproval(t *testing.T) {
	s, v := life(t, func(cfg *hostile.Config) { cfg.Quirks.DigiCert.NeedsApproval = true })
	decide := func(order vendors.Order, status string) {
		_, request, _ := strings.Cut(order.Detail, "request ")
		request, _, _ = strings.Cut(request, " ")
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, s.URL+"/services/v2/request/"+request+"/status", strings.NewReader(`{"status":"`+status+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-DC-DEVKEY", testKey)
		resp, err := s.CA.Transport().RoundTrip(req)
		if err != nil || resp.StatusCode != http.StatusNoContent {
			t.Fatalf("%v, %v", resp, err)
		}
		resp.Body.Close()
	}
	placed := func(name string) vendors.Order {
		order := s.must(v.Status(t.Context(), s.must(v.Place(t.Context(), s.request(name))).ID))
		if order.Status != vendors.StatusPending || !order.Held || !strings.Contains(order.Describe(), "needs_approval; waits for the approval") {
			t.Errorf("%s", order.Describe())
		}
		return order
	}
	order := placed("a.example.com")
	decide(order, "approved")
	if got := s.must(v.Status(t.Context(), order.ID)); got.Held {
		t.Errorf("%s is held", got.Describe())
	}
	s.issue(v, s.must(v.Status(t.Context(), order.ID)))

	order = placed("b.example.com")
	decide(order, "rejected")
	if got := s.must(v.Status(t.Context(), order.ID)); got.Status != vendors.StatusRejected {
		t.Errorf("%s", got.Describe())
	}
}

// lost places an order whose answer never arrives.
func (s *service) lost(v *Orders, req vendors.OrderRequest) {
	s.T.Helper()
	remove := s.CA.Inject(hostile.Fault{Endpoint: "order", Phase: hostile.AfterEffect, Kind: hostile.Reset})
	defer remove()
	if _, err := v.Place(s.T.Context(), req); vendors.VerdictOf(err) != vendors.Uncertain {
		s.T.Fatal(err)
	}
}

func TestWitnessesOfALostOrder(t *testing.T) {
	for name, tt := range map[string]struct {
		quirks      hostile.DigiCertQuirks
		found       int
		undecidable bool
	}{
		"both":                         {hostile.DigiCertQuirks{}, 1, false},
		"IDs as strings":               {hostile.DigiCertQuirks{StringIDs: true}, 1, false},
		"only the list":                {hostile.DigiCertQuirks{HideAlternate: true}, 1, false},
		"only the list, empty":         {hostile.DigiCertQuirks{HideAlternate: true, AlternateEmpty: true}, 1, false},
		"only the reference":           {hostile.DigiCertQuirks{HideList: true, Anonymous: true}, 1, false},
		"the list, without references": {hostile.DigiCertQuirks{HideAlternate: true, Anonymous: true}, 0, true},
		"the list, with the CSR":       {hostile.DigiCertQuirks{HideAlternate: true, Unreferenced: true}, 1, false},
		"bare empty lists":             {hostile.DigiCertQuirks{HideAlternate: true, AlternateEmpty: true, HideList: true, BareEmptyList: true}, 0, false},
		"none":                         {hostile.DigiCertQuirks{HideAlternate: true, HideList: true, ErrorsObject: true}, 0, false},
	} {
		s, v := life(t, func(cfg *hostile.Config) { cfg.Quirks.DigiCert = tt.quirks })
		req := s.request("a.example.com")
		sent := time.Now()
		s.lost(v, req)
		ids, err := v.Find(t.Context(), vendors.Lookup{Reference: req.Reference, Names: req.Names, CSR: req.CSR, Sent: sent})
		if len(ids) != tt.found || errors.Is(err, vendors.ErrUndecidable) != tt.undecidable || (err != nil) != tt.undecidable {
			t.Errorf("%s: %v, %v", name, ids, err)
		}
		s.charged(1)
	}
}

func TestReferenceUsedTwiceIsTwoOrders(t *testing.T) {
	s, v := life(t, nil)
	req := s.request("a.example.com")
	s.must(v.Place(t.Context(), req))
	s.must(v.Place(t.Context(), req))
	ids, err := v.Find(t.Context(), vendors.Lookup{Reference: req.Reference, Names: req.Names, Sent: time.Now()})
	if err != nil || len(ids) != 2 {
		t.Errorf("%v, %v", ids, err)
	}
	s.charged(2)
}

// TestLostReissueBesideAStrangersOrder: a lost reissue is found by its own order, even if somebody
// else has just bought a certificate for the name and nothing shows whose order is whose.
func TestLostReissueBesideAStrangersOrder(t *testing.T) {
	for _, carriedOut := range []bool{true, false} {
		s, v := life(t, func(cfg *hostile.Config) {
			cfg.Quirks.DigiCert = hostile.DigiCertQuirks{HideAlternate: true, Anonymous: true}
		})
		req := s.request("a.example.com")
		order := s.must(v.Place(t.Context(), req))
		s.issue(v, order)
		s.Pass(130 * day)
		stranger := s.request("a.example.com")
		stranger.Reference = "stranger"
		s.must(v.Place(t.Context(), stranger))

		fault := hostile.Fault{Endpoint: "reissue", Kind: hostile.Reset}
		var want []string
		if carriedOut {
			fault.Phase, want = hostile.AfterEffect, []string{order.ID}
		}
		remove := s.CA.Inject(fault)
		change := vendors.OrderRequest{OrderConfig: req.OrderConfig, Reference: "ref-lost", Names: req.Names, CSR: csrtest.DER(t, req.Names...)}
		if _, err := v.Reissue(t.Context(), order.ID, change); vendors.VerdictOf(err) != vendors.Uncertain {
			t.Fatal(err)
		}
		remove()
		ids, err := v.Find(t.Context(), vendors.Lookup{
			Reference: change.Reference, Names: change.Names, CSR: change.CSR, OrderID: order.ID, Sent: s.Now(),
		})
		if err != nil || !slices.Equal(ids, want) {
			t.Errorf("carried out %v: %v, %v", carriedOut, ids, err)
		}
	}
}

// TestOrderThatDoesNotTellItsMethod: an order that does not report its method still shows what to
// publish, even after a restart.
func TestOrderThatDoesNotTellItsMethod(t *testing.T) {
	for _, record := range []string{recordTXT, recordCNAME} {
		s, v := life(t, func(cfg *hostile.Config) { cfg.Quirks.DigiCert.NoMethod = true })
		req := s.request("a.example.com")
		order := s.must(v.Place(t.Context(), req))
		restarted := s.open(testKey, s.URL)
		restarted.options.DNSRecord = record
		got := s.must(restarted.Status(t.Context(), order.ID))
		var methods []vendors.Method
		for _, ch := range got.Challenges {
			methods = append(methods, ch.Method)
			if ch.Method == vendors.MethodDNS && !strings.EqualFold(ch.RecordType, record) {
				t.Errorf("the record for %s is %+v", record, ch)
			}
		}
		if !slices.Equal(methods, []vendors.Method{vendors.MethodHTTP, vendors.MethodDNS}) || !slices.Contains(got.Challenges, order.Challenges[0]) {
			t.Errorf("asked for %+v, placed with %+v", got.Challenges, order.Challenges)
		}
		s.issue(restarted, got)
	}
}

// TestLostReissue: a reissue whose answer was lost can be recognized by the order itself.
func TestLostReissue(t *testing.T) {
	s, v := life(t, nil)
	req := s.request("a.example.com")
	order := s.must(v.Place(t.Context(), req))
	s.issue(v, order)
	remove := s.CA.Inject(hostile.Fault{Endpoint: "reissue", Phase: hostile.AfterEffect, Kind: hostile.CutOff})
	change := vendors.OrderRequest{OrderConfig: req.OrderConfig, Reference: "ref-lost", Names: req.Names, CSR: csrtest.DER(t, req.Names...)}
	_, err := v.Reissue(t.Context(), order.ID, change)
	remove()
	if vendors.VerdictOf(err) != vendors.Uncertain {
		t.Fatal(err)
	}
	ids, err := v.Find(t.Context(), vendors.Lookup{Reference: change.Reference, Names: req.Names, OrderID: order.ID, Sent: time.Now()})
	if err != nil || !slices.Equal(ids, []string{order.ID}) {
		t.Errorf("%v, %v", ids, err)
	}
	got := s.must(v.Status(t.Context(), order.ID))
	if got.Status != vendors.StatusPending || len(got.Challenges) != 1 || got.Challenges[0] == order.Challenges[0] {
		t.Errorf("%+v", got)
	}
	s.issue(v, got)
	s.charged(1)
}

func TestCancelledReissueLeavesTheOrder(t *testing.T) {
	s, v := life(t, nil)
	req := s.request("a.example.com")
	order := s.must(v.Place(t.Context(), req))
	first := s.issue(v, order)
	s.must(v.Reissue(t.Context(), order.ID, vendors.OrderRequest{OrderConfig: req.OrderConfig, Names: req.Names, CSR: csrtest.DER(t, req.Names...)}))
	if err := v.Cancel(t.Context(), order.ID, ""); err != nil {
		t.Fatal(err)
	}
	if again := s.issue(v, order); again.SerialNumber.Cmp(first.SerialNumber) != 0 {
		t.Error("the order's certificate has changed")
	}
	if err := v.Cancel(t.Context(), order.ID, ""); vendors.VerdictOf(err) != vendors.Permanent {
		t.Errorf("cancelling what is issued: %v", err)
	}
}

func TestRevocation(t *testing.T) {
	s, v := life(t, func(cfg *hostile.Config) { cfg.Quirks.DigiCert.RevokeNeedsApproval = true })
	order := s.must(v.Place(t.Context(), s.request("a.example.com")))
	leaf := s.issue(v, order)
	if err := v.Revoke(t.Context(), order.ID, "superseded"); vendors.VerdictOf(err) != vendors.Uncertain || s.CA.Revoked(leaf.SerialNumber) {
		t.Errorf("revocation that waits for approval: %v", err)
	}
	if err := s.CA.Update(func(cfg *hostile.Config) { cfg.Quirks.DigiCert.RevokeNeedsApproval = false }); err != nil {
		t.Fatal(err)
	}
	if err := v.Revoke(t.Context(), order.ID, "key compromise"); err != nil || !s.CA.Revoked(leaf.SerialNumber) {
		t.Errorf("revoked %v, %v", s.CA.Revoked(leaf.SerialNumber), err)
	}
}

func TestBadInputIsFree(t *testing.T) {
	s, v := life(t, nil)
	for name, change := range map[string]func(*vendors.OrderRequest){
		"unknown product": func(r *vendors.OrderRequest) { r.Product = "ssl_dv_unheard" },
		"term":            func(r *vendors.OrderRequest) { r.Term.Years = 4 },
		"wildcard":        func(r *vendors.OrderRequest) { r.Names = []string{"*.example.com"} },
		"CSR":             func(r *vendors.OrderRequest) { r.CSR = []byte("x") },
	} {
		req := s.request("a.example.com")
		change(&req)
		_, err := v.Place(t.Context(), req)
		if e, ok := errors.AsType[*vendors.Error](err); !ok || e.Verdict != vendors.Permanent || e.Code == "" || e.Message == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := s.open("wrong", s.URL).Place(t.Context(), s.request("a.example.com"))
	if !errors.Is(err, vendors.ErrCredential) || !strings.Contains(err.Error(), "access_denied_invalid_key") {
		t.Errorf("wrong key: %v", err)
	}
	s.charged(0)
}
