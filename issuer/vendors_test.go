package issuer

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/issuer/proof"
	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/digicert"
	"github.com/caddy-commercial/caddy-commercial/vendors/howssl"
)

// vendorKinds are the three kinds of vendor. Racent computes its proofs from the CSR, has a renewal
// that keeps the old product, and gives a new ID to each reissue. DigiCert's proofs are random
// values that exist only once an order is paid, its reissues keep the ID, and its references do not
// deduplicate. HowSSL prepares an order first and charges for it afterwards, has no references, and
// does not report the end of the term.
var vendorKinds = []struct {
	name  string
	start func(w *world, f *fuse, change func(*flow)) *process

	// group is a product for several names. Empty means that there is none.
	group string

	// The sandbox's names for the paid call, the reissue and the status call.
	pay, reissue, status string

	// blind is whether an order whose payment was lost before it arrived cannot be told apart from
	// one that is waiting, so a person has to check.
	blind bool
}{
	{name: "racent", start: (*world).start, group: "comodo-positive-multi-domain", pay: "place", reissue: "replace", status: "collect"},
	{name: "digicert", start: (*world).startDigiCert, group: "ssl_dv_rapidssl", pay: "order", reissue: "reissue", status: "info"},
	{name: "howssl", start: (*world).startHowSSL, pay: "Order/commitOrder", reissue: "Reissue/submit", status: "Order/getOrderInfo", blind: true},
}

func (w *world) startDigiCert(f *fuse, change func(*flow)) *process {
	w.tb.Helper()
	cfg := digicert.Config{
		Secret: testToken, Endpoint: "http://127.0.0.1:1/services/v2", Timeout: 30 * time.Second, Logger: w.logger,
		Transport: fusedTransport{f, w.transport()},
		Description: vendors.Description{
			Name: "digicert", Account: "test", Portal: "https://portal.example", AbsenceAge: 5 * time.Minute, RenewWindow: 90 * day,
		},
	}
	if w.share > 0 {
		cfg.Limiter, cfg.Description.Pace = digicert.NewLimiter(w.share), digicert.Pace(w.share)
	}
	client, err := digicert.New(cfg, digicert.Options{})
	if err != nil {
		w.tb.Fatal(err)
	}
	return w.startVendor(f, client, func(fl *flow) {
		fl.order.Product = "ssl_dv_rapidssl"
		if change != nil {
			change(fl)
		}
	})
}

func (w *world) startHowSSL(f *fuse, change func(*flow)) *process {
	w.tb.Helper()
	client, err := howssl.New(howssl.Config{
		Secret: testToken, Endpoint: "http://127.0.0.1:1", Timeout: 30 * time.Second, Logger: w.logger,
		Transport: fusedTransport{f, w.transport()},
		Description: vendors.Description{
			Name: "howssl", Account: "test", Portal: "https://portal.example", AbsenceAge: 5 * time.Minute, Pace: howssl.Pace,
		},
		Limiter: howssl.NewLimiter(),
	}, howssl.Options{CreateOrderFields: map[string]string{"domains": "domains"}})
	if err != nil {
		w.tb.Fatal(err)
	}
	return w.startVendor(f, client, change)
}

// TestBadNetworks: at all vendors, calls that matter and are lost or garbled cost nothing extra.
func TestBadNetworks(t *testing.T) {
	kinds := map[string]hostile.Fault{
		"500":      {Kind: hostile.HTTPStatus, Status: 500},
		"502 HTML": {Kind: hostile.HTML},
		"empty":    {Kind: hostile.Empty},
		"cut off":  {Kind: hostile.CutOff},
		"bad JSON": {Kind: hostile.BadJSON},
		"reset":    {Kind: hostile.Reset},
		"hang":     {Kind: hostile.Hang},
		"10 MB":    {Kind: hostile.Huge},
		"redirect": {Kind: hostile.Redirect},
		"429":      {Kind: hostile.HTTPStatus, Status: 429, RetryAfter: "99999999"},
	}
	row := 0
	for _, v := range vendorKinds {
		for kind, fault := range kinds {
			for phase, when := range map[hostile.Phase]string{hostile.BeforeEffect: "before", hostile.AfterEffect: "after"} {
				for _, call := range []string{v.pay, v.reissue, v.status} {
					if row++; row%raceStride != 0 {
						continue
					}
					title := v.name + ", " + kind + " " + when + " " + call
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t, nil)
						p := v.start(w, nil, nil)
						fault.Endpoint, fault.Phase, fault.Times = call, phase, 1
						w.ca.Inject(fault)
						lost := v.blind && call == v.pay && phase == hostile.BeforeEffect
						var err error
						for range 2 {
							if _, p, err = w.drive(p, "example.com", nil); err != nil {
								break
							}
						}
						note(title, w, err)
						want, charges := "served", 1
						if lost && outcome(err) != "served" {
							want, charges = "uncertain, says so", 0
						}
						if outcome(err) != want || w.charges() != charges {
							t.Errorf("%s: %d charges, %s: %v", title, w.charges(), outcome(err), err)
						}
						if placed := w.events.count(eventOrderPlaced); placed != charges {
							t.Errorf("%s: %d events for placed orders", title, placed)
						}
						w.noForgottenOrders()
						w.noSecrets()
					})
				}
			}
		}
	}
}

// cleanUps is a prover that records which proofs are removed.
type cleanUps struct {
	proof.Prover
	mu  sync.Mutex
	ids []string
}

func (p *cleanUps) CleanUp(ctx context.Context, what proof.Proof) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ids = append(p.ids, what.ID)
	p.Prover.CleanUp(ctx, what)
}

// TestRecordsOfADeadProcessAreRemoved kills a process between adding its DNS records and placing the
// order. Another process removes them once they can no longer be needed.
func TestRecordsOfADeadProcessAreRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *hostile.Config) {
			c.LookupCNAME = func(context.Context, string) (string, error) { return "", errors.New("no such record") }
		})
		byDNS := func(f *flow) { f.order.Method, f.rules.maxWait = vendors.MethodDNS, time.Minute }
		// The first contact is writing the draft to the ledger: before it and after it.
		first := w.start(&fuse{left: 2}, byDNS)
		if _, err := first.attempt(t.Context(), "example.com"); !first.fuse.burnt() {
			t.Fatalf("error = %v", err)
		}
		first.stop()
		var draft string
		for key := range w.storage.snapshot() {
			if base, ok := strings.CutSuffix(path.Base(key), ".json"); ok && strings.Contains(key, "/drafts/") {
				draft = base
			}
		}
		if draft == "" || w.charges() != 0 {
			t.Fatalf("draft %q, charges %d", draft, w.charges())
		}
		seen := &cleanUps{}
		second := w.start(nil, func(f *flow) {
			byDNS(f)
			seen.Prover = f.prove
			f.prove = seen
		})
		// It cannot be issued: the records are not in any DNS that the CA asks.
		if _, err := second.attempt(t.Context(), "example.com"); !is[*PendingError](err) {
			t.Fatalf("error = %v", err)
		}
		time.Sleep(26 * time.Hour)
		second.stop()
		if !slices.Contains(seen.ids, draft) {
			t.Errorf("the records of %s were not removed, only those of %v", draft, seen.ids)
		}
		if e := w.entry("example.com"); e == nil || slices.Contains(seen.ids, e.Attempt.Reference) {
			t.Errorf("the records of the pending order were removed: %+v", e)
		}
		if w.charges() != 1 {
			t.Errorf("charges = %d, want 1", w.charges())
		}
	})
}

// TestBadCAs: whatever the CA behind a vendor does, or the world around it, one order is paid for.
func TestBadCAs(t *testing.T) {
	quirk := func(change func(*hostile.Quirks)) func(*hostile.Config) {
		return func(c *hostile.Config) { change(&c.Quirks) }
	}
	row := 0
	for _, v := range vendorKinds {
		for _, c := range []badVendor{
			{name: "well-behaved", want: "served"},
			{name: "reversed chain", config: quirk(func(q *hostile.Quirks) { q.ReverseChain = true }), want: "served"},
			{name: "root included", config: quirk(func(q *hostile.Quirks) { q.IncludeRoot = true }), want: "served"},
			{name: "CRLF", config: quirk(func(q *hostile.Quirks) { q.CRLF = true }), want: "served"},
			{name: "missing intermediate", config: quirk(func(q *hostile.Quirks) { q.OmitIntermediate = true }), want: "pending, goes on"},
			{name: "certificate for another key", config: quirk(func(q *hostile.Quirks) { q.WrongKey = true }), want: "pending, goes on"},
			{name: "expired certificate", config: quirk(func(q *hostile.Quirks) { q.ExpiredCert = true }), want: "pending, goes on"},
			{name: "wrong common name", config: quirk(func(q *hostile.Quirks) { q.WrongCN = "elsewhere.example.org" }), want: "served"},
			{name: "unknown fields", config: quirk(func(q *hostile.Quirks) { q.UnknownFields = true }), want: "served"},
			{name: "slow CA", config: func(c *hostile.Config) { c.IssueDelay = 20 * time.Hour }, want: "served"},
			{name: "CA's clock a day ahead", config: func(c *hostile.Config) { c.Now = func() time.Time { return time.Now().Add(24 * time.Hour) } }, want: "served"},
			{name: "status spoilt for an hour", faults: []hostile.Fault{{Endpoint: v.status, Kind: hostile.HTTPStatus, Status: 503}}, lasting: time.Hour, want: "served"},
			{name: "every call slow by seconds", faults: []hostile.Fault{{Kind: hostile.Delay, Delay: 5 * time.Second}}, want: "served"},
		} {
			title := v.name + ", " + c.name
			if row++; row%raceStride != 0 {
				continue
			}
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, c.config)
				for _, fault := range c.faults {
					remove := w.ca.Inject(fault)
					if c.lasting > 0 {
						time.AfterFunc(c.lasting, remove)
					}
				}
				got, p, err := w.drive(v.start(w, nil, nil), "example.com", nil)
				if err == nil {
					w.verify(got, "example.com")
					_, _, err = w.drive(p, "example.com", nil)
				}
				note(title, w, err)
				if outcome(err) != c.want || w.charges() != 1 {
					t.Errorf("%s: %d charges, %s: %v", title, w.charges(), outcome(err), err)
				}
				w.noForgottenOrders()
				w.noSecrets()
			})
		}
	}
}
