package issuer

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
)

var flagPending = flag.Int("pending.n", 0, "how many orders are pending in the tests of many of them; 0 is each test's own number")

// manyPending returns how many orders a test has pending: its own number, unless the flag sets another.
func manyPending(own int) int {
	switch {
	case *flagPending > 0:
		return *flagPending
	case raceEnabled:
		return own / 3
	}
	return own
}

// traffic counts the calls to a vendor, each of which takes a moment.
type traffic struct {
	next http.RoundTripper
	mu   sync.Mutex
	at   map[string][]time.Time // of each kind of call
}

// callTime is how long a vendor takes to answer.
const callTime = 50 * time.Millisecond

func (t *traffic) RoundTrip(r *http.Request) (*http.Response, error) {
	call := path.Base(r.URL.Path)
	if strings.Trim(call, "0123456789") == "" {
		call = "info" // DigiCert's, of an order
	}
	t.mu.Lock()
	if t.at == nil {
		t.at = make(map[string][]time.Time)
	}
	t.at[call] = append(t.at[call], time.Now())
	t.mu.Unlock()
	time.Sleep(callTime)
	return t.next.RoundTrip(r)
}

// begin starts counting anew.
func (t *traffic) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.at = nil
}

// of returns when there were calls of a kind, in order, or calls of any kind if it is empty.
func (t *traffic) of(call string) (at []time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for kind, list := range t.at {
		if call == "" || call == kind {
			at = append(at, list...)
		}
	}
	slices.SortFunc(at, time.Time.Compare)
	return at
}

// String lists how many calls of each kind there were.
func (t *traffic) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []string
	for kind, list := range t.at {
		all = append(all, fmt.Sprintf("%d %s", len(list), kind))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// most returns the largest number of moments within any span.
func most(at []time.Time, span time.Duration) (most int) {
	first := 0
	for i := range at {
		for at[i].Sub(at[first]) >= span {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// within fails if there were more calls than a vendor allows.
func (t *traffic) within(tb testing.TB, limits ...callLimit) {
	tb.Helper()
	for _, limit := range limits {
		if got := most(t.of(""), limit.per); got > limit.calls {
			tb.Errorf("%d calls within %s, but the vendor allows %d", got, limit.per, limit.calls)
		}
	}
}

// callLimit is how many calls a vendor allows in a span.
type callLimit struct {
	calls int
	per   time.Duration
}

// digicertLimits are the limits in vendors/digicert.
var digicertLimits = []callLimit{{100, 5 * time.Second}, {1000, 3 * time.Minute}}

// TestManyPending has many orders pending for a day. No call of Issue blocks for long, and the
// vendor is polled no more often than the longest poll interval allows.
func TestManyPending(t *testing.T) {
	n := manyPending(60)
	synctest.Test(t, func(t *testing.T) {
		w := manyPendingWorld(t, 24*time.Hour)
		p := w.start(nil, func(f *flow) {
			f.rules.maxWait, f.rules.spend.Orders = time.Minute, 2*n
		})
		names := make([]string, n)
		for i := range names {
			names[i] = fmt.Sprintf("site%d.example.com", i)
			go func() {
				start := time.Now()
				if _, err := p.attempt(context.Background(), names[i]); !is[*PendingError](err) {
					t.Errorf("error = %v", err)
				}
				if took := time.Since(start); took > time.Minute {
					t.Errorf("a call took %s", took)
				}
			}()
		}
		time.Sleep(2 * time.Hour)
		if w.charges() != n {
			t.Fatalf("charges = %d after two hours, want %d", w.charges(), n)
		}
		calls := w.ca.Calls("collect")
		const span = 12 * time.Hour
		time.Sleep(span)
		perOrder := float64(w.ca.Calls("collect")-calls) / float64(n)
		// Six polls while the waits grow.
		if most := float64(span/p.rules.pace.Slow)*1.2 + 6; perOrder > most {
			t.Errorf("%.1f status calls per order in %s, want at most %.1f", perOrder, span, most)
		}
		time.Sleep(14 * time.Hour)
		for _, name := range names {
			if p.site.serving(name) == nil {
				t.Errorf("%s is not served", name)
			}
		}
		if w.charges() != n {
			t.Errorf("charges = %d, want %d", w.charges(), n)
		}
		w.noKeysLeft()
	})
}

// manyPendingWorld has an account with a large balance at a slow CA, and keeps no logs.
func manyPendingWorld(tb testing.TB, issueDelay time.Duration) *world {
	tb.Helper()
	w := newWorld(tb, func(c *hostile.Config) { c.IssueDelay, c.Accounts[0].Balance = issueDelay, 1e9 })
	w.logger, w.traffic = zap.NewNop(), new(traffic)
	w.through = func(next http.RoundTripper) http.RoundTripper {
		w.traffic.next = next
		return w.traffic
	}
	return w
}

// buyMany places an order for each of the names, by a process without rate limits, which it then stops.
func (w *world) buyMany(start func(*world, *fuse, func(*flow)) *process, names []string) {
	w.tb.Helper()
	share := w.share
	w.share = 0
	p := start(w, nil, func(f *flow) {
		quickly(f)
		f.rules.spend.Orders = 2 * len(names)
	})
	p.configure(names...)
	w.until(12*time.Hour, "all is ordered", func() bool { return w.charges() == len(names) })
	time.Sleep(time.Minute)
	p.stop()
	w.share = share
}

// TestManyPendingAtDigiCert: at DigiCert, one list reports on all pending orders, and the polls of
// single orders stay within the vendor's limits for a day.
func TestManyPendingAtDigiCert(t *testing.T) {
	tooSlowForRaces(t)
	n := manyPending(100)
	synctest.Test(t, func(t *testing.T) {
		w := manyPendingWorld(t, 40*time.Hour)
		w.share = 1
		names := siteNames(n)
		w.buyMany((*world).startDigiCert, names)
		time.Sleep(2 * time.Hour) // so that the list of recent changes no longer has them
		w.traffic.begin()
		began := time.Now()
		p := w.startDigiCert(nil, func(f *flow) {
			quickly(f)
			f.rules.spend.Orders, f.rules.pace.Slow = 2*n, 15*time.Minute
		})
		p.configure(names...)
		time.Sleep(day)
		w.traffic.within(t, digicertLimits...)
		looks, lists := len(w.traffic.of("info")), len(w.traffic.of("status-changes"))
		t.Logf("%d orders in a day: %s; most in 5 s %d, in 3 min %d", n, w.traffic, most(w.traffic.of(""), 5*time.Second), most(w.traffic.of(""), 3*time.Minute))
		if lists > int(day/(10*time.Second)) {
			t.Errorf("%d lists", lists)
		}
		// Each order is polled while it is new to the process and then once an hour, and all orders
		// together once in two seconds.
		if looks > n*(24+12) || looks > int(time.Since(began)/(2*time.Second))+2*n {
			t.Errorf("%d polls of %d orders", looks, n)
		}
		p.untilServed(day, names...)
		w.traffic.within(t, digicertLimits...)
		w.wantCharges(n)
		w.noKeysLeft()
	})
}

// TestRestartWithManyPending: a process that starts with many pending orders takes them up one after
// the other, reads each entry about once, and completes them all.
func TestRestartWithManyPending(t *testing.T) {
	tooSlowForRaces(t)
	n := manyPending(300)
	for _, v := range vendorKinds[:2] {
		inBubble(t, v.name, func(t *testing.T) {
			w := manyPendingWorld(t, 12*time.Hour)
			limits := digicertLimits
			if v.name == "digicert" {
				w.share = 1
			} else {
				limits = limits[:1] // only the pace of the orders limits the calls
			}
			names := siteNames(n)
			w.buyMany(v.start, names)
			time.Sleep(3 * time.Hour)

			w.traffic.begin()
			counted := &reads{memStorage: w.storage}
			p := v.start(w, nil, func(f *flow) {
				quickly(f)
				f.rules.spend.Orders = 2 * n
				f.ledger.Storage = counted
			})
			p.configure(names...)
			time.Sleep(25 * time.Minute) // before entries are read again, which happens every half hour
			counted.mu.Lock()
			loads, lists := counted.loads, counted.lists
			counted.mu.Unlock()
			if loads > n+n/10+64 || lists > 10 {
				t.Errorf("%d reads and %d listings to take up %d orders", loads, lists, n)
			}
			// One after the other; those polled within three seconds are polled again by the first
			// sweep.
			looks := w.traffic.of(v.status)
			early := slices.IndexFunc(looks, func(at time.Time) bool { return at.Sub(looks[0]) > 4*time.Second })
			if most := 2 * int(4*time.Second/takeUpEvery); early > most {
				t.Errorf("%d polls in the first four seconds, want at most %d", early, most)
			}
			time.Sleep(time.Duration(n) * takeUpEvery)
			// If the waits began at five seconds, there would be 13 polls of each order in half an
			// hour. They begin at the time that the order waited for its turn.
			bound := 13 * n
			if n >= 300 {
				bound = 10 * n
			}
			if looks := len(w.traffic.of(v.status)); looks < n || looks > bound {
				t.Errorf("%d polls of %d orders, want at most %d", looks, n, bound)
			}
			t.Logf("%d orders were taken up with %d reads and %d listings; calls: %s, most in a second %d, in 5 s %d, in 3 min %d", n, loads, lists,
				w.traffic, most(w.traffic.of(""), time.Second), most(w.traffic.of(""), 5*time.Second), most(w.traffic.of(""), 3*time.Minute))
			p.untilServed(day, names...)
			w.traffic.within(t, limits...)
			w.wantCharges(n)
			w.noForgottenOrders()
			w.noKeysLeft()
		})
	}
}
