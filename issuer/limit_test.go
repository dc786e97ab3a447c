package issuer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
)

func siteNames(n int) []string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("site%d.example.com", i))
	}
	return names
}

// TestFewCallsWait: calls for names that the spending limit holds back do not occupy certmagic's
// slots: at most a hundred of them wait.
func TestFewCallsWait(t *testing.T) {
	tooSlowForRaces(t)
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, func(f *flow) { f.rules.spend = SpendLimit{1, caddy.Duration(day)} })
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		waiting := 0
		var calls sync.WaitGroup
		for _, name := range siteNames(1100) {
			mu.Lock()
			waiting++
			mu.Unlock()
			calls.Go(func() {
				if _, err := p.attempt(ctx, name); err != nil && !waits(err) && !errors.Is(err, context.Canceled) {
					t.Errorf("%s: %v", name, err)
				}
				mu.Lock()
				waiting--
				mu.Unlock()
			})
		}
		time.Sleep(time.Minute)
		mu.Lock()
		if waiting > maxWaiting {
			t.Errorf("%d calls wait", waiting)
		}
		mu.Unlock()
		cancel()
		calls.Wait()
		w.wantCharges(1)
	})
}

// TestNothingIsPreparedBeyondLimit: nothing is prepared for an order that the limit does not allow,
// at any vendor. Such orders follow by themselves as soon as they may, and never faster than that.
func TestNothingIsPreparedBeyondLimit(t *testing.T) {
	const n, limit = 12, 5
	for _, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			start := time.Now()
			p := v.start(w, nil, func(f *flow) {
				quickly(f)
				f.rules.spend = SpendLimit{limit, caddy.Duration(day)}
			})
			names := siteNames(n)
			p.configure(names...)
			time.Sleep(20 * time.Hour)
			w.wantCharges(limit)
			prepared := w.ca.Calls("validate") + w.ca.Calls("Order/createOrder")
			// A few may have been on their way together.
			if prepared > limit+maxChecks {
				t.Errorf("%d preparations for %d orders", prepared, limit)
			}
			p.untilServed(3*day, names...)
			w.wantCharges(n)
			per := make(map[int]int)
			for _, c := range w.ca.Charges() {
				per[int(c.Time.Sub(start)/day)]++
			}
			for d, count := range per {
				if count > limit {
					t.Errorf("day %d: %d orders", d, count)
				}
			}
		})
	}
}

// TestSpendLimitIsShared: the limit holds for all servers together, and across restarts and reloads.
func TestSpendLimitIsShared(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		limited := func(f *flow) {
			quickly(f)
			f.rules.spend = SpendLimit{4, caddy.Duration(day)}
		}
		names := siteNames(15)
		a, b, c := w.start(nil, limited), w.start(nil, limited), w.start(nil, limited)
		a.configure(names[:5]...)
		b.configure(names[5:10]...)
		c.configure(names[10:]...)
		for range 10 {
			time.Sleep(2 * time.Hour)
			c.stop()
			c = w.start(nil, limited)
			c.configure(names[10:]...)
			a.reload(limited)
		}
		if w.charges() > 4 {
			w.wantCharges(4)
		}
		if w.charges() == 0 {
			t.Error("nobody bought anything")
		}
	})
}

// TestSpendLimitOverMonths: the span of the limit may be longer than the time for which ended orders
// otherwise stay in the ledger.
func TestSpendLimitOverMonths(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, func(c *hostile.Config) { c.IssueDelay = 24 * time.Hour })
		p := w.start(nil, func(f *flow) {
			quickly(f)
			f.rules.spend = SpendLimit{2, caddy.Duration(60 * day)}
		})
		p.configure("a.example", "b.example")
		time.Sleep(time.Hour)
		for _, o := range w.ca.Orders() {
			if err := w.ca.SetStatus(o.ID, hostile.StatusCancelled); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Hour)
		for _, name := range []string{"a.example", "b.example"} {
			w.resolve(operator.Action{About: name, None: true})
		}
		time.Sleep(50 * day)
		w.wantCharges(2)
		time.Sleep(14 * day)
		if w.charges() < 3 {
			t.Error("nothing is bought once the limit allows it")
		}
	})
}

// TestHold: an attempt that turned out to have bought nothing holds the name back for a while. Then
// it is bought for, once.
func TestHold(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		w.ca.Inject(hostile.Fault{Endpoint: "place", Kind: hostile.HTML, Times: 4})
		p := w.start(nil, quickly)
		p.configure("example.com")
		time.Sleep(3 * time.Hour)
		if n := w.ca.Calls("place"); n > 4 {
			t.Errorf("%d orders in three hours", n)
		}
		// Neither a restart nor the name's next call ends the hold.
		p.stop()
		p = w.start(nil, quickly)
		before := w.ca.Calls("place")
		p.configure("example.com")
		time.Sleep(time.Minute)
		if w.ca.Calls("place") > before+1 {
			t.Errorf("%d orders at once", w.ca.Calls("place")-before)
		}
		p.untilServed(3*day, "example.com")
		w.wantCharges(1)
	})
}

// TestRefusedOrder: a refusal that costs nothing is retried with growing waits, and does not end
// with a flag, because an empty account will be topped up one day.
func TestRefusedOrder(t *testing.T) {
	for _, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, func(c *hostile.Config) { c.Accounts[0].Balance = 1 })
			p := v.start(w, nil, quickly)
			p.configure("example.com")
			time.Sleep(10 * day)
			w.wantCharges(0)
			if n := len(w.entries("example.com")); n > 0 {
				t.Errorf("%d entries for orders that were refused", n)
			}
			if err := w.ca.SetBalance(testToken, 1_000_000); err != nil {
				t.Fatal(err)
			}
			p.untilServed(7*time.Hour, "example.com")
			w.wantCharges(1)
		})
	}
}

// reads counts what is read from the ledger.
type reads struct {
	*memStorage
	mu           sync.Mutex
	loads, lists int
}

func (s *reads) Load(ctx context.Context, key string) ([]byte, error) {
	s.mu.Lock()
	s.loads++
	s.mu.Unlock()
	return s.memStorage.Load(ctx, key)
}

func (s *reads) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	s.mu.Lock()
	s.lists++
	s.mu.Unlock()
	return s.memStorage.List(ctx, prefix, recursive)
}

// TestLedgerIsNotReadAgain: maintaining what is issued takes an occasional listing, and hardly any
// reading of entries.
func TestLedgerIsNotReadAgain(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, func(f *flow) { f.rules.spend.Orders = 1000 })
		names := siteNames(60)
		p.configure(names...)
		p.untilServed(day, names...)
		p.stop()
		counted := &reads{memStorage: w.storage}
		p = w.start(nil, func(f *flow) { f.ledger.Storage = counted })
		p.configure(names...)
		time.Sleep(day)
		synctest.Wait()
		// Each entry is read when the process starts, when its name is checked, and every six hours.
		if counted.loads > 6*len(names) || counted.lists > 200 {
			t.Errorf("%d reads and %d listings in a day for %d names at rest", counted.loads, counted.lists, len(names))
		}
		if state := w.state(names[0]); state != ledger.Issued {
			t.Errorf("state %q", state)
		}
	})
}
