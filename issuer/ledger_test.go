package issuer

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

func testLedger() (*ledger, *memStorage) {
	storage := newMemStorage()
	return newLedger(storage, vendors.Description{Name: "racent", Account: "portal.example/shop"}), storage
}

func TestLedgerConflict(t *testing.T) {
	l, _ := testLedger()
	mine, err := l.load(t.Context(), "example.com")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := l.load(t.Context(), "example.com")
	if err != nil {
		t.Fatal(err)
	}
	intent := &Attempt{Reference: "a"}
	theirs.State, theirs.Attempt = StateIntent, intent
	if err := l.write(t.Context(), theirs); err != nil {
		t.Fatal(err)
	}
	mine.State, mine.Attempt = StateIntent, &Attempt{Reference: "b"}
	if err := l.write(t.Context(), mine); !errors.Is(err, errConflict) {
		t.Fatalf("the second writer got %v", err)
	}
	stored, err := l.load(t.Context(), "example.com")
	if err != nil || stored.Attempt.Reference != "a" {
		t.Errorf("stored %+v, %v", stored, err)
	}
}

func TestLedgerRefusesIllegalSteps(t *testing.T) {
	l, _ := testLedger()
	rec, err := l.load(t.Context(), "example.com")
	if err != nil {
		t.Fatal(err)
	}
	rec.State, rec.Order = StateIssued, &PaidOrder{ID: "1"}
	if err := l.write(t.Context(), rec); err == nil || !strings.Contains(err.Error(), `cannot go from "none" to "issued"`) {
		t.Errorf("error = %v", err)
	}
	rec.State = StatePending
	if err := l.write(t.Context(), rec); err == nil || !strings.Contains(err.Error(), "without an attempt") {
		t.Errorf("error = %v", err)
	}
	if rec.Revision != 0 {
		t.Errorf("a write that failed raised the revision to %d", rec.Revision)
	}
}

// TestDamagedRecords expects that a record that cannot be used is reported with its
// key, stops purchases for its name, and for no other.
func TestDamagedRecords(t *testing.T) {
	damage := map[string]func(string) string{
		"truncated":     func(s string) string { return s[:len(s)/2] },
		"empty":         func(string) string { return "" },
		"garbage":       func(string) string { return "\x00\xff not JSON" },
		"null":          func(string) string { return "null" },
		"newer version": func(s string) string { return strings.Replace(s, `"version": 1`, `"version": 2`, 1) },
		"no version":    func(s string) string { return strings.Replace(s, `"version": 1`, `"version": 0`, 1) },
		"unknown state": func(s string) string { return strings.Replace(s, `"issued"`, `"pondering"`, 1) },
		"other name":    func(s string) string { return strings.ReplaceAll(s, "example.com", "example.org") },
		"no order":      func(s string) string { return strings.Replace(s, `"order": {`, `"disorder": {`, 1) },
	}
	for name, change := range damage {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				p := w.start(nil, nil)
				p.mustObtain("example.com")
				key := newLedger(w.storage, w.about()).key("example.com")
				whole := w.storage.snapshot()[key]
				if damaged := change(whole); damaged == whole {
					t.Fatal("nothing was damaged")
				}
				if err := w.storage.Store(t.Context(), key, []byte(change(whole))); err != nil {
					t.Fatal(err)
				}
				_, err := p.attempt(t.Context(), "example.com")
				damaged, ok := errors.AsType[*DamagedRecordError](err)
				if !ok || damaged.Key != key || !strings.Contains(err.Error(), key) {
					t.Fatalf("error = %v", err)
				}
				if got := w.storage.snapshot()[key]; got != change(whole) {
					t.Error("the damaged record was overwritten")
				}
				p.mustObtain("example.net")
				if w.charges() != 2 {
					t.Errorf("charges = %d, want 2", w.charges())
				}
				// Repaired, it goes on where it was.
				if err := w.storage.Store(t.Context(), key, []byte(whole)); err != nil {
					t.Fatal(err)
				}
				p.mustObtain("example.com")
				if w.charges() != 2 {
					t.Errorf("charges = %d, want 2", w.charges())
				}
			})
		})
	}
}

// TestRecordOfLaterVersionOfSameFormat expects that fields which a later build adds
// do no harm.
func TestUnknownFieldsInRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, nil)
		p.mustObtain("example.com")
		key := newLedger(w.storage, w.about()).key("example.com")
		var fields map[string]any
		if err := json.Unmarshal([]byte(w.storage.snapshot()[key]), &fields); err != nil {
			t.Fatal(err)
		}
		fields["news"] = map[string]any{"from": "the future"}
		data, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.storage.Store(t.Context(), key, data); err != nil {
			t.Fatal(err)
		}
		p.mustObtain("example.com")
		if w.charges() != 1 {
			t.Errorf("charges = %d, want 1", w.charges())
		}
	})
}

// TestDamagedAlias expects that a name whose note of the order that covers it cannot be
// read is not bought for.
func TestDamagedAlias(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, nil)
		p.mustObtain("example.com")
		key := p.ledger.aliasKey("www.example.com")
		if !w.storage.Exists(t.Context(), key) {
			t.Fatal("there is no note of the covered twin")
		}
		if err := w.storage.Store(t.Context(), key, []byte("{")); err != nil {
			t.Fatal(err)
		}
		_, err := p.attempt(t.Context(), "www.example.com")
		if damaged, ok := errors.AsType[*DamagedRecordError](err); !ok || damaged.Key != key {
			t.Fatalf("error = %v", err)
		}
		if w.charges() != 1 {
			t.Errorf("charges = %d, want 1", w.charges())
		}
	})
}

func TestDamagedSpendingStopsOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, nil)
		key := p.ledger.spendKey()
		if err := w.storage.Store(t.Context(), key, []byte("{")); err != nil {
			t.Fatal(err)
		}
		_, err := p.attempt(t.Context(), "example.com")
		if damaged, ok := errors.AsType[*DamagedRecordError](err); !ok || damaged.Key != key {
			t.Fatalf("error = %v", err)
		}
		if w.charges() != 0 {
			t.Errorf("charges = %d, want 0", w.charges())
		}
	})
}

func TestResolve(t *testing.T) {
	attempt := &Attempt{Kind: KindOrder, Reference: "r", Names: []string{"example.com"}}
	order := &PaidOrder{ID: "old", Names: []string{"example.com"}, TermEnds: time.Now().Add(time.Hour)}
	reissue := &Attempt{Kind: KindReissue, Reference: "r2", Names: []string{"example.com"}, PreviousID: "old"}
	for name, c := range map[string]struct {
		rec  Record
		how  Resolution
		want State
		id   string
		fail string
	}{
		"uncertain, there is none":         {Record{State: StateUncertain, Attempt: attempt}, Resolution{None: true}, StateNone, "", ""},
		"uncertain, it is there":           {Record{State: StateUncertain, Attempt: attempt}, Resolution{OrderID: "new"}, StatePending, "new", ""},
		"uncertain renewal, there is none": {Record{State: StateUncertain, Attempt: attempt, Order: order}, Resolution{None: true}, StateIssued, "old", ""},
		"uncertain renewal, it is there":   {Record{State: StateUncertain, Attempt: attempt, Order: order}, Resolution{OrderID: "new"}, StatePending, "new", ""},
		"uncertain reissue, it is there":   {Record{State: StateUncertain, Attempt: reissue, Order: order}, Resolution{OrderID: "new"}, StatePending, "new", ""},
		"dead, forget it":                  {Record{State: StateDead, Attempt: attempt, Order: order}, Resolution{None: true}, StateNone, "", ""},
		"dead, another one":                {Record{State: StateDead, Attempt: attempt, Order: order}, Resolution{OrderID: "new"}, StatePending, "new", ""},
		"nothing wrong":                    {Record{State: StateIssued, Attempt: attempt, Order: order}, Resolution{None: true}, "", "", "nothing to resolve"},
		"neither":                          {Record{State: StateUncertain, Attempt: attempt}, Resolution{}, "", "", "either"},
		"both":                             {Record{State: StateUncertain, Attempt: attempt}, Resolution{OrderID: "x", None: true}, "", "", "either"},
	} {
		t.Run(name, func(t *testing.T) {
			l, storage := testLedger()
			rec := c.rec.clone()
			rec.Version, rec.Names, rec.Problem = recordVersion, []string{"example.com"}, "lost"
			data, err := json.Marshal(rec)
			if err != nil {
				t.Fatal(err)
			}
			if err := storage.Store(t.Context(), l.key("example.com"), data); err != nil {
				t.Fatal(err)
			}
			got, err := Resolve(t.Context(), storage, "racent", "example.com", c.how)
			if c.fail != "" {
				if err == nil || !strings.Contains(err.Error(), c.fail) {
					t.Errorf("error = %v, want one with %q", err, c.fail)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			id := ""
			if got.Order != nil {
				id = got.Order.ID
			}
			if got.State != c.want || id != c.id || got.Problem != "" {
				t.Errorf("state %s, order %q, problem %q; want %s, %q", got.State, id, got.Problem, c.want, c.id)
			}
			if stored, err := l.load(t.Context(), "example.com"); err != nil || stored.State != c.want {
				t.Errorf("stored %v, %v", stored, err)
			}
		})
	}
}

func TestResolveFindsTheRightLedger(t *testing.T) {
	_, storage := testLedger()
	for _, vendor := range []string{"racent", "sandbox"} {
		l := newLedger(storage, vendors.Description{Name: vendor, Account: "a"})
		rec := &Record{Version: 1, Names: []string{"example.com"}, State: StateUncertain, Attempt: &Attempt{Kind: KindOrder}}
		data, err := json.Marshal(rec)
		if err != nil {
			t.Fatal(err)
		}
		if err := storage.Store(t.Context(), l.key("example.com"), data); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Resolve(t.Context(), storage, "", "example.com", Resolution{None: true}); err == nil || !strings.Contains(err.Error(), "racent/a, sandbox/a") {
		t.Errorf("error = %v", err)
	}
	if _, err := Resolve(t.Context(), storage, "sandbox", "example.com", Resolution{None: true}); err != nil {
		t.Error(err)
	}
	if _, err := Resolve(t.Context(), storage, "", "example.net", Resolution{None: true}); err == nil || !strings.Contains(err.Error(), "no record of example.net") {
		t.Errorf("error = %v", err)
	}
}

// TestThousandPending has a thousand orders pending for a day. They are waited for in
// the background, no call of Issue lasts, and the vendor is asked no more often than
// the longest poll allows.
func TestThousandPending(t *testing.T) {
	n := 1000
	if raceEnabled {
		n = 200
	}
	synctest.Test(t, func(t *testing.T) {
		s := newShop(&tape{}, true)
		start := time.Now()
		issued := make(chan string, n)
		w := newWatches(t.Context())
		defer w.close()
		h := &history{storage: newMemStorage(), shop: s, web: &web{files: make(map[string]string)}}
		counted := &countedShop{findingShop: findingShop{s}}
		for i := range n {
			name := "site" + string(rune('a'+i%26)) + time.Duration(i).String() + ".example.com"
			p := h.process(nil)
			p.vendor = counted
			p.rules.maxWait, p.rules.pollMin, p.rules.pollMax = time.Minute, 5*time.Second, 10*time.Minute
			p.rules.spend.Orders = 2 * n
			s.delay = 24 * time.Hour
			j := p.newJob(t, name)
			_, _, err := p.obtain(t.Context(), j)
			pending, ok := errors.AsType[*StillPendingError](err)
			if !ok {
				t.Fatalf("error = %v", err)
			}
			w.start(name, pending, p.watcher(j, issued))
		}
		// Placing them one after the other took a minute each.
		placed := time.Since(start)
		calls := counted.status.Load()
		for range n {
			<-issued
		}
		span := time.Since(start) - placed
		perOrder := float64(counted.status.Load()-calls) / float64(n)
		if most := span.Minutes()/9 + 2; perOrder > most {
			t.Errorf("%.1f status calls per order in %s, want at most %.1f", perOrder, span, most)
		}
		if len(s.charges) != n {
			t.Errorf("charges = %d, want %d", len(s.charges), n)
		}
	})
}

func TestOnDemandBuysNothingByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, nil)
		j := p.newJob(t, "example.com")
		j.onDemand = true
		if _, _, err := p.obtain(t.Context(), j); err == nil || !strings.Contains(err.Error(), "allow_on_demand") {
			t.Fatalf("error = %v", err)
		}
		if w.charges() != 0 {
			t.Errorf("charges = %d", w.charges())
		}
		p.rules.allowOnDemand = true
		if _, _, err := p.obtain(t.Context(), j); err != nil {
			t.Fatal(err)
		}
		// What is paid for may be reissued from a handshake.
		p.rules.allowOnDemand = false
		j = p.newJob(t, "example.com")
		j.onDemand = true
		if _, _, err := p.obtain(t.Context(), j); err != nil {
			t.Fatal(err)
		}
		if w.charges() != 1 {
			t.Errorf("charges = %d, want 1", w.charges())
		}
	})
}

// TestHoldOutlivesRetries loses every order and expects fewer and fewer attempts.
func TestHoldOutlivesRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.ca.Inject(sandboxca.Fault{Endpoint: "place", Kind: sandboxca.HTML})
		for start := time.Now(); time.Since(start) < 3*24*time.Hour; time.Sleep(10 * time.Minute) {
			// A new process each time: what is remembered is in the storage.
			if _, err := w.start(nil, nil).attempt(t.Context(), "example.com"); err == nil {
				t.Fatal("a certificate came from nowhere")
			}
		}
		// At once, after 10 minutes, 1 hour, 6 hours, and then daily.
		if calls := w.ca.Calls("place"); calls < 5 || calls > 8 {
			t.Errorf("%d paid calls in three days", calls)
		}
		if w.charges() != 0 {
			t.Errorf("charges = %d, want 0", w.charges())
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
		for _, name := range []string{"shop.example.com", "example.com", "example.net"} {
			got := p.mustObtain(name)
			if first := firstName(got.leaf()); first != "example.com" {
				t.Errorf("the first name is %s", first)
			}
		}
		if w.charges() != 1 {
			t.Errorf("charges = %d, want 1", w.charges())
		}
	})
}
