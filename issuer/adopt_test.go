package issuer

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
)

// buyElsewhere buys for somebody else: with another ledger, at the same vendor.
func (w *world) buyElsewhere(name string) (id string) {
	w.tb.Helper()
	p := w.start(nil, func(f *flow) {
		f.ledger = &ledger.Ledger{Storage: newMemStorage(), Prefix: f.ledger.Prefix, Memory: f.ledger.Memory}
		f.rules.maxWait = 10 * time.Second
	})
	p.site.storage = newMemStorage()
	if _, err := p.attempt(w.ctx, name); err != nil && !waits(err) {
		w.tb.Fatal(err)
	}
	p.stop()
	return w.ca.Orders()[0].ID
}

func adopting(id string, names ...string) func(*flow) {
	return func(f *flow) { f.rules.adopted = []AdoptedOrder{{id, names}} }
}

func TestAdoption(t *testing.T) {
	for name, delay := range map[string]time.Duration{"issued": 0, "pending": time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(c *hostile.Config) { c.IssueDelay = delay })
				id := w.buyElsewhere("example.com")
				w.start(nil, adopting(id, "example.com")).mustObtain("example.com")
				if w.charges() != 1 {
					t.Errorf("charges = %d, want 1", w.charges())
				}
				if e := w.entry("example.com"); e == nil || !e.Adopted || e.RootID != id {
					t.Errorf("entry = %+v", e)
				}
			})
		})
	}
}

func TestAdoptionOfWrongOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.start(nil, nil).mustObtain("example.com")
		id := w.ca.Orders()[0].ID
		for _, c := range []struct{ id, name, want string }{
			{"nosuchorder", "example.net", "does not know order nosuchorder"},
			{id, "example.net", "is for example.com"},
		} {
			p := w.start(nil, adopting(c.id, c.name))
			for range 2 {
				_, err := p.attempt(t.Context(), c.name)
				if err == nil || !strings.Contains(err.Error(), c.want) || !isFinal(err) {
					t.Errorf("error = %v, want a final one with %q", err, c.want)
				}
			}
			p.stop()
		}
		if w.charges() != 1 {
			t.Errorf("charges = %d, want 1", w.charges())
		}
	})
}

// TestAdoptedNamesAreNeverBoughtFor: nothing is bought for the names of an adopted order, not even
// after its term.
func TestAdoptedNamesAreNeverBoughtFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		id := w.buyElsewhere("example.com")
		p := w.start(nil, adopting(id, "example.com"))
		synctest.Wait()
		p.site.deny = map[string]bool{"www.example.com": true} // it would get an order of its own
		p.mustObtain("example.com")
		p.rest(355 * 24 * time.Hour) // within the margin, where a new order would be due
		p.mustObtain("example.com")
		p.rest(135 * 24 * time.Hour) // the last certificate is due
		for range 3 {
			if _, err := p.attempt(t.Context(), "example.com"); err == nil || !isFinal(err) || !strings.Contains(err.Error(), "is used up") {
				t.Errorf("error = %v", err)
			}
		}
		if w.charges() != 1 {
			t.Errorf("charges = %d, want 1", w.charges())
		}
	})
}

// TestGroupMadeLater: a name that joins a group whose other name has an order already gets an order
// of its own.
func TestGroupMadeLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.start(nil, nil).mustObtain("example.com")
		p := w.start(nil, func(f *flow) { f.rules.groups = [][]string{{"example.com", "shop.example.com"}} })
		for range 2 {
			p.mustObtain("shop.example.com")
			p.mustObtain("example.com")
		}
		if w.charges() != 2 {
			t.Errorf("charges = %d, want 2", w.charges())
		}
		adopted := w.start(nil, adopting(w.ca.Orders()[0].ID, "example.com", "blog.example.com"))
		if _, err := adopted.attempt(t.Context(), "blog.example.com"); err == nil || !isFinal(err) || !strings.Contains(err.Error(), "for blog.example.com") {
			t.Errorf("error = %v", err)
		}
		if w.charges() != 2 {
			t.Errorf("charges = %d, want 2", w.charges())
		}
	})
}

func TestGroupSharesOneOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, func(f *flow) {
			f.order.Product = "comodo-positive-multi-domain"
			f.rules.groups = [][]string{{"example.com", "shop.example.com", "example.net"}}
		})
		p.site.manage("example.com")
		p.site.manage("example.net")
		p.mustObtain("shop.example.com")
		time.Sleep(time.Hour)
		for _, name := range []string{"shop.example.com", "example.com", "example.net"} {
			got := p.site.serving(name)
			if got == nil {
				t.Fatalf("%s is not served", name)
			}
			w.verify(got, name)
			if first := firstName(got.leaf()); first != "example.com" {
				t.Errorf("the first name is %s", first)
			}
		}
		if w.charges() != 1 || w.ca.Calls("replace") != 0 {
			t.Errorf("charges %d, replace %d", w.charges(), w.ca.Calls("replace"))
		}
	})
}

// TestAdoptionTriesAgain: a failure of the round that adopts an order is not mistaken for the end of
// its term.
func TestAdoptionTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		id := w.buyElsewhere("example.com")
		refuse := map[string]bool{"example.com": true}
		p := w.start(nil, all(adopting(id, "example.com"), func(f *flow) { f.prove = refusingProver{f.prove, refuse} }))
		if _, err := p.attempt(t.Context(), "example.com"); err == nil || strings.Contains(err.Error(), "used up") {
			t.Errorf("error = %v", err)
		}
		p.reload(func(f *flow) { f.prove = f.prove.(refusingProver).Prover })
		p.untilServed(10*time.Minute, "example.com")
		w.wantCharges(1)
	})
}

// TestAdoptedAgainForAnotherName: a server buys nothing for a name for which an order was taken up by
// hand, though it remembers that order as one that was given up, for another name.
func TestAdoptedAgainForAnotherName(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, func(c *hostile.Config) { c.IssueDelay = 2 * day })
		id := w.pendingElsewhere((*world).startHowSSL, "example.com") // as long as it is pending, no names are told
		p := w.startHowSSL(nil, quickly)
		desk := p.desk(false)
		desk.Accounts[0].Manages = func(string) bool { return true }
		w.act(desk, "adopt", operator.Action{About: "example.net", Order: id})
		w.act(desk, "resolve", operator.Action{About: "example.net", None: true})
		time.Sleep(13 * time.Hour)
		w.act(desk, "adopt", operator.Action{About: "example.com", Order: id})
		p.configure("example.com")
		p.untilServed(7*day, "example.com") // it is reissued, which takes as long
		w.wantCharges(1)
	})
}

// An order that the option gives is reissued with the common name that it has, and without the name that
// its CA has added, whichever of them the option has. HowSSL tells no names, and refuses others.
func TestAdoptionKeepsTheCommonName(t *testing.T) {
	names := []string{"example.com", "www.example.com"}
	for _, v := range vendorKinds {
		for _, ordered := range names {
			for _, given := range [][]string{names[:1], names[1:], names} {
				if v.name == "digicert" && (len(given) > 1 || ordered != given[0]) {
					continue // adds no names
				}
				inBubble(t, fmt.Sprintf("%s, %s, given for %v", v.name, ordered, given), func(t *testing.T) {
					w := newWorld(t, nil)
					id := orderedElsewhere(w, v.start, ordered)
					p := v.start(w, nil, all(quickly, adopting(id, given...)))
					p.configure(given...)
					p.untilServed(day, given...)
					w.wantCharges(1)
				})
			}
		}
	}
}
