package issuer

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

func TestFirstOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		got := w.start(nil, nil).mustObtain("example.com")
		if w.charges() != 1 {
			t.Errorf("charges = %d, want 1", w.charges())
		}
		e := w.entry("example.com")
		if e == nil || e.State != ledger.Issued || e.Certificate.Serial != serialOf(got.leaf()) || e.Issued != 1 {
			t.Errorf("entry = %+v", e)
		}
		w.noSecrets()
	})
}

// TestForcedRenewalIsReissue: if somebody forces a renewal, certmagic asks for a name that is
// served. The order is reissued then.
func TestForcedRenewalIsReissue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, nil)
		first, second := p.mustObtain("example.com"), p.mustObtain("example.com")
		if first.leaf().Equal(second.leaf()) {
			t.Error("the same certificate again")
		}
		if w.charges() != 1 || w.ca.Calls("replace") != 1 || w.ca.Calls("place") != 1 {
			t.Errorf("charges %d, place %d, replace %d", w.charges(), w.ca.Calls("place"), w.ca.Calls("replace"))
		}
	})
}

// TestSecondServer: a second server serves what the first has stored.
func TestSecondServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		first, second := w.start(nil, nil).mustObtain("example.com"), w.start(nil, nil).mustObtain("example.com")
		if !first.leaf().Equal(second.leaf()) || w.charges() != 1 || w.ca.Calls("replace") != 0 {
			t.Errorf("charges %d, replace %d", w.charges(), w.ca.Calls("replace"))
		}
	})
}

func TestLostAnswers(t *testing.T) {
	faults := map[string]hostile.Fault{
		"5xx":      {Kind: hostile.HTTPStatus, Status: 502},
		"html":     {Kind: hostile.HTML},
		"empty":    {Kind: hostile.Empty},
		"cut off":  {Kind: hostile.CutOff},
		"bad json": {Kind: hostile.BadJSON},
		"reset":    {Kind: hostile.Reset},
		"hang":     {Kind: hostile.Hang},
		"huge":     {Kind: hostile.Huge},
		"redirect": {Kind: hostile.Redirect},
	}
	for name, fault := range faults {
		for phase, when := range map[hostile.Phase]string{hostile.BeforeEffect: " before ", hostile.AfterEffect: " after "} {
			for _, endpoint := range []string{"place", "replace"} {
				t.Run(name+when+endpoint, func(t *testing.T) {
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
						w.noForgottenOrders()
						w.noSecrets()
					})
				})
			}
		}
	}
}

func TestRefusalsBuyNothing(t *testing.T) {
	cases := map[string]struct {
		change func(*hostile.Config)
		flow   func(*flow)
		want   string
	}{
		"unknown product": {flow: func(f *flow) { f.order.Product = "no-such-thing" }, want: "code -3"},
		"no balance":      {change: func(c *hostile.Config) { c.Accounts[0].Balance = 1 }, want: "code -4"},
		"bad token":       {change: func(c *hostile.Config) { c.Accounts[0].Token = "other" }, want: "code 400"},
		"bad country":     {flow: func(f *flow) { f.order.Contact.Country = "Britain" }, want: "country"},
		"too many years":  {flow: func(f *flow) { f.order.Term.Years = 9 }, want: "years"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, c.change)
				p := w.start(nil, c.flow)
				started := time.Now()
				_, err := p.attempt(context.Background(), "example.com")
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("error = %v, want one with %q", err, c.want)
				}
				if waited := time.Since(started); waited > time.Minute {
					t.Errorf("the next issuer of the policy had to wait for %s", waited)
				}
				// It is tried again, less and less often.
				calls := w.ca.Calls("validate")
				time.Sleep(24 * time.Hour)
				if n := w.ca.Calls("validate") - calls; n > 20 {
					t.Errorf("%d attempts within a day", n)
				}
				p.stop()
				if w.charges() != 0 || w.entry("example.com") != nil {
					t.Errorf("charges %d, entry %+v", w.charges(), w.entry("example.com"))
				}
				if len(w.ca.Orders()) != 0 {
					t.Error("there is an order")
				}
				w.noKeysLeft()
				w.noSecrets()
			})
		})
	}
}

// TestRefusalIsOvercome: what was refused is obtained once the cause is gone, even if nobody asks again.
func TestRefusalIsOvercome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		fill := w.ca.Inject(hostile.Fault{Endpoint: "place", Kind: hostile.APICode, Code: -4})
		p := w.start(nil, nil)
		if _, err := p.attempt(t.Context(), "example.com"); !errors.Is(err, vendors.ErrBalance) {
			t.Fatalf("error = %v", err)
		}
		time.Sleep(24 * time.Hour)
		fill()
		time.Sleep(7 * time.Hour)
		got := p.site.serving("example.com")
		if got == nil {
			t.Fatal("nothing is served")
		}
		w.verify(got, "example.com")
		if w.charges() != 1 {
			t.Errorf("charges = %d, want 1", w.charges())
		}
	})
}

func TestLookUpUndecidable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, func(f *flow) { f.vendor = plainVendor{f.vendor} })
		w.ca.Inject(hostile.Fault{Endpoint: "place", Phase: hostile.AfterEffect, Kind: hostile.HTML, Times: 1})
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
			time.Sleep(time.Hour)
		}
		if w.charges() != 1 {
			t.Fatalf("charges = %d, want 1", w.charges())
		}
		id := w.ca.Orders()[0].ID
		w.resolve(operator.Action{About: "example.com", Order: id})
		// The running process continues by itself; its key is the right one.
		time.Sleep(25 * time.Hour)
		got := p.site.serving("example.com")
		if got == nil {
			t.Fatal("nothing is served")
		}
		w.verify(got, "example.com")
		if w.charges() != 1 || w.ca.Calls("replace") != 0 {
			t.Errorf("charges %d, replace %d", w.charges(), w.ca.Calls("replace"))
		}
	})
}

// plainVendor hides the optional abilities of a vendor, except for reissues.
type plainVendor struct{ vendors.Vendor }

func (p plainVendor) Reissue(ctx context.Context, oldOrderID string, req vendors.OrderRequest) (vendors.Order, error) {
	return p.Vendor.(vendors.Reissuer).Reissue(ctx, oldOrderID, req)
}

func TestPendingOrderOutlivesReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *hostile.Config) { c.IssueDelay = 6 * time.Hour })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		first := w.start(nil, nil)
		if _, err := first.attempt(ctx, "example.com"); !is[*PendingError](err) {
			t.Fatalf("error = %v", err)
		}
		if state := w.state("example.com"); state != ledger.Open {
			t.Fatalf("state = %s", state)
		}
		first.reload(func(*flow) {})
		time.Sleep(time.Hour)
		first.stop()
		// A restart forgets everything but what is stored.
		second := w.start(nil, nil)
		second.mustObtain("example.com")
		if w.charges() != 1 || w.ca.Calls("cancel") != 0 || w.ca.Calls("replace") != 0 {
			t.Errorf("charges %d, cancel %d, replace %d", w.charges(), w.ca.Calls("cancel"), w.ca.Calls("replace"))
		}
	})
}

func TestMaxWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *hostile.Config) { c.IssueDelay = 6 * time.Hour })
		p := w.start(nil, nil)
		start := time.Now()
		_, err := p.attempt(t.Context(), "example.com")
		pending, ok := errors.AsType[*PendingError](err)
		if !ok {
			t.Fatalf("error = %v", err)
		}
		if waited := time.Since(start); waited > time.Hour || pending.OrderID == "" {
			t.Errorf("waited %s for order %q", waited, pending.OrderID)
		}
	})
}

// TestSpendLimit: a limit holds for all servers. The name that has to wait gets its certificate
// without being asked for again.
func TestSpendLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		limit := func(f *flow) { f.rules.spend.Orders = 2 }
		w.start(nil, limit).mustObtain("a.example.com")
		time.Sleep(time.Hour)
		w.start(nil, limit).mustObtain("b.example.com")
		p := w.start(nil, limit)
		_, err := p.attempt(t.Context(), "c.example.com")
		if err == nil || !strings.Contains(err.Error(), "spend_limit reached: 2 paid orders within 24h") {
			t.Fatalf("error = %v", err)
		}
		time.Sleep(21 * time.Hour)
		if w.charges() != 2 {
			t.Errorf("charges = %d, want 2", w.charges())
		}
		time.Sleep(3 * time.Hour)
		if p.site.serving("c.example.com") == nil {
			t.Error("the third name is not served")
		}
		if w.charges() != 3 {
			t.Errorf("charges = %d, want 3", w.charges())
		}
	})
}

func TestTwinUsesTheSameOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *hostile.Config) { c.IssueDelay = 10 * time.Minute })
		var asked sync.WaitGroup
		for _, name := range []string{"example.com", "www.example.com"} {
			p := w.start(nil, nil)
			asked.Go(func() { p.mustObtain(name) })
		}
		asked.Wait()
		if w.charges() != 1 {
			t.Errorf("charges = %d, want 1", w.charges())
		}
	})
}

func TestDeadOrderIsNotBoughtAgain(t *testing.T) {
	for _, status := range []string{"CANCELLED", "FAILED", "REVOKED"} {
		t.Run(status, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(c *hostile.Config) { c.IssueDelay = time.Minute })
				p := w.start(nil, func(f *flow) { f.rules.maxWait = time.Second })
				if _, err := p.attempt(t.Context(), "example.com"); err == nil {
					t.Fatal("issued at once")
				}
				time.Sleep(10 * time.Second)
				if err := w.ca.SetStatus(w.ca.Orders()[0].ID, status); err != nil {
					t.Fatal(err)
				}
				for range 3 {
					time.Sleep(time.Hour)
					_, err := p.attempt(t.Context(), "example.com")
					if _, dead := errors.AsType[*DeadOrderError](err); !dead {
						t.Fatalf("error = %v", err)
					}
				}
				time.Sleep(7 * 24 * time.Hour)
				if w.charges() != 1 {
					t.Errorf("charges = %d, want 1", w.charges())
				}
				w.resolve(operator.Action{About: "example.com", None: true})
				p.stop()
				w.start(nil, nil).mustObtain("example.com")
				if w.charges() != 2 {
					t.Errorf("charges = %d, want 2", w.charges())
				}
			})
		})
	}
}

// TestYears runs through whole terms with the certificate lifetimes of the coming years. The server
// renews as certmagic does, when a third of the lifetime is left.
func TestYears(t *testing.T) {
	for _, days := range []int{199, 100, 47} {
		for _, years := range []int{1, 3} {
			if raceEnabled && years > 1 {
				continue
			}
			synctest.Test(t, func(t *testing.T) {
				day := 24 * time.Hour
				w := newWorld(t, func(c *hostile.Config) {
					c.Lifetime = time.Duration(days) * day
					c.Quirks.ClipToTerm = true
				})
				p := w.start(nil, func(f *flow) { f.order.Term.Years = years })
				start := time.Now()
				const terms = 3
				var current chain
				// Each term loses up to 30 days to the margin.
				for time.Since(start) < terms*(time.Duration(years)*365*day-31*day) {
					if current == nil || p.site.Due(current.leaf()) {
						current = p.mustObtain("example.com")
					}
					if !time.Now().Before(current.leaf().NotAfter) {
						t.Fatal("an expired certificate is served")
					}
					p.rest(12 * time.Hour)
				}
				if got := w.charges(); got != terms {
					t.Errorf("%d-day certificates, %d-year terms: %d charges in %d terms", days, years, got, terms)
				}
			})
		}
	}
}
