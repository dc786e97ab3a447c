package issuer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

func TestFirstOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		got := w.start(nil, nil).mustObtain("example.com")
		if w.charges() != 1 {
			t.Errorf("charges = %d, want 1", w.charges())
		}
		rec := w.record("example.com")
		if rec.State != StateIssued || rec.Order.Serial != serialOf(got.leaf()) || rec.Order.Issued != 1 {
			t.Errorf("record = %+v", rec)
		}
		w.noSecrets()
	})
}

func TestSecondAttemptIsReissue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		first := w.start(nil, nil).mustObtain("example.com")
		second := w.start(nil, nil).mustObtain("example.com")
		if first.leaf().Equal(second.leaf()) {
			t.Error("the same certificate again")
		}
		if w.charges() != 1 || w.ca.Calls("replace") != 1 || w.ca.Calls("place") != 1 {
			t.Errorf("charges %d, place %d, replace %d", w.charges(), w.ca.Calls("place"), w.ca.Calls("replace"))
		}
	})
}

func TestLostAnswers(t *testing.T) {
	faults := map[string]sandboxca.Fault{
		"5xx":      {Kind: sandboxca.HTTPStatus, Status: 502},
		"html":     {Kind: sandboxca.HTML},
		"empty":    {Kind: sandboxca.Empty},
		"cut off":  {Kind: sandboxca.CutOff},
		"bad json": {Kind: sandboxca.BadJSON},
		"reset":    {Kind: sandboxca.Reset},
		"hang":     {Kind: sandboxca.Hang},
		"huge":     {Kind: sandboxca.Huge},
		"redirect": {Kind: sandboxca.Redirect},
	}
	for name, fault := range faults {
		for _, phase := range []sandboxca.Phase{sandboxca.BeforeEffect, sandboxca.AfterEffect} {
			for _, endpoint := range []string{"place", "replace"} {
				t.Run(name+map[sandboxca.Phase]string{sandboxca.BeforeEffect: " before ", sandboxca.AfterEffect: " after "}[phase]+endpoint, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t, nil)
						p := w.start(nil, nil)
						fault.Endpoint, fault.Phase, fault.Times = endpoint, phase, 1
						w.ca.Inject(fault)
						p.mustObtain("example.com")
						p.mustObtain("example.com")
						if w.charges() != 1 {
							t.Errorf("charges = %d, want 1", w.charges())
						}
						w.noSecrets()
					})
				})
			}
		}
	}
}

func TestRefusalsBuyNothing(t *testing.T) {
	cases := map[string]struct {
		change func(*sandboxca.Config)
		flow   func(*flow)
		want   string
	}{
		"unknown product": {flow: func(f *flow) { f.order.Product = "no-such-thing" }, want: "code -3"},
		"no balance":      {change: func(c *sandboxca.Config) { c.Accounts[0].Balance = 1 }, want: "code -4"},
		"bad token":       {change: func(c *sandboxca.Config) { c.Accounts[0].Token = "other" }, want: "code 400"},
		"bad country":     {flow: func(f *flow) { f.order.Contact.Country = "Britain" }, want: "country"},
		"too many years":  {flow: func(f *flow) { f.order.Term.Years = 9 }, want: "years"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, c.change)
				_, err := w.start(nil, c.flow).attempt(context.Background(), "example.com")
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("error = %v, want one with %q", err, c.want)
				}
				if _, final := errors.AsType[certmagic.ErrNoRetry](err); final == errors.Is(err, vendors.ErrBalance) {
					t.Errorf("certmagic gives up: %t: %v", final, err)
				}
				if w.charges() != 0 || w.record("example.com").State != StateNone {
					t.Errorf("charges %d, state %s", w.charges(), w.record("example.com").State)
				}
				if len(w.ca.Orders()) != 0 {
					t.Error("there is an order")
				}
				w.noSecrets()
			})
		})
	}
}

func TestLookUpUndecidable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, func(f *flow) { f.vendor = plainVendor{f.vendor} })
		w.ca.Inject(sandboxca.Fault{Endpoint: "place", Phase: sandboxca.AfterEffect, Kind: sandboxca.HTML, Times: 1})
		for range 3 {
			_, err := p.attempt(context.Background(), "example.com")
			uncertain, ok := errors.AsType[*UncertainError](err)
			if !ok {
				t.Fatalf("error = %v", err)
			}
			for _, word := range []string{"racent", uncertain.Reference, "https://portal.example", "caddy commercial resolve example.com"} {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("error does not name %q: %v", word, err)
				}
			}
		}
		if w.charges() != 1 {
			t.Fatalf("charges = %d, want 1", w.charges())
		}
		id := w.ca.Orders()[0].ID
		if _, err := Resolve(t.Context(), w.storage, "", "example.com", Resolution{OrderID: id}); err != nil {
			t.Fatal(err)
		}
		p.mustObtain("example.com")
		if w.charges() != 1 {
			t.Errorf("charges = %d, want 1", w.charges())
		}
	})
}

// plainVendor hides the optional abilities of a vendor but for reissues.
type plainVendor struct{ vendors.Vendor }

func (p plainVendor) Reissue(ctx context.Context, req vendors.ReissueRequest) (vendors.Order, error) {
	return p.Vendor.(vendors.Reissuer).Reissue(ctx, req)
}

func TestPendingOrderOutlivesReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *sandboxca.Config) { c.IssueDelay = 6 * time.Hour })
		ctx, reload := context.WithTimeout(t.Context(), time.Minute)
		defer reload()
		_, err := w.start(nil, nil).attempt(ctx, "example.com")
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("error = %v", err)
		}
		if state := w.record("example.com").State; state != StatePending {
			t.Fatalf("state = %s", state)
		}
		p := w.start(nil, func(f *flow) { f.rules.maxWait = 24 * time.Hour })
		p.mustObtain("example.com")
		if w.charges() != 1 {
			t.Errorf("charges = %d, want 1", w.charges())
		}
		if w.ca.Calls("cancel") != 0 {
			t.Error("an order was cancelled")
		}
	})
}

func TestMaxWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *sandboxca.Config) { c.IssueDelay = 6 * time.Hour })
		p := w.start(nil, nil)
		start := time.Now()
		_, err := p.attempt(t.Context(), "example.com")
		pending, ok := errors.AsType[*StillPendingError](err)
		if !ok {
			t.Fatalf("error = %v", err)
		}
		if waited := time.Since(start); waited > time.Hour || pending.OrderID == "" {
			t.Errorf("waited %s for order %q", waited, pending.OrderID)
		}
	})
}

func TestSpendLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		limit := func(f *flow) { f.rules.spend.Orders = 2 }
		w.start(nil, limit).mustObtain("a.example.com")
		time.Sleep(time.Hour)
		w.start(nil, limit).mustObtain("b.example.com")
		_, err := w.start(nil, limit).attempt(t.Context(), "c.example.com")
		reached, ok := errors.AsType[*SpendLimitError](err)
		if !ok {
			t.Fatalf("error = %v", err)
		}
		if left := time.Until(reached.Next); left < 22*time.Hour || left > 23*time.Hour {
			t.Errorf("next order allowed in %s", left)
		}
		time.Sleep(time.Until(reached.Next))
		w.start(nil, limit).mustObtain("c.example.com")
		if w.charges() != 3 {
			t.Errorf("charges = %d", w.charges())
		}
	})
}

func TestAdoption(t *testing.T) {
	for _, issued := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, func(c *sandboxca.Config) {
				if !issued {
					c.IssueDelay = time.Minute
				}
			})
			// Somebody bought it elsewhere: with another ledger, at the same vendor.
			elsewhere := newMemStorage()
			buyer := w.start(nil, func(f *flow) { f.ledger = newLedger(elsewhere, f.about); f.rules.maxWait = time.Second })
			_, err := buyer.attempt(t.Context(), "example.com")
			if issued && err != nil {
				t.Fatal(err)
			}
			id := w.ca.Orders()[0].ID
			p := w.start(nil, func(f *flow) { f.rules.adopted = []AdoptedOrder{{id, []string{"example.com"}}} })
			p.mustObtain("example.com")
			if w.charges() != 1 {
				t.Errorf("charges = %d, want 1", w.charges())
			}
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
			p := w.start(nil, func(f *flow) { f.rules.adopted = []AdoptedOrder{{c.id, []string{c.name}}} })
			for range 2 {
				_, err := p.attempt(t.Context(), c.name)
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error = %v, want one with %q", err, c.want)
				}
			}
		}
		if w.charges() != 1 {
			t.Errorf("charges = %d, want 1", w.charges())
		}
	})
}

// TestAdoptedNamesAreNeverBoughtFor lives beyond the term of an adopted order.
func TestAdoptedNamesAreNeverBoughtFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.start(nil, func(f *flow) { f.ledger = newLedger(newMemStorage(), f.about) }).mustObtain("example.com")
		id := w.ca.Orders()[0].ID
		p := w.start(nil, func(f *flow) { f.rules.adopted = []AdoptedOrder{{id, []string{"example.com"}}} })
		p.mustObtain("example.com")
		time.Sleep(360 * 24 * time.Hour) // within the margin, where a new order would be due
		p.mustObtain("example.com")
		time.Sleep(10 * 24 * time.Hour)
		for range 3 {
			if _, err := p.attempt(t.Context(), "example.com"); err == nil || !strings.Contains(err.Error(), "is used up") {
				t.Errorf("error = %v", err)
			}
		}
		if w.charges() != 1 {
			t.Errorf("charges = %d, want 1", w.charges())
		}
	})
}

// TestGroupMadeLater puts a name to one that has an order already. It gets its own.
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
		adopted := w.start(nil, func(f *flow) {
			f.rules.adopted = []AdoptedOrder{{w.ca.Orders()[0].ID, []string{"example.com", "blog.example.com"}}}
		})
		if _, err := adopted.attempt(t.Context(), "blog.example.com"); err == nil || !strings.Contains(err.Error(), "is not for blog.example.com") {
			t.Errorf("error = %v", err)
		}
		if w.charges() != 2 {
			t.Errorf("charges = %d, want 2", w.charges())
		}
	})
}

func TestTwinUsesTheSameOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *sandboxca.Config) { c.IssueDelay = 10 * time.Minute })
		done := make(chan error, 2)
		for _, name := range []string{"example.com", "www.example.com"} {
			p := w.start(nil, nil)
			go func() {
				got, err := p.attempt(t.Context(), name)
				if err == nil {
					w.verify(got, name)
				}
				done <- err
			}()
		}
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if w.charges() != 1 {
			t.Errorf("charges = %d, want 1", w.charges())
		}
	})
}

func TestDeadOrderIsNotBoughtAgain(t *testing.T) {
	for _, status := range []string{"CANCELLED", "FAILED", "REVOKED"} {
		t.Run(status, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(c *sandboxca.Config) { c.IssueDelay = time.Minute })
				p := w.start(nil, func(f *flow) { f.rules.maxWait = time.Second })
				if _, err := p.attempt(t.Context(), "example.com"); err == nil {
					t.Fatal("issued at once")
				}
				if err := w.ca.SetStatus(w.ca.Orders()[0].ID, status); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour)
				for range 3 {
					_, err := p.attempt(t.Context(), "example.com")
					if _, dead := errors.AsType[*DeadOrderError](err); !dead {
						t.Fatalf("error = %v", err)
					}
				}
				if w.charges() != 1 {
					t.Errorf("charges = %d, want 1", w.charges())
				}
				if _, err := Resolve(t.Context(), w.storage, "", "example.com", Resolution{None: true}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Minute)
				w.start(nil, nil).mustObtain("example.com")
				if w.charges() != 2 {
					t.Errorf("charges = %d, want 2", w.charges())
				}
			})
		})
	}
}

// TestYears lives through whole terms with the certificate lifetimes of the coming
// years. The server renews as certmagic does, when a third of the lifetime is left.
func TestYears(t *testing.T) {
	for _, days := range []int{199, 100, 47} {
		for _, years := range []int{1, 3} {
			synctest.Test(t, func(t *testing.T) {
				day := 24 * time.Hour
				w := newWorld(t, func(c *sandboxca.Config) {
					c.Lifetime = time.Duration(days) * day
					c.Quirks.ClipToTerm = true
				})
				p := w.start(nil, func(f *flow) { f.order.Term.Years = years })
				start := time.Now()
				const terms = 3
				var current chain
				// Each term gives up to 30 days to the margin.
				for time.Since(start) < terms*(time.Duration(years)*365*day-31*day) {
					if current == nil || time.Until(current.leaf().NotAfter) < current.leaf().NotAfter.Sub(current.leaf().NotBefore)/3 {
						current = p.mustObtain("example.com")
					}
					if !time.Now().Before(current.leaf().NotAfter) {
						t.Fatal("an expired certificate is served")
					}
					time.Sleep(12 * time.Hour)
				}
				if got := w.charges(); got != terms {
					t.Errorf("%d-day certificates, %d-year terms: %d charges in %d terms", days, years, got, terms)
				}
			})
		}
	}
}

func TestTransitionsAreDrawn(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	states := []State{StateNone, StateIntent, StatePending, StateIssued, StateReissuing, StateUncertain, StateDead}
	for _, s := range states {
		line := fmt.Sprintf("//\t%s ->", s)
		for _, next := range transitions[s] {
			line += " " + string(next)
		}
		if !strings.Contains(string(doc), line+"\n") {
			t.Errorf("the diagram in doc.go lacks the line %q", line)
		}
		if transitions[s] == nil {
			t.Errorf("state %q has no way out", s)
		}
		for _, next := range transitions[s] {
			if !slices.Contains(states, next) {
				t.Errorf("state %q leads to the unknown %q", s, next)
			}
		}
	}
}
