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

// manyPending is how many orders a test has pending: its own number, unless a flag says another.
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

// begin forgets what was counted.
func (t *traffic) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.at = nil
}

// of returns when there were calls of a kind, or of all kinds if it is empty, in order.
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

// String tells how many calls of each kind there were.
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

// most returns how many of the moments are within any span at most.
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

// within fails if there were more calls than a vendor takes.
func (t *traffic) within(tb testing.TB, limits ...callLimit) {
	tb.Helper()
	for _, limit := range limits {
		if got := most(t.of(""), limit.per); got > limit.calls {
			tb.Errorf("%d calls within %s, and the vendor takes %d", got, limit.per, limit.calls)
		}
	}
}

// callLimit is what a vendor takes.
type callLimit struct {
	calls int
	per   time.Duration
}

// digicertLimits are those of vendors/digicert.
var digicertLimits = []callLimit{{100, 5 * time.Second}, {1000, 3 * time.Minute}}

// TestManyPending has many orders pending for a day. No call of Issue lasts, and the vendor
// is asked no more often than the longest poll allows.
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
		// Six looks while the waits grow.
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

// manyPendingWorld has a rich account at a slow CA, and keeps no logs.
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

// buyMany has an order placed for each of the names, by a process whose purchases nothing
// bounds, and ends it.
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

// At DigiCert, one list tells for all pending orders, and the looks at each of them stay within
// what the vendor takes, for a day.
func TestManyPendingAtDigiCert(t *testing.T) {
	tooSlowForRaces(t)
	n := manyPending(100)
	synctest.Test(t, func(t *testing.T) {
		w := manyPendingWorld(t, 40*time.Hour)
		w.share = 1
		names := siteNames(n)
		w.buyMany((*world).startDigiCert, names)
		time.Sleep(2 * time.Hour) // the list of what is new has an end
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
		// Of each order while it is new to the process, once an hour later on, and of all together
		// one in two seconds.
		if looks > n*(24+12) || looks > int(time.Since(began)/(2*time.Second))+2*n {
			t.Errorf("%d looks at %d orders", looks, n)
		}
		p.untilServed(day, names...)
		w.traffic.within(t, digicertLimits...)
		w.wantCharges(n)
		w.noKeysLeft()
	})
}

// A process that starts with many pending orders takes them up one after the other, reads each
// entry about once, and completes them all.
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
				limits = limits[:1] // nothing but the pace of the orders bounds the calls
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
			time.Sleep(25 * time.Minute) // before entries are read again, as they are each half hour
			counted.mu.Lock()
			loads, lists := counted.loads, counted.lists
			counted.mu.Unlock()
			if loads > n+n/10+64 || lists > 10 {
				t.Errorf("%d reads and %d listings to take up %d orders", loads, lists, n)
			}
			// One after the other, and what was looked at within three seconds again by the first sweep.
			looks := w.traffic.of(v.status)
			early := slices.IndexFunc(looks, func(at time.Time) bool { return at.Sub(looks[0]) > 4*time.Second })
			if most := 2 * int(4*time.Second/takeUpEvery); early > most {
				t.Errorf("%d looks in the first four seconds, want at most %d", early, most)
			}
			time.Sleep(time.Duration(n) * takeUpEvery)
			// With waits that begin at five seconds there would be 13 of each in half an hour. They
			// begin with the waits for their turns.
			bound := 13 * n
			if n >= 300 {
				bound = 10 * n
			}
			if looks := len(w.traffic.of(v.status)); looks < n || looks > bound {
				t.Errorf("%d looks at %d orders, want at most %d", looks, n, bound)
			}
			t.Logf("%d orders are taken up with %d reads and %d listings; calls: %s, most in a second %d, in 5 s %d, in 3 min %d", n, loads, lists,
				w.traffic, most(w.traffic.of(""), time.Second), most(w.traffic.of(""), 5*time.Second), most(w.traffic.of(""), 3*time.Minute))
			p.untilServed(day, names...)
			w.traffic.within(t, limits...)
			w.wantCharges(n)
			w.noForgottenOrders()
			w.noKeysLeft()
		})
	}
}
