package issuer

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/issuer/proof"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// watching has issued orders checked once an hour.
func watching(f *flow) { f.rules.watch = time.Hour }

// good reports whether the process serves a certificate for the name that is not revoked.
func (p *process) good(name string) bool {
	got := p.site.serving(name)
	return got != nil && time.Now().Before(got.leaf().NotAfter) && !p.w.ca.Revoked(got.leaf().SerialNumber)
}

// revoke revokes the latest certificate of the name's order.
func (w *world) revoke(name string) {
	w.tb.Helper()
	serial := w.entry(name).Certificate.Serial
	for _, o := range w.ca.Orders() {
		if o.Serial == serial {
			if err := w.ca.RevokeCertificate(o.ID); err != nil {
				w.tb.Fatal(err)
			}
			return
		}
	}
	w.tb.Fatalf("no order gave %s", serial)
}

// reissued counts the reissues that the CA was asked for.
func (w *world) reissued() (n int) {
	for _, o := range w.ca.Orders() {
		if o.Kind == hostile.KindReissue || o.Kind == hostile.KindReplace {
			n++
		}
	}
	return n
}

// TestRevokedCertificateIsReplaced: a certificate that is revoked while its order stays active is
// replaced within the interval, free of charge and for a new key, whatever certmagic does with keys.
// Until then it is served.
func TestRevokedCertificateIsReplaced(t *testing.T) {
	for _, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			p := v.start(w, nil, all(quickly, watching))
			stop := p.maintain(true)
			defer stop()
			p.configure("example.com")
			p.untilServed(day, "example.com")
			first := w.entry("example.com")
			time.Sleep(5 * day)
			w.revoke("example.com")
			revoked := time.Now()
			w.until(2*time.Hour, "it is replaced", func() bool {
				if p.site.serving("example.com") == nil {
					t.Fatal("nothing is served")
				}
				return p.good("example.com")
			})
			if took := time.Since(revoked); took > 80*time.Minute {
				t.Errorf("it took %s", took)
			}
			p.untilServed(0, "example.com")
			if e := w.entry("example.com"); e.Certificate.Key == first.Certificate.Key || e.Certificate.Lost || e.Flag != nil || e.Problem != "" || e.Issued != 2 {
				t.Errorf("%+v", e)
			}
			time.Sleep(5 * day)
			if n := w.reissued(); n != 1 {
				t.Errorf("%d reissues", n)
			}
			if n := w.logs.FilterMessageSnippet("clients that check revocation refuse it").Len(); n != 1 {
				t.Errorf("logged %d times", n)
			}
			for _, name := range w.entry("example.com").Covered {
				if _, _, err := p.site.load(t.Context(), name); (err == nil) != (name == "example.com") {
					t.Errorf("of the names of the certificate, %s has a stored one of its own: %v", name, err == nil)
				}
			}
			w.wantCharges(1)
			w.noSecrets()
		})
	}
}

// TestLooksKeepTheirPace: slow answers do not make a round longer, because the interval between two
// checks is counted from their beginnings.
func TestLooksKeepTheirPace(t *testing.T) {
	tooSlowForRaces(t)
	inBubble(t, "racent", func(t *testing.T) {
		const n = 150
		w, tally := newWorld(t, nil), new(callTally)
		p := w.start(nil, all(quickly, func(f *flow) { f.rules.watch = time.Minute; f.rules.spend.Orders = 2 * n }))
		names := siteNames(n)
		p.configure(names...)
		p.untilServed(day, names...)
		p.stop()
		w.through = func(next http.RoundTripper) http.RoundTripper {
			return meter{slowly{next, 200 * time.Millisecond}, tally}
		}
		p = w.start(nil, all(quickly, func(f *flow) { f.rules.watch = time.Minute; f.rules.spend.Orders = 2 * n }))
		p.configure(names...)
		time.Sleep(10 * time.Minute)
		tally.times = nil
		time.Sleep(10 * time.Minute)
		if got := len(tally.times); got < 9*n {
			t.Errorf("%d checks of %d orders in ten intervals", got, n)
		}
		w.wantCharges(n)
	})
}

// slowly delays answers.
type slowly struct {
	next http.RoundTripper
	by   time.Duration
}

func (s slowly) RoundTrip(r *http.Request) (*http.Response, error) {
	time.Sleep(s.by)
	return s.next.RoundTrip(r)
}

// TestEndedOrderAsksAPerson: if an order ends after it has given its certificate, a person must act.
// The site is still served, and nothing is bought.
func TestEndedOrderAsksAPerson(t *testing.T) {
	tooSlowForRaces(t)
	for _, v := range vendorKinds {
		for _, status := range []string{hostile.StatusRevoked, hostile.StatusCancelled} {
			inBubble(t, v.name+" "+status, func(t *testing.T) {
				w := newWorld(t, nil)
				p := v.start(w, nil, all(quickly, watching))
				stop := p.maintain(false)
				defer stop()
				p.configure("example.com")
				p.untilServed(day, "example.com")
				time.Sleep(5 * day)
				if _, err := w.ca.EndAll(status); err != nil {
					t.Fatal(err)
				}
				w.until(3*time.Hour, "the entry is flagged", func() bool { return w.entry("example.com").Flag != nil })
				e := w.entry("example.com")
				if !e.Flag.Ended || !e.Certificate.Lost || e.State != ledger.Open {
					t.Errorf("%+v", e)
				}
				if n := w.logs.FilterMessageSnippet("getting a certificate failed").Len(); n == 0 {
					t.Error("nothing was logged")
				}
				time.Sleep(20 * day)
				if p.site.serving("example.com") == nil || w.reissued() != 0 || len(w.entries("example.com")) != 1 {
					t.Errorf("%d reissues, %d entries", w.reissued(), len(w.entries("example.com")))
				}
				w.wantCharges(1)
				// A person who gives the order up gets another one, although the old certificate is
				// not due.
				w.resolve(operator.Action{About: "example.com", None: true})
				w.until(2*day, "another one is bought", func() bool { return p.good("example.com") })
				w.wantCharges(2)
				w.noSecrets()
			})
		}
	}
}

// replacing allows buying again what the vendor has ended.
func replacing(f *flow) { f.rules.replaceEnded = true }

// ended returns the servers of a world with one name, whose order ended after some days.
func (w *world) ended(v int, servers int, status string, fuses func(int) *fuse, change func(*flow)) []*process {
	w.tb.Helper()
	var list []*process
	for i := range servers {
		p := vendorKinds[v].start(w, fuses(i), all(quickly, watching, change))
		p.configure("example.com")
		p.untilServed(day, "example.com")
		list = append(list, p)
	}
	time.Sleep(2 * day)
	if _, err := w.ca.EndAll(status); err != nil {
		w.tb.Fatal(err)
	}
	return list
}

func noFuse(int) *fuse { return nil }

// TestEndedOrderIsBoughtAgain: if the config allows it, an order that the vendor has ended is bought
// again, once, however many servers there are, and whatever becomes of the answer.
func TestEndedOrderIsBoughtAgain(t *testing.T) {
	tooSlowForRaces(t)
	for i, v := range vendorKinds {
		for _, status := range []string{hostile.StatusRevoked, hostile.StatusCancelled} {
			for _, servers := range []int{1, 3} {
				for _, lost := range []bool{false, true} {
					if lost && v.blind {
						continue // then a person must decide
					}
					inBubble(t, fmt.Sprintf("%s, %s, %d servers, lost answers %v", v.name, status, servers, lost), func(t *testing.T) {
						w := newWorld(t, nil)
						list := w.ended(i, servers, status, noFuse, replacing)
						if lost {
							w.ca.Inject(hostile.Fault{Endpoint: v.pay, Phase: hostile.AfterEffect, Kind: hostile.Reset, Times: 1})
						}
						ended := time.Now()
						for _, p := range list {
							w.until(6*time.Hour, "it is served", func() bool { return p.good("example.com") })
						}
						if took := time.Since(ended); took < replaceAfter {
							t.Errorf("it took %s", took)
						}
						w.wantCharges(2)
						time.Sleep(20 * day)
						w.wantCharges(2)
						w.allKnown()
						if e := w.entry("example.com"); e.GivenUp || len(w.entries("example.com")) != 2 || !w.entries("example.com")[1].GivenUp {
							t.Errorf("%+v", w.states("example.com"))
						}
					})
				}
			}
		}
	}
}

// TestEndedOrderIsBoughtAgainOnce: an order that replaced one that had ended is not bought again
// when it ends, too, however often the vendor ends orders.
func TestEndedOrderIsBoughtAgainOnce(t *testing.T) {
	tooSlowForRaces(t)
	for i, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			list := w.ended(i, 2, hostile.StatusCancelled, noFuse, replacing)
			w.until(6*time.Hour, "it is served", func() bool { return list[0].good("example.com") && list[1].good("example.com") })
			for range 3 {
				time.Sleep(2 * day)
				if _, err := w.ca.EndAll(hostile.StatusCancelled); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(20 * day)
			w.wantCharges(2)
			if e := w.entry("example.com"); e.Flag == nil || !e.Flag.Ended || e.GivenUp {
				t.Errorf("%+v", e)
			}
		})
	}
}

// spell is how long something lasts. The zero value is over.
type spell struct{ until atomic.Pointer[time.Time] }

func (s *spell) set(until time.Time) { s.until.Store(&until) }

func (s *spell) lasts() bool {
	until := s.until.Load()
	return until != nil && time.Now().Before(*until)
}

// moody is a vendor that claims for a while that all orders have ended.
type moody struct {
	vendors.Vendor
	vendors.Reissuer
	vendors.Finder
	until *spell
	says  vendors.Status

	flickers bool // whether it says so only half of the time, and reports no status in between
}

func (v moody) Status(ctx context.Context, id string) (vendors.Order, error) {
	if v.flickers && v.until.lasts() && time.Now().Minute()%20 < 10 {
		return vendors.Order{ID: id, RawStatus: "busy"}, nil
	}
	if v.until.lasts() {
		return vendors.Order{ID: id, Status: v.says, RawStatus: string(v.says)}, nil
	}
	return v.Vendor.Status(ctx, id)
}

// moodyOf makes any kind of vendor moody.
func moodyOf(v vendors.Vendor, until *spell, says vendors.Status, flickers bool) vendors.Vendor {
	m := moody{v, v.(vendors.Reissuer), v.(vendors.Finder), until, says, flickers}
	if p, ok := v.(vendors.Preparer); ok {
		return struct {
			moody
			vendors.Preparer
			vendors.Predictor
		}{m, p, v.(vendors.Predictor)}
	}
	return m
}

// TestVendorThatSaysSoForAMoment: a vendor that reports the end of a good order costs nothing if it
// does so for less than an hour, with interruptions, or with a status that is not clearly an end.
// The order stays in use once the vendor reports otherwise.
func TestVendorThatSaysSoForAMoment(t *testing.T) {
	tooSlowForRaces(t)
	revoked, cancelled := vendors.StatusRevoked, vendors.StatusCancelled
	rejected, expired, replaced := vendors.StatusRejected, vendors.StatusExpired, vendors.StatusReplaced
	for _, v := range vendorKinds {
		for _, c := range []struct {
			says     []vendors.Status
			lasting  time.Duration
			flickers bool
		}{
			{[]vendors.Status{revoked, cancelled, rejected, expired, replaced}, time.Minute, false},
			{[]vendors.Status{revoked, cancelled}, 55 * time.Minute, false},
			{[]vendors.Status{revoked, cancelled}, 2 * day, true},
			{[]vendors.Status{rejected, expired, replaced}, 5 * day, false},
		} {
			for _, says := range c.says {
				inBubble(t, fmt.Sprintf("%s %s for %s", v.name, says, c.lasting), func(t *testing.T) {
					w := newWorld(t, nil)
					until := new(spell)
					p := v.start(w, nil, all(quickly, watching, replacing, func(f *flow) { f.vendor = moodyOf(f.vendor, until, says, c.flickers) }))
					p.configure("example.com")
					p.untilServed(day, "example.com")
					time.Sleep(2 * day)
					until.set(time.Now().Add(c.lasting))
					time.Sleep(c.lasting + 10*day)
					if e := w.entry("example.com"); e.Flag != nil || e.State != ledger.Issued || !p.good("example.com") {
						t.Errorf("%s, %+v, %s", e.State, e.Flag, e.Problem)
					}
					w.wantCharges(1)
				})
			}
		}
	}
}

// TestRevokedKeyIsNotCertifiedAgain: when certmagic asks for a certificate for the key of a revoked
// one, it gets none. The name gets one for a new key.
func TestRevokedKeyIsNotCertifiedAgain(t *testing.T) {
	for _, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, func(c *hostile.Config) { c.IssueDelay = 10 * time.Minute })
			p := v.start(w, nil, quickly)
			p.configure("example.com")
			p.untilServed(day, "example.com")
			_, key, err := p.site.load(t.Context(), "example.com")
			if err != nil {
				t.Fatal(err)
			}
			w.revoke("example.com")
			if err := p.inspect(t.Context(), w.entry("example.com").ID); err != nil {
				t.Fatal(err)
			}
			if _, err := p.attemptWith(t.Context(), "example.com", key.(*ecdsa.PrivateKey)); err == nil {
				t.Error("it got a certificate")
			}
			w.until(day, "it is replaced", func() bool { return p.good("example.com") })
			if got := p.site.serving("example.com").leaf(); key.(*ecdsa.PrivateKey).PublicKey.Equal(got.PublicKey) || w.reissued() != 1 {
				t.Errorf("the same key, or %d reissues", w.reissued())
			}
		})
	}
}

// TestRevokedKeyIsNotPaidFor: no other order is paid for with the key of a revoked certificate
// either, when its order has ended.
func TestRevokedKeyIsNotPaidFor(t *testing.T) {
	for i, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			p := w.ended(i, 1, hostile.StatusRevoked, noFuse, replacing)[0]
			_, key, err := p.site.load(t.Context(), "example.com")
			if err != nil {
				t.Fatal(err)
			}
			w.until(3*time.Hour, "the entry is flagged", func() bool { return w.entry("example.com").Flag != nil })
			if _, err := p.attemptWith(t.Context(), "example.com", key.(*ecdsa.PrivateKey)); err == nil {
				t.Error("it got a certificate")
			}
			w.until(6*time.Hour, "it is served", func() bool { return p.good("example.com") })
			if got := p.site.serving("example.com").leaf(); key.(*ecdsa.PrivateKey).PublicKey.Equal(got.PublicKey) {
				t.Error("it is for the key that was revoked")
			}
			w.wantCharges(2)
		})
	}
}

// deaths runs what follows the setup of a world once for each contact of a server with the rest of
// it, and the server dies there. Every other time, another server is running all along.
func deaths(t *testing.T, v int, change func(*flow), happens func(*world), want func(*world, string)) {
	t.Helper()
	run := func(n int, point string) (points []string) {
		inBubble(t, fmt.Sprintf("%s %d", vendorKinds[v].name, n), func(t *testing.T) {
			w := newWorld(t, nil)
			f := &fuse{left: -1}
			start := func(f *fuse) *process {
				p := vendorKinds[v].start(w, f, all(quickly, watching, change))
				p.configure("example.com")
				return p
			}
			p := start(f)
			p.untilServed(day, "example.com")
			var other *process
			if n%2 == 1 {
				other = start(nil)
			}
			time.Sleep(day)
			happens(w)
			f.mu.Lock()
			before := len(f.points)
			if n >= 0 {
				f.left = f.seen + n
			}
			f.mu.Unlock()
			w.until(3*day, "it is replaced, or the server dies", func() bool { return p.good("example.com") || f.burnt() })
			time.Sleep(time.Minute)
			if f.burnt() {
				p.stop()
				if p = other; p == nil {
					p = start(nil)
				}
			}
			w.until(3*day, "it is replaced", func() bool { return p.good("example.com") })
			time.Sleep(2 * day)
			want(w, point)
			w.noSecrets()
			f.mu.Lock()
			defer f.mu.Unlock()
			points = f.points[before:]
		})
		return points
	}
	calls := make(map[string]int) // since the last write
	for n, point := range run(-1, "") {
		if strings.Contains(point, "entries/") {
			clear(calls)
		}
		if calls[point]++; calls[point] > 2 || n%raceStride != 0 {
			continue
		}
		run(n, point)
	}
}

// TestDeathWhileReplacing: a server that dies at any moment of a replacement leaves it to others.
// That costs no money, and no second reissue.
func TestDeathWhileReplacing(t *testing.T) {
	tooSlowForRaces(t)
	for i := range vendorKinds {
		deaths(t, i, func(*flow) {}, func(w *world) { w.revoke("example.com") }, func(w *world, point string) {
			w.wantCharges(1)
			if n := w.reissued(); n != 1 {
				w.tb.Errorf("%d reissues after a death %s", n, point)
			}
		})
	}
}

// TestDeathWhileBuyingAgain: a server that dies while an order is bought again leaves that to
// others. It is bought once.
func TestDeathWhileBuyingAgain(t *testing.T) {
	tooSlowForRaces(t)
	for i := range vendorKinds {
		if vendorKinds[i].blind {
			continue // a person has to check after some deaths
		}
		end := func(w *world) {
			if _, err := w.ca.EndAll(hostile.StatusCancelled); err != nil {
				w.tb.Fatal(err)
			}
		}
		deaths(t, i, replacing, end, func(w *world, point string) {
			w.wantCharges(2)
			if w.charges() != 2 {
				w.tb.Errorf("after a death %s", point)
			}
			w.allKnown()
		})
	}
}

// TestLostAnswersWhileReplacing: answers that are lost during a replacement cost nothing.
func TestLostAnswersWhileReplacing(t *testing.T) {
	for _, v := range vendorKinds {
		for _, call := range []string{v.reissue, v.status} {
			for _, phase := range []hostile.Phase{hostile.BeforeEffect, hostile.AfterEffect} {
				inBubble(t, fmt.Sprint(v.name, call, phase), func(t *testing.T) {
					w := newWorld(t, nil)
					p := v.start(w, nil, all(quickly, watching))
					p.configure("example.com")
					p.untilServed(day, "example.com")
					time.Sleep(day)
					w.revoke("example.com")
					for _, kind := range []hostile.FaultKind{hostile.Reset, hostile.HTML, hostile.BadJSON} {
						w.ca.Inject(hostile.Fault{Endpoint: call, Phase: phase, Kind: kind, Times: 2})
					}
					w.until(day, "it is replaced", func() bool { return p.good("example.com") })
					if n := w.reissued(); n != 1 {
						t.Errorf("%d reissues", n)
					}
					w.wantCharges(1)
				})
			}
		}
	}
}

func TestWatchIsOff(t *testing.T) {
	for _, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			p := v.start(w, nil, func(f *flow) { f.rules.watch = -1 })
			p.configure("example.com")
			p.untilServed(day, "example.com")
			time.Sleep(time.Hour)
			w.revoke("example.com")
			before := w.ca.Calls(v.status)
			time.Sleep(3 * day)
			if n := w.ca.Calls(v.status) - before; n != 0 || w.reissued() != 0 {
				t.Errorf("%d checks, %d reissues", n, w.reissued())
			}
			if w.storage.Exists(t.Context(), ledger.Prefix("racent", "test")+"/watch.json") {
				t.Error("the storage has turns")
			}
		})
	}
}

// TestOtherServerIsNoticedWithoutWatch: where issued orders are not looked at, a server serves what
// another one has got within half a day all the same, even if an entry cannot be read.
func TestOtherServerIsNoticedWithoutWatch(t *testing.T) {
	for name, content := range map[string]string{"all can be read": "", "one is damaged": `{"version": 2, "na`} {
		inBubble(t, name, func(t *testing.T) {
			w := newWorld(t, nil)
			a, b := w.start(nil, quickly), w.start(nil, quickly)
			names, ids := siteNames(5), make(map[string]string)
			for _, p := range []*process{a, b} {
				p.configure(names...)
				p.untilServed(day, names...)
			}
			time.Sleep(2 * day)
			for _, name := range names {
				ids[name] = w.entry(name).ID
			}
			if content != "" {
				if err := w.storage.Store(t.Context(), a.ledger.Prefix+"/entries/20000101t000000-0011223344556677.json", []byte(content)); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range names {
				if _, err := a.desk(true).Do(t.Context(), "renew", operator.Action{About: name, Confirm: true}); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(12*time.Hour + 10*time.Minute)
			for _, name := range names {
				e, err := a.ledger.Load(t.Context(), ids[name])
				if err != nil {
					t.Fatal(err)
				}
				if got := b.site.serving(name); e.Issued != 2 || serialOf(got.leaf()) != e.Certificate.Serial {
					t.Errorf("%s: %d certificates, and the other server does not serve the latest", name, e.Issued)
				}
			}
			w.wantCharges(len(names))
		})
	}
}

// TestServersShareLooks: servers share the checks, spread over the interval, and each of them serves
// the certificate that one of them got. That holds as long as their clocks agree; if not, orders are
// checked more often, and never less.
func TestServersShareLooks(t *testing.T) {
	tooSlowForRaces(t)
	const names = 30
	for _, v := range vendorKinds {
		for _, skew := range []time.Duration{0, time.Hour} {
			inBubble(t, fmt.Sprintf("%s, clocks apart by %s", v.name, skew), func(t *testing.T) {
				w := newWorld(t, nil)
				var servers []*process
				for i := range 3 {
					p := v.start(w, nil, all(quickly, watching, ahead(skew*time.Duration(i-1)), func(f *flow) { f.rules.spend.Orders = 1000 }))
					servers = append(servers, p)
					p.configure(siteNames(names)...)
					p.untilServed(day, siteNames(names)...)
				}
				time.Sleep(6 * time.Hour)
				before, most, last := w.ca.Calls(v.status), 0, w.ca.Calls(v.status)
				const hours = 5
				for range hours * 60 {
					time.Sleep(time.Minute)
					n := w.ca.Calls(v.status)
					most, last = max(most, n-last), n
				}
				looks := w.ca.Calls(v.status) - before
				if looks < names*hours || skew == 0 && looks > names*hours*7/5 || looks > 3*names*hours*7/5 || skew == 0 && most > names/4 {
					t.Errorf("%d checks of %d orders in %d hours, at most %d a minute", looks, names, hours, most)
				}
				if _, err := w.ca.RevokeAll(); err != nil {
					t.Fatal(err)
				}
				revoked := time.Now()
				for _, p := range servers {
					for _, name := range siteNames(names) {
						w.until(6*time.Hour, name, func() bool { return p.good(name) })
					}
				}
				if took := time.Since(revoked); took > 150*time.Minute {
					t.Errorf("it took %s", took)
				}
				if n := w.reissued(); n != names {
					t.Errorf("%d reissues", n)
				}
				w.wantCharges(names)
			})
		}
	}
}

// TestReplacedElsewhereIsTold: if somebody reissues an order elsewhere, that is reported once, by
// whichever server. The served certificate stays as it is.
func TestReplacedElsewhereIsTold(t *testing.T) {
	for _, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			var servers []*process
			for range 2 {
				p := v.start(w, nil, all(quickly, watching))
				p.configure("example.com")
				p.untilServed(day, "example.com")
				servers = append(servers, p)
			}
			time.Sleep(day)
			p := servers[0]
			key, err := p.site.NewKey()
			if err != nil {
				t.Fatal(err)
			}
			_, csr, err := p.requestFor(&errand{name: "example.com", want: wantFor(t, "example.com", key)}, []string{"example.com"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.vendor.(vendors.Reissuer).Reissue(t.Context(), w.entry("example.com").OrderID, vendors.OrderRequest{
				OrderConfig: p.order, Reference: "elsewhere", Names: []string{"example.com"}, CSR: csr, Unique: "elsewhere",
			}); err != nil {
				t.Fatal(err)
			}
			orders := w.ca.Orders()
			if err := w.ca.Approve(orders[len(orders)-1].ID, "example.com"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * day)
			if n := w.logs.FilterMessageSnippet("reissued elsewhere").Len(); n != 1 {
				t.Errorf("logged %d times", n)
			}
			for _, p := range servers {
				if !p.good("example.com") {
					t.Error("not served")
				}
			}
			if e := w.entry("example.com"); w.reissued() != 1 || e.State != ledger.Issued || e.Flag != nil || e.Problem == "" {
				t.Errorf("%d reissues, %+v", w.reissued(), e)
			}
			w.wantCharges(1)
		})
	}
}

// termed is a vendor that reports another end of the term for a while.
type termed struct {
	vendors.Vendor
	vendors.Reissuer
	vendors.Finder
	ends  *atomic.Pointer[time.Time]
	until *spell
}

func (v termed) Status(ctx context.Context, id string) (vendors.Order, error) {
	order, err := v.Vendor.Status(ctx, id)
	if v.until.lasts() {
		order.TermEnds = *v.ends.Load()
	}
	return order, err
}

// TestTermFollowsTheVendor: the end of the term is what the vendor reports: a later one at once, an
// earlier one if it is reported again, and never one in the past.
func TestTermFollowsTheVendor(t *testing.T) {
	tooSlowForRaces(t)
	for name, c := range map[string]struct {
		by, lasting time.Duration // from the moment of the change on
		follows     bool
	}{
		"later":                {500 * day, 90 * time.Minute, true},
		"earlier":              {300 * day, 27 * time.Hour, true},
		"earlier for a moment": {300 * day, 24 * time.Hour, false},
		"earlier, soon":        {10 * day, 24 * time.Hour, false},
		"past":                 {-day, 10 * day, false},
	} {
		inBubble(t, name, func(t *testing.T) {
			w := newWorld(t, nil)
			told, until := new(atomic.Pointer[time.Time]), new(spell)
			p := w.startDigiCert(nil, all(quickly, watching, func(f *flow) {
				f.vendor = termed{f.vendor, f.vendor.(vendors.Reissuer), f.vendor.(vendors.Finder), told, until}
			}))
			p.configure("example.com")
			p.untilServed(day, "example.com")
			time.Sleep(day)
			before := w.entry("example.com").Ends
			ends := time.Now().UTC().Add(c.by)
			told.Store(&ends)
			until.set(time.Now().Add(c.lasting))
			time.Sleep(c.lasting)
			if got := w.entry("example.com").Ends; got.Equal(ends) != c.follows || !got.Equal(ends) && !got.Equal(before) {
				t.Errorf("the term ends at %s", got)
			}
			time.Sleep(3 * day)
			if got := w.entry("example.com").Ends; !got.Equal(before) {
				t.Errorf("the term ends at %s for good", got)
			}
			w.wantCharges(1)
		})
	}
}

// TestLostClientAuthIsTold: a certificate that is for servers only, after one that was not, is
// reported once.
func TestLostClientAuthIsTold(t *testing.T) {
	for _, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, func(c *hostile.Config) { c.ClientAuth, c.Quirks.ServerAuthOnlyAgain = true, true })
			var servers []*process
			for range 2 {
				p := v.start(w, nil, all(quickly, watching))
				p.configure("example.com")
				p.untilServed(day, "example.com")
				servers = append(servers, p)
			}
			time.Sleep(day)
			told := func() int { return w.logs.FilterMessageSnippet("mTLS").Len() }
			if n := told(); n != 0 {
				t.Errorf("logged %d times before", n)
			}
			for range 2 {
				w.revoke("example.com")
				w.until(day, "it is replaced", func() bool { return servers[0].good("example.com") && servers[1].good("example.com") })
				if n := told(); n != 1 {
					t.Errorf("logged %d times", n)
				}
			}
		})
	}
}

// TestClientAuthEnds: from 2027-03-01 on, certificates are for servers only. That is reported with
// the first renewal.
func TestClientAuthEnds(t *testing.T) {
	tooSlowForRaces(t)
	for _, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			time.Sleep(time.Until(time.Date(2026, 12, 15, 0, 0, 0, 0, time.UTC)))
			w := newWorld(t, func(c *hostile.Config) { c.Calendar = true })
			p := v.start(w, nil, nil)
			stop := p.maintain(false)
			p.configure("example.com")
			p.untilServed(day, "example.com")
			told := func() int { return w.logs.FilterMessageSnippet("mTLS").Len() }
			time.Sleep(time.Until(time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)))
			if n := told(); n != 0 {
				t.Errorf("logged %d times before", n)
			}
			w.until(200*day, "it is logged", func() bool { return told() > 0 })
			time.Sleep(100 * day)
			if n := told(); n != 1 {
				t.Errorf("logged %d times", n)
			}
			p.untilServed(0, "example.com")
			w.wantCharges(1)
			stop()
		})
	}
}

// TestCertificatesThatAreAlwaysRevoked: a CA that revokes every certificate it issues is not asked
// for more and more of them.
func TestCertificatesThatAreAlwaysRevoked(t *testing.T) {
	tooSlowForRaces(t)
	for _, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			p := v.start(w, nil, all(quickly, watching))
			p.configure("example.com")
			p.untilServed(day, "example.com")
			time.Sleep(day)
			for range 20 * 24 * 4 {
				if _, err := w.ca.RevokeAll(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(15 * time.Minute)
			}
			if n := w.reissued(); n > 110 {
				t.Errorf("%d reissues in 20 days", n)
			}
			if p.site.serving("example.com") == nil {
				t.Error("not served")
			}
			w.wantCharges(1)
		})
	}
}

// TestRevokedCertificateOfAGroup: all names of an order get the certificate that replaces the
// revoked one.
func TestRevokedCertificateOfAGroup(t *testing.T) {
	for _, v := range vendorKinds {
		if v.group == "" {
			continue
		}
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			names := []string{"example.com", "example.net", "example.org"}
			p := v.start(w, nil, all(group(names...), quickly, watching, func(f *flow) { f.order.Product = v.group }))
			p.configure(names...)
			p.untilServed(day, names...)
			time.Sleep(day)
			w.revoke(names[1])
			for _, name := range names {
				w.until(2*time.Hour, name, func() bool { return p.good(name) })
			}
			if n := w.reissued(); n != 1 {
				t.Errorf("%d reissues", n)
			}
			w.wantCharges(1)
		})
	}
}

// erring is a vendor for which a test decides the result of a check. Nil leaves it to the vendor.
type erring struct {
	vendors.Vendor
	vendors.Reissuer
	vendors.Finder
	mu   sync.Mutex
	look func(id string) (*vendors.Order, error)
}

func (v *erring) Status(ctx context.Context, id string) (vendors.Order, error) {
	v.mu.Lock()
	look := v.look
	v.mu.Unlock()
	if look != nil {
		if order, err := look(id); order != nil || err != nil {
			return *cmp.Or(order, &vendors.Order{}), err
		}
	}
	return v.Vendor.Status(ctx, id)
}

// in makes the flow use it.
func (v *erring) in(f *flow) {
	v.Vendor, v.Reissuer, v.Finder = f.vendor, f.vendor.(vendors.Reissuer), f.vendor.(vendors.Finder)
	f.vendor = v
}

// answers sets the result of checks.
func (v *erring) answers(look func(id string) (*vendors.Order, error)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.look = look
}

// TestWatchOutlivesAPanic: a panic during a check ends neither the process nor the checks.
func TestWatchOutlivesAPanic(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w, v := newWorld(t, nil), new(erring)
		p := w.start(nil, all(quickly, watching, v.in))
		p.configure("example.com")
		p.untilServed(day, "example.com")
		time.Sleep(day)
		until, id := time.Now().Add(3*time.Hour), w.entry("example.com").OrderID
		v.answers(func(string) (*vendors.Order, error) {
			if time.Now().Before(until) {
				panic("out of order")
			}
			return nil, nil
		})
		w.revoke("example.com")
		w.until(6*time.Hour, "it is replaced", func() bool { return p.good("example.com") })
		told := w.logs.FilterMessageSnippet("panic while looking at an order")
		if n := told.FilterField(zap.String("order_id", id)).Len(); n == 0 || n > 3 {
			t.Errorf("it is logged %d times in 3 hours", n)
		}
	})
}

// unknown is a vendor's answer about an order that it no longer has.
func unknown() error {
	return &vendors.Error{Endpoint: "status", Verdict: vendors.Permanent, Err: vendors.ErrNotFound}
}

// TestWatchGoesOnAfterASuspect: an order that the vendor has reported as ended, and about which it
// then reports nothing, does not keep the others from being checked.
func TestWatchGoesOnAfterASuspect(t *testing.T) {
	for name, failure := range map[string]error{
		"unknown": unknown(), "out of order": &vendors.Error{Endpoint: "status", Verdict: vendors.Retryable, Err: errors.New("503")},
	} {
		inBubble(t, name, func(t *testing.T) {
			w, v := newWorld(t, nil), new(erring)
			p := w.start(nil, all(quickly, watching, v.in))
			p.configure("bad.example.com", "good.example.com")
			p.untilServed(day, "bad.example.com", "good.example.com")
			time.Sleep(2 * day)
			bad, looks := w.entry("bad.example.com"), 0
			v.answers(func(id string) (*vendors.Order, error) {
				if id != bad.OrderID {
					return nil, nil
				}
				if looks++; looks > 1 {
					return nil, failure
				}
				return &vendors.Order{ID: id, Status: vendors.StatusCancelled, RawStatus: "cancelled"}, nil
			})
			time.Sleep(3 * time.Hour)
			w.revoke("good.example.com")
			w.until(2*time.Hour, "it is replaced", func() bool { return p.good("good.example.com") })
			if due := p.account.suspects.due(); errors.Is(failure, vendors.ErrNotFound) == slices.Contains(due, bad.ID) {
				t.Errorf("the suspects are %v", due)
			}
			w.wantCharges(2)
		})
	}
}

// TestWatchGoesOnAfterUnknownOrders: orders that the vendor no longer knows, or that cannot be
// checked, however many, do not keep the others from being checked.
func TestWatchGoesOnAfterUnknownOrders(t *testing.T) {
	tooSlowForRaces(t)
	for title, look := range map[string]func() (*vendors.Order, error){
		"unknown": func() (*vendors.Order, error) { return nil, unknown() },
		"panic":   func() (*vendors.Order, error) { panic("out of order") },
	} {
		inBubble(t, title, func(t *testing.T) {
			const n, moved = 120, 100
			w, v := newWorld(t, nil), new(erring)
			p := w.start(nil, all(quickly, watching, v.in, func(f *flow) { f.rules.spend.Orders = 2 * n }))
			names := siteNames(n)
			p.configure(names...)
			p.untilServed(day, names...)
			time.Sleep(2 * day)
			gone := make(map[string]bool)
			for _, name := range names[:moved] {
				gone[w.entry(name).OrderID] = true
			}
			v.answers(func(id string) (*vendors.Order, error) {
				if gone[id] {
					return look()
				}
				return nil, nil
			})
			p.replacedAfterRevocation(3*time.Hour, names[moved:])
			w.wantCharges(n)
		})
	}
}

// replacedAfterRevocation revokes all certificates, and fails unless those of the names are replaced
// in time.
func (p *process) replacedAfterRevocation(within time.Duration, names []string) {
	p.w.tb.Helper()
	if _, err := p.w.ca.RevokeAll(); err != nil {
		p.w.tb.Fatal(err)
	}
	revoked := time.Now()
	for _, name := range names {
		p.w.until(within-time.Since(revoked), name, func() bool { return p.good(name) })
	}
}

// TestWatchOutlivesReloads: however often the configuration is reloaded, all orders are checked, if
// later.
func TestWatchOutlivesReloads(t *testing.T) {
	tooSlowForRaces(t)
	const n = 40
	for every, within := range map[time.Duration]time.Duration{
		20 * time.Second: 4 * time.Hour, 90 * time.Second: 4 * time.Hour, 4 * time.Minute: 4 * time.Hour, 6 * time.Minute: 4 * time.Hour,
	} {
		inBubble(t, every.String(), func(t *testing.T) {
			w := newWorld(t, nil)
			p := w.start(nil, all(quickly, watching, func(f *flow) { f.rules.spend.Orders = 2 * n }))
			names := siteNames(n)
			p.configure(names...)
			p.untilServed(day, names...)
			time.Sleep(day)
			if _, err := w.ca.RevokeAll(); err != nil {
				t.Fatal(err)
			}
			bad := func(name string) bool { return !p.good(name) }
			revoked := time.Now()
			for time.Since(revoked) < within && slices.ContainsFunc(names, bad) {
				p.reload(func(*flow) {})
				time.Sleep(every)
			}
			t.Logf("it took %s", time.Since(revoked))
			if left := slices.DeleteFunc(names, p.good); len(left) > 0 {
				t.Errorf("%d of %d revoked certificates are served after %s", len(left), n, within)
			}
			w.wantCharges(n)
		})
	}
}

// movedSites is a prover that fails for some names.
type movedSites struct {
	proof.Prover
	names *[]string
}

func (m movedSites) Wait(ctx context.Context, p proof.Proof) error {
	if slices.Contains(*m.names, p.Names[0]) {
		return errors.New("the site is elsewhere")
	}
	return m.Prover.Wait(ctx, p)
}

// TestReplacementsThatCannotBegin: sites that lead elsewhere by now do not keep the revoked
// certificates of others from being replaced.
func TestReplacementsThatCannotBegin(t *testing.T) {
	tooSlowForRaces(t)
	inBubble(t, "", func(t *testing.T) {
		const n, dead = 60, 30
		w, gone := newWorld(t, nil), []string(nil)
		p := w.start(nil, all(quickly, watching, func(f *flow) {
			f.about.Pace.Watch = replaceShare / minReplacements // the fewest at a time
			f.prove = movedSites{f.prove, &gone}
			f.rules.spend.Orders = 2 * n
		}))
		names := siteNames(n)
		p.configure(names...)
		p.untilServed(day, names...)
		time.Sleep(day)
		gone = names[:dead]
		p.replacedAfterRevocation(3*time.Hour, names[dead:])
		w.wantCharges(n)
	})
}

// TestReissueThatIsTakenBack: a reissue that somebody takes back while it waits for the settle time
// is not sent.
func TestReissueThatIsTakenBack(t *testing.T) {
	for _, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			p := v.start(w, nil, all(quickly, watching))
			p.configure("example.com")
			p.untilServed(day, "example.com")
			p.reload(func(f *flow) { f.rules.settle = 10 * time.Minute })
			time.Sleep(day)
			w.revoke("example.com")
			w.until(3*time.Hour, "it is requested", func() bool { return w.state("example.com") == ledger.Asked })
			other := *p.ledger
			other.Memory = new(ledger.Memory)
			if _, err := other.Write(t.Context(), w.entry("example.com"), func(e *ledger.Entry) { e.State = ledger.Issued }); err != nil {
				t.Fatal(err)
			}
			taken := w.entry("example.com").Attempt.Reference
			w.until(day, "it is replaced", func() bool { return p.good("example.com") })
			if e := w.entry("example.com"); w.reissued() != 1 || e.Attempt.Reference == taken {
				t.Errorf("%d reissues, %+v", w.reissued(), e)
			}
			w.wantCharges(1)
		})
	}
}

// lagging is a vendor that takes a while for each answer.
type lagging struct {
	http.RoundTripper
	takes *atomic.Int64 // a duration
}

func (l lagging) RoundTrip(r *http.Request) (*http.Response, error) {
	time.Sleep(time.Duration(l.takes.Load()))
	return l.RoundTripper.RoundTrip(r)
}

// TestSlowLooksAreInTime: answers that take longer than the time between two checks do not make the
// round longer than the interval.
func TestSlowLooksAreInTime(t *testing.T) {
	tooSlowForRaces(t)
	inBubble(t, "", func(t *testing.T) {
		const names, hours = 160, 2
		w := newWorld(t, nil)
		takes := new(atomic.Int64)
		w.through = func(next http.RoundTripper) http.RoundTripper { return lagging{next, takes} }
		p := w.start(nil, all(quickly, spendFreely, func(f *flow) { f.rules.watch = 4 * time.Minute }))
		p.configure(siteNames(names)...)
		p.untilServed(day, siteNames(names)...)
		takes.Store(int64(3 * time.Second)) // 1.2 s apart
		time.Sleep(time.Hour)
		before := w.ca.Calls("collect")
		time.Sleep(hours * time.Hour)
		if looks := w.ca.Calls("collect") - before; looks < names*hours*15 {
			t.Errorf("%d checks of %d orders in %d hours", looks, names, hours)
		}
	})
}

// TestFirstRoundIsInTime: what is revoked as soon as it is served is noticed within the interval.
func TestFirstRoundIsInTime(t *testing.T) {
	tooSlowForRaces(t)
	inBubble(t, "", func(t *testing.T) {
		const names = 64
		w := newWorld(t, nil)
		p := w.start(nil, all(quickly, watching, spendFreely))
		p.configure(siteNames(names)...)
		p.untilServed(day, siteNames(names)...)
		if _, err := w.ca.RevokeAll(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if n := w.events.count(eventRevoked); n < names {
			t.Errorf("%d of %d noticed", n, names)
		}
	})
}
