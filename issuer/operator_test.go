package issuer

import (
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
)

// situation is a state in which a person may find an order, and how to get there.
type situation struct {
	name    string
	state   ledger.State
	flagged bool
	config  func(*hostile.Config)
	make    func(t *testing.T, w *world, p *process)
}

var situations = []*situation{
	{name: "asked", state: ledger.Asked, make: func(t *testing.T, w *world, p *process) {
		w.ca.Inject(hostile.Fault{Endpoint: "place", Phase: hostile.AfterEffect, Kind: hostile.Reset, Times: 1})
		w.ca.Inject(hostile.Fault{Endpoint: "certIdByrefId", Kind: hostile.HTTPStatus, Status: 503})
		p.configure("example.com")
		time.Sleep(2 * time.Hour)
	}},
	{name: "asked for a week", state: ledger.Asked, flagged: true, make: func(t *testing.T, w *world, p *process) {
		w.ca.Inject(hostile.Fault{Endpoint: "place", Phase: hostile.AfterEffect, Kind: hostile.Reset, Times: 1})
		w.ca.Inject(hostile.Fault{Endpoint: "certIdByrefId", Kind: hostile.HTTPStatus, Status: 503})
		p.configure("example.com")
		time.Sleep(9 * day)
	}},
	{name: "open", state: ledger.Open, config: func(c *hostile.Config) { c.IssueDelay = 40 * day }, make: func(t *testing.T, w *world, p *process) {
		p.configure("example.com")
		time.Sleep(time.Hour)
	}},
	{name: "cancelled", state: ledger.Open, flagged: true, config: func(c *hostile.Config) { c.IssueDelay = 40 * day }, make: func(t *testing.T, w *world, p *process) {
		p.configure("example.com")
		time.Sleep(time.Hour)
		if err := w.ca.SetStatus(w.ca.Orders()[0].ID, hostile.StatusCancelled); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
	}},
	{name: "unknown to the vendor", state: ledger.Open, flagged: true, config: func(c *hostile.Config) { c.IssueDelay = 40 * day }, make: func(t *testing.T, w *world, p *process) {
		p.configure("example.com")
		time.Sleep(time.Hour)
		w.ca.Inject(hostile.Fault{Endpoint: "collect", Kind: hostile.APICode, Code: -1, Errors: "certId is invalid", Times: 6})
		time.Sleep(2 * time.Hour)
	}},
	{name: "issued", state: ledger.Issued, make: func(t *testing.T, w *world, p *process) {
		p.mustObtain("example.com")
	}},
	{name: "reissue lost", state: ledger.Asked, make: func(t *testing.T, w *world, p *process) {
		p.mustObtain("example.com")
		w.ca.Inject(hostile.Fault{Endpoint: "replace", Phase: hostile.AfterEffect, Kind: hostile.Reset, Times: 1})
		w.ca.Inject(hostile.Fault{Endpoint: "certIdByrefId", Kind: hostile.HTTPStatus, Status: 503})
		_, _ = p.attempt(t.Context(), "example.com")
		time.Sleep(2 * time.Hour)
	}},
}

// resolve settles an order as a person does on a machine that has neither a server nor a config.
func (w *world) resolve(a operator.Action) {
	w.tb.Helper()
	if err := w.tryResolve(a); err != nil {
		w.tb.Fatal(err)
	}
}

func (w *world) tryResolve(a operator.Action) error {
	a.Confirm = true
	_, err := (&operator.Desk{Storages: []certmagic.Storage{w.storage}}).Do(w.ctx, "resolve", a)
	return err
}

// TestResolveNone: in every state but gone, a person may say that there is no order: it is given up,
// and another one is bought.
func TestResolveNone(t *testing.T) {
	for _, s := range situations {
		inBubble(t, s.name, func(t *testing.T) {
			w := newWorld(t, s.config)
			p := w.start(nil, quickly)
			s.make(t, w, p)
			s.found(t, w)
			before := w.charges()
			reissue := w.entry("example.com").Attempt.Kind == ledger.KindReissue
			w.resolve(operator.Action{About: "example.com", None: true})
			e := w.entry("example.com")
			if err := w.ca.Update(func(c *hostile.Config) { c.IssueDelay = 0 }); err != nil {
				t.Fatal(err)
			}
			if reissue {
				// There was no reissue. The paid order is kept.
				if e.State != ledger.Issued {
					t.Errorf("state %q", e.State)
				}
				time.Sleep(2 * day)
				w.wantCharges(before)
				return
			}
			if e.State != ledger.Gone {
				t.Errorf("state %q", e.State)
			}
			_, _ = p.attempt(t.Context(), "example.com")
			w.until(25*time.Hour, "it is bought anew", func() bool { return w.charges() == before+1 })
			p.untilServed(day, "example.com")
			time.Sleep(10 * day)
			w.wantCharges(before + 1)
			if err := w.tryResolve(operator.Action{About: "example.com", None: true, Entry: e.ID}); err == nil {
				t.Error("an order that is gone was resolved")
			}
		})
	}
}

// TestResolveOrder: in every state but gone, a person may name another order. It is used, whatever
// key it was placed with, and nothing is bought.
func TestResolveOrder(t *testing.T) {
	for _, s := range situations {
		inBubble(t, s.name, func(t *testing.T) {
			w := newWorld(t, s.config)
			p := w.start(nil, quickly)
			s.make(t, w, p)
			s.found(t, w)
			if err := w.ca.Update(func(c *hostile.Config) { c.IssueDelay = 0 }); err != nil {
				t.Fatal(err)
			}
			id := w.orderElsewhere([]string{"example.com"}, nil)
			before := w.charges()
			w.resolve(operator.Action{About: "example.com", Order: id})
			w.until(26*time.Hour, "the order is used", func() bool { e := w.entry("example.com"); return e.State == ledger.Issued && e.Flag == nil })
			_, _ = p.attempt(t.Context(), "example.com")
			p.untilServed(day, "example.com")
			if e := w.entry("example.com"); w.paidBy(e.OrderID) != id {
				t.Errorf("the order is %s, want %s or a reissue of it", e.OrderID, id)
			}
			w.wantCharges(before)
		})
	}
}

// paidBy returns the order whose charge covers another one.
func (w *world) paidBy(id string) string {
	for _, o := range w.ca.Orders() {
		if o.ID == id {
			return o.PaidBy
		}
	}
	return ""
}

func (s *situation) found(t *testing.T, w *world) {
	t.Helper()
	e := w.entry("example.com")
	if e == nil || e.State != s.state || (e.Flag != nil) != s.flagged {
		t.Fatalf("entry = %+v", e)
	}
}

// TestResolveNoneWasWrong: an order whose request may still arrive cannot be given up, so its late
// answer is not lost.
func TestResolveNoneWasWrong(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		w.ca.Inject(hostile.Fault{Endpoint: "place", Kind: hostile.Delay, Delay: 10 * time.Minute, Times: 1})
		p := w.start(nil, quickly)
		p.configure("example.com")
		time.Sleep(time.Minute)
		// While the request may still arrive, nobody can say that the order does not exist.
		if err := w.tryResolve(operator.Action{About: "example.com", None: true}); err == nil {
			t.Error("a request that is on its way was given up")
		}
		p.untilServed(day, "example.com")
		w.wantCharges(1)
		w.allKnown()
	})
}

// TestSettledWhileOthersRead: what a person has settled is continued, even if a round of another
// name reads it first.
func TestSettledWhileOthersRead(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, func(c *hostile.Config) { c.IssueDelay = 40 * day })
		p := w.start(nil, quickly)
		p.configure("example.com")
		time.Sleep(time.Hour)
		if err := w.ca.SetStatus(w.ca.Orders()[0].ID, hostile.StatusCancelled); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2*time.Hour + time.Minute) // the ledger was checked a moment ago
		w.resolve(operator.Action{About: "example.com", None: true})
		for range 15 {
			time.Sleep(5 * time.Minute)
			if err := p.ledger.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		w.wantCharges(2)
	})
}
