package issuer

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// TestHandshakesBuyNothing: a renewal that certmagic begins because of a handshake buys nothing if
// handshakes must not order, although its context does not show where it comes from.
func TestHandshakesBuyNothing(t *testing.T) {
	inBubble(t, "renewal", func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, nil)
		p.mustObtain("example.com")
		p.stop()
		p = w.start(nil, nil)
		p.site.strange = map[string]bool{"example.com": true}
		for range 2 * 400 {
			time.Sleep(12 * time.Hour)
			p.handshake("example.com")
		}
		w.wantCharges(1)
		if w.ca.Calls("replace") == 0 {
			t.Error("the paid order was not reissued")
		}
		// The same holds without a deadline, which a forced renewal does not have.
		_, err := p.attempt(t.Context(), "example.com")
		if err == nil || waits(err) {
			t.Errorf("error = %v", err)
		}
		w.wantCharges(1)
	})
	inBubble(t, "first", func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, nil)
		p.site.strange = map[string]bool{"example.com": true}
		for range 10 {
			p.handshake("example.com")
			time.Sleep(time.Hour)
		}
		w.wantCharges(0)
		if n := w.ca.Calls(""); n != 0 {
			t.Errorf("%d calls to the vendor for a stranger", n)
		}
	})
	inBubble(t, "not configured", func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, nil)
		synctest.Wait()
		p.site.deny = map[string]bool{"example.com": true}
		if _, err := p.attempt(t.Context(), "example.com"); !isFinal(err) {
			t.Errorf("error = %v", err)
		}
		w.wantCharges(0)
	})
	inBubble(t, "allowed", func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, func(f *flow) { f.rules.allowOnDemand = true })
		p.site.strange = map[string]bool{"example.com": true}
		p.handshake("example.com")
		p.untilServed(time.Hour, "example.com")
		w.wantCharges(1)
	})
}

// TestTermIsThePaidOne: what was paid for is never read from the current configuration. HowSSL does
// not report the end of the term, so nothing corrects the ledger later.
func TestTermIsThePaidOne(t *testing.T) {
	tooSlowForRaces(t)
	years := func(n int) func(*flow) { return func(f *flow) { f.order.Term = vendors.Term{Years: n} } }
	for _, c := range []struct {
		name        string
		before, now int
	}{{"shorter", 2, 1}, {"longer", 1, 3}} {
		inBubble(t, c.name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.ca.Inject(hostile.Fault{Endpoint: "Order/commitOrder", Phase: hostile.AfterEffect, Kind: hostile.Reset, Times: 1})
			p := w.startHowSSL(nil, all(quickly, years(c.before)))
			// The look-up may or may not be completed within the call.
			if _, err := p.attempt(t.Context(), "example.com"); err != nil && !waits(err) {
				t.Fatalf("error = %v", err)
			}
			p.stop()
			start := time.Now()
			p = w.startHowSSL(nil, years(c.now))
			stop := p.maintain(false)
			p.configure("example.com")
			p.untilServed(day, "example.com")
			e := w.entry("example.com")
			if e.Term.Years != c.before || e.Ends.Sub(ledger.EndOfTerm(start, e.Term)).Abs() > day {
				t.Errorf("the term is %+v until %s", e.Term, e.Ends)
			}
			// Just before the end of the paid term, and half a year after it.
			time.Sleep(time.Duration(c.before)*365*day - 40*day)
			w.wantCharges(1)
			time.Sleep(200 * day)
			w.wantCharges(2)
			p.untilServed(0, "example.com")
			stop()
		})
	}
}

// TestTermOfResolvedOrder: if a person finds the order, or pays for it in the vendor's portal, its
// term is that of the request, and not a year.
func TestTermOfResolvedOrder(t *testing.T) {
	tooSlowForRaces(t)
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		two := func(f *flow) { f.order.Term = vendors.Term{Years: 2} }
		w.ca.Inject(hostile.Fault{Endpoint: "Order/commitOrder", Phase: hostile.BeforeEffect, Kind: hostile.HTML, Times: 1})
		p := w.startHowSSL(nil, all(quickly, two))
		_, _ = p.attempt(t.Context(), "example.com")
		w.until(10*day, "the entry is flagged", func() bool { e := w.entry("example.com"); return e != nil && e.Flag != nil })
		portal := w.startHowSSL(nil, two) // it is paid by hand
		order, err := portal.vendor.Place(t.Context(), p.request(w.entry("example.com")))
		portal.stop()
		if err != nil {
			t.Fatal(err)
		}
		w.resolve(operator.Action{About: "example.com", Order: order.ID})
		p.stop()
		p = w.startHowSSL(nil, two)
		stop := p.maintain(false)
		p.configure("example.com")
		p.untilServed(2*day, "example.com")
		time.Sleep(680 * day)
		w.wantCharges(1)
		time.Sleep(200 * day)
		w.wantCharges(2)
		stop()
	})
}

// TestRequestIsWhatWasAgreed: a request for a paid order contains what was agreed, whatever the
// configuration says now.
func TestRequestIsWhatWasAgreed(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, nil)
		p.mustObtain("example.com")
		e := w.entry("example.com")
		p.reload(func(f *flow) {
			f.order.Product, f.order.Term, f.order.Method = "comodo-ssl", vendors.Term{Years: 3}, vendors.MethodDNS
			f.rules.groups = [][]string{{"example.net", "example.com"}}
		})
		r := p.request(e)
		if r.Product != "comodo-positivessl" || r.Term.Years != 1 || r.Method != vendors.MethodHTTP || !slices.Equal(r.Names, []string{"example.com"}) {
			t.Errorf("request = %+v", r)
		}
	})
}

// TestChangedProductIsBought: a renewal buys what the configuration says now. Racent's renew call
// has no product, so it is not used if the product has changed.
func TestChangedProductIsBought(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, nil)
		p.mustObtain("example.com")
		time.Sleep(340 * day)
		p.reload(func(f *flow) { f.order.Product = "comodo-ssl" })
		p.mustObtain("example.com")
		w.wantCharges(2)
		bought := w.ca.Charges()[1].Product
		if e := w.entry("example.com"); bought != "comodo-ssl" || e.Product != bought {
			t.Errorf("bought %q, the ledger says %q", bought, e.Product)
		}
	})
	inBubble(t, "unchanged", func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, nil)
		p.mustObtain("example.com")
		time.Sleep(340 * day)
		p.mustObtain("example.com")
		if w.ca.Calls("renew") != 1 || w.ca.Calls("place") != 1 {
			t.Errorf("renew %d, place %d", w.ca.Calls("renew"), w.ca.Calls("place"))
		}
		w.wantCharges(2)
	})
	inBubble(t, "and term", func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, nil)
		p.mustObtain("example.com")
		time.Sleep(340 * day)
		p.reload(func(f *flow) { f.order.Term = vendors.Term{Years: 2} })
		p.mustObtain("example.com")
		if w.ca.Calls("renew") != 0 {
			t.Error("renewed for the old term")
		}
		if e := w.entry("example.com"); e.Term.Years != 2 {
			t.Errorf("term %+v", e.Term)
		}
		w.wantCharges(2)
	})
}

// TestChangesBuyNothing: a change of what is to be bought buys nothing while the previous order is
// still good.
func TestChangesBuyNothing(t *testing.T) {
	for name, change := range map[string]func(*flow){
		"product":      func(f *flow) { f.order.Product = "comodo-ssl" },
		"term":         func(f *flow) { f.order.Term = vendors.Term{Years: 2} },
		"contact":      func(f *flow) { f.order.Contact.Email = "new@example.com" },
		"margin":       func(f *flow) { f.rules.renewMargin = 200 * 365 * day },
		"group":        group("example.com", "example.net"),
		"adopted":      func(f *flow) { f.rules.adopted = []AdoptedOrder{{"260101aaaaaaaaaa", []string{"example.com"}}} },
		"spend limit":  func(f *flow) { f.rules.spend.Orders = 1000 },
		"by handshake": func(f *flow) { f.rules.allowOnDemand = true },
	} {
		inBubble(t, name, func(t *testing.T) {
			w := newWorld(t, nil)
			p := w.start(nil, nil)
			p.mustObtain("example.com")
			p.reload(change)
			for range 3 {
				_, _ = p.attempt(t.Context(), "example.com")
				time.Sleep(30 * day)
			}
			w.wantCharges(1)
			p.stop()
			// The change is undone, and the process restarts.
			p = w.start(nil, nil)
			p.mustObtain("example.com")
			w.wantCharges(1)
		})
	}
}

// TestGivenOrderForbidsPurchases: nothing is ordered for a name that has an order in the config,
// whoever asks.
func TestGivenOrderForbidsPurchases(t *testing.T) {
	tooSlowForRaces(t)
	for _, asks := range []string{"example.com", "shop.example.com", "www.example.com"} {
		inBubble(t, asks, func(t *testing.T) {
			w := newWorld(t, nil)
			id := w.orderElsewhere([]string{"example.com", "shop.example.com"}, func(f *flow) { f.order.Product = "comodo-positive-multi-domain" })
			given := func(f *flow) {
				f.order.Product = "comodo-positive-multi-domain"
				f.rules.adopted = []AdoptedOrder{{id, []string{"example.com"}}}
				f.rules.groups = [][]string{{"shop.example.com", "example.com"}}
			}
			p := w.start(nil, given)
			p.mustObtain("example.com")
			if asks != "www.example.com" {
				p.mustObtain(asks)
			}
			w.wantCharges(1)
			time.Sleep(340 * day)
			_, _ = p.attempt(t.Context(), asks)
			time.Sleep(40 * day)
			_, _ = p.attempt(t.Context(), asks)
			for _, c := range w.ca.Charges()[1:] {
				if slices.Contains(c.Names, "example.com") {
					t.Errorf("an order was placed for %v", c.Names)
				}
			}
			if _, err := p.attempt(t.Context(), "example.com"); err == nil {
				t.Error("a name whose order is over got a certificate")
			}
		})
	}
}

// TestNextGivenOrder: the order that is configured next is used, whatever became of the previous one.
func TestNextGivenOrder(t *testing.T) {
	tooSlowForRaces(t)
	for _, when := range []time.Duration{100 * day, 340 * day, 400 * day} {
		inBubble(t, when.String(), func(t *testing.T) {
			w := newWorld(t, nil)
			names := []string{"example.com"}
			given := func(id string) func(*flow) {
				return func(f *flow) { f.rules.adopted = []AdoptedOrder{{id, names}} }
			}
			p := w.start(nil, given(w.orderElsewhere(names, nil)))
			stop := p.maintain(false)
			p.mustObtain("example.com")
			time.Sleep(when)
			id := w.orderElsewhere(names, nil)
			p.reload(given(id))
			p.mustObtain("example.com")
			if e := w.entry("example.com"); e.RootID != id || !e.Adopted {
				t.Errorf("the order is %s, adopted %v, want %s", e.RootID, e.Adopted, id)
			}
			time.Sleep(300 * day)
			p.untilServed(0, "example.com")
			w.wantCharges(2)
			stop()
		})
	}
}

// TestGivenOrderTakenAway: when the option is removed, the order is used for the rest of its term,
// and then another one is bought.
func TestGivenOrderTakenAway(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		id := w.orderElsewhere([]string{"example.com"}, nil)
		p := w.start(nil, func(f *flow) { f.rules.adopted = []AdoptedOrder{{id, []string{"example.com"}}} })
		stop := p.maintain(false)
		p.mustObtain("example.com")
		p.reload(func(f *flow) { f.rules.adopted = nil })
		p.mustObtain("example.com")
		w.wantCharges(1)
		time.Sleep(400 * day)
		p.untilServed(0, "example.com")
		w.wantCharges(2)
		stop()
	})
	// What was bought with it is not known. A renewal, which would buy that again, is therefore not
	// used.
	inBubble(t, "its last month", func(t *testing.T) {
		w := newWorld(t, nil)
		id := w.orderElsewhere([]string{"example.com"}, nil)
		p := w.start(nil, func(f *flow) { f.rules.adopted = []AdoptedOrder{{id, []string{"example.com"}}} })
		p.mustObtain("example.com")
		p.reload(func(f *flow) { f.rules.adopted = nil })
		time.Sleep(340 * day)
		p.mustObtain("example.com")
		w.wantCharges(2)
		if n := w.ca.Calls("renew"); n != 0 {
			t.Errorf("renew %d", n)
		}
	})
}

// TestMarginIsCapped: with a margin as long as the term or longer, nothing is bought before half of
// the term is over.
func TestMarginIsCapped(t *testing.T) {
	for _, margin := range []time.Duration{366 * day, 10_000 * day} {
		inBubble(t, margin.String(), func(t *testing.T) {
			w := newWorld(t, nil)
			p := w.start(nil, func(f *flow) { f.rules.renewMargin = margin })
			for range 5 {
				p.mustObtain("example.com")
			}
			w.wantCharges(1)
			time.Sleep(170 * day)
			p.mustObtain("example.com")
			w.wantCharges(1)
		})
	}
}

// TestVendorTellsEndOfTerm: the end of the term is what the vendor reports, if it reports one, so a
// bonus for an early renewal counts.
func TestVendorTellsEndOfTerm(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, func(c *hostile.Config) { c.Year = 450 * day })
		p := w.start(nil, nil)
		p.mustObtain("example.com")
		time.Sleep(400 * day)
		p.mustObtain("example.com")
		w.wantCharges(1)
	})
}

// TestFreeChecksComeFirst: a refusal by the vendor's free check, or a missing proof, costs nothing.
func TestFreeChecksComeFirst(t *testing.T) {
	inBubble(t, "vendor", func(t *testing.T) {
		w := newWorld(t, nil)
		w.ca.Inject(hostile.Fault{Endpoint: "validate", Kind: hostile.APICode, Code: -4, Errors: "no"})
		p := w.start(nil, quickly)
		if _, err := p.attempt(t.Context(), "example.com"); err == nil || waits(err) {
			t.Errorf("error = %v", err)
		}
		time.Sleep(30 * day)
		if w.charges() != 0 || w.ca.Calls("place") != 0 {
			t.Errorf("charges %d, place %d", w.charges(), w.ca.Calls("place"))
		}
	})
	inBubble(t, "proof", func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, func(f *flow) {
			quickly(f)
			f.prove = refusingProver{f.prove, map[string]bool{"example.com": true}}
		})
		if _, err := p.attempt(t.Context(), "example.com"); err == nil || waits(err) {
			t.Errorf("error = %v", err)
		}
		time.Sleep(30 * day)
		if w.charges() != 0 || w.ca.Calls("place") != 0 {
			t.Errorf("charges %d, place %d", w.charges(), w.ca.Calls("place"))
		}
		// Once the name leads here again, nobody has to do anything.
		p.reload(func(f *flow) { f.prove = f.prove.(refusingProver).Prover })
		p.untilServed(7*time.Hour, "example.com")
		w.wantCharges(1)
	})
}
