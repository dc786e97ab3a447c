package issuer

import (
	"strings"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
)

// pendingElsewhere has an order placed that this ledger knows nothing of, and that the CA takes long
// for.
func (w *world) pendingElsewhere(start func(*world, *fuse, func(*flow)) *process, name string) string {
	w.tb.Helper()
	p := start(w, nil, func(f *flow) {
		f.ledger.Storage = newMemStorage()
		f.site.(*testSite).storage = f.ledger.Storage
		quickly(f)
	})
	before := w.charges()
	p.configure(name)
	w.until(time.Hour, "it is ordered", func() bool { return w.charges() == before+1 })
	time.Sleep(time.Minute)
	p.stop()
	orders := w.ca.Orders()
	return orders[len(orders)-1].ID
}

// An order that a person uses in the place of one whose term is almost over is paid for its own term:
// nothing is bought meanwhile, however long its certificate takes.
func TestResolveOrderOutlivesTheOneBefore(t *testing.T) {
	tooSlowForRaces(t)
	for _, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			p := v.start(w, nil, all(quickly, watching))
			p.configure("example.com")
			p.untilServed(day, "example.com")
			p.stop()
			time.Sleep(time.Until(w.entry("example.com").Ends.Add(-40 * day)))
			p = v.start(w, nil, all(quickly, watching))
			p.configure("example.com")
			time.Sleep(day)
			if _, err := w.ca.EndAll(hostile.StatusCancelled); err != nil {
				t.Fatal(err)
			}
			w.until(day, "a person is asked", func() bool { return w.entry("example.com").Flag != nil })
			if err := w.ca.Update(func(c *hostile.Config) { c.IssueDelay = 25 * day }); err != nil {
				t.Fatal(err)
			}
			id := w.pendingElsewhere(v.start, "example.com")
			before := w.charges()
			w.act(p.desk(true), "resolve", operator.Action{About: "example.com", Order: id})
			time.Sleep(30 * day)
			if err := w.ca.Update(func(c *hostile.Config) { c.IssueDelay = 0 }); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * day)
			w.wantCharges(before)
			if e := w.entry("example.com"); w.paidBy(e.OrderID) != id || !p.good("example.com") {
				t.Errorf("%s, %+v", e.State, e)
			}
		})
	}
}

// What an order bought that a person uses in the place of another one is not known, so what follows
// it is what the config has.
func TestResolveOrderIsNotRenewedAsItIs(t *testing.T) {
	tooSlowForRaces(t)
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, func(c *hostile.Config) { c.Lifetime = 30 * day })
		p := w.start(nil, quickly)
		p.configure("example.com")
		p.untilServed(day, "example.com")
		id := w.orderElsewhere([]string{"example.com"}, func(f *flow) { f.order.Product = "comodo-ssl" })
		w.act(p.desk(true), "resolve", operator.Action{About: "example.com", Order: id})
		w.until(day, "it is used", func() bool { return w.state("example.com") == ledger.Issued })
		p.stop()
		time.Sleep(time.Until(w.entry("example.com").Ends.Add(-35 * day)))
		before := w.charges()
		p = w.start(nil, quickly)
		defer p.maintain(false)()
		p.configure("example.com")
		w.until(35*day, "the next one is bought", func() bool { return w.charges() > before })
		charges := w.ca.Charges()
		last := charges[len(charges)-1]
		for _, o := range w.ca.Orders() {
			if o.ID == last.OrderID && o.Product != "comodo-positivessl" {
				t.Errorf("bought %s", o.Product)
			}
		}
	})
}

// Where an order is given up whose certificate is good, another one is placed when the plan says so: when
// that certificate is due. Until then, an order that was bought elsewhere can take its place.
func TestResolveNoneOfAGoodOrder(t *testing.T) {
	tooSlowForRaces(t)
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, all(quickly, watching))
		defer p.maintain(false)()
		p.configure("example.com")
		p.untilServed(day, "example.com")
		time.Sleep(5 * day)
		c := w.entry("example.com").Certificate
		due := ledger.RenewalBegins(c.NotBefore, c.NotAfter, 0)
		out := w.act(p.desk(true), "resolve", operator.Action{About: "example.com", None: true})
		for _, said := range []string{strings.Join(out.Plan.Then, "; "), out.Result} {
			if !strings.Contains(said, "when its certificate is due, on "+due.Format(time.DateOnly)) {
				t.Errorf("it said: %s", said)
			}
		}
		time.Sleep(time.Until(due.Add(-day)))
		w.wantCharges(1)
		w.until(2*day, "another one is bought", func() bool { return w.charges() == 2 })
		p.untilServed(day, "example.com")
	})
}

// A request that is on its way is not given up by a person whose clock is ahead of that of the server
// that has sent it. Nothing is paid twice.
func TestResolveNoneWithAWrongClock(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		w.ca.Inject(hostile.Fault{Endpoint: "place", Kind: hostile.Delay, Delay: 25 * time.Second, Times: 1})
		a := w.start(nil, all(quickly, ahead(-50*time.Minute)))
		b := w.start(nil, quickly)
		a.configure("example.com")
		time.Sleep(10 * time.Second)
		err := w.tryResolve(operator.Action{About: "example.com", None: true})
		if err == nil || !strings.Contains(err.Error(), "may still be on its way") {
			t.Errorf("error = %v", err)
		}
		b.configure("example.com")
		a.untilServed(day, "example.com")
		b.untilServed(day, "example.com")
		time.Sleep(day)
		w.wantCharges(1)
		w.allKnown()
	})
}

// The same where the vendor cannot look orders up: a person is asked only when the request cannot be on
// its way any more.
func TestResolveNoneUnsearchable(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		w.ca.Inject(hostile.Fault{Endpoint: "place", Kind: hostile.Delay, Delay: 25 * time.Second, Times: 1})
		unsearchable := func(f *flow) { f.vendor = noSearch{f.vendor} }
		a := w.start(nil, all(quickly, unsearchable, ahead(-50*time.Minute)))
		b := w.start(nil, all(quickly, unsearchable))
		a.configure("example.com")
		time.Sleep(5 * time.Second)
		b.configure("example.com")
		time.Sleep(5 * time.Second)
		err := w.tryResolve(operator.Action{About: "example.com", None: true})
		if err == nil || !strings.Contains(err.Error(), "may still be on its way") {
			t.Errorf("error = %v", err)
		}
		a.untilServed(day, "example.com")
		b.untilServed(day, "example.com")
		time.Sleep(day)
		w.wantCharges(1)
		w.allKnown()
	})
}
