package operator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// bare is a vendor with only what every vendor can do.
type bare struct {
	orders map[string]vendors.Order
	ended  []string // what it was asked to end
	err    error    // its answer to that
}

func (*bare) Describe() vendors.Description { return vendors.Description{} }

func (*bare) Place(context.Context, vendors.OrderRequest) (vendors.Order, error) {
	panic("something is bought")
}

func (v *bare) Status(_ context.Context, id string) (vendors.Order, error) {
	order, ok := v.orders[id]
	if !ok {
		return order, &vendors.Error{Vendor: "fake", Endpoint: "status", Verdict: vendors.Permanent, Err: vendors.ErrNotFound}
	}
	return order, nil
}

// able is a vendor that can do everything that a desk can use.
type able struct{ *bare }

func (v able) Reissue(context.Context, string, vendors.OrderRequest) (vendors.Order, error) {
	panic("a desk reissues nothing by itself")
}

func (v able) Cancel(_ context.Context, id, reason string) error {
	return v.end(id, "cancel", reason, vendors.Order{Status: vendors.StatusCancelled, RawStatus: "CANCELLED"})
}

func (v able) Revoke(_ context.Context, id, reason string) error {
	return v.end(id, "revoke", reason, vendors.Order{Status: vendors.StatusIssued, RawStatus: "ISSUED", CertificateRevoked: true})
}

func (v able) end(id, what, reason string, order vendors.Order) error {
	v.ended = append(v.ended, what+" "+id+" "+reason)
	if v.err == nil {
		v.orders[id] = order
	}
	return v.err
}

func (able) Products(context.Context) ([]vendors.Product, error) {
	return []vendors.Product{{Code: "dv", Prices: map[int]string{12: "9.90 EUR"}}}, nil
}

// selling gives the office vendors that know all orders in its ledgers.
func (o *office) selling() *bare {
	v := &bare{orders: make(map[string]vendors.Order)}
	for i := range o.Accounts {
		a := &o.Accounts[i]
		a.Vendor = able{v}
		a.About.Cancelling, a.About.Revoking, a.About.CancelWithin = "all is paid back", "nothing is paid back", 30*day
		a.Order = func(string) vendors.OrderConfig {
			return vendors.OrderConfig{Product: "dv", Term: vendors.Term{Years: 1}, Method: vendors.MethodHTTP}
		}
	}
	for _, row := range o.rows(Query{Past: true}) {
		v.orders[row.OrderID] = vendors.Order{ID: row.OrderID, Status: vendors.StatusIssued, RawStatus: "ISSUED"}
	}
	return v
}

// files returns the entries of all ledgers.
func (o *office) files() string {
	var all strings.Builder
	_ = filepath.WalkDir(o.storage.Path, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			data, _ := os.ReadFile(path)
			fmt.Fprintf(&all, "%s %s\n", path, data)
		}
		return nil
	})
	return all.String()
}

// TestRefused: what is not possible is refused, with a message that says what is. Nothing is
// changed, neither here nor at the vendor.
func TestRefused(t *testing.T) {
	const racent, portal = "racent", "portal.example"
	asked := func(e *ledger.Entry) {
		e.State, e.OrderID, e.Certificate, e.Issued = ledger.Asked, "", nil, 0
		e.Attempt.Started = e.Attempt.Started.Add(-time.Hour)
	}
	open := func(e *ledger.Entry) { e.State, e.Certificate, e.Issued = ledger.Open, nil, 0 }
	reissuing := func(e *ledger.Entry) { e.State, e.Attempt.Kind = ledger.Open, ledger.KindReissue }
	ended := func(e *ledger.Entry) { e.State, e.Flag = ledger.Open, &ledger.Flag{Reason: "REVOKED", Ended: true} }
	with := func(change func(*ledger.Entry)) func(*office) {
		return func(o *office) { o.enter(racent, portal, "a.example", change) }
	}
	issued := with(nil)
	twice := func(o *office) {
		issued(o)
		o.enter("digicert", "api.example/Shop_1", "a.example", nil)
	}
	elsewhere := func(o *office) { o.enter("howssl", "other.example", "a.example", nil) }
	for _, c := range []struct {
		what    string
		a       Action
		arrange func(*office)
		want    string
		is      error
	}{
		{"dance", Action{About: "a.example"}, issued, `there is no action "dance"`, nil},
		{"cancel", Action{}, issued, "which order?", nil},

		// What the action is about.
		{"cancel", Action{About: "b.example"}, issued, "caddy commercial list", ErrUnknown},
		{"renew", Action{About: "b.example"}, issued, "caddy commercial list", ErrUnknown},
		{"revoke", Action{About: "b.example"}, issued, "caddy commercial list", ErrUnknown},
		{"resolve", Action{About: "b.example", None: true}, issued, "caddy commercial list", ledger.ErrNothingToResolve},
		{"cancel", Action{About: "a.example"}, nil, "no orders at all", ErrUnknown},
		{"cancel", Action{About: "a.example", Vendor: "howssl"}, issued, "no orders of howssl, but of racent/portal.example", ErrUnknown},
		{"cancel", Action{About: "a.example", Entry: "x"}, issued, "caddy commercial list", ErrUnknown},
		{"cancel", Action{About: "a.example"}, twice, "--vendor or --entry", nil},
		{"resolve", Action{About: "a.example", None: true}, twice, "--vendor or --entry", nil},
		{"cancel", Action{About: "a.example"}, elsewhere, "the config has no issuer for it, but for racent/portal.example, digicert/api.example/Shop_1", nil},
		{"renew", Action{About: "a.example"}, func(o *office) { issued(o); o.Accounts = nil }, "name the config with --config", nil},
		{"adopt", Action{About: "a.example", Order: "1"}, func(o *office) { o.Accounts = nil }, "name it with --config", nil},

		// Its state.
		{"renew", Action{About: "a.example"}, with(asked), "on its way already", nil},
		{"renew", Action{About: "a.example"}, with(open), "on its way already", nil},
		{"renew", Action{About: "a.example"}, with(ended), "caddy commercial resolve a.example", nil},
		{"renew", Action{About: "a.example"}, with(func(e *ledger.Entry) { e.Certificate.Lost = true }), "being replaced already", nil},
		{"renew", Action{About: "a.example"}, with(func(e *ledger.Entry) { e.Ends = today.Add(29 * day) }), "the next order is placed, and paid for, on 2027-04-13", nil},
		{"renew", Action{About: "a.example"}, with(func(e *ledger.Entry) { e.Ends = today.Add(-day) }), "ended on 2026-11-30", errNotInForce},
		{"renew", Action{About: "a.example"}, with(func(e *ledger.Entry) { e.State = ledger.Gone }), "was given up", errNotInForce},
		{"renew", Action{About: "old.a"}, func(o *office) { o.enter(racent, portal, "old.a", func(e *ledger.Entry) { e.Covered = nil }) }, "no site of the config", nil},
		{"cancel", Action{About: "a.example"}, with(asked), "whether there is an order for a.example is not known yet", nil},
		{"cancel", Action{About: "a.example"}, with(reissuing), "is being reissued", nil},
		{"cancel", Action{About: "a.example"}, with(ended), "has ended already: REVOKED", nil},
		{"revoke", Action{About: "a.example"}, with(ended), "has ended already: REVOKED", nil},
		{"revoke", Action{About: "a.example"}, with(open), "no certificate that could be revoked", nil},
		{"resolve", Action{About: "a.example"}, issued, "either an order ID or none", nil},
		{"resolve", Action{About: "a.example", None: true, Order: "1"}, issued, "either an order ID or none", nil},
		{"resolve", Action{About: "a.example", None: true}, with(func(e *ledger.Entry) { asked(e); e.Attempt.Started = today }), "may still be on its way", nil},
		{"resolve", Action{About: "a.example", None: true}, with(func(e *ledger.Entry) { e.State = ledger.Gone }), "no order for a.example is in force", ledger.ErrNothingToResolve},
		{"cancel", Action{About: "a.example", Revision: 1}, issued, "look again", ErrChanged},

		// The vendor.
		{"cancel", Action{About: "a.example"}, with(func(e *ledger.Entry) { e.OrderID = "unheard-of" }), "does not know order unheard-of; is it another account's?", vendors.ErrNotFound},
		{"adopt", Action{About: "b.example", Order: "unheard-of", Vendor: racent}, issued, "does the order belong to this account?", vendors.ErrNotFound},

		// What is adopted.
		{"adopt", Action{About: "b.example", Vendor: racent}, nil, "Give the vendor's ID", nil},
		{"adopt", Action{About: "b.example", Order: "1"}, nil, "--vendor racent/portal.example; --vendor digicert/api.example/Shop_1", nil},
		{"adopt", Action{About: "b.example", Order: "1", Vendor: "howssl"}, nil, "has no site b.example with an issuer of howssl", nil},
		{"adopt", Action{About: "old.b", Order: "1"}, nil, "has no site old.b", nil},
		{"adopt", Action{About: "a.example", Order: "o-a.example", Vendor: racent}, issued, "is in the ledger already", nil},
		{"adopt", Action{About: "a.example", Order: "1", Vendor: racent}, issued, "order o-a.example of the ledger is for a.example until", nil},
		{"adopt", Action{About: "b.example", Order: "of-c", Vendor: racent}, nil, "is for c.example, not for b.example", nil},
		{"adopt", Action{About: "b.example", Order: "revoked", Vendor: racent}, nil, "cannot be adopted: it is REVOKED", nil},
		{"adopt", Action{About: "b.example", Order: "over", Vendor: racent}, nil, "its term ended on 2026-11-30", nil},
	} {
		o := newOffice(t)
		if c.arrange != nil {
			c.arrange(o)
		}
		v := o.selling()
		delete(v.orders, "unheard-of")
		v.orders["1"] = vendors.Order{ID: "1", Status: vendors.StatusIssued}
		v.orders["of-c"] = vendors.Order{ID: "of-c", Status: vendors.StatusPending, Names: []vendors.NameStatus{{Name: "C.example"}}}
		v.orders["revoked"] = vendors.Order{ID: "revoked", Status: vendors.StatusRevoked, RawStatus: "REVOKED"}
		v.orders["over"] = vendors.Order{ID: "over", Status: vendors.StatusIssued, TermEnds: today.Add(-day)}
		before := o.files()
		c.a.Confirm = true
		_, err := o.Do(t.Context(), c.what, c.a)
		_, refused := errors.AsType[*RefusedError](err)
		if !refused && !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s %+v: %v, want %q", c.what, c.a, err, c.want)
		}
		if o.files() != before || len(v.ended) > 0 {
			t.Errorf("%s %+v: something was done: %v", c.what, c.a, v.ended)
		}
	}
}

// TestVendorsThatCannot: a vendor that lacks an ability is not asked to use it, and its portal is named.
func TestVendorsThatCannot(t *testing.T) {
	o := newOffice(t)
	o.enter("racent", "portal.example", "a.example", nil)
	v := o.selling()
	o.Accounts[0].Vendor = v
	for what, want := range map[string]string{
		"cancel": "cancel order o-a.example at https://portal.example, and then: caddy commercial resolve a.example --none",
		"revoke": "revoke the certificate of order o-a.example at https://portal.example",
		"renew":  "look at https://portal.example",
	} {
		if _, err := o.Do(t.Context(), what, Action{About: "a.example", Confirm: true}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	audits, err := o.Reconcile(t.Context(), Reconciliation{Vendor: "racent"})
	if err != nil || len(audits) != 1 || !audits[0].NoList || audits[0].Open() != 0 {
		t.Errorf("%+v, %v", audits, err)
	}
}

// unreadable is a storage that cannot be read.
type unreadable struct{ certmagic.Storage }

func (unreadable) List(context.Context, string, bool) ([]string, error) { return nil, fs.ErrPermission }

// torn is a storage whose entries cannot be read.
type torn struct{ certmagic.Storage }

func (torn) Load(context.Context, string) ([]byte, error) { return nil, fs.ErrPermission }

func TestStorageCannotBeRead(t *testing.T) {
	for _, broken := range []func(certmagic.Storage) certmagic.Storage{
		func(s certmagic.Storage) certmagic.Storage { return unreadable{s} },
		func(s certmagic.Storage) certmagic.Storage { return torn{s} },
	} {
		o := newOffice(t)
		o.enter("racent", "portal.example", "a.example", nil)
		o.selling()
		storage := broken(o.storage)
		o.Storages[0] = storage
		for i := range o.Accounts {
			o.Accounts[i].Ledger.Storage = storage
		}
		for what := range actions {
			a := Action{About: "a.example", Vendor: "racent", Order: "1", Confirm: true}
			if _, err := o.Do(t.Context(), what, a); !errors.Is(err, fs.ErrPermission) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, err := o.Reconcile(t.Context(), Reconciliation{}); !errors.Is(err, fs.ErrPermission) {
			t.Error(err)
		}
	}
}

// TestPlans: a plan says what is done, what it costs, and what follows.
func TestPlans(t *testing.T) {
	o := newOffice(t)
	o.enter("racent", "portal.example", "a.example", nil)
	o.enter("racent", "portal.example", "pending.example", func(e *ledger.Entry) { e.State, e.Certificate, e.Issued = ledger.Open, nil, 0 })
	v := o.selling()
	v.orders["7"] = vendors.Order{ID: "7", Status: vendors.StatusIssued, RawStatus: "ISSUED", TermEnds: today.Add(200 * day)}
	for what, want := range map[string][]string{
		"renew a.example":        {"free of charge and for a new key", "serial number 0abc", "is served until", "nothing is bought by it; the next order is placed, and paid for, from about 2028-"},
		"cancel o-a.example":     {"asked to cancel", "ISSUED", "all is paid back", "2026-12-31T", "browsers may refuse it", "resolve a.example --none", "remove the site", "9.90 EUR (dv, 1 year)"},
		"cancel pending.example": {"asked to cancel", "all is paid back", "resolve pending.example --none", "9.90 EUR"},
		"revoke a.example":       {"asked to revoke", "nothing is paid back", "reissued, free of charge and for a new key", "whatever replace_ended_orders says"},
		"resolve a.example":      {"is given up in the ledger; nothing is done at the vendor", "another order is placed, and paid for", "9.90 EUR"},
		"adopt b.example":        {"is entered into the ledger; nothing is bought", "ISSUED", "no order is placed for its names before 2027-05-20; its term ends on 2027-06-19"},
	} {
		before := o.files()
		what, about, _ := strings.Cut(what, " ")
		a := Action{About: about, Vendor: "racent", None: what == "resolve"}
		if what == "adopt" {
			a.Order = "7"
		}
		for _, a.DryRun = range []bool{true, false} {
			a.Confirm = a.DryRun // DryRun overrides it
			out, err := o.Do(t.Context(), what, a)
			if err != nil || out.Done {
				t.Fatalf("%s: %+v, %v", what, out, err)
			}
			var text bytes.Buffer
			if err := WritePlan(&text, out.Plan); err != nil {
				t.Fatal(err)
			}
			for _, part := range want {
				if !strings.Contains(text.String(), part) {
					t.Errorf("%s %s: %q is missing in\n%s", what, about, part, text.String())
				}
			}
		}
		if o.files() != before || len(v.ended) > 0 {
			t.Errorf("%s: something was done: %v", what, v.ended)
		}
	}
}

// TestPick: one of several orders is picked by its vendor, its account, its entry or its ID, and the
// decision is recorded in its story.
func TestPick(t *testing.T) {
	for _, pick := range []func(*Action, *ledger.Entry){
		func(a *Action, _ *ledger.Entry) { a.Vendor = "digicert" },
		func(a *Action, _ *ledger.Entry) { a.Vendor = "digicert/api.example/Shop_1" },
		func(a *Action, e *ledger.Entry) { a.Entry = e.ID },
		func(a *Action, e *ledger.Entry) { a.About = e.ID },
		func(a *Action, e *ledger.Entry) { a.About = e.OrderID },
	} {
		o := newOffice(t)
		o.enter("racent", "portal.example", "a.example", nil)
		e := o.enter("digicert", "api.example/Shop_1", "a.example", func(e *ledger.Entry) { e.OrderID = "4300" })
		v := o.selling()
		a := Action{About: "a.example", Note: "key compromise", By: "ada", Confirm: true}
		pick(&a, e)
		out, err := o.Do(t.Context(), "revoke", a)
		if err != nil || !out.Done || !slices.Equal(v.ended, []string{"revoke 4300 key compromise"}) {
			t.Errorf("%+v: %v, %v", a, v.ended, err)
		}
		stories, err := o.Show(t.Context(), e.ID)
		if err != nil || len(stories) != 1 || !slices.ContainsFunc(stories[0].Events, func(event ledger.Event) bool {
			return event.What == ledger.Decided && event.Words == "caddy commercial revoke, by ada: key compromise"
		}) {
			t.Errorf("%+v, %v", stories, err)
		}
	}
}

// TestEndWhatIsRevoked: an order whose certificate the CA has revoked can be cancelled, and is not
// revoked twice. For an order that the vendor has ended, only the ledger is corrected.
func TestEndWhatIsRevoked(t *testing.T) {
	for _, c := range []struct {
		what  string
		order vendors.Order
		asked bool
		want  ledger.State
	}{
		{"cancel", vendors.Order{Status: vendors.StatusIssued, CertificateRevoked: true}, true, ledger.Open},
		{"revoke", vendors.Order{Status: vendors.StatusIssued, CertificateRevoked: true}, false, ledger.Issued},
		{"revoke", vendors.Order{Status: vendors.StatusRevoked}, false, ledger.Issued}, // the reissue decides
		{"cancel", vendors.Order{Status: vendors.StatusRevoked}, false, ledger.Open},
		{"cancel", vendors.Order{Status: vendors.StatusCancelled}, false, ledger.Open},
	} {
		o := newOffice(t)
		o.enter("racent", "portal.example", "a.example", nil)
		v := o.selling()
		v.orders["o-a.example"] = c.order
		_, err := o.Do(t.Context(), c.what, Action{About: "a.example", Confirm: true})
		row := o.rows(Query{})[0]
		if err != nil || (len(v.ended) == 1) != c.asked || row.State != string(c.want) || (row.Flag != "") != (c.want == ledger.Open) {
			t.Errorf("%s of what is %+v: %v, %v, %+v", c.what, c.order, err, v.ended, row)
		}
	}
}

// TestHold: an action waits for a server that is working on the order, but not forever.
func TestHold(t *testing.T) {
	for busy, done := range map[time.Duration]bool{0: true, time.Second: true, time.Hour: false} {
		synctest.Test(t, func(t *testing.T) {
			o := newOffice(t)
			o.enter("racent", "portal.example", "a.example", nil)
			o.selling()
			begun, held, woken := time.Now(), false, []string{}
			o.Accounts[0].Wake = func(name string) { woken = append(woken, name) }
			o.Accounts[0].Hold = func(string) (func(), bool) {
				if time.Since(begun) < busy {
					return nil, false
				}
				held = true
				return func() { held = false }, true
			}
			_, err := o.Do(t.Context(), "renew", Action{About: "a.example", Confirm: true})
			if (err == nil) != done || held || done != (len(woken) == 2) {
				t.Errorf("busy for %s: %v, %v", busy, err, woken)
			}
		})
	}
}

// TestAdoptAgainForAnotherName: an order that was given up is taken up again for the names that are
// asked for now, which may be different ones. A server that remembers the names before sees that in
// its next listing.
func TestAdoptAgainForAnotherName(t *testing.T) {
	o := newOffice(t)
	v := o.selling()
	server := o.ledger("racent", "portal.example")
	v.orders["7"] = vendors.Order{ID: "7", Status: vendors.StatusPending, RawStatus: "PENDING", TermEnds: today.Add(200 * day)}
	for _, a := range []Action{{About: "a.example", Order: "7"}, {About: "a.example", None: true}, {About: "b.example", Order: "7"}} {
		what := "adopt"
		if a.None {
			what = "resolve"
		}
		a.Vendor, a.Confirm = "racent", true
		if _, err := o.Do(t.Context(), what, a); err != nil {
			t.Fatal(err)
		}
		if err := server.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if about, err := server.About(t.Context(), "b.example"); err != nil || len(about) != 1 || !about[0].Blocks("b.example", 0, today) {
		t.Errorf("the server would buy for b.example: %v, %v", about, err)
	}
	if rows := o.rows(Query{About: "b.example"}); len(rows) != 1 || rows[0].State != "open" {
		t.Errorf("%+v", rows)
	}
	if rows := o.rows(Query{About: "a.example"}); len(rows) != 1 || rows[0].State != "gone" {
		t.Errorf("%+v", rows)
	}
}

// TestAdoptWhatIsKnownForAnotherName: an order has one entry, no matter for which name somebody
// wants to adopt it.
func TestAdoptWhatIsKnownForAnotherName(t *testing.T) {
	for _, state := range []ledger.State{ledger.Issued, ledger.Open} {
		o := newOffice(t)
		o.enter("racent", "portal.example", "a.example", func(e *ledger.Entry) {
			if e.State = state; state == ledger.Open {
				e.Certificate, e.Issued = nil, 0
			}
		})
		o.selling() // they do not report names
		_, err := o.Do(t.Context(), "adopt", Action{About: "b.example", Order: "o-a.example", Vendor: "racent", Confirm: true})
		if err == nil || !strings.Contains(err.Error(), "is in the ledger already") || len(o.rows(Query{})) != 1 {
			t.Errorf("%s: %v", state, err)
		}
	}
}

// TestUntilWhenUnknown: a plan says until when money can be refunded only if the time of the order's
// first certificate is known.
func TestUntilWhenUnknown(t *testing.T) {
	for name, change := range map[string]func(*ledger.Entry){
		"bought elsewhere, its first certificate too": func(e *ledger.Entry) { e.Adopted = true },
		"an event was left out": func(e *ledger.Entry) {
			e.Issued, e.Story = 3, []ledger.Event{{Time: today, What: ledger.Given, Words: "0abc"}}
		},
	} {
		o := newOffice(t)
		o.enter("racent", "portal.example", "a.example", func(e *ledger.Entry) {
			e.Certificate.NotBefore = today.Add(-50 * day)
			change(e)
		})
		o.selling()
		if out, err := o.Do(t.Context(), "cancel", Action{About: "a.example"}); err != nil || !out.Plan.Until.IsZero() {
			t.Errorf("%s: %s, %v", name, out.Plan.Until, err)
		}
	}
}

// meddled is a vendor during whose calls something else happens.
type meddled struct {
	able
	during func()
}

func (v meddled) Cancel(ctx context.Context, id, reason string) error {
	v.during()
	return v.able.Cancel(ctx, id, reason)
}

// An order that the ledger goes on with in another way while the vendor cancels it is left alone, and
// the person is told so.
func TestCancelWhileTheLedgerGoesOn(t *testing.T) {
	for name, change := range map[string]func(*ledger.Entry){
		"under another ID": func(e *ledger.Entry) { e.OrderID = "another" },
		"given up":         func(e *ledger.Entry) { e.State = ledger.Gone },
	} {
		o := newOffice(t)
		id := o.enter("racent", "portal.example", "a.example", nil).ID
		v := o.selling()
		o.Accounts[0].Vendor = meddled{able{v}, func() {
			l := o.ledger("racent", "portal.example")
			e, err := l.Load(t.Context(), id)
			if err == nil {
				_, err = l.Write(t.Context(), e, change)
			}
			if err != nil {
				t.Error(err)
			}
		}}
		out, err := o.Do(t.Context(), "cancel", Action{About: "a.example", Confirm: true})
		if err == nil || out.Done || errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), "was cancelled (CANCELLED)") || !strings.Contains(err.Error(), "has gone on") {
			t.Errorf("%s: %+v, %v", name, out, err)
		}
	}
}
