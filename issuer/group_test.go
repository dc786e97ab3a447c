package issuer

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/ledger"
)

// TestReorderedGroup: a group whose names are reordered, or that gets another first name, leads to a
// purchase only for names that no order covers.
func TestReorderedGroup(t *testing.T) {
	for _, c := range []struct {
		before, after []string
		charges       int
	}{
		{[]string{"example.com", "example.net"}, []string{"example.net", "example.com"}, 1},
		{[]string{"example.com", "example.net"}, []string{"shop.example.com", "example.com", "example.net"}, 2},
		{[]string{"example.com", "example.net"}, []string{"example.net", "shop.example.com"}, 2},
		{[]string{"example.com", "example.net"}, []string{"example.net"}, 1},
	} {
		for _, v := range vendorKinds {
			if v.group == "" {
				continue
			}
			inBubble(t, fmt.Sprintf("%s %v", v.name, c.after), func(t *testing.T) {
				w := newWorld(t, nil)
				with := func(names []string) func(*flow) {
					return all(group(names...), func(f *flow) { f.order.Product = v.group })
				}
				p := v.start(w, nil, with(c.before))
				for _, name := range c.before {
					p.mustObtain(name)
				}
				w.wantCharges(1)
				p.reload(with(c.after))
				for _, name := range c.after {
					p.mustObtain(name)
				}
				w.wantCharges(c.charges)
				if last := w.ca.Charges()[c.charges-1]; c.charges == 2 && !slices.Equal(last.Names, []string{"shop.example.com"}) {
					t.Errorf("bought for %v", last.Names)
				}
				// The same holds for another server that has not been reloaded.
				p.stop()
				p = v.start(w, nil, with(c.before))
				for _, name := range c.before {
					p.mustObtain(name)
				}
				w.wantCharges(c.charges)
			})
		}
	}
}

// TestRenewalLeavesOutGoneNames: a renewal is for the current names, and not for one that has left
// and can no longer be validated.
func TestRenewalLeavesOutGoneNames(t *testing.T) {
	inBubble(t, "left the group", func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, group("example.com", "example.net"))
		p.mustObtain("example.com")
		p.mustObtain("example.net")
		time.Sleep(340 * day)
		p.reload(func(f *flow) {
			f.rules.groups = nil
			f.prove = refusingProver{f.prove, map[string]bool{"example.com": true}}
		})
		p.mustObtain("example.net")
		w.wantCharges(2)
		if c := w.ca.Charges()[1]; !slices.Equal(c.Names, []string{"example.net"}) {
			t.Errorf("bought for %v", c.Names)
		}
	})
	inBubble(t, "left the configuration", func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, group("example.com", "example.net"))
		p.mustObtain("example.com")
		p.mustObtain("example.net")
		time.Sleep(340 * day)
		synctest.Wait()
		p.site.deny = map[string]bool{"example.com": true}
		p.mustObtain("example.net")
		w.wantCharges(2)
		if c := w.ca.Charges()[1]; !slices.Equal(c.Names, []string{"example.net"}) {
			t.Errorf("bought for %v", c.Names)
		}
	})
}

// TestNameJoinsGroup: an order is placed at once for a name that joins a group. The name joins the
// group's order with a renewal, when both orders are about to end.
func TestNameJoinsGroup(t *testing.T) {
	tooSlowForRaces(t)
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, group("example.com", "example.net"))
		stop := p.maintain(false)
		p.mustObtain("example.com")
		p.mustObtain("example.net")
		time.Sleep(10 * day)
		three := []string{"example.com", "example.net", "example.org"}
		p.reload(group(three...))
		p.mustObtain("example.org")
		w.wantCharges(2)
		time.Sleep(2 * 365 * day)
		p.untilServed(0, three...)
		charges := w.ca.Charges()
		if last := charges[len(charges)-1]; !slices.Equal(last.Names, three) {
			t.Errorf("the last order is for %v", last.Names)
		}
		// Two orders in the first year, and one in each of the others.
		if len(charges) > 4 {
			w.wantCharges(4)
		}
		stop()
	})
}

// TestGroupSharesCertificate: the names of a group share a certificate, whichever of them asks, and
// whenever.
func TestGroupSharesCertificate(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, func(c *hostile.Config) { c.IssueDelay = 2 * time.Hour })
		var names []string
		for i := range 25 {
			names = append(names, fmt.Sprintf("site%d.example.com", i))
		}
		p := w.start(nil, group(names...))
		stop := p.maintain(false)
		p.configure(names...)
		p.untilServed(5*time.Hour, names...)
		w.wantCharges(1)
		if n := w.ca.Calls("replace"); n != 0 {
			t.Errorf("%d reissues for names that share a certificate", n)
		}
		if n := w.ca.Calls("validate"); n != 1 {
			t.Errorf("one order was prepared %d times", n)
		}
		if n := w.ca.Calls("collect"); n > 60 {
			t.Errorf("%d polls for the status of one order", n)
		}
		// The same holds for a renewal of the certificate, which certmagic requests under the first
		// name only.
		time.Sleep(180 * day)
		p.untilServed(0, names...)
		if n := w.ca.Calls("replace"); n != 1 {
			t.Errorf("%d reissues for one renewal", n)
		}
		w.wantCharges(1)
		stop()
	})
}

// TestGroupsDiffer: two servers that have different groups while a configuration is rolled out pay
// for no name twice.
func TestGroupsDiffer(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		a := w.start(nil, group("example.com", "example.net"))
		b := w.start(nil, group("example.net", "example.org", "example.com"))
		a.configure("example.com", "example.net")
		b.configure("example.com", "example.net", "example.org")
		a.untilServed(day, "example.com", "example.net")
		b.untilServed(day, "example.com", "example.net", "example.org")
		w.onePerName()
	})
}

// onePerName fails if two orders with a name in common were paid for at the same time, except for
// the margin at the end of the first.
func (w *world) onePerName() {
	w.tb.Helper()
	charges := w.ca.Charges()
	for i, first := range charges {
		for _, second := range charges[i+1:] {
			if second.Time.Sub(first.Time) > 330*day {
				continue
			}
			for _, name := range first.Names {
				if slices.Contains(second.Names, name) {
					w.tb.Errorf("%s was paid for on %s (%v) and on %s (%v)", name, first.Time.Format(time.DateTime), first.Names,
						second.Time.Format(time.DateTime), second.Names)
				}
			}
		}
	}
}

// TestGroupWithLostName: one name of a group cannot be validated. Nothing is paid for an order that
// could not be completed, and the others come as soon as the name leaves the group.
func TestGroupWithLostName(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, func(f *flow) {
			group("example.com", "example.net")(f)
			quickly(f)
			f.prove = refusingProver{f.prove, map[string]bool{"example.net": true}}
		})
		p.configure("example.com", "example.net")
		time.Sleep(2 * day)
		w.wantCharges(0)
		synctest.Wait()
		p.site.deny = map[string]bool{"example.net": true}
		p.untilServed(7*time.Hour, "example.com")
		w.wantCharges(1)
		if s := w.state("example.net"); s != "" && s != ledger.Gone {
			t.Errorf("state of the lost name: %q", s)
		}
	})
}
