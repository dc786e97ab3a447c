package vendortest

import (
	"crypto/x509"
	"errors"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/csrtest"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Run runs the suite. Open makes a fresh harness for each scenario, and closes what it has opened
// with t.Cleanup. Scenarios for optional interfaces are left out if the vendor does not have them.
func Run(t *testing.T, open func(t *testing.T) *Harness) {
	for name, scenario := range map[string]func(suite){
		"describes itself":                   describes,
		"places and issues":                  lives,
		"finds a lost order":                 findsLost,
		"does not know other orders":         unknownOrder,
		"sends paid calls once":              paidOnce,
		"sends renewals once":                renewedOnce,
		"leaves the outcome of a hang open":  hangs,
		"refuses without charge":             refusals,
		"had no effect when unreachable":     unreachable,
		"had no effect when cancelled early": cancelledEarly,
		"does not mistake faults for facts":  readsFail,
		"tolerates unknown fields":           unknownFields,
		"reissues for free":                  reissues,
		"renews for money":                   renews,
		"validates for free":                 validates,
		"predicts its challenges":            predicts,
		"cancels and revokes":                cancelsAndRevokes,
		"looks at issued orders":             looks,
		"lists products":                     listsProducts,
		"lists all orders":                   listsOrders,
		"works concurrently":                 concurrent,
	} {
		t.Run(name, func(t *testing.T) {
			s := suite{Harness: open(t), t: t}
			scenario(s)
			s.cleanLogs()
		})
	}
}

func describes(s suite) {
	about := s.Vendor.Describe()
	if about.Name == "" || about.Account == "" || about.Portal == "" || len(about.Methods) == 0 {
		s.t.Errorf("description is incomplete: %+v", about)
	}
	s.clean("description", about.Account+about.Portal)
	if _, cancels := s.Vendor.(vendors.Canceler); cancels != (about.Cancelling != "") {
		s.t.Errorf("cancelling: %v, but described as %q", cancels, about.Cancelling)
	}
	if _, revokes := s.Vendor.(vendors.Revoker); revokes != (about.Revoking != "") {
		s.t.Errorf("revoking: %v, but described as %q", revokes, about.Revoking)
	}
	if again := s.Vendor.Describe(); !reflect.DeepEqual(about, again) {
		s.t.Errorf("description changed from %+v to %+v", about, again)
	}
	for role := RolePlace; role <= RoleFind; role++ {
		if n := s.Service.Sent(role); n != 0 {
			s.t.Errorf("Describe sent %d requests", n)
		}
	}
}

func lives(s suite) {
	req := s.request()
	order := s.place(req)
	s.charged(1)
	pending, err := s.Vendor.Status(s.ctx(), order.ID)
	if err != nil || pending.Status != vendors.StatusPending || pending.Status.Ended() {
		s.t.Fatalf("status before validation: %q, %v", pending.Status, err)
	}
	if len(order.Challenges)+len(pending.Challenges)+len(s.predicted(req)) == 0 {
		s.t.Error("the challenge is not known from anywhere")
	}
	issued := s.issue(order, req)
	if !issued.TermEnds.IsZero() && time.Until(issued.TermEnds) < 24*time.Hour {
		s.t.Errorf("the paid term ends at %v", issued.TermEnds)
	}
	s.charged(1)
}

func findsLost(s suite) {
	finder, ok := s.Vendor.(vendors.Finder)
	if !ok {
		return
	}
	req := s.prepared(s.request())
	remove := s.Service.Inject(Fault{Role: RolePlace, Kind: CutOff, AfterEffect: true})
	_, err := s.Vendor.Place(s.ctx(), req)
	s.failed(err, vendors.Uncertain)
	remove()

	ids, err := finder.Find(s.ctx(), lookup(req))
	if err != nil || len(ids) != 1 {
		s.t.Fatalf("found %v, %v", ids, err)
	}
	s.issue(vendors.Order{ID: ids[0]}, req)
	s.charged(1)

	ids, err = finder.Find(s.ctx(), lookup(vendors.OrderRequest{
		Reference: "suite-never-sent", Names: req.Names, CSR: csrtest.DER(s.t, req.Names...),
	}))
	if err != nil || len(ids) != 0 {
		s.t.Errorf("found %v, %v for a reference that was never sent", ids, err)
	}
}

// challenges asks the vendor for the challenges of an order.
func (s suite) challenges(id string) []vendors.Challenge {
	s.t.Helper()
	order, err := s.Vendor.Status(s.ctx(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	return order.Challenges
}

func unknownOrder(s suite) {
	_, err := s.Vendor.Status(s.ctx(), "999999unknown")
	if s.anyFailure(err); !errors.Is(err, vendors.ErrNotFound) {
		s.t.Errorf("error does not match ErrNotFound: %v", err)
	}
}

func unknownFields(s suite) {
	for role := RolePlace; role <= RoleFind; role++ {
		defer s.Service.Inject(Fault{Role: role, Kind: ExtraFields, AfterEffect: true})()
	}
	lives(s)
}

func reissues(s suite) {
	reissuer, ok := s.Vendor.(vendors.Reissuer)
	if !ok {
		return
	}
	req := s.request()
	order := s.place(req)
	again := s.request()
	change := vendors.OrderRequest{
		OrderConfig: req.OrderConfig, Reference: again.Reference,
		Names: req.Names, CSR: csrtest.DER(s.t, req.Names...), Unique: again.Unique,
	}
	_, err := reissuer.Reissue(s.ctx(), order.ID, change)
	if s.failed(err, vendors.Permanent); !errors.Is(err, vendors.ErrWrongState) {
		s.t.Errorf("reissue before issue does not match ErrWrongState: %v", err)
	}
	first := s.issue(order, req)

	next, err := reissuer.Reissue(s.ctx(), order.ID, change)
	if err != nil {
		s.t.Fatalf("reissuing: %v", err)
	}
	second := s.issue(next, change)
	if reflect.DeepEqual(first.Certificates[0], second.Certificates[0]) {
		s.t.Error("the reissue returned the old certificate")
	}
	// A vendor that identifies requests by what was prepared cannot find reissues by it.
	_, prepares := s.Vendor.(vendors.Preparer)
	if finder, ok := s.Vendor.(vendors.Finder); ok && !prepares {
		asked := lookup(change)
		asked.OrderID = order.ID
		if ids, err := finder.Find(s.ctx(), asked); err != nil || len(ids) != 1 || ids[0] != next.ID {
			s.t.Errorf("found %v, %v for the reissue", ids, err)
		}
	}
	if next.ID != order.ID {
		old, err := s.Vendor.Status(s.ctx(), order.ID)
		if err != nil || old.Status != vendors.StatusReplaced {
			s.t.Errorf("the order that was reissued is %q, %v", old.Status, err)
		}
	}
	s.charged(1)
}

type oldOrder struct {
	id  string
	req vendors.OrderRequest
}

// renewable returns an issued order near the end of its term.
func (s suite) renewable() oldOrder {
	s.t.Helper()
	req := s.request()
	order := s.place(req)
	s.issue(order, req)
	s.Service.Age(order.ID)
	return oldOrder{order.ID, req}
}

func renews(s suite) {
	renewer, ok := s.Vendor.(vendors.Renewer)
	if !ok {
		return
	}
	old := s.renewable()
	req := s.request()
	req.Names = old.req.Names
	req.CSR = csrtest.DER(s.t, req.Names...)
	order, err := renewer.Renew(s.ctx(), old.id, req)
	if err != nil {
		s.t.Fatalf("renewing: %v", err)
	}
	if order.ID == "" {
		s.t.Fatal("renewal has no ID")
	}
	s.charged(2)
	s.issue(order, req)
	s.charged(2)
}

func validates(s suite) {
	validator, ok := s.Vendor.(vendors.Validator)
	if !ok {
		return
	}
	if err := validator.Validate(s.ctx(), s.request()); err != nil {
		s.t.Errorf("a good order: %v", err)
	}
	stranger := s.Stranger.(vendors.Validator)
	s.failed(stranger.Validate(s.ctx(), s.request()), vendors.Permanent)
	s.charged(0)
	if n := s.Service.Sent(RolePlace); n != 0 {
		s.t.Errorf("placed %d orders", n)
	}
}

func predicts(s suite) {
	req := s.request()
	predicted := s.predicted(req)
	if len(predicted) == 0 {
		return
	}
	order := s.place(req)
	later := s.challenges(order.ID)
	for _, told := range [][]vendors.Challenge{order.Challenges, later} {
		if len(told) > 0 && !reflect.DeepEqual(told, predicted) {
			s.t.Errorf("predicted %+v\nasked for  %+v", predicted, told)
		}
	}
	s.issue(vendors.Order{ID: order.ID, Challenges: predicted}, req)
}

func cancelsAndRevokes(s suite) {
	if c, ok := s.Vendor.(vendors.Canceler); ok {
		order := s.place(s.request())
		for range 2 { // repeating must be safe
			if err := c.Cancel(s.ctx(), order.ID, ""); err != nil {
				s.t.Errorf("cancelling: %v", err)
			}
		}
		if got, err := s.Vendor.Status(s.ctx(), order.ID); err != nil || got.Status != vendors.StatusCancelled {
			s.t.Errorf("cancelled order is %q, %v", got.Status, err)
		}
		s.anyFailure(c.Cancel(s.ctx(), "999999unknown", "test"))
	}
	if r, ok := s.Vendor.(vendors.Revoker); ok {
		req := s.request()
		order := s.place(req)
		s.issue(order, req)
		if err := r.Revoke(s.ctx(), order.ID, "key compromise"); err != nil {
			s.t.Errorf("revoking: %v", err)
		}
		if got, err := s.Vendor.Status(s.ctx(), order.ID); err != nil || !got.Status.Ended() {
			s.t.Errorf("revoked order is %q, %v", got.Status, err)
		}
	}
	if r, ok := s.Vendor.(vendors.Rechecker); ok {
		req := s.request()
		order := s.place(req)
		if err := r.Recheck(s.ctx(), order.ID, req.Names, req.Method); err != nil && !errors.Is(err, vendors.ErrStillIssuing) {
			s.t.Errorf("rechecking: %v", err)
		}
	}
}

func listsProducts(s suite) {
	lister, ok := s.Vendor.(vendors.ProductLister)
	if !ok {
		return
	}
	products, err := lister.Products(s.ctx())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, p := range products {
		if p.Code == s.Order.Product {
			if p.Name == "" || p.Validation == "" || len(p.Prices) == 0 {
				s.t.Errorf("product is incomplete: %+v", p)
			}
			return
		}
	}
	s.t.Errorf("%d products without %s", len(products), s.Order.Product)
}

func listsOrders(s suite) {
	auditor, ok := s.Vendor.(vendors.Auditor)
	if !ok {
		return
	}
	req := s.request()
	issued := s.place(req)
	s.issue(issued, req)
	want := map[string]vendors.Status{issued.ID: vendors.StatusIssued, s.place(s.request()).ID: vendors.StatusPending}
	if err := auditor.ListOrders(s.ctx(), func(o vendors.ListedOrder) error {
		if status, known := want[o.ID]; !known || o.Status != status || len(o.Names) == 0 || o.Created.IsZero() {
			s.t.Errorf("listed %+v", o)
		}
		delete(want, o.ID)
		return nil
	}); err != nil || len(want) > 0 {
		s.t.Errorf("not listed: %v, %v", want, err)
	}
	enough := errors.New("enough")
	if err := auditor.ListOrders(s.ctx(), func(vendors.ListedOrder) error { return enough }); !errors.Is(err, enough) {
		s.t.Errorf("error = %v", err)
	}
	nothing := func(vendors.ListedOrder) error { return nil }
	s.failed(s.Stranger.(vendors.Auditor).ListOrders(s.ctx(), nothing), vendors.Permanent)
}

func concurrent(s suite) {
	const orders = 8
	requests := make([]vendors.OrderRequest, orders)
	for i := range requests {
		requests[i] = s.prepared(s.request())
	}
	ids := make([]string, orders)
	var wg sync.WaitGroup
	for i, req := range requests {
		wg.Go(func() {
			order, err := s.Vendor.Place(s.ctx(), req)
			if err != nil {
				s.t.Errorf("placing: %v", err)
				return
			}
			ids[i] = order.ID
			if _, err := s.Vendor.Status(s.ctx(), order.ID); err != nil {
				s.t.Errorf("status: %v", err)
			}
			if f, ok := s.Vendor.(vendors.Finder); ok {
				if found, err := f.Find(s.ctx(), lookup(req)); err != nil || len(found) != 1 || found[0] != order.ID {
					s.t.Errorf("order %s found as %v, %v", order.ID, found, err)
				}
			}
		})
	}
	wg.Wait()
	seen := make(map[string]bool)
	for _, id := range ids {
		if seen[id] {
			s.t.Errorf("two orders have the ID %s", id)
		}
		seen[id] = true
	}
	s.charged(orders)
}

// looks compares Watcher.Look, which is cheaper, with Status.
func looks(s suite) {
	w, ok := s.Vendor.(vendors.Watcher)
	if !ok {
		return
	}
	req := s.request()
	order := s.place(req)
	issued := s.issue(order, req)
	serial := func(o vendors.Order) string {
		if len(o.Certificates) == 0 {
			return o.Serial
		}
		leaf, err := x509.ParseCertificate(o.Certificates[0])
		if err != nil {
			s.t.Fatal(err)
		}
		return leaf.SerialNumber.Text(16)
	}
	got, err := w.Look(s.ctx(), order.ID)
	if err != nil || got.ID != order.ID || got.Status != vendors.StatusIssued || got.CertificateRevoked || !got.TermEnds.Equal(issued.TermEnds) || serial(got) != serial(issued) {
		s.t.Errorf("look: %+v, %v", got, err)
	}
	if _, err := w.Look(s.ctx(), "999999unknown"); !errors.Is(err, vendors.ErrNotFound) {
		s.t.Errorf("look at an unknown order: %v", err)
	}
	if r, ok := s.Vendor.(vendors.Revoker); ok {
		if err := r.Revoke(s.ctx(), order.ID, "key compromise"); err != nil {
			s.t.Fatal(err)
		}
		if got, err := w.Look(s.ctx(), order.ID); err != nil || !got.Status.Ended() {
			s.t.Errorf("revoked order is %q, %v", got.Status, err)
		}
	}
}
