package issuer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-commercial/caddy-commercial/internal/poll"
	"github.com/caddy-commercial/caddy-commercial/issuer/proof"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// counter is a vendor whose paid calls take a while, and whose orders stay pending.
type counter struct {
	takes func(call int) time.Duration // nil: they take no time
	check time.Duration                // how long the dry run takes

	mu                sync.Mutex
	sold              [][]string
	references        map[string]bool
	paying, checking  int
	maxPaid, maxCheck int
	firstPaid         map[string]time.Time // by the first name
}

func (v *counter) Describe() vendors.Description {
	return vendors.Description{Name: "counter", Account: "test", Portal: "https://portal.example", AbsenceAge: 10 * time.Minute, Methods: []vendors.Method{vendors.MethodHTTP}, AnyName: true}
}

func (v *counter) Validate(ctx context.Context, _ vendors.OrderRequest) error {
	v.mu.Lock()
	v.checking++
	v.maxCheck = max(v.maxCheck, v.checking)
	v.mu.Unlock()
	time.Sleep(v.check)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.checking--
	return nil
}

func (v *counter) Place(ctx context.Context, req vendors.OrderRequest) (vendors.Order, error) {
	if err := vendors.LastCheck(ctx); err != nil {
		return vendors.Order{}, err
	}
	v.mu.Lock()
	v.paying++
	v.maxPaid = max(v.maxPaid, v.paying)
	v.sold = append(v.sold, req.Names)
	if v.references[req.Reference] {
		panic("paid twice for " + req.Reference)
	}
	if v.references == nil {
		v.references, v.firstPaid = make(map[string]bool), make(map[string]time.Time)
	}
	v.references[req.Reference] = true
	if _, ok := v.firstPaid[req.Names[0]]; !ok {
		v.firstPaid[req.Names[0]] = time.Now()
	}
	n := len(v.sold)
	v.mu.Unlock()
	if v.takes != nil {
		time.Sleep(v.takes(n))
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.paying--
	return vendors.Order{ID: req.Reference, Status: vendors.StatusPending}, nil
}

func (v *counter) Status(_ context.Context, id string) (vendors.Order, error) {
	return vendors.Order{ID: id, Status: vendors.StatusPending}, nil
}

func (v *counter) Find(_ context.Context, l vendors.Lookup) ([]string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.references[l.Reference] {
		return []string{l.Reference}, nil
	}
	return nil, nil
}

func (v *counter) bought() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.sold)
}

// wantOnce fails unless each of the names was paid for once.
func (v *counter) wantOnce(t *testing.T, names []string) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	times := make(map[string]int)
	for _, sold := range v.sold {
		for _, name := range sold {
			times[name]++
		}
	}
	for _, name := range names {
		if times[name] != 1 {
			t.Errorf("%s was paid for %d times", name, times[name])
		}
	}
}

// tooSlowForRaces skips a test that takes seconds to minutes with the race detector, or that needs
// more than it can handle: those that run through years, and those with thousands of orders. .ci/run
// also runs all tests of this package without it.
func tooSlowForRaces(t *testing.T) {
	t.Helper()
	if raceEnabled {
		t.Skip("too slow with the race detector; run: go test ./issuer")
	}
}

// spendFreely allows any number of orders.
func spendFreely(f *flow) { f.rules.spend = SpendLimit{1_000_000, caddy.Duration(day)} }

// late returns how many orders were withdrawn because their turn came too late.
func (w *world) late() int {
	n := 0
	for _, entry := range w.logs.All() {
		if strings.Contains(fmt.Sprint(entry.ContextMap()["error"]), "not sent: ") {
			n++
		}
	}
	return n
}

// TestFewPaidCallsAtOnce: many purchases run at a time, but few calls, however many names come at once.
func TestFewPaidCallsAtOnce(t *testing.T) {
	tooSlowForRaces(t)
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		v := &counter{check: 300 * time.Millisecond, takes: func(int) time.Duration { return 200 * time.Millisecond }}
		p := w.startVendor(nil, v, all(quickly, spendFreely))
		names := siteNames(1000)
		start := time.Now()
		p.configure(names...)
		w.until(10*time.Minute, "all is bought", func() bool { return v.bought() == len(names) })
		v.wantOnce(t, names)
		if v.maxPaid != maxPaid || v.maxCheck != maxChecks {
			t.Errorf("%d paid calls and %d checks at a time, want %d and %d", v.maxPaid, v.maxCheck, maxPaid, maxChecks)
		}
		// The slowest part of the vendor is the limit, and nothing on our side.
		if took, limit := time.Since(start), time.Duration(len(names))/maxChecks*300*time.Millisecond+10*time.Second; took > limit*3/2 {
			t.Errorf("all took %s; the vendor's own time is %s", took, limit)
		}
		if n := w.late(); n > 0 {
			t.Errorf("%d orders were late", n)
		}
	})
}

// TestSlowVendorMakesNothingLate: a vendor that takes its time makes no order late, because the
// ledger has no more of them than its calls can take on. That also holds for a vendor that gradually
// becomes slower, and for a storage that shows writes late.
func TestSlowVendorMakesNothingLate(t *testing.T) {
	tooSlowForRaces(t)
	for name, takes := range map[string]func(int) time.Duration{
		"30 s":           func(int) time.Duration { return 30 * time.Second },
		"29 s":           func(int) time.Duration { return 29 * time.Second },
		"10 s":           func(int) time.Duration { return 10 * time.Second },
		"90 s":           func(int) time.Duration { return 90 * time.Second },
		"slower, slower": func(n int) time.Duration { return time.Duration(n) * 100 * time.Millisecond },
		"now and then":   func(n int) time.Duration { return time.Duration(1+n%13) * time.Second },
	} {
		for _, settle := range []time.Duration{time.Second, 20 * time.Second} {
			inBubble(t, fmt.Sprintf("%s, settle %s", name, settle), func(t *testing.T) {
				w := newWorld(t, nil)
				v := &counter{takes: takes}
				p := w.startVendor(nil, v, all(quickly, spendFreely, func(f *flow) { f.rules.settle = settle }))
				names := siteNames(500)
				p.configure(names...)
				w.until(12*time.Hour, "all is bought", func() bool { return v.bought() == len(names) })
				v.wantOnce(t, names)
				if n := w.late(); n > 0 {
					t.Errorf("%d orders were late", n)
				}
			})
		}
	}
}

// TestLateOrdersAreWithdrawn: orders at a vendor that stops answering become late. They are
// withdrawn, unpaid, and follow once it answers again.
func TestLateOrdersAreWithdrawn(t *testing.T) {
	tooSlowForRaces(t)
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		v := &counter{takes: func(n int) time.Duration {
			if 100 < n && n <= 100+maxPaid {
				return 100 * time.Second
			}
			return 50 * time.Millisecond
		}}
		p := w.startVendor(nil, v, all(quickly, spendFreely))
		names := siteNames(300)
		p.configure(names...)
		time.Sleep(90 * time.Second)
		if n := v.bought(); n != 100+maxPaid {
			t.Fatalf("%d orders are paid for", n)
		}
		synctest.Wait()
		for _, e := range p.account.ledger.Pending() {
			if e.State == ledger.Asked && time.Since(e.Paid) > sendBefore && !v.references[e.Attempt.Reference] {
				t.Fatalf("the order for %s has been in the ledger for %s and was not sent", e.Names[0], time.Since(e.Paid))
			}
		}
		if w.late() == 0 {
			t.Error("no order was late")
		}
		w.until(time.Hour, "all is bought", func() bool { return v.bought() == len(names) })
		v.wantOnce(t, names)
	})
}

// TestVendorWithoutFinder: if a vendor cannot be asked what became of an order, the ledger has no
// more of them than are being sent: after a crash, a person must look for each.
func TestVendorWithoutFinder(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		v := &counter{takes: func(int) time.Duration { return 10 * time.Millisecond }}
		p := w.startVendor(nil, struct{ vendors.Vendor }{v}, all(quickly, spendFreely))
		p.configure(siteNames(100)...)
		for v.bought() < 100 {
			asked := 0
			for _, e := range p.account.ledger.Pending() {
				if e.State == ledger.Asked {
					asked++
				}
			}
			if asked > maxPaid {
				t.Fatalf("%d orders are in the ledger at a time", asked)
			}
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
		}
	})
}

// TestSpendLimitIsExactAtOnce: the limit is exact with hundreds of purchases at a time, and nothing
// is prepared beyond it.
func TestSpendLimitIsExactAtOnce(t *testing.T) {
	tooSlowForRaces(t)
	const limit = 70
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		v := &counter{check: time.Second, takes: func(n int) time.Duration { return time.Duration(n%5) * time.Second }}
		p := w.startVendor(nil, v, all(quickly, func(f *flow) { f.rules.spend = SpendLimit{limit, caddy.Duration(day)} }))
		names := siteNames(400)
		p.configure(names...)
		created := 0
		seen := make(map[string]bool)
		for range 600 {
			time.Sleep(time.Second)
			synctest.Wait()
			for _, e := range p.account.ledger.Pending() {
				if !seen[e.ID] {
					seen[e.ID] = true
					created++
				}
			}
		}
		if v.bought() != limit || created != limit {
			t.Errorf("%d orders were recorded and %d paid for, want %d", created, v.bought(), limit)
		}
		time.Sleep(25 * time.Hour)
		if n := v.bought(); n != 2*limit {
			t.Errorf("%d orders after a day, want %d", n, 2*limit)
		}
	})
}

// TestRoomIsAskedInTurn: whether the limit has room for a purchase is checked at the moment when it
// begins, so one that entered the ledger in between counts.
func TestRoomIsAskedInTurn(t *testing.T) {
	var p purchases
	if !p.admit("site", "a.example", 1, func() int { return 1 }) {
		t.Fatal("the first purchase may not begin")
	}
	inLedger := 0
	room := func() int {
		if p.mu.TryLock() {
			t.Error("a purchase may be recorded while the room is computed")
			p.mu.Unlock()
		}
		return 1 - inLedger
	}
	if p.admit("site", "b.example", 1, room) {
		t.Error("two purchases were admitted within a limit of one")
	}
	inLedger++
	p.recorded()
	if p.admit("site", "b.example", 1, room) {
		t.Error("a purchase beyond the limit was admitted")
	}
}

// slowToProve takes a while for each name.
type slowToProve struct{ proof.Prover }

func (s slowToProve) Wait(_ context.Context, p proof.Proof) error {
	time.Sleep(time.Duration(len(p.Names)) * time.Second)
	return nil
}

// TestSmallAndLargeOrders: large orders do not hold up small ones, or the other way round.
func TestSmallAndLargeOrders(t *testing.T) {
	tooSlowForRaces(t)
	const large, names = maxPurchases + 50, 20
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		v := &counter{takes: func(int) time.Duration { return 100 * time.Millisecond }}
		var groups [][]string
		var all20 []string
		for i := range large {
			var g []string
			for j := range names {
				g = append(g, fmt.Sprintf("n%d.group%d.example.net", j, i))
			}
			groups = append(groups, g)
			all20 = append(all20, g[0])
		}
		p := w.startVendor(nil, v, all(quickly, spendFreely, func(f *flow) {
			f.rules.groups = groups
			f.prove = slowToProve{f.prove}
		}))
		start := time.Now()
		p.configure(all20...)
		time.Sleep(10 * time.Millisecond)
		small := siteNames(2 * maxPurchases)
		p.configure(small...)
		w.until(time.Hour, "all is bought", func() bool { return v.bought() == large+len(small) })
		v.wantOnce(t, slices.Concat(append(groups, small)...))
		// Neither kind waits for the other to end.
		var first, last [2]time.Time
		for name, at := range v.firstPaid {
			kind := 0
			if strings.HasSuffix(name, "example.net") {
				kind = 1
			}
			if first[kind].IsZero() || at.Before(first[kind]) {
				first[kind] = at
			}
			if at.After(last[kind]) {
				last[kind] = at
			}
		}
		if !first[0].Before(last[1]) || !first[1].Before(last[0]) {
			t.Errorf("small orders from %s to %s, large ones from %s to %s",
				first[0].Sub(start), last[0].Sub(start), first[1].Sub(start), last[1].Sub(start))
		}
	})
}

// TestWhoIsNext: the one that has waited longest goes first. Every fourth is a large order, as long
// as there are both.
func TestWhoIsNext(t *testing.T) {
	var p purchases
	full := func() int { return 0 }
	for i := range 6 {
		p.admit("site", fmt.Sprintf("large%d", i), largeOrder, full)
	}
	for i := range 6 {
		p.admit("site", fmt.Sprintf("small%d", i), largeOrder-1, full)
		p.admit("site", fmt.Sprintf("small%d", i), largeOrder-1, full) // asking again changes nothing
	}
	p.underway = 100
	var called []string
	wake := func(name string) { called = append(called, name) }
	p.leave(true, wake)
	// Another one was faster than the one that was called, which stays the first.
	p.admit("site", "small0", 1, full)
	for range 20 {
		p.leave(true, wake)
	}
	want := "small0 small0 small1 large0 small2 small3 small4 large1 small5 large2 large3 large4 large5"
	if got := strings.Join(called, " "); got != want {
		t.Errorf("called %q, want %q", got, want)
	}
	// One that does not come, because it has nothing to buy any more, lets the next one go.
	p.admit("site", "late", 1, full)
	called = nil
	p.pass("large5", wake)
	p.pass("large5", wake)
	p.pass("unknown", wake)
	if !slices.Equal(called, []string{"late"}) {
		t.Errorf("called %q", called)
	}
}

// TestSitesTakeTurns: a site with a few names does not have to wait for one that has thousands.
func TestSitesTakeTurns(t *testing.T) {
	p := purchases{underway: maxPurchases}
	full := func() int { return 0 }
	for i := range 5 {
		p.admit("many", fmt.Sprintf("many%d", i), 1, full)
	}
	p.admit("large", "large0", largeOrder, full)
	for i := range 2 {
		p.admit("few", fmt.Sprintf("few%d", i), 1, full)
	}
	var called []string
	for range 9 {
		p.leave(true, func(name string) { called = append(called, name) })
	}
	if got, want := strings.Join(called, " "), "many0 large0 few0 many1 few1 many2 many3 many4"; got != want {
		t.Errorf("called %q, want %q", got, want)
	}
}

// TestListingsAreShared: purchases that come together share listings of a large ledger, and one that
// comes alone does not wait for others.
func TestListingsAreShared(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		var l listings
		count := 0
		list := func(context.Context) error {
			count++
			time.Sleep(300 * time.Millisecond)
			return nil
		}
		looked := func(longest time.Duration) time.Duration {
			started := time.Now()
			if err := l.look(t.Context(), longest, list); err != nil {
				t.Fatal(err)
			}
			return time.Since(started)
		}
		for range 5 {
			if took := looked(listingShare); took > 350*time.Millisecond {
				t.Errorf("one alone waited for %s", took)
			}
		}
		looked(time.Hour)
		started := time.Now()
		for count = 0; count < 10; {
			looked(time.Hour)
		}
		if share := 10 * 300 * time.Millisecond * listingPause; time.Since(started) < share {
			t.Errorf("10 listings in %s, want none before %s", time.Since(started), share)
		}
	})
}

// TestListingServesAllBefore: a listing serves all that came before it began, even if the one that
// was to make it leaves. One that comes later is served by the next listing.
func TestListingServesAllBefore(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		l := listings{began: time.Now(), pause: time.Second}
		var mu sync.Mutex
		var began []time.Time
		listed := func() []time.Time {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(began)
		}
		list := func(ctx context.Context) error {
			mu.Lock()
			began = append(began, time.Now())
			mu.Unlock()
			return poll.Wait(ctx, 100*time.Millisecond)
		}
		leaving, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		come := func(ctx context.Context) {
			came := time.Now()
			wg.Go(func() {
				err := l.look(ctx, time.Hour, list)
				if ctx.Err() != nil {
					return
				}
				if err != nil || !slices.ContainsFunc(listed(), func(at time.Time) bool { return !at.Before(came) && time.Since(at) >= 100*time.Millisecond }) {
					t.Errorf("one that came at %s had no later listing, only those at %s: %v", came, listed(), err)
				}
			})
			synctest.Wait()
		}
		come(leaving) // and leaves before the listing begins
		come(t.Context())
		time.Sleep(500 * time.Millisecond)
		leave()
		for range 200 {
			time.Sleep(10 * time.Millisecond)
			come(t.Context())
		}
		wg.Wait()
		if got := listed(); len(got) > 4 {
			t.Errorf("%d listings in %s", len(got), time.Since(got[0]))
		}

		// One that leaves while it makes the listing takes nobody with it.
		mu.Lock()
		began = nil
		mu.Unlock()
		leaving, leave = context.WithCancel(t.Context())
		come(leaving)
		come(t.Context())
		for len(listed()) == 0 {
			time.Sleep(10 * time.Millisecond)
		}
		leave()
		wg.Wait()
		if len(listed()) != 2 {
			t.Errorf("%d listings, want one that was interrupted and another", len(listed()))
		}
	})
}

// TestPlacesAreNotLost: a place whose turn comes when nobody waits for it any more goes to the next.
func TestPlacesAreNotLost(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		var p purchases
		leave := make([]func(), 0, maxPaid)
		for range maxPaid {
			l, err := p.pay(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			leave = append(leave, l)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("gone")
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := p.pay(ctx); !errors.Is(err, gone) {
				t.Errorf("got %v", err)
			}
		})
		synctest.Wait()
		came := false
		wg.Go(func() {
			l, err := p.pay(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			came = true
			l()
		})
		synctest.Wait()
		cancel(gone)
		leave[0]()
		leave[0]() // a second call does nothing
		wg.Wait()
		for _, l := range leave {
			l()
		}
		if !came || p.paid.taken != 0 || len(p.paid.line) != 0 || len(p.calls.running) != 0 {
			t.Errorf("came %t, %+v, %d calls", came, p.paid, len(p.calls.running))
		}
	})
}

// TestOrdersAhead: the number of orders that may wait for calls adapts to slow calls at once, and to
// fast ones gradually.
func TestOrdersAhead(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		var c callTimes
		wantAhead := func(want int) {
			t.Helper()
			if got := c.ahead(30 * time.Second); got != want {
				t.Errorf("%d orders may wait, want %d", got, want)
			}
		}
		call := func(took time.Duration) {
			at := c.begin()
			time.Sleep(took)
			c.end(at)
		}
		wantAhead(0)
		call(time.Second)
		wantAhead(2)
		for range 100 {
			call(time.Second)
		}
		wantAhead(202)
		call(10 * time.Second)
		wantAhead(3 * maxPaid)
		call(31 * time.Second)
		wantAhead(0)
		for range 100 {
			call(time.Second)
		}
		wantAhead(200)
		running := c.begin()
		time.Sleep(15 * time.Second)
		wantAhead(2 * maxPaid) // one that has not ended yet takes at least as long
		time.Sleep(time.Minute)
		wantAhead(0)
		c.end(running)
		wantAhead(0)
	})
}

// Interface guards
var (
	_ vendors.Validator = (*counter)(nil)
	_ vendors.Finder    = (*counter)(nil)
)
