package issuer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/internal/metrics"
	"github.com/caddy-commercial/caddy-commercial/internal/metrics/metricstest"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/ledger"
)

// TestChargesAreCounted: a charge is counted once, however the vendor's answer arrived, and only by
// the server that recorded it.
func TestChargesAreCounted(t *testing.T) {
	for _, v := range vendorKinds {
		for _, lost := range []bool{false, true} {
			inBubble(t, fmt.Sprintf("%s lost=%v", v.name, lost), func(t *testing.T) {
				charged, took := metricstest.Since(t, metrics.Charges), metricstest.Since(t, metrics.OrderSeconds)
				w := newWorld(t, nil)
				// Counters belong to the process, in which other tests buy at the same time.
				name := fmt.Sprintf("%s-%v", v.name, lost)
				named := all(quickly, func(f *flow) { f.about.Name = name })
				p := v.start(w, nil, named)
				if lost {
					w.ca.Inject(hostile.Fault{Endpoint: v.pay, Kind: hostile.Reset, Phase: hostile.AfterEffect, Times: 1})
				}
				began := time.Now()
				p.mustObtain("example.com")
				served := time.Since(began)
				p.mustObtain("example.com")
				// Two servers that learn of it at the same moment would both count it.
				other := v.start(w, nil, named)
				other.mustObtain("example.com")
				other.mustObtain("example.com")
				of := `{vendor="` + name + `"}`
				if n := charged("charges_total" + of); n != 1 || w.charges() != 1 {
					t.Errorf("counted %v of %d charges", n, w.charges())
				}
				if n, sum := took("order_seconds_count"+of), took("order_seconds_sum"+of); n != 1 || sum <= 0 || sum > served.Seconds() {
					t.Errorf("counted %v orders of %v seconds; it took %s", n, sum, served)
				}
			})
		}
	}
}

func TestCharged(t *testing.T) {
	asked := ledger.Entry{State: ledger.Asked, Attempt: ledger.Attempt{Kind: ledger.KindOrder}}
	open := asked
	open.State, open.OrderID, open.RootID = ledger.Open, "1", "1"
	gone, reissued, adopted := asked, open, open
	gone.State, reissued.OrderID, adopted.Attempt.Kind = ledger.Gone, "2", ledger.KindAdoption
	for _, c := range []struct {
		name          string
		before, after *ledger.Entry
		want          bool
	}{
		{"stored", new(ledger.Entry), &asked, false},
		{"answered", &asked, &open, true},
		{"never placed", &asked, &gone, false},
		{"answered late", &gone, &open, true},
		{"reissued", &open, &reissued, false},
		{"adopted", new(ledger.Entry), &adopted, false},
	} {
		if got := charged(c.before, c.after); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// documentedEvents maps each event to the keys of its data, according to docs/events.md.
var documentedEvents = sync.OnceValue(func() map[string][]string {
	text, err := os.ReadFile(filepath.Join("..", "docs", "events.md"))
	if err != nil {
		panic(err)
	}
	events := make(map[string][]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `(commercial_\\w+)` \\|.*\\| ([^|]*) \\|$").FindAllStringSubmatch(string(text), -1) {
		keys := []string{"account", "names", "vendor"}
		if row[1] != eventSpendLimit {
			keys = append(keys, "entry", "order_id")
		}
		for _, key := range strings.Split(row[2], ", ") {
			keys = append(keys, strings.Trim(key, "`"))
		}
		slices.Sort(keys)
		events[row[1]] = keys
	}
	return events
})

func TestEventsAreDocumented(t *testing.T) {
	want := []string{
		eventOrderPlaced, eventValidationWaiting, eventValidationPassed, eventValidationFailed, eventValidationDelayed, eventIssued, eventReissued,
		eventFlagged, eventRevoked, eventTermEnding, eventSpendLimit, eventPriceChanged,
	}
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(documentedEvents())); !slices.Equal(got, want) {
		t.Errorf("docs/events.md has %q, want %q", got, want)
	}
}

// recorder collects the events that handlers would get, and those whose data are not as documented.
type recorder struct {
	mu   sync.Mutex
	list []heard
	bad  []heard
}

type heard struct {
	event string
	data  map[string]any
}

func (r *recorder) note(event string, data map[string]any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := heard{event, data}
	r.list = append(r.list, h)
	if !slices.Equal(slices.Sorted(maps.Keys(data)), documentedEvents()[event]) {
		r.bad = append(r.bad, h)
	}
}

func (r *recorder) all() []heard {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.list)
}

// take returns the names of the events, without their prefix, since the last call.
func (r *recorder) take() (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range r.list {
		names = append(names, strings.TrimPrefix(h.event, "commercial_"))
	}
	r.list = nil
	return names
}

// count returns how many events of the name there were since the last call of take.
func (r *recorder) count(event string) (n int) {
	for _, h := range r.all() {
		if h.event == event {
			n++
		}
	}
	return n
}

// last returns the data of the latest event of the name.
func (r *recorder) last(event string) map[string]any {
	for _, h := range slices.Backward(r.all()) {
		if h.event == event {
			return h.data
		}
	}
	return nil
}

// check fails if an event is not as documented, comes twice, or contains a secret.
func (r *recorder) check(w *world) {
	w.tb.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range r.bad {
		w.tb.Errorf("not as documented: %s %v", h.event, h.data)
	}
	once := make(map[string]bool)
	for _, h := range r.list {
		text := fmt.Sprint(h.data)
		of := fmt.Sprint(h.event, h.data["entry"], h.data["serial"])
		if once[of] && (h.event == eventOrderPlaced || h.data["serial"] != nil) {
			w.tb.Errorf("sent twice: %s %s", h.event, text)
		}
		once[of] = true
		for _, secret := range append(w.web.contents(), testToken, "PRIVATE KEY") {
			if secret != "" && strings.Contains(text, secret) {
				w.tb.Errorf("%s contains %q: %s", h.event, secret, text)
			}
		}
	}
}

func (w *world) wantEvents(want ...string) {
	w.tb.Helper()
	w.events.check(w)
	if got := w.events.take(); !slices.Equal(got, want) {
		w.tb.Errorf("events %q, want %q", got, want)
	}
}

// TestEventsOfAnOrder: each event of an order is sent once, by the server that recorded it.
func TestEventsOfAnOrder(t *testing.T) {
	for _, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			p, other := v.start(w, nil, quickly), v.start(w, nil, quickly)
			p.mustObtain("example.com")
			e := w.entry("example.com")
			want := map[string]any{
				"vendor": v.name, "account": "test", "names": "example.com", "entry": e.ID, "order_id": e.OrderID,
				"serial": e.Certificate.Serial, "not_after": timeText(e.Certificate.NotAfter), "term_ends": timeText(e.Ends),
			}
			if got := w.events.last(eventIssued); !maps.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			if got := w.events.last(eventOrderPlaced); got["reference"] != e.Attempt.Reference || got["product"] != e.Product || got["order_id"] == "" {
				t.Errorf("got %v", got)
			}
			w.wantEvents("order_placed", "validation_waiting", "validation_passed", "issued")
			other.mustObtain("example.com")
			w.wantEvents()
			p.mustObtain("example.com")
			if got := w.events.last(eventReissued); got["serial"] != w.entry("example.com").Certificate.Serial || got["serial"] == e.Certificate.Serial {
				t.Errorf("got %v", got)
			}
			if got := w.events.last(eventValidationPassed); got["kind"] != "reissue" {
				t.Errorf("got %v", got)
			}
			w.wantEvents("validation_waiting", "validation_passed", "reissued")
		})
	}
}

// TestEventsOfValidation: an order may be validated long before it gives a certificate.
func TestEventsOfValidation(t *testing.T) {
	for _, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, func(c *hostile.Config) { c.IssueDelay = 6 * time.Hour })
			p := v.start(w, nil, quickly)
			p.configure("example.com")
			time.Sleep(3 * time.Hour)
			early, late := []string{"order_placed", "validation_waiting", "validation_passed"}, []string{"issued"}
			if v.name == "howssl" { // it does not report each name
				early, late = early[:2], []string{"validation_passed", "issued"}
			}
			w.wantEvents(early...)
			p.untilServed(day, "example.com")
			w.wantEvents(late...)
		})
	}
}

func TestEventsOfAnOrderThatEnds(t *testing.T) {
	for _, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, func(c *hostile.Config) { c.Quirks.MissPerspectives = 3 })
			p := v.start(w, nil, quickly)
			p.configure("example.com")
			time.Sleep(time.Hour)
			w.wantEvents("order_placed", "validation_waiting")
			if _, err := w.ca.EndAll(hostile.StatusCancelled); err != nil {
				t.Fatal(err)
			}
			w.until(day, "the entry is flagged", func() bool { return w.entry("example.com").Flag != nil })
			failed, flagged := w.events.last(eventValidationFailed), w.events.last(eventFlagged)
			if e := w.entry("example.com"); failed["reason"] != e.Problem || failed["kind"] != "order" || flagged["reason"] != e.Flag.Reason || flagged["portal"] != "https://portal.example" {
				t.Errorf("%v, %v", failed, flagged)
			}
			w.wantEvents("validation_failed", "flagged")
			time.Sleep(3 * day)
			w.wantEvents()
		})
	}
}

func TestEventsOfARevocation(t *testing.T) {
	for _, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			p := v.start(w, nil, all(quickly, watching))
			p.configure("example.com")
			p.untilServed(day, "example.com")
			serial := w.entry("example.com").Certificate.Serial
			w.events.take()
			w.revoke("example.com")
			w.until(2*time.Hour, "it is replaced", func() bool { return p.good("example.com") })
			if got := w.events.last(eventRevoked); got["serial"] != serial || got["reason"] == "" {
				t.Errorf("got %v", got)
			}
			w.wantEvents("revoked", "validation_waiting", "validation_passed", "reissued")
		})
	}
}

func TestEventsOfAnOrderThatEndsLate(t *testing.T) {
	for _, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			p := v.start(w, nil, all(quickly, watching))
			p.configure("example.com")
			p.untilServed(day, "example.com")
			time.Sleep(day)
			w.events.take()
			if _, err := w.ca.EndAll(hostile.StatusCancelled); err != nil {
				t.Fatal(err)
			}
			w.until(3*time.Hour, "the entry is flagged", func() bool { return w.entry("example.com").Flag != nil })
			w.wantEvents("revoked", "flagged")
		})
	}
}

// TestEventsOfPrices: a change of price is sent once, by the server that asked for it, and only if
// something was ordered.
func TestEventsOfPrices(t *testing.T) {
	for _, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			tally := new(callTally)
			w.through = func(next http.RoundTripper) http.RoundTripper { return meter{next, tally} }
			p := v.start(w, nil, all(quickly, watchesPrices))
			time.Sleep(time.Hour) // so that they do not ask at the same moment
			other := v.start(w, nil, all(quickly, watchesPrices))
			time.Sleep(3 * day)
			if calls := tally.count(); calls > 0 {
				t.Errorf("%d calls, although nothing was ordered", calls)
			}
			p.configure("example.com")
			other.configure("example.com")
			p.untilServed(day, "example.com")
			time.Sleep(3 * day)
			w.events.take()
			of := fmt.Sprintf("%s, %s", p.order.Product, p.order.Term)
			prices, err := p.ledger.Prices(t.Context())
			before := prices[of]
			if err != nil || before.Text == "" {
				t.Fatalf("%v of %q, %v", before, of, err)
			}
			calls := tally.count()
			for _, raise := range []int64{100, 0, -100} {
				err := w.ca.Update(func(c *hostile.Config) {
					c.Products = slices.Clone(c.Products)
					for i := range c.Products {
						prices := maps.Clone(c.Products[i].PriceCents)
						for months := range prices {
							prices[months] += raise
						}
						c.Products[i].PriceCents = prices
					}
				})
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(day + time.Hour)
				if raise == 0 {
					w.wantEvents()
					continue
				}
				e, got := w.entry("example.com"), w.events.last(eventPriceChanged)
				prices, err = p.ledger.Prices(t.Context())
				after := prices[of]
				want := map[string]any{
					"vendor": v.name, "account": "test", "names": "example.com", "entry": e.ID, "order_id": e.OrderID, "product": e.Product,
					"term": "1 year", "before": before.Text, "price": after.Text, "since": timeText(before.Since),
				}
				if err != nil || after.Text == before.Text || !maps.Equal(got, want) {
					t.Errorf("%v, %v; sent %v, want %v", after, err, got, want)
				}
				before = after
				w.wantEvents("price_changed")
			}
			// Racent has a list for each brand.
			if calls := tally.count() - calls; calls > 4*map[string]int{"racent": 5, "howssl": 2, "digicert": 1}[v.name] {
				t.Errorf("%d calls in three days", calls)
			}
			w.wantCharges(1)
		})
	}
}

// TestServersAskForThePriceAtATime: of two servers that ask the vendor at the same time, the one that
// gets its answer last has nothing to tell.
func TestServersAskForThePriceAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, quickly)
		storage := &readThen{Storage: w.storage, file: "prices.json"}
		other := w.start(nil, all(quickly, func(f *flow) { f.ledger.Storage = storage }))
		p.mustObtain("example.com")
		if err := p.askPrice(t.Context()); err != nil { // as of now
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		err := w.ca.Update(func(c *hostile.Config) {
			c.Products = slices.Clone(c.Products)
			for i, product := range c.Products {
				c.Products[i].PriceCents = maps.Clone(product.PriceCents)
				for months := range product.PriceCents {
					c.Products[i].PriceCents[months]++
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(day)
		w.events.take()
		storage.then = func() error { return p.askPrice(t.Context()) }
		if err := other.askPrice(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.wantEvents("price_changed")
	})
}

// readThen is a storage in which something happens right after the first time that a file is read,
// which only one goroutine does.
type readThen struct {
	certmagic.Storage
	file string
	then func() error
}

func (s *readThen) Load(ctx context.Context, key string) ([]byte, error) {
	data, err := s.Storage.Load(ctx, key)
	if path.Base(key) != s.file || s.then == nil {
		return data, err
	}
	then := s.then
	s.then = nil
	return data, errors.Join(err, then())
}

func watchesPrices(f *flow) { f.rules.prices = true }

// TestPriceOfAnotherProduct: prices are compared only with an order for the same product.
func TestPriceOfAnotherProduct(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, quickly)
		p.mustObtain("example.com")
		orders := p.account.ledger.Orders()
		if e, err := p.latestOf(t.Context(), orders); err != nil || e == nil {
			t.Fatal(e, err)
		}
		p.order.Product = "another"
		if e, err := p.latestOf(t.Context(), orders); err != nil || e != nil {
			t.Error(e, err)
		}
	})
}

// TestEventsOfTerms: the end of a term is announced twice by each server if no newer order follows,
// and not for names that are no longer in the config.
func TestEventsOfTerms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		once := func(f *flow) { f.rules.spend = SpendLimit{2, caddy.Duration(1000 * day)} }
		p := w.start(nil, once)
		p.mustObtain("example.com")
		p.mustObtain("old.example.com")
		e := w.entry("example.com")
		p.site.mu.Lock()
		p.site.deny = map[string]bool{"old.example.com": true}
		p.site.mu.Unlock()
		told := func() (days []any) {
			for _, h := range w.events.all() {
				if h.event == eventTermEnding {
					days = append(days, h.data["days"])
				}
			}
			return days
		}
		left := func(days int) { time.Sleep(time.Until(e.Ends.AddDate(0, 0, -days))) }
		for _, step := range []struct {
			days int
			want []any
		}{{31, nil}, {29, []any{30}}, {8, []any{30}}, {6, []any{30, 7}}, {-1, []any{30, 7}}} {
			left(step.days)
			if step.days == 8 {
				p.reload(func(*flow) {})
			}
			if got := told(); !slices.Equal(got, step.want) {
				t.Errorf("%d days before the end: %v", step.days, got)
			}
		}
		if got := w.events.last(eventTermEnding); got["entry"] != e.ID || got["order_id"] != e.OrderID || got["term_ends"] != timeText(e.Ends) {
			t.Errorf("got %v", got)
		}
	})
}

// TestEventsOfYears: renewals in time cause no late warnings, flags or failed validations.
func TestEventsOfYears(t *testing.T) {
	tooSlowForRaces(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *hostile.Config) { c.Quirks.ClipToTerm = true })
		p := w.start(nil, quickly)
		defer p.maintain(true)()
		p.configure("example.com")
		time.Sleep(3 * 365 * day)
		for _, h := range w.events.all() {
			if h.event == eventTermEnding && h.data["days"] == 7 || h.event == eventFlagged || h.event == eventValidationFailed {
				t.Errorf("%s %v", h.event, h.data)
			}
		}
		w.wantCharges(w.events.count(eventOrderPlaced))
	})
}

func TestTermWarning(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct{ term, left, want time.Duration }{
		{365 * day, 31 * day, 0}, {365 * day, 30 * day, 30 * day}, {365 * day, 8 * day, 30 * day}, {365 * day, 7 * day, 7 * day},
		{90 * day, 30 * day, 30 * day}, {59 * day, 20 * day, 0}, {59 * day, 5 * day, 7 * day}, {10 * day, day, 0},
	} {
		if got := termWarning(now.Add(c.left-c.term), now.Add(c.left), now); got != c.want {
			t.Errorf("%s of %s are left: %s", c.left, c.term, got)
		}
	}
}

// TestEventsOfTheSpendingLimit: reaching the spending limit is reported once per span, however many
// names wait and however often they ask.
func TestEventsOfTheSpendingLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, all(quickly, func(f *flow) { f.rules.spend.Orders = 2 }))
		for n := range 12 {
			p.configure(fmt.Sprintf("shop%d.example.com", n))
		}
		reached := func() int { return w.events.count(eventSpendLimit) }
		time.Sleep(20 * time.Hour)
		got := w.events.last(eventSpendLimit)
		if reached() != 1 || got["orders"] != 2 || got["per"] != "24h0m0s" || got["names"] == "" || got["next"] == "" {
			t.Errorf("%d times, %v", reached(), got)
		}
		time.Sleep(4 * 24 * time.Hour)
		if n := reached(); n != 5 {
			t.Errorf("%d times in five days", n)
		}
	})
}
