package issuer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// halfway is a vendor that has cancelled all orders but one, whose status it may fail to report.
type halfway struct {
	vendors.Vendor
	vendors.Reissuer
	vendors.Finder
	mu    sync.Mutex
	but   string // nothing is cancelled as long as it is empty
	blind bool
}

func (v *halfway) Status(ctx context.Context, id string) (vendors.Order, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.but != "" && id != v.but:
		return vendors.Order{ID: id, Status: vendors.StatusCancelled, RawStatus: "CANCELLED"}, nil
	case v.but != "" && v.blind:
		return vendors.Order{}, &vendors.Error{Endpoint: "collect", Verdict: vendors.Retryable, Err: errors.New("503")}
	}
	return v.Vendor.Status(ctx, id)
}

// TestEndedOrderIsNotItsReissue: a cancelled reissue does not end its order, which may be as good as
// before: nothing is bought in its place, and its certificate is still served.
func TestEndedOrderIsNotItsReissue(t *testing.T) {
	for _, blind := range []bool{false, true} {
		inBubble(t, fmt.Sprint("blind ", blind), func(t *testing.T) {
			w := newWorld(t, nil)
			v := &halfway{blind: blind}
			p := w.start(nil, all(quickly, watching, replacing, func(f *flow) {
				v.Vendor, v.Reissuer, v.Finder = f.vendor, f.vendor.(vendors.Reissuer), f.vendor.(vendors.Finder)
				f.vendor = v
			}))
			p.configure("example.com")
			p.untilServed(day, "example.com")
			time.Sleep(2 * day)
			v.mu.Lock()
			v.but = w.entry("example.com").OrderID
			v.mu.Unlock()
			go func() { _, _ = p.attempt(w.ctx, "example.com") }()
			w.until(3*time.Hour, "it is reissued", func() bool { return w.reissued() > 0 })
			time.Sleep(5 * day)
			if e := w.entry("example.com"); e.State == ledger.Gone || e.LostCertificate() || !p.good("example.com") {
				t.Errorf("%s, %+v", e.State, e.Certificate)
			}
			w.wantCharges(1)
		})
	}
}

// forbidden is a vendor whose credential is not allowed to request reissues for a while.
type forbidden struct {
	vendors.Vendor
	vendors.Reissuer
	vendors.Finder
	until *spell
}

func (v forbidden) Reissue(ctx context.Context, id string, req vendors.OrderRequest) (vendors.Order, error) {
	if v.until.lasts() {
		return vendors.Order{}, &vendors.Error{Endpoint: "reissue", Verdict: vendors.Permanent, Err: vendors.ErrCredential}
	}
	return v.Reissuer.Reissue(ctx, id, req)
}

// TestRevokedCertificateThatMayNotBeReissued: if a credential is not allowed to reissue an order
// whose certificate was revoked, the order stays active nevertheless, and is reissued once that is
// allowed.
func TestRevokedCertificateThatMayNotBeReissued(t *testing.T) {
	for _, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			until := new(spell)
			p := v.start(w, nil, all(quickly, watching, replacing, func(f *flow) {
				m := forbidden{f.vendor, f.vendor.(vendors.Reissuer), f.vendor.(vendors.Finder), until}
				if p, ok := f.vendor.(vendors.Preparer); ok {
					f.vendor = struct {
						forbidden
						vendors.Preparer
						vendors.Predictor
					}{m, p, f.vendor.(vendors.Predictor)}
				} else {
					f.vendor = m
				}
			}))
			p.configure("example.com")
			p.untilServed(day, "example.com")
			time.Sleep(2 * day)
			until.set(time.Now().Add(6 * time.Hour))
			w.revoke("example.com")
			w.until(2*day, "it is replaced", func() bool { return p.good("example.com") })
			w.wantCharges(1)
		})
	}
}

// TestEndedOrderIsGoodAsAPersonSays: a person who says that an order is good after all is not
// overruled by what the vendor said before. The vendor must repeat it for the full time.
func TestEndedOrderIsGoodAsAPersonSays(t *testing.T) {
	for i, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.ended(i, 1, hostile.StatusCancelled, noFuse, replacing)
			w.until(3*time.Hour, "the entry is flagged", func() bool { return w.entry("example.com").Flag != nil })
			time.Sleep(44 * time.Minute)
			w.resolve(operator.Action{About: "example.com", Order: w.entry("example.com").OrderID})
			time.Sleep(replaceAfter)
			w.wantCharges(1)
			w.until(5*time.Hour, "another one is bought", func() bool { return w.charges() == 2 })
		})
	}
}

// TestEndedOrdersBeyondTheLimit: a vendor that wrongly reports all orders as ended, for hours, does
// not sell more than the spending limit allows. The other orders stay in use once it reports them
// correctly.
func TestEndedOrdersBeyondTheLimit(t *testing.T) {
	tooSlowForRaces(t)
	const n, limit = 20, 4
	for _, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			until := new(spell)
			p := v.start(w, nil, all(quickly, watching, replacing, func(f *flow) {
				f.rules.spend.Orders, f.vendor = n, moodyOf(f.vendor, until, vendors.StatusCancelled, false)
			}))
			p.configure(siteNames(n)...)
			p.untilServed(day, siteNames(n)...)
			time.Sleep(2 * day)
			p.reload(func(f *flow) { f.rules.spend.Orders = limit })
			until.set(time.Now().Add(5 * time.Hour))
			time.Sleep(6 * time.Hour)
			given := len(p.account.ledger.GivenUp(time.Time{}))
			if given == 0 || given > limit {
				t.Errorf("%d orders were given up", given)
			}
			time.Sleep(5 * day)
			for _, name := range siteNames(n) {
				if e := w.entry(name); e.State != ledger.Issued || e.Flag != nil || !p.good(name) {
					t.Errorf("%s: %s, %+v", name, e.State, e.Flag)
				}
			}
			w.wantCharges(n + given)
		})
	}
}

// TestEndedOrderIsNotGivenUpForNothing: an order is not given up if nothing may be bought for its name.
func TestEndedOrderIsNotGivenUpForNothing(t *testing.T) {
	for i, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			p := w.ended(i, 1, hostile.StatusCancelled, noFuse, replacing)[0]
			p.site.mu.Lock()
			p.site.strange = map[string]bool{"example.com": true} // by now only handshakes bring it up, and those may not order
			p.site.mu.Unlock()
			time.Sleep(5 * time.Hour)
			if e := w.entry("example.com"); e.GivenUp || e.Flag == nil {
				t.Errorf("%s, %+v", e.State, e.Flag)
			}
			w.wantCharges(1)
		})
	}
}

// regretful is a vendor that takes it back as soon as orders that it reported as ended are given up.
type regretful struct {
	moody
	w *world
}

func (v regretful) Status(ctx context.Context, id string) (vendors.Order, error) {
	for _, e := range v.w.entries("example.com") {
		if e.GivenUp {
			v.until.set(time.Time{})
		}
	}
	return v.moody.Status(ctx, id)
}

// TestEndedOrderThatLivesAfterAll: the status of an order that was given up is checked once more
// before another one is paid for.
func TestEndedOrderThatLivesAfterAll(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		until := new(spell)
		p := w.start(nil, all(quickly, watching, replacing, func(f *flow) {
			f.vendor = regretful{moodyOf(f.vendor, until, vendors.StatusCancelled, false).(moody), w}
		}))
		p.configure("example.com")
		p.untilServed(day, "example.com")
		time.Sleep(2 * day)
		until.set(time.Now().Add(day))
		w.until(5*time.Hour, "it is given up and then used again", func() bool { return !until.lasts() && w.state("example.com") == ledger.Issued })
		time.Sleep(2 * day)
		if e := w.entry("example.com"); e.GivenUp || e.Flag != nil || e.LostCertificate() || !p.good("example.com") || len(w.entries("example.com")) != 1 {
			t.Errorf("%s, %+v", e.State, e)
		}
		w.wantCharges(1)
	})
}
