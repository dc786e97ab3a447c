package issuer

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// lose deletes the ledger.
func (w *world) lose() {
	w.tb.Helper()
	for key := range w.storage.snapshot() {
		if strings.HasPrefix(key, "commercial/") {
			if err := w.storage.Delete(context.Background(), key); err != nil {
				w.tb.Fatal(err)
			}
		}
	}
}

// TestReconcileRebuildsALostLedger: a lost ledger is rebuilt from the vendor's list of orders,
// without a charge. The certificates are renewed within the terms as if nothing had happened.
func TestReconcileRebuildsALostLedger(t *testing.T) {
	tooSlowForRaces(t)
	names := siteNames(5)
	for _, v := range vendorKinds[:2] {
		for _, too := range []bool{false, true} {
			inBubble(t, fmt.Sprintf("%s, certificates lost %v", v.name, too), func(t *testing.T) {
				w := newWorld(t, nil)
				start := func() *process {
					p := v.start(w, nil, quickly)
					t.Cleanup(p.maintain(false))
					p.configure(names...)
					return p
				}
				p := start()
				p.untilServed(day, names...)
				for _, name := range names { // which changes the orders' IDs at some vendors
					if _, err := p.desk(true).Do(t.Context(), "renew", operator.Action{About: name, Confirm: true}); err != nil {
						t.Fatal(err)
					}
				}
				w.until(day, "they are reissued", func() bool { return w.reissued() == len(names) && len(p.account.ledger.Pending()) == 0 })
				p.stop()
				w.lose()
				if too {
					for _, name := range names {
						if err := w.storage.Delete(t.Context(), pairKey(name)); err != nil {
							t.Fatal(err)
						}
					}
				}
				desk := p.desk(false)
				audits, err := desk.Reconcile(t.Context(), operator.Reconciliation{Adopt: true})
				if err != nil || len(audits) != 1 || audits[0].Open() != len(names) || len(w.entries(names[0])) > 0 {
					t.Fatalf("%+v, %v", audits, err)
				}
				audits, err = desk.Reconcile(t.Context(), operator.Reconciliation{Adopt: true, Confirm: true, Note: "restored"})
				if err != nil || audits[0].Open() != 0 || len(audits[0].Findings) != len(names) {
					t.Fatalf("%+v, %v", audits, err)
				}
				audits, err = desk.Reconcile(t.Context(), operator.Reconciliation{})
				if err != nil || len(audits[0].Findings) != 0 || audits[0].Entries != len(names) || audits[0].Listed < len(names) {
					t.Fatalf("%+v, %v", audits, err)
				}
				begun := w.reissued()
				p = start()
				p.untilServed(day, names...)
				time.Sleep(10 * day)
				if n := w.reissued() - begun; n > len(names) || !too && n > 0 {
					t.Errorf("%d reissues", n)
				}
				w.wantCharges(len(names))
				begun = w.reissued()
				time.Sleep(130 * day) // the certificates were due, but the terms still last
				p.untilServed(0, names...)
				if n := w.reissued() - begun; n != len(names) {
					t.Errorf("%d reissues", n)
				}
				for _, name := range names {
					if !p.good(name) || !w.decided(name, "reconcile --adopt: restored") {
						t.Errorf("%s: %+v", name, w.entry(name))
					}
				}
				w.wantCharges(len(names))
			})
		}
	}
}

// TestReconcileBesideAServer: when a ledger is lost under a running server, nothing is bought before
// a certificate is due, and the ledger can be rebuilt. What was bought meanwhile is reported, and
// the previous order is not used in its place.
func TestReconcileBesideAServer(t *testing.T) {
	tooSlowForRaces(t)
	names := siteNames(2)
	for _, v := range vendorKinds[:2] {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			p := v.start(w, nil, quickly)
			defer p.maintain(false)()
			p.configure(names...)
			p.untilServed(day, names...)
			w.lose()
			time.Sleep(20 * day)
			w.wantCharges(len(names))
			desk := p.desk(true)
			audits, err := desk.Reconcile(t.Context(), operator.Reconciliation{Adopt: true, Confirm: true})
			if err != nil || audits[0].Open() != 0 || len(audits[0].Findings) != len(names) {
				t.Fatalf("%+v, %v", audits, err)
			}
			time.Sleep(day)
			w.lose() // and nobody notices before the certificates are due
			w.until(150*day, "it is bought again", func() bool { return w.charges() == 2*len(names) })
			time.Sleep(day)
			audits, err = desk.Reconcile(t.Context(), operator.Reconciliation{Adopt: true, Confirm: true})
			if err != nil {
				t.Fatal(err)
			}
			kinds := make(map[operator.Difference]int)
			for _, f := range audits[0].Findings {
				kinds[f.Kind]++
				if f.Adopted || f.Kind == operator.FoundUnknown && !strings.Contains(f.Words, "of the ledger is for") {
					t.Errorf("%+v", f)
				}
			}
			if kinds[operator.FoundUnknown] != len(names) || kinds[operator.FoundTwice] != len(names) {
				t.Errorf("%v", kinds)
			}
			w.wantCharges(2 * len(names))
		})
	}
}

// TestReconcileFindings: every difference between the ledger and the vendor is found, and nothing else.
func TestReconcileFindings(t *testing.T) {
	for _, v := range vendorKinds {
		for what, c := range map[string]struct {
			make func(t *testing.T, w *world, p *process)
			want []operator.Difference
			list bool // whether it takes a list
		}{
			"nothing": {func(*testing.T, *world, *process) {}, nil, false},
			"unknown, and twice": {func(_ *testing.T, w *world, _ *process) { orderedElsewhere(w, v.start, "example.com") },
				[]operator.Difference{operator.FoundTwice, operator.FoundUnknown}, true},
			"unknown, of no site": {func(_ *testing.T, w *world, _ *process) { orderedElsewhere(w, v.start, "example.net") },
				[]operator.Difference{operator.FoundUnknown}, true},
			"missing": {func(t *testing.T, w *world, _ *process) {
				e := w.entry("example.com")
				l := &ledger.Ledger{Storage: w.storage, Prefix: ledger.Prefix("racent", "test"), Memory: new(ledger.Memory)}
				if _, err := l.Write(t.Context(), e, func(e *ledger.Entry) { e.OrderID, e.RootID = "999", "999" }); err != nil {
					t.Fatal(err)
				}
			}, []operator.Difference{operator.FoundMissing, operator.FoundUnknown, operator.FoundTwice}, false},
			"state": {func(t *testing.T, w *world, _ *process) {
				if _, err := w.ca.EndAll(hostile.StatusCancelled); err != nil {
					t.Fatal(err)
				}
			}, []operator.Difference{operator.FoundState}, false},
			"given up, and in force": {func(t *testing.T, w *world, _ *process) {
				w.resolve(operator.Action{About: "example.com", None: true})
			}, []operator.Difference{operator.FoundState}, true},
			"damaged": {func(t *testing.T, w *world, _ *process) {
				if err := w.storage.Store(t.Context(), path.Join(ledger.Prefix("racent", "test"), "entries", "x.json"), []byte("{")); err != nil {
					t.Fatal(err)
				}
			}, []operator.Difference{operator.FoundDamaged}, false},
		} {
			inBubble(t, v.name+", "+what, func(t *testing.T) {
				w := newWorld(t, nil)
				p := v.start(w, nil, quickly)
				p.configure("example.com")
				p.untilServed(day, "example.com")
				p.stop()
				c.make(t, w, p)
				_, lists := p.vendor.(vendors.Auditor)
				audits, err := p.desk(false).Reconcile(t.Context(), operator.Reconciliation{})
				if err != nil || audits[0].Problem != "" || audits[0].NoList == lists {
					t.Fatalf("%+v, %v", audits, err)
				}
				var got []operator.Difference
				for _, f := range audits[0].Findings {
					got = append(got, f.Kind)
				}
				want := c.want
				if !lists {
					want = slices.DeleteFunc(slices.Clone(want), func(d operator.Difference) bool {
						return c.list || d == operator.FoundUnknown || d == operator.FoundTwice
					})
				}
				slices.Sort(got)
				want = slices.Sorted(slices.Values(want))
				if !slices.Equal(got, want) {
					t.Errorf("found %v, want %v: %+v", got, want, audits[0])
				}
			})
		}
	}
}

// A ledger that was lost comes back with orders that cover names beside those that were paid for. No
// order is placed for those either.
func TestReconcileKeepsTwins(t *testing.T) {
	names := []string{"example.com", "www.example.com"}
	for _, v := range []int{0, 2} {
		v := vendorKinds[v]
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			p := v.start(w, nil, quickly)
			p.configure(names...)
			p.untilServed(day, names...)
			p.stop()
			w.wantCharges(1)
			id := w.entry("example.com").OrderID
			w.lose()
			for _, name := range names {
				if err := w.storage.Delete(t.Context(), pairKey(name)); err != nil {
					t.Fatal(err)
				}
			}
			desk := p.desk(false)
			if v.name == "racent" {
				if audits, err := desk.Reconcile(t.Context(), operator.Reconciliation{Adopt: true, Confirm: true}); err != nil || audits[0].Open() != 0 {
					t.Fatalf("%+v, %v", audits, err)
				}
			} else {
				w.act(desk, "adopt", operator.Action{About: "example.com", Order: id})
			}
			p = v.start(w, nil, quickly)
			p.configure(names...)
			p.untilServed(day, names...)
			time.Sleep(5 * day)
			w.wantCharges(1)
		})
	}
}
