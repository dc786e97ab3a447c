package issuer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// call asks as certmagic does, but without its lock, as on a storage whose locks do not exclude anybody.
func (p *process) call(name string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	p.site.manage(name)
	got, _, err := p.issue(p.w.ctx, wantFor(p.w.tb, name, key))
	if err == nil {
		err = p.site.save(p.w.ctx, name, key, got.pem())
		p.account.stored(name)
		p.wake(name)
	}
	return err
}

// slow takes a while for each operation.
type slow struct {
	certmagic.Storage
	latency time.Duration
}

func (s slow) Load(ctx context.Context, key string) ([]byte, error) {
	time.Sleep(s.latency)
	return s.Storage.Load(ctx, key)
}

func (s slow) Store(ctx context.Context, key string, v []byte) error {
	time.Sleep(s.latency)
	return s.Storage.Store(ctx, key, v)
}

func (s slow) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	time.Sleep(s.latency)
	return s.Storage.List(ctx, prefix, recursive)
}

// slowToDelete shows others for a while what is being deleted.
type slowToDelete struct{ certmagic.Storage }

func (s slowToDelete) Delete(ctx context.Context, key string) error {
	time.Sleep(50 * time.Millisecond)
	return s.Storage.Delete(ctx, key)
}

// lateLog records the writes to a storage that shows them late to all but their writer.
type lateLog struct {
	mu   sync.Mutex
	last map[string][]lateWrite // the latest of each key, oldest first
}

// lateWrite is what a key holds since a moment.
type lateWrite struct {
	by     *lateView
	at     time.Time
	value  string
	exists bool
}

// lateView is that storage as one process sees it.
type lateView struct {
	*memStorage
	log *lateLog
	lag time.Duration
}

// write notes what a key holds after it was written. The lock is not held.
func (s *lateView) write(key string, write func() error) error {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	list := s.log.last[key]
	if before, err := s.memStorage.Load(context.Background(), key); list == nil {
		list = []lateWrite{{value: string(before), exists: err == nil}}
	}
	if err := write(); err != nil {
		return err
	}
	after, err := s.memStorage.Load(context.Background(), key)
	s.log.last[key] = append(list[max(len(list)-20, 0):], lateWrite{s, time.Now(), string(after), err == nil})
	return nil
}

// seen is what this process sees of a key: what it has written itself, or what others wrote a while ago.
func (s *lateView) seen(key string) (seen lateWrite, known bool) {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	list := s.log.last[key]
	for _, w := range slices.Backward(list) {
		if w.by == s || time.Since(w.at) >= s.lag {
			return w, true
		}
	}
	return lateWrite{}, false
}

func (s *lateView) Store(ctx context.Context, key string, v []byte) error {
	return s.write(key, func() error { return s.memStorage.Store(ctx, key, v) })
}

func (s *lateView) Delete(ctx context.Context, key string) error {
	return s.write(key, func() error { return s.memStorage.Delete(ctx, key) })
}

func (s *lateView) Load(ctx context.Context, key string) ([]byte, error) {
	switch w, known := s.seen(key); {
	case !known:
		return s.memStorage.Load(ctx, key)
	case !w.exists:
		return nil, fs.ErrNotExist
	default:
		return []byte(w.value), nil
	}
}

func (s *lateView) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	keys, err := s.memStorage.List(ctx, prefix, recursive)
	listed := slices.DeleteFunc(keys, func(key string) bool {
		w, known := s.seen(key)
		return known && !w.exists
	})
	s.log.mu.Lock()
	written := slices.Collect(maps.Keys(s.log.last))
	s.log.mu.Unlock()
	for _, key := range written {
		if w, _ := s.seen(key); w.exists && strings.HasPrefix(key, prefix+"/") && !slices.Contains(listed, key) {
			listed = append(listed, key)
		}
	}
	return listed, err
}

// TestServersAtOnce: money does not depend on locks: servers that find nothing in the ledger at
// about the same time, on storages that are slow and show writes late, pay once.
func TestServersAtOnce(t *testing.T) {
	for _, offset := range []time.Duration{0, 40 * time.Millisecond, 150 * time.Millisecond, 500 * time.Millisecond, 900 * time.Millisecond, 2 * time.Second} {
		for _, v := range vendorKinds {
			inBubble(t, fmt.Sprintf("%s, %s apart", v.name, offset), func(t *testing.T) {
				w := newWorld(t, nil)
				log := &lateLog{last: make(map[string][]lateWrite)}
				var calls sync.WaitGroup
				var servers []*process
				for i := range 3 {
					p := v.start(w, nil, func(f *flow) {
						f.ledger.Storage = slow{&lateView{w.storage, log, 900 * time.Millisecond}, 50 * time.Millisecond}
						f.rules.maxWait = 10 * time.Minute
					})
					servers = append(servers, p)
					calls.Go(func() {
						time.Sleep(time.Duration(i) * offset)
						_ = p.call("example.com")
					})
				}
				calls.Wait()
				for _, p := range servers {
					p.untilServed(day, "example.com")
				}
				w.wantCharges(1)
			})
		}
	}
}

// TestServersShareAQueue: when servers share many names, each has some that wait for a place while
// another server orders them. Those behind them in its queue do not wait forever.
func TestServersShareAQueue(t *testing.T) {
	tooSlowForRaces(t)
	for i, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			names := siteNames(100)
			if i == 0 {
				names = siteNames(maxPurchases * 3 / 2) // so there is a queue
			}
			var servers []*process
			for range 3 {
				p := v.start(w, nil, func(f *flow) {
					quickly(f)
					f.ledger.Storage = slow{w.storage, 50 * time.Millisecond}
					f.rules.settle = time.Second
					f.rules.spend.Orders = 10_000
				})
				servers = append(servers, p)
				p.configure(names...)
			}
			begin := time.Now()
			for _, p := range servers {
				p.untilServed(day, names...)
			}
			if took := time.Since(begin); took > 5*time.Minute {
				t.Errorf("it took %s", took)
			}
			w.wantCharges(len(names))
		})
	}
}

// TestServersAtTheSpendingLimit: servers that all record an order for each name exceed the spending
// limit for a moment, although it allows one order for each. Those that withdraw theirs do not wait
// long for the others.
func TestServersAtTheSpendingLimit(t *testing.T) {
	tooSlowForRaces(t)
	const names = 100
	for _, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			var servers []*process
			for range 3 {
				p := v.start(w, nil, func(f *flow) {
					quickly(f)
					f.ledger.Storage = slow{w.storage, 50 * time.Millisecond}
					f.rules.settle = time.Second
					f.rules.spend.Orders = names
				})
				servers = append(servers, p)
				p.configure(siteNames(names)...)
			}
			begin := time.Now()
			for _, p := range servers {
				p.untilServed(day, siteNames(names)...)
			}
			if took := time.Since(begin); took > 10*time.Minute {
				t.Errorf("it took %s", took)
			}
			w.wantCharges(names)
		})
	}
}

// TestServersWithdraw: servers that have both withdrawn do not wait for each other's order, which
// was never sent.
func TestServersWithdraw(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		var calls sync.WaitGroup
		for range 2 {
			p := w.start(nil, func(f *flow) { f.ledger.Storage = slowToDelete{f.ledger.Storage} })
			calls.Go(func() {
				time.Sleep(time.Minute) // the ledger was checked before
				_ = p.call("example.com")
			})
		}
		w.until(5*time.Minute, "one of them buys", func() bool { return w.charges() == 1 })
		calls.Wait()
		w.wantCharges(1)
	})
}

// TestServersAtOnceWithGroup: servers that begin with different names of a group at once pay once.
func TestServersAtOnceWithGroup(t *testing.T) {
	for range 5 {
		inBubble(t, "", func(t *testing.T) {
			w := newWorld(t, nil)
			names := []string{"example.com", "example.net", "example.org"}
			log := &lateLog{last: make(map[string][]lateWrite)}
			var calls sync.WaitGroup
			for _, name := range names {
				p := w.start(nil, all(group(names...), func(f *flow) {
					f.ledger.Storage = &lateView{w.storage, log, 900 * time.Millisecond}
				}))
				calls.Go(func() { _ = p.call(name) })
			}
			calls.Wait()
			w.until(day, "all are stored", func() bool {
				return !slices.ContainsFunc(names, func(n string) bool { return !w.storage.Exists(t.Context(), pairKey(n)) })
			})
			w.wantCharges(1)
		})
	}
}

// TestWrongClockProvesNoAbsence: a server whose clock is wrong by up to an hour does not conclude
// from it that an order is absent: the other server's request is still on its way when it looks it
// up.
func TestWrongClockProvesNoAbsence(t *testing.T) {
	for _, by := range []time.Duration{-time.Hour, -2 * time.Minute, 2 * time.Minute, 11 * time.Minute, time.Hour} {
		for _, fault := range []hostile.Fault{
			{Endpoint: "place", Kind: hostile.Delay, Delay: 25 * time.Second, Times: 1},
			{Endpoint: "place", Kind: hostile.Delay, Delay: 4 * time.Minute, Times: 1}, // longer than the call
		} {
			inBubble(t, fmt.Sprintf("%s, %s", by, fault.Delay), func(t *testing.T) {
				w := newWorld(t, nil)
				w.ca.Inject(fault)
				names := []string{"example.com", "example.net"}
				a := w.start(nil, group(names...))
				b := w.start(nil, all(group(names...), ahead(by)))
				a.configure(names[0])
				time.Sleep(2 * time.Second)
				b.configure(names[1])
				a.untilServed(day, names[0])
				b.untilServed(day, names[1])
				w.wantCharges(1)
				w.allKnown()
			})
		}
	}
}

// allKnown fails if there is a charge for which the ledger has no order, not even one that is over.
func (w *world) allKnown() {
	w.tb.Helper()
	var all strings.Builder
	for _, value := range w.storage.snapshot() {
		all.WriteString(value)
	}
	for _, c := range w.ca.Charges() {
		if !strings.Contains(all.String(), `"root_id": "`+c.OrderID+`"`) {
			w.tb.Errorf("the ledger does not know of order %s for %v", c.OrderID, c.Names)
		}
	}
}

// TestWrongClocksForYears: clocks that are an hour fast and an hour slow move renewals by an hour,
// and buy nothing twice.
func TestWrongClocksForYears(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		a, b := w.start(nil, ahead(time.Hour)), w.start(nil, ahead(-time.Hour))
		stopA, stopB := a.maintain(false), b.maintain(false)
		a.configure("example.com")
		b.configure("example.com")
		time.Sleep(400 * day)
		a.untilServed(0, "example.com")
		b.untilServed(0, "example.com")
		w.wantCharges(2)
		w.onePerName()
		stopA()
		stopB()
	})
}

// forgetful is a vendor whose search for orders fails at first, and then denies a few times what it
// knows.
type forgetful struct {
	vendors.Vendor
	failing bool
	denials int
}

func (v *forgetful) Find(ctx context.Context, what vendors.Lookup) ([]string, error) {
	switch {
	case v.failing:
		return nil, &vendors.Error{Verdict: vendors.Retryable, Err: errLost}
	case v.denials > 0:
		v.denials--
		return nil, nil
	}
	return v.Vendor.(vendors.Finder).Find(ctx, what)
}

// TestOneDenialProvesNothing: one denial of a search proves nothing, however late it comes.
func TestOneDenialProvesNothing(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		w.ca.Inject(hostile.Fault{Endpoint: "place", Phase: hostile.AfterEffect, Kind: hostile.Reset, Times: 1})
		search := &forgetful{failing: true, denials: 1}
		p := w.start(nil, func(f *flow) {
			quickly(f)
			search.Vendor, f.vendor = f.vendor, search
		})
		p.configure("example.com")
		time.Sleep(time.Hour)
		synctest.Wait()
		search.failing = false
		p.untilServed(day, "example.com")
		synctest.Wait()
		if search.denials != 0 {
			t.Error("it was never denied")
		}
		w.wantCharges(1)
	})
}

// TestLateRequestIsNotSent: a request that is held up before it is sent is not sent late, because
// others may have concluded that it never was.
func TestLateRequestIsNotSent(t *testing.T) {
	inBubble(t, "in the storage", func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, func(f *flow) {
			quickly(f)
			f.ledger.Storage = slow{f.ledger.Storage, 35 * time.Second}
		})
		p.configure("example.com")
		time.Sleep(day)
		w.wantCharges(0)
		if n := w.ca.Calls("place"); n != 0 {
			t.Errorf("%d requests were sent", n)
		}
		if list := w.entries("example.com"); len(list) > 1 {
			t.Errorf("%d entries that bought nothing", len(list))
		}
	})
}

// TestPaidCallIsBounded: a paid call is given up long before the absence of its order counts as proof.
func TestPaidCallIsBounded(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		var sent, given atomic.Pointer[time.Time]
		p := w.start(nil, func(f *flow) {
			f.rules.maxWait = time.Hour
			f.vendor = &bounded{f.vendor, &sent, &given}
		})
		p.configure("example.com")
		w.until(day, "the call was given up", func() bool { return given.Load() != nil })
		if held, allowed := given.Load().Sub(*sent.Load()), p.about.AbsenceAge-sendBefore; held > allowed {
			t.Errorf("given up after %s; absence counts as proven after %s", held, p.about.AbsenceAge)
		}
	})
}

// TestOrderThatWaitsIsNotSentLate: an order that waits for its turn to be paid for is not sent once
// another server may have found that it was never placed, however soon that is at the vendor.
func TestOrderThatWaitsIsNotSentLate(t *testing.T) {
	for _, age := range []time.Duration{20 * time.Second, 2 * time.Minute, 10 * time.Minute} {
		inBubble(t, age.String(), func(t *testing.T) {
			w := newWorld(t, nil)
			soon := func(f *flow) {
				f.about.AbsenceAge = age
				f.rules.settle = time.Second
			}
			a, b := w.start(nil, soon), w.start(nil, soon)
			var others []func()
			for range maxPaid {
				leave, err := a.account.purchases.pay(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				others = append(others, leave)
			}
			a.configure("example.com")
			w.until(time.Minute, "the order is recorded", func() bool {
				keys, err := w.storage.List(t.Context(), a.ledger.Prefix+"/entries", false)
				return err == nil && len(keys) == 1
			})
			b.configure("example.com")
			w.until(day, "the other server has bought", func() bool { return w.charges() == 1 })
			for _, leave := range others {
				leave()
			}
			a.untilServed(day, "example.com")
			b.untilServed(day, "example.com")
			w.wantCharges(1)
		})
	}
}

// bounded is a vendor that does not answer an order until the call is given up.
type bounded struct {
	vendors.Vendor
	sent, given *atomic.Pointer[time.Time]
}

func (v *bounded) Place(ctx context.Context, _ vendors.OrderRequest) (vendors.Order, error) {
	now := time.Now()
	v.sent.Store(&now)
	<-ctx.Done()
	later := time.Now()
	v.given.Store(&later)
	return vendors.Order{}, &vendors.Error{Verdict: vendors.Uncertain, Err: ctx.Err()}
}

func (v *bounded) Find(context.Context, vendors.Lookup) ([]string, error) { return nil, nil }

// TestOtherServerFollowsReissue: a server serves what another server has reissued, long before its
// own certificate is due, because the CA may have revoked that.
func TestOtherServerFollowsReissue(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		a, b := w.start(nil, nil), w.start(nil, nil)
		a.mustObtain("example.com")
		b.configure("example.com")
		time.Sleep(day)
		b.untilServed(0, "example.com")
		renewed := a.mustObtain("example.com")
		w.until(13*time.Hour, "the other server serves it", func() bool { return b.site.serving("example.com").leaf().Equal(renewed.leaf()) })
		w.wantCharges(1)
	})
}

// TestReissuesAtOnce: two servers that reissue the same order at the same moment agree on one request.
func TestReissuesAtOnce(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		slowly := func(f *flow) { f.ledger.Storage = slow{f.ledger.Storage, 50 * time.Millisecond} }
		a, b := w.start(nil, slowly), w.start(nil, slowly)
		first := a.mustObtain("example.com")
		b.mustObtain("example.com")
		var calls sync.WaitGroup
		for _, p := range []*process{a, b} {
			calls.Go(func() { _ = p.call("example.com") })
		}
		calls.Wait()
		time.Sleep(day)
		served := a.site.serving("example.com").leaf()
		if served.Equal(first.leaf()) || !served.Equal(b.site.serving("example.com").leaf()) {
			t.Error("the servers do not serve the same new certificate")
		}
		if n := w.ca.Calls("replace"); n != 1 {
			t.Errorf("%d reissues", n)
		}
		w.wantCharges(1)
	})
}

// TestUnreadableEntryStopsPurchases: nothing is bought while an entry cannot be read, because nobody
// can tell what it is for.
func TestUnreadableEntryStopsPurchases(t *testing.T) {
	for name, content := range map[string]string{"cut off": `{"version": 2, "na`, "newer": `{"version": 3}`, "empty": ""} {
		inBubble(t, name, func(t *testing.T) {
			w := newWorld(t, nil)
			p := w.start(nil, quickly)
			p.mustObtain("example.org")
			key := p.ledger.Prefix + "/entries/20000101t000000-0011223344556677.json"
			if err := w.storage.Store(t.Context(), key, []byte(content)); err != nil {
				t.Fatal(err)
			}
			p.configure("example.com")
			time.Sleep(day)
			w.wantCharges(1)
			p.mustObtain("example.org") // what is paid for continues
			if err := w.storage.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			p.untilServed(7*time.Hour, "example.com")
			w.wantCharges(2)
		})
	}
}

// lossy loses the entries that are stored, and reports success.
type lossy struct {
	certmagic.Storage
	losing bool
}

func (s *lossy) Store(ctx context.Context, key string, v []byte) error {
	if s.losing && strings.Contains(key, "/entries/") {
		return nil
	}
	return s.Storage.Store(ctx, key, v)
}

// TestLostEntryIsNotPaidFor: nothing is sent for an entry that others cannot find.
func TestLostEntryIsNotPaidFor(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		storage := &lossy{losing: true}
		p := w.start(nil, func(f *flow) {
			quickly(f)
			storage.Storage, f.ledger.Storage = f.ledger.Storage, storage
		})
		p.configure("example.com")
		time.Sleep(day)
		if n := w.ca.Calls("place"); n != 0 {
			t.Errorf("%d requests were sent", n)
		}
		if n := w.ca.Calls("validate"); n > 20 {
			t.Errorf("%d useless preparations in a day", n)
		}
		synctest.Wait()
		storage.losing = false
		p.untilServed(7*time.Hour, "example.com")
		w.wantCharges(1)
	})
}
