package issuer

import (
	"fmt"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// years lets time pass, checks every few days that the names are served, and occasionally restarts
// the server.
func (p *process) years(n int, start func() *process, reuse bool, names ...string) *process {
	p.w.tb.Helper()
	stop := p.maintain(reuse)
	for d := range n * 365 {
		time.Sleep(day)
		if d%5 == 0 {
			p.untilServed(0, names...)
		}
		if d%97 == 96 {
			stop()
			p.stop()
			p = start()
			p.configure(names...)
			stop = p.maintain(reuse)
		}
	}
	stop()
	return p
}

// TestThreeYears: for three years at each vendor, the names are served all the time, and one order
// per term is paid for.
func TestThreeYears(t *testing.T) {
	tooSlowForRaces(t)
	for i, v := range vendorKinds {
		if i%raceStride != 0 {
			continue
		}
		for _, reuse := range []bool{false, true} {
			inBubble(t, fmt.Sprintf("%s, reused keys %v", v.name, reuse), func(t *testing.T) {
				w := newWorld(t, nil)
				start := func() *process { return v.start(w, nil, nil) }
				p := start()
				p.configure("example.com", "www.example.com")
				p.untilServed(day, "example.com", "www.example.com")
				first := w.charges()
				p.years(3, start, reuse, "example.com", "www.example.com")
				// An order is renewed up to a month early, so four may begin in three years.
				orders := 1
				if first == 2 {
					orders = 2 // the CA does not add the twin
				}
				if n := w.charges(); n < 3*orders || n > 4*orders {
					w.wantCharges(3 * orders)
				}
				w.onePerName()
				w.noSecrets()
			})
		}
	}
}

// TestYearsOfGroup: the same holds for orders for several names, of which certmagic renews only the
// first.
func TestYearsOfGroup(t *testing.T) {
	tooSlowForRaces(t)
	for _, v := range vendorKinds {
		if v.group == "" {
			continue
		}
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			names := []string{"example.com", "example.net", "example.org"}
			rotate := 0
			start := func() *process {
				// The group's names are in another order each time.
				rotate++
				turned := append(append([]string{}, names[rotate%3:]...), names[:rotate%3]...)
				return v.start(w, nil, all(group(turned...), func(f *flow) { f.order.Product = v.group }))
			}
			p := start()
			p.configure(names...)
			p.untilServed(day, names...)
			p.years(2, start, false, names...)
			if n := w.charges(); n < 2 || n > 3 {
				w.wantCharges(2)
			}
			w.onePerName()
		})
	}
}

// TestThreeYearTerm: the same holds for a term of several years, with certificates of a few weeks,
// as they will be.
func TestThreeYearTerm(t *testing.T) {
	tooSlowForRaces(t)
	for i, v := range vendorKinds {
		if i%raceStride != 0 {
			continue
		}
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, func(c *hostile.Config) { c.Lifetime = 46 * day })
			start := func() *process {
				return v.start(w, nil, func(f *flow) {
					f.order.Term = vendors.Term{Years: 3}
					if f.about.Name == "digicert" {
						f.order.Term.Years = 2
					}
				})
			}
			p := start()
			p.configure("example.com")
			p.untilServed(day, "example.com")
			p = p.years(3, start, false, "example.com")
			w.wantCharges(2)
			term := ledger.EndOfTerm(time.Time{}, p.order.Term).Sub(time.Time{})
			if got := w.ca.Charges()[1].Time.Sub(w.ca.Charges()[0].Time); got < term-31*day {
				t.Errorf("bought again after %s", got)
			}
		})
	}
}

// TestThreeYearsOnDemand: the same holds for names that handshakes bring up, if those may order.
func TestThreeYearsOnDemand(t *testing.T) {
	tooSlowForRaces(t)
	for i, v := range vendorKinds {
		if i%raceStride != 0 {
			continue
		}
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, func(c *hostile.Config) { c.IssueDelay = time.Hour })
			p := v.start(w, nil, func(f *flow) { f.rules.allowOnDemand = true })
			p.site.strange = map[string]bool{"example.com": true}
			dark := 0
			for range 3 * 365 * 4 {
				p.handshake("example.com")
				time.Sleep(6 * time.Hour)
				if got := p.site.serving("example.com"); got == nil || time.Now().After(got.leaf().NotAfter) {
					dark++
				}
			}
			if dark > 0 {
				t.Errorf("not served at %d of the checks", dark)
			}
			if n := w.charges(); n < 3 || n > 4 {
				w.wantCharges(3)
			}
			w.onePerName()
		})
	}
}

// TestYearsOfTwoServers: two servers with one storage run through the years together, one of them
// with an old configuration for a while.
func TestYearsOfTwoServers(t *testing.T) {
	tooSlowForRaces(t)
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		old := w.start(nil, ahead(30*time.Minute))
		stop := old.maintain(false)
		start := func() *process {
			return w.start(nil, all(group("example.com", "shop.example.com"), ahead(-20*time.Minute)))
		}
		p := start()
		old.configure("example.com", "www.example.com")
		p.configure("example.com", "shop.example.com")
		p.untilServed(day, "example.com", "shop.example.com")
		p.years(2, start, false, "example.com", "shop.example.com")
		old.untilServed(0, "example.com", "www.example.com")
		w.onePerName()
		stop()
	})
}

// TestThreeYearsOfGivenOrders: an adopted order is used for the rest of its term, and so is the next
// one that a person configures.
func TestThreeYearsOfGivenOrders(t *testing.T) {
	tooSlowForRaces(t)
	for i, v := range vendorKinds {
		if i%raceStride != 0 {
			continue
		}
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			bought := 0
			buy := func() string {
				bought++
				p := v.start(w, nil, nil)
				memory := newMemStorage()
				p.ledger.Storage, p.site.storage = memory, memory
				p.mustObtain("example.com")
				p.stop()
				orders := w.ca.Orders()
				return orders[len(orders)-1].ID
			}
			id := buy()
			start := func() *process {
				return v.start(w, nil, func(f *flow) { f.rules.adopted = []AdoptedOrder{{id, []string{"example.com"}}} })
			}
			p := start()
			p.configure("example.com")
			p.untilServed(day, "example.com")
			for range 3 {
				stop := p.maintain(false)
				for range 335 {
					time.Sleep(day)
					p.untilServed(0, "example.com")
				}
				stop()
				p.stop()
				id = buy()
				p = start()
				p.configure("example.com")
			}
			time.Sleep(day)
			p.untilServed(0, "example.com")
			w.wantCharges(bought)
		})
	}
}
