package issuer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// desk returns a desk for acting on the orders of a process, at the running server or without one.
func (p *process) desk(running bool) *operator.Desk { return deskOf(p.flow, p.site.names, running) }

func deskOf(f *flow, names func() []string, running bool) *operator.Desk {
	account := operator.Account{
		Ledger: f.ledger, Vendor: f.vendor, About: f.about, Margin: f.margin, Manages: f.site.Manages,
		Order: func(string) vendors.OrderConfig { return f.order }, Settle: f.rules.settle, Wake: f.wake, Hold: f.account.drive,
		Names: names, Rules: f.rulesOf, Maybe: f.maybeNames, Stored: f.isStored, SpendOrders: f.rules.spend.Orders, SpendPer: time.Duration(f.rules.spend.Per),
	}
	if !running {
		account.Ledger = &ledger.Ledger{Storage: f.ledger.Storage, Prefix: f.ledger.Prefix, Memory: new(ledger.Memory), Now: f.ledger.Now, Random: f.ledger.Random}
		account.Wake, account.Hold = nil, nil
	}
	return operator.NewDesk([]operator.Account{account})
}

// act carries out an action at a desk, after checking that its plan changes nothing.
func (w *world) act(d *operator.Desk, what string, a operator.Action) operator.Outcome {
	w.tb.Helper()
	before := w.storage.snapshot()
	told, err := d.Do(w.ctx, what, a)
	if err != nil || told.Done || told.Plan.Does == "" || told.Plan.Action != what {
		w.tb.Fatalf("%s: %+v, %v", what, told, err)
	}
	if after := w.storage.snapshot(); !sameEntries(before, after) {
		w.tb.Errorf("the plan of %s changed the ledger", what)
	}
	a.Confirm, a.Revision = true, told.Plan.Revision
	out, err := d.Do(w.ctx, what, a)
	if err != nil || !out.Done || out.Result == "" {
		w.tb.Fatalf("%s: %+v, %v", what, out, err)
	}
	return out
}

func sameEntries(a, b map[string]string) bool {
	for key, value := range a {
		if strings.Contains(key, "/entries/") && b[key] != value {
			return false
		}
	}
	return len(a) == len(b)
}

// decided reports whether the story of an order for the name records a decision.
func (w *world) decided(name, words string) bool {
	w.tb.Helper()
	return slices.ContainsFunc(w.entries(name), func(e *ledger.Entry) bool {
		return slices.ContainsFunc(e.Story, func(event ledger.Event) bool {
			return event.What == ledger.Decided && strings.Contains(event.Words, words)
		})
	})
}

// TestRenew: a renewal by hand gets another certificate, for another key, from the paid order. The
// previous one is served until then, and nothing is bought.
func TestRenew(t *testing.T) {
	tooSlowForRaces(t)
	for _, v := range vendorKinds {
		for _, running := range []bool{true, false} {
			inBubble(t, fmt.Sprintf("%s, asked at the server %v", v.name, running), func(t *testing.T) {
				w := newWorld(t, nil)
				p := v.start(w, nil, all(quickly, watching, replacing))
				p.configure("example.com")
				p.untilServed(day, "example.com")
				time.Sleep(2 * day)
				first := w.entry("example.com")
				w.events.take()
				w.act(p.desk(running), "renew", operator.Action{About: "EXAMPLE.com", Note: "lost a laptop", By: "ada"})
				if _, err := p.desk(running).Do(t.Context(), "renew", operator.Action{About: "example.com"}); err == nil || !strings.Contains(err.Error(), "already") {
					t.Errorf("renewed twice: %v", err)
				}
				within := 10 * time.Minute
				if !running {
					within = 80 * time.Minute
				}
				w.until(within, "it is replaced", func() bool {
					if p.site.serving("example.com") == nil {
						t.Fatal("nothing is served")
					}
					return serialOf(p.site.serving("example.com").leaf()) != first.Certificate.Serial
				})
				p.untilServed(0, "example.com")
				w.wantEvents("validation_waiting", "validation_passed", "reissued") // it was not revoked
				e := w.entry("example.com")
				if e.Certificate.Key == first.Certificate.Key || e.LostCertificate() || e.Problem != "" || e.Issued != 2 {
					t.Errorf("%+v", e)
				}
				if !w.decided("example.com", "renew, by ada: lost a laptop") {
					t.Errorf("%+v", e.Story)
				}
				time.Sleep(5 * day)
				if n := w.reissued(); n != 1 {
					t.Errorf("%d reissues", n)
				}
				w.wantCharges(1)
			})
		}
	}
}

// TestRenewBuysNothing: a renewal by hand that does not succeed leads to no new order before the
// certificate is due, even if the end of the term comes close meanwhile.
func TestRenewBuysNothing(t *testing.T) {
	tooSlowForRaces(t)
	for _, v := range vendorKinds[:2] { // the third does not report the end of the term
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, func(c *hostile.Config) { c.Year, c.Lifetime = 36*day, 20*day })
			p := v.start(w, nil, all(quickly, replacing, func(f *flow) { f.rules.renewMargin = 3 * day }))
			defer p.maintain(false)()
			p.configure("example.com")
			p.untilServed(day, "example.com")
			free := w.entry("example.com").Ends.Add(-3 * day) // from then on the next order may be placed
			desk := p.desk(true)
			time.Sleep(time.Until(free.Add(-3 * day)))
			w.act(desk, "renew", operator.Action{About: "example.com"})
			w.until(day, "it is replaced", func() bool { return !w.entry("example.com").LostCertificate() })
			old, c := w.entry("example.com").OrderID, w.entry("example.com").Certificate
			due := c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / 3)
			if !due.After(free.Add(8 * time.Hour)) {
				t.Fatalf("due on %s, %s", due, free)
			}
			time.Sleep(time.Until(free.Add(-12 * time.Hour)))
			w.ca.Inject(hostile.Fault{Endpoint: v.reissue, Kind: hostile.HTTPStatus, Status: 503})
			w.act(desk, "renew", operator.Action{About: "example.com"})
			time.Sleep(time.Until(free.Add(7 * time.Hour)))
			if e := w.entry("example.com"); !e.UnwantedCertificate() || !p.good("example.com") {
				t.Errorf("%+v", e)
			}
			time.Sleep(time.Until(due.Add(-time.Hour)))
			w.wantCharges(1)
			w.until(2*day, "the next order is placed", func() bool { return w.charges() == 2 })
			p.untilServed(day, "example.com")
			if _, err := desk.Do(t.Context(), "renew", operator.Action{About: old}); err == nil {
				t.Error("an order that has a successor was renewed")
			}
		})
	}
}

// byHand is a case of an order that a person ends: at which vendor, how, and whether it is pending.
type byHand struct {
	vendor, what string
	pending      bool
}

// TestEndByHand: an order that a person has cancelled or revoked is not replaced, however long they
// wait and whatever the config allows, until they say so. Then one order replaces it.
func TestEndByHand(t *testing.T) {
	tooSlowForRaces(t)
	for _, c := range []byHand{
		{"racent", "cancel", true}, {"racent", "cancel", false}, {"racent", "revoke", false},
		{"digicert", "cancel", true}, {"digicert", "revoke", false}, {"howssl", "cancel", true},
	} {
		for _, running := range []bool{true, false} {
			inBubble(t, fmt.Sprintf("%s, %s, pending %v, asked at the server %v", c.vendor, c.what, c.pending, running), func(t *testing.T) {
				w := newWorld(t, func(cfg *hostile.Config) {
					if c.pending {
						cfg.IssueDelay = 40 * day
					}
				})
				var servers []*process
				for range 2 {
					p := startKind(w, c.vendor, all(quickly, watching, replacing))
					p.configure("example.com")
					servers = append(servers, p)
				}
				time.Sleep(2 * time.Hour)
				p, desk := servers[0], servers[0].desk(running)
				w.act(desk, c.what, operator.Action{About: w.entry("example.com").OrderID, Note: "bought by mistake", By: "ada"})
				w.until(3*time.Hour, "the entry is flagged", func() bool { e := w.entry("example.com"); return e.Flag != nil && e.Flag.Ended })
				e := w.entry("example.com")
				if !strings.Contains(e.Flag.Reason, "by hand") || !w.decided("example.com", c.what+", by ada: bought by mistake") {
					t.Errorf("%+v, %+v", e.Flag, e.Story)
				}
				_, err := desk.Do(t.Context(), c.what, operator.Action{About: "example.com", Confirm: true})
				if err == nil || !strings.Contains(err.Error(), "has ended already") {
					t.Errorf("ended twice: %v", err)
				}
				time.Sleep(20 * day)
				if e = w.entry("example.com"); !strings.Contains(e.Flag.Reason, "by hand") || len(e.Attempt.Challenges) > 0 {
					t.Errorf("%+v", e)
				}
				if got := p.site.serving("example.com"); (got == nil) != c.pending {
					t.Errorf("served: %v", got != nil)
				}
				w.wantCharges(1)
				if err := w.ca.Update(func(cfg *hostile.Config) { cfg.IssueDelay = 0 }); err != nil {
					t.Fatal(err)
				}
				w.act(desk, "resolve", operator.Action{About: "example.com", None: true})
				for _, p := range servers {
					w.until(2*day, "another one is served", func() bool { return p.good("example.com") })
				}
				time.Sleep(5 * day)
				w.wantCharges(2)
			})
		}
	}
}

func startKind(w *world, vendor string, change func(*flow)) *process {
	for _, v := range vendorKinds {
		if v.name == vendor {
			return v.start(w, nil, change)
		}
	}
	panic(vendor)
}

// single is a vendor that revokes only the latest certificate of an order and keeps the order active.
type single struct {
	vendors.Vendor
	vendors.Reissuer
	vendors.Finder
	w *world
}

func (v single) Revoke(_ context.Context, orderID, _ string) error {
	for _, o := range v.w.ca.Orders() {
		if o.ID == orderID || o.PaidBy == orderID {
			orderID = o.ID
		}
	}
	return v.w.ca.RevokeCertificate(orderID)
}

// TestRevokeAndReplace: an order that stays active after its certificate was revoked gives another
// one, free of charge. If the vendor ends it later, no person has ended it, and the config decides.
func TestRevokeAndReplace(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.startDigiCert(nil, all(quickly, watching, replacing, func(f *flow) {
			f.vendor = single{f.vendor, f.vendor.(vendors.Reissuer), f.vendor.(vendors.Finder), w}
		}))
		p.configure("example.com")
		p.untilServed(day, "example.com")
		time.Sleep(2 * day)
		first := w.entry("example.com")
		w.act(p.desk(true), "revoke", operator.Action{About: "example.com", Note: "key compromise"})
		w.until(10*time.Minute, "it is replaced", func() bool { return p.good("example.com") })
		if e := w.entry("example.com"); e.Certificate.Key == first.Certificate.Key || e.Flag != nil || e.EndedByHand != "" {
			t.Errorf("%+v", e)
		}
		w.wantCharges(1)
		if _, err := w.ca.EndAll(hostile.StatusCancelled); err != nil {
			t.Fatal(err)
		}
		w.until(6*time.Hour, "it is bought again", func() bool { return w.charges() == 2 && p.good("example.com") })
	})
}

// whole returns the desk of a command that runs without a server and may die at any moment.
func (w *world) whole(p *process, f *fuse) *operator.Desk {
	d := startUnattached(w, f)
	a := p.desk(false).Accounts[0]
	a.Vendor, a.Ledger.Storage = d, &fusedStorage{w.storage, f}
	return operator.NewDesk([]operator.Account{a})
}

// startUnattached returns a vendor of the world that belongs to no process.
func startUnattached(w *world, f *fuse) vendors.Vendor {
	p := w.start(f, func(fl *flow) { fl.ledger.Storage = newMemStorage() })
	p.stop()
	return p.vendor
}

// TestCancelDies: a cancellation that is interrupted at any moment, or whose answer is lost, is
// recorded in the ledger, buys nothing, and is completed by the same command.
func TestCancelDies(t *testing.T) {
	tooSlowForRaces(t)
	var points []string
	for n := 0; n == 0 || n < len(points); n++ {
		inBubble(t, fmt.Sprint(n), func(t *testing.T) {
			w := newWorld(t, nil)
			p := w.start(nil, all(quickly, watching, replacing))
			p.configure("example.com")
			p.untilServed(day, "example.com")
			f := &fuse{left: -1}
			desk := w.whole(p, f)
			f.mu.Lock()
			f.points, f.seen = nil, 0
			if f.left = n; len(points) == 0 {
				f.left = -1
			}
			f.mu.Unlock()
			action := operator.Action{About: "example.com", Confirm: true}
			_, err := desk.Do(t.Context(), "cancel", action)
			if len(points) == 0 {
				points = slices.Clone(f.points)
			} else if err == nil {
				t.Errorf("the death at %s is not reported", points[n])
			}
			cancelled := w.ca.Orders()[0].Status == hostile.StatusCancelled
			if e := w.entry("example.com"); cancelled && e.EndedByHand != ledger.Cancelled {
				t.Errorf("%s: cancelled, but the ledger does not say so: %+v", points[n], e)
			}
			time.Sleep(3 * day) // the server continues meanwhile
			w.wantCharges(1)
			if _, err := w.whole(p, nil).Do(t.Context(), "cancel", action); err != nil && !strings.Contains(err.Error(), "has ended already") {
				t.Errorf("%s: again: %v", points[n], err)
			}
			if e := w.entry("example.com"); e.Flag == nil || !e.Flag.Ended || !strings.Contains(e.Flag.Reason, "by hand") {
				t.Errorf("%s: %+v", points[n], e)
			}
			time.Sleep(3 * day)
			w.wantCharges(1)
			if w.ca.Orders()[0].Status != hostile.StatusCancelled {
				t.Error("it is not cancelled")
			}
		})
	}
	if len(points) < 8 {
		t.Errorf("only %d points: %v", len(points), points)
	}
}

// TestCancelAnswers: the vendor's answer to a cancellation decides what the ledger says.
func TestCancelAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		fault  hostile.Fault
		says   string // the error
		again  string // that of the same command
		marked bool   // in between
	}{
		"lost, and done":     {hostile.Fault{Phase: hostile.AfterEffect, Kind: hostile.Reset, Times: 1}, "", "has ended already", true},
		"lost, and not done": {hostile.Fault{Kind: hostile.Reset, Times: 1}, "is not certain", "", true},
		"refused":            {hostile.Fault{Kind: hostile.APICode, Code: -6, Errors: "no", Times: 1}, "is not certain", "", true},
		"not allowed":        {hostile.Fault{Kind: hostile.APICode, Code: -5, Errors: "wrong state", Times: 1}, "was not cancelled", "", false},
	} {
		inBubble(t, name, func(t *testing.T) {
			w := newWorld(t, nil)
			p := w.start(nil, all(quickly, watching, replacing))
			p.configure("example.com")
			p.untilServed(day, "example.com")
			c.fault.Endpoint = "cancel"
			w.ca.Inject(c.fault)
			action := operator.Action{About: "example.com", Confirm: true}
			check := func(want string) {
				t.Helper()
				if _, err := p.desk(true).Do(t.Context(), "cancel", action); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
					t.Errorf("error = %v, want one with %q", err, want)
				}
			}
			check(c.says)
			if e := w.entry("example.com"); (e.EndedByHand != "") != c.marked {
				t.Errorf("%+v", e)
			}
			time.Sleep(time.Hour)
			check(c.again)
			time.Sleep(3 * day)
			if e := w.entry("example.com"); e.Flag == nil || !e.Flag.Ended {
				t.Errorf("%+v", e)
			}
			w.wantCharges(1)
		})
	}
}

// TestActBesideAServer: nothing is bought twice when a person acts while a server, in this process
// or another one, reissues the order or buys, on a storage that shows each of them late what the
// other has written.
func TestActBesideAServer(t *testing.T) {
	tooSlowForRaces(t)
	row := 0
	for _, what := range []string{"renew", "cancel", "revoke", "adopt", "resolve"} {
		for _, running := range []bool{true, false} {
			for offset := time.Duration(0); offset < 6*time.Second; offset += 400 * time.Millisecond {
				if row++; row%raceStride != 0 {
					continue
				}
				inBubble(t, fmt.Sprintf("%s, at the server %v, after %s", what, running, offset), func(t *testing.T) {
					w := newWorld(t, nil)
					elsewhere := ""
					if what == "adopt" {
						elsewhere = w.orderElsewhere([]string{"example.com"}, nil)
					}
					log := &lateLog{last: make(map[string][]lateWrite)}
					p := w.start(nil, all(quickly, watching, replacing, func(f *flow) {
						f.ledger.Storage = slow{&lateView{w.storage, log, 900 * time.Millisecond}, 50 * time.Millisecond}
					}))
					if what != "adopt" {
						p.configure("example.com")
						p.untilServed(day, "example.com")
						time.Sleep(day)
					}
					before := w.charges()
					desk := p.desk(running)
					if !running {
						own := &lateView{w.storage, log, 900 * time.Millisecond}
						desk.Storages[0], desk.Accounts[0].Ledger.Storage = own, own
					}
					a := operator.Action{About: "example.com", Confirm: true}
					switch what {
					case "adopt":
						a.Order = elsewhere
						before++ // either order may be the one that is used
					case "resolve":
						a.Order = w.entry("example.com").OrderID
					}
					var rounds sync.WaitGroup
					rounds.Go(func() { _, _ = p.attempt(w.ctx, "example.com") })
					time.Sleep(offset)
					out, err := desk.Do(t.Context(), what, a)
					if _, refused := errors.AsType[*operator.RefusedError](err); err != nil && !refused && !errors.Is(err, ledger.ErrConflict) && !strings.Contains(err.Error(), "not certain") {
						t.Errorf("error = %v", err)
					}
					rounds.Wait()
					time.Sleep(2 * day)
					if n := w.charges(); n > before {
						t.Errorf("charges = %d, want %d", n, before)
					}
					if bought := w.charges() == 2; what == "adopt" && err == nil && (!w.decided("example.com", "adopt") || bought != strings.Contains(out.Result, "meanwhile")) {
						t.Errorf("%d orders, with the result: %s", w.charges(), out.Result)
					}
					e := w.entry("example.com")
					if ended := e.Flag != nil && e.Flag.Ended; !ended && !p.good("example.com") {
						t.Errorf("%v: %s, %+v, %+v", err, e.State, e.Flag, e.Certificate)
					}
				})
			}
		}
	}
}

// TestAdopt: an order that was bought elsewhere is used without a change of the config, and nothing
// else is bought before its term ends.
func TestAdopt(t *testing.T) {
	for _, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			id := orderedElsewhere(w, v.start, "example.com")
			p := v.start(w, nil, all(quickly, watching, func(f *flow) { f.rules.spend.Orders = 0 }))
			p.site.manage("example.com")
			desk := p.desk(true)
			w.act(desk, "adopt", operator.Action{About: "example.com", Order: id, Note: "of last year"})
			p.untilServed(day, "example.com")
			if e := w.entry("example.com"); w.paidBy(e.OrderID) != id || !w.decided("example.com", "adopt: of last year") {
				t.Errorf("%+v", e)
			}
			_, err := desk.Do(t.Context(), "adopt", operator.Action{About: "example.com", Order: id})
			if err == nil || !strings.Contains(err.Error(), "is in the ledger already") {
				t.Errorf("adopted twice: %v", err)
			}
			// Once it is given up, it can be adopted again.
			w.act(desk, "resolve", operator.Action{About: "example.com", None: true})
			w.act(desk, "adopt", operator.Action{About: "example.com", Order: w.entry("example.com").OrderID})
			time.Sleep(5 * day)
			p.untilServed(0, "example.com")
			w.wantCharges(1)
		})
	}
}

// orderedElsewhere places an order at the vendor that this ledger knows nothing about.
func orderedElsewhere(w *world, start func(*world, *fuse, func(*flow)) *process, name string) string {
	p := start(w, nil, func(f *flow) {
		f.ledger.Storage = newMemStorage()
		f.site.(*testSite).storage = f.ledger.Storage
	})
	p.mustObtain(name)
	p.stop()
	orders := w.ca.Orders()
	return orders[len(orders)-1].ID
}

// unhurried is a vendor that accepts an ending and carries it out later: it only revokes the
// certificate of an order that is to be cancelled, and a revocation waits for an approval.
type unhurried struct{ single }

func (v unhurried) Cancel(ctx context.Context, orderID, reason string) error {
	return v.single.Revoke(ctx, orderID, reason)
}

func (unhurried) Revoke(context.Context, string, string) error {
	return &vendors.Error{Endpoint: "revoke", Verdict: vendors.Uncertain, Err: errors.New("it waits for an approval")}
}

// TestEndByHandThatComesLater: an order that a person has ended may give another certificate before
// the vendor carries that out. When the vendor does, nothing is bought in its place either.
func TestEndByHandThatComesLater(t *testing.T) {
	for what, status := range map[string]string{"cancel": hostile.StatusCancelled, "revoke": hostile.StatusRevoked} {
		inBubble(t, what, func(t *testing.T) {
			w := newWorld(t, nil)
			p := w.startDigiCert(nil, all(quickly, watching, replacing, func(f *flow) {
				f.vendor = unhurried{single{f.vendor, f.vendor.(vendors.Reissuer), f.vendor.(vendors.Finder), w}}
			}))
			p.configure("example.com")
			p.untilServed(day, "example.com")
			time.Sleep(2 * day)
			first, desk := w.entry("example.com"), p.desk(true)
			_, err := desk.Do(t.Context(), what, operator.Action{About: "example.com", Confirm: true})
			if err == nil || !strings.Contains(err.Error(), "is not certain") {
				t.Fatal(err)
			}
			if what == "revoke" {
				if _, err := desk.Do(t.Context(), "renew", operator.Action{About: "example.com", Confirm: true}); err != nil {
					t.Fatal(err)
				}
			}
			w.until(2*time.Hour, "it is replaced", func() bool {
				e := w.entry("example.com")
				return e.State == ledger.Issued && e.Certificate.Key != first.Certificate.Key && p.good("example.com")
			})
			time.Sleep(day)
			if _, err := w.ca.EndAll(status); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * day)
			if e := w.entry("example.com"); e.Flag == nil || !e.Flag.Ended || !strings.Contains(e.Flag.Reason, "by hand") {
				t.Errorf("%+v", e)
			}
			w.wantCharges(1)
		})
	}
}

// An order that is adopted while its certificate is on its way may cover a name beside those that it
// was placed for, as any other. No order is placed for that name meanwhile.
func TestAdoptPendingKeepsTwin(t *testing.T) {
	for _, v := range vendorKinds {
		if v.name == "digicert" {
			continue // adds no names
		}
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, func(c *hostile.Config) { c.IssueDelay = 3 * time.Hour })
			id := w.pendingElsewhere(v.start, "example.com")
			p := v.start(w, nil, all(quickly, func(f *flow) { f.rules.spend.Orders = 0 }))
			p.site.manage("example.com")
			p.site.manage("www.example.com")
			w.act(p.desk(true), "adopt", operator.Action{About: "example.com", Order: id})
			p.reload(func(f *flow) { f.rules.spend.Orders = 10 })
			p.configure("example.com", "www.example.com")
			time.Sleep(2 * day)
			p.untilServed(day, "example.com", "www.example.com")
			w.wantCharges(1)
		})
	}
}

// The same goes for an order that is adopted again, days after it was given up.
func TestAdoptAgainKeepsTwin(t *testing.T) {
	for _, v := range vendorKinds {
		if v.name == "digicert" {
			continue // adds no names
		}
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, func(c *hostile.Config) { c.IssueDelay = 10 * day })
			id := w.pendingElsewhere(v.start, "example.com")
			refuse := map[string]bool{"example.com": true} // nothing is bought meanwhile
			p := v.start(w, nil, all(quickly, func(f *flow) { f.prove = refusingProver{f.prove, refuse} }))
			p.site.manage("example.com")
			w.act(p.desk(true), "adopt", operator.Action{About: "example.com", Order: id})
			w.act(p.desk(true), "resolve", operator.Action{About: "example.com", None: true})
			time.Sleep(2 * day)
			w.act(p.desk(true), "adopt", operator.Action{About: "example.com", Order: id})
			p.reload(func(f *flow) { f.prove = f.prove.(refusingProver).Prover })
			p.configure("example.com", "www.example.com")
			time.Sleep(3 * time.Hour)
			if err := w.ca.Update(func(c *hostile.Config) { c.IssueDelay = 0 }); err != nil {
				t.Fatal(err)
			}
			p.untilServed(2*day, "example.com", "www.example.com")
			w.wantCharges(1)
		})
	}
}

// An order that is adopted is reissued with the common name that it has, whichever of its names is
// asked for.
func TestAdoptKeepsTheCommonName(t *testing.T) {
	names := []string{"example.com", "www.example.com"}
	for _, v := range vendorKinds {
		for _, ordered := range names {
			for _, asked := range names {
				inBubble(t, fmt.Sprintf("%s, %s, asked for %s", v.name, ordered, asked), func(t *testing.T) {
					if v.name == "digicert" && ordered != asked {
						t.Skip("the order is for one name only")
					}
					w := newWorld(t, nil)
					id := orderedElsewhere(w, v.start, ordered)
					p := v.start(w, nil, all(quickly, func(f *flow) { f.rules.spend.Orders = 0 }))
					p.site.manage(asked)
					w.act(p.desk(true), "adopt", operator.Action{About: asked, Order: id})
					p.untilServed(day, asked)
					w.wantCharges(1)
				})
			}
		}
	}
}

// A person acts where a server elsewhere has the order reissued at that moment, on a storage that shows
// each of them late what the other has written. What the person is told to be done stands, and an order
// that was ended by hand is not bought again.
func TestActUnseen(t *testing.T) {
	tooSlowForRaces(t)
	for _, kind := range vendorKinds[:2] {
		for _, what := range []string{"cancel", "revoke", "renew", "resolve", "use"} {
			if kind.name == "digicert" && what == "cancel" {
				continue
			}
			for offset := time.Duration(0); offset < 1200*time.Millisecond; offset += 300 * time.Millisecond {
				inBubble(t, fmt.Sprintf("%s, %s, after %s", kind.name, what, offset), func(t *testing.T) {
					w := newWorld(t, nil)
					log := &lateLog{last: make(map[string][]lateWrite)}
					p := kind.start(w, nil, all(quickly, watching, replacing, func(f *flow) {
						f.ledger.Storage = slow{&lateView{w.storage, log, 900 * time.Millisecond}, 50 * time.Millisecond}
					}))
					p.configure("example.com")
					p.untilServed(day, "example.com")
					time.Sleep(day)
					before := w.charges()
					desk := p.desk(false)
					own := &lateView{w.storage, log, 900 * time.Millisecond}
					desk.Storages[0], desk.Accounts[0].Ledger.Storage = own, own
					a := operator.Action{About: "example.com", Confirm: true}
					verb := what
					switch what {
					case "resolve":
						a.None = true
					case "use":
						verb, a.Order = "resolve", w.entry("example.com").OrderID
					}
					var rounds sync.WaitGroup
					rounds.Go(func() { _, _ = p.attempt(w.ctx, "example.com") })
					time.Sleep(offset)
					out, err := desk.Do(t.Context(), verb, a)
					rounds.Wait()
					time.Sleep(3 * time.Hour)
					list := w.entries("example.com")
					e := list[len(list)-1]
					if err == nil && (!w.decided("example.com", verb) || what == "cancel" && e.EndedByHand == "" || a.None && e.State != ledger.Gone) {
						t.Errorf("%s, %q, and it said: %s", e.State, e.EndedByHand, out.Result)
					}
					time.Sleep(2 * day)
					if a.None && err == nil {
						before++ // as was told
					}
					if n := w.charges(); n > before {
						t.Errorf("charges = %d, want %d: %v, %s", n, before, err, out.Result)
					}
				})
			}
		}
	}
}

// The answer to a reissue is entered whatever a person has written meanwhile, unseen by the server that
// has sent it, and the name gets its certificate.
func TestAnswerMeetsAPerson(t *testing.T) {
	tooSlowForRaces(t)
	for _, kind := range vendorKinds[:2] {
		for _, verb := range []string{"renew", "resolve"} {
			for offset := time.Duration(0); offset < 1200*time.Millisecond; offset += 300 * time.Millisecond {
				inBubble(t, fmt.Sprintf("%s, %s, after %s", kind.name, verb, offset), func(t *testing.T) {
					w := newWorld(t, nil)
					log := &lateLog{last: make(map[string][]lateWrite)}
					p := kind.start(w, nil, all(quickly, watching, replacing, func(f *flow) {
						f.ledger.Storage = slow{&lateView{w.storage, log, 900 * time.Millisecond}, 50 * time.Millisecond}
					}))
					p.configure("example.com")
					p.untilServed(day, "example.com")
					time.Sleep(9 * day)
					first := p.site.serving("example.com").leaf()
					desk := p.desk(false)
					own := &lateView{w.storage, log, 900 * time.Millisecond}
					desk.Storages[0], desk.Accounts[0].Ledger.Storage = own, own
					a := operator.Action{About: "example.com", Confirm: true}
					if verb == "resolve" {
						a.Order = w.entry("example.com").OrderID
					}
					w.ca.Inject(hostile.Fault{Endpoint: kind.reissue, Phase: hostile.AfterEffect, Kind: hostile.Delay, Delay: 3 * time.Second})
					var rounds sync.WaitGroup
					rounds.Go(func() { _, _ = p.attempt(w.ctx, "example.com") })
					time.Sleep(offset)
					_, err := desk.Do(t.Context(), verb, a)
					rounds.Wait()
					time.Sleep(6 * time.Hour)
					if e := w.entry("example.com"); e.State != ledger.Issued || e.Flag != nil || err == nil && verb == "renew" && p.site.serving("example.com").leaf().Equal(first) {
						t.Errorf("%v: %s, %+v, %s", err, e.State, e.Flag, e.Problem)
					}
					w.wantCharges(1)
				})
			}
		}
	}
}

// The present certificate is served until the new one is there, by all names of the order, also by one
// that has yet to get it.
func TestRenewLeavesNoNameWithout(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		names := []string{"a.example.com", "b.example.com"}
		p := w.start(nil, all(group(names...), quickly, watching))
		p.configure(names...)
		p.untilServed(day, names...)
		p.stop()
		if err := w.storage.Delete(t.Context(), pairKey(names[1])); err != nil {
			t.Fatal(err)
		}
		w.ca.Inject(hostile.Fault{Endpoint: "replace", Kind: hostile.HTTPStatus, Status: 503})
		w.act(p.desk(false), "renew", operator.Action{About: names[0]})
		p = w.start(nil, all(group(names...), quickly, watching))
		p.configure(names...)
		p.untilServed(day, names...)
		time.Sleep(day)
		w.wantCharges(1)
	})
}
