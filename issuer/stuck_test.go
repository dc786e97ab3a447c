package issuer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/racent"
)

// TestReusedKeys: with reuse_private_keys the same key comes again. The certificate that is returned
// must be another one nevertheless, long before the old one ends.
func TestReusedKeys(t *testing.T) {
	for _, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			p := v.start(w, nil, nil)
			stop := p.maintain(true)
			first := p.mustObtain("example.com")
			time.Sleep(time.Until(first.leaf().NotAfter.Add(-60 * day)))
			second := p.site.serving("example.com")
			if second.leaf().Equal(first.leaf()) {
				t.Fatal("60 days before its end, the old certificate is served")
			}
			if !first.leaf().PublicKey.(interface{ Equal(crypto.PublicKey) bool }).Equal(second.leaf().PublicKey) {
				t.Error("the key was not reused")
			}
			w.wantCharges(1)
			stop()
		})
	}
	// Somebody forces a renewal while the certificate is good.
	inBubble(t, "forced", func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, nil)
		first := p.mustObtain("example.com")
		_, key, err := p.site.load(t.Context(), "example.com")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = p.attemptWith(t.Context(), "example.com", key.(*ecdsa.PrivateKey))
		w.until(day, "another certificate is served", func() bool { return !p.site.serving("example.com").leaf().Equal(first.leaf()) })
		w.wantCharges(1)
	})
}

// TestPaidOrderIsFollowed: a paid order is followed to its certificate, whatever the vendor says
// meanwhile, and nobody has to ask for it.
func TestPaidOrderIsFollowed(t *testing.T) {
	for name, fault := range map[string]hostile.Fault{
		"refused once":          {Endpoint: "collect", Kind: hostile.APICode, Code: 400, Errors: "ip not allowed", Times: 1},
		"refused many times":    {Endpoint: "collect", Kind: hostile.APICode, Code: 400, Errors: "ip not allowed", Times: 20},
		"unknown a few times":   {Endpoint: "collect", Kind: hostile.APICode, Code: -1, Errors: "certId is invalid", Times: 3},
		"unknown for long":      {Endpoint: "collect", Kind: hostile.APICode, Code: -1, Errors: "certId is invalid", Times: 8},
		"wrong state":           {Endpoint: "collect", Kind: hostile.APICode, Code: -7, Errors: "no", Times: 9},
		"HTML":                  {Endpoint: "collect", Kind: hostile.HTML, Times: 30},
		"unauthorized":          {Endpoint: "collect", Kind: hostile.HTTPStatus, Status: 401, Times: 20},
		"not found, as a whole": {Endpoint: "collect", Kind: hostile.HTTPStatus, Status: 404, Times: 20},
		"retry after years":     {Endpoint: "collect", Kind: hostile.HTTPStatus, Status: 429, RetryAfter: "99999999", Times: 2},
	} {
		inBubble(t, name, func(t *testing.T) {
			w := newWorld(t, func(c *hostile.Config) { c.IssueDelay = 24 * time.Hour })
			p := w.start(nil, quickly)
			p.configure("example.com")
			time.Sleep(12 * time.Hour)
			w.ca.Inject(fault)
			p.untilServed(12*day, "example.com")
			w.wantCharges(1)
		})
	}
}

// TestBlockedAccount: if the account is blocked for a day while an order is paid and pending, the
// order is still followed.
func TestBlockedAccount(t *testing.T) {
	for _, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, func(c *hostile.Config) { c.IssueDelay = 12 * time.Hour })
			p := v.start(w, nil, quickly)
			p.configure("example.com")
			w.until(time.Minute, "it is paid", func() bool { return w.charges() == 1 })
			unblock := w.ca.Inject(hostile.Fault{Kind: hostile.HTTPStatus, Status: 403})
			time.Sleep(day)
			unblock()
			p.untilServed(day, "example.com")
			w.wantCharges(1)
		})
	}
}

// TestTwinBuysWhenItsOrderEnds: an order that covers the twin, and that is within its margin or
// over, does not keep the twin from getting an order of its own.
func TestTwinBuysWhenItsOrderEnds(t *testing.T) {
	tooSlowForRaces(t)
	for _, after := range []time.Duration{345 * day, 370 * day, 800 * day} {
		inBubble(t, after.String(), func(t *testing.T) {
			w := newWorld(t, nil)
			p := w.start(nil, nil)
			p.mustObtain("example.com")
			p.stop()
			time.Sleep(after)
			p = w.start(nil, nil)
			p.configure("www.example.com")
			p.untilServed(day, "www.example.com")
			if after > 365*day {
				w.wantCharges(2)
			}
			// The order that covered it ends, and certmagic renews what it has.
			stop := p.maintain(false)
			time.Sleep(300 * day)
			p.untilServed(0, "www.example.com")
			w.wantCharges(2)
			stop()
		})
	}
}

// TestTwinOutlivesItsOrder: the twin stays served when the apex, whose order covered it, leaves the
// configuration.
func TestTwinOutlivesItsOrder(t *testing.T) {
	tooSlowForRaces(t)
	for _, clip := range []bool{false, true} {
		inBubble(t, "", func(t *testing.T) {
			w := newWorld(t, func(c *hostile.Config) { c.Quirks.ClipToTerm = clip })
			p := w.start(nil, nil)
			p.mustObtain("example.com")
			p.mustObtain("www.example.com")
			p.stop()
			p = w.start(nil, nil)
			synctest.Wait()
			p.site.deny = map[string]bool{"example.com": true}
			stop := p.maintain(false)
			p.configure("www.example.com")
			for range 450 {
				time.Sleep(day)
				p.untilServed(0, "www.example.com")
			}
			w.wantCharges(2)
			stop()
		})
	}
}

// TestHoldAndTwin: what earlier attempts left behind does not keep a name from the certificate that
// its twin's order covers.
func TestHoldAndTwin(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		w.ca.Inject(hostile.Fault{Endpoint: "place", Kind: hostile.HTML, Times: 3})
		p := w.start(nil, quickly)
		p.configure("example.com")
		w.until(2*day, "the name is held", func() bool { return len(w.states("example.com")) >= 3 })
		p.configure("www.example.com")
		p.untilServed(8*time.Hour, "www.example.com", "example.com")
		if w.charges() > 2 {
			w.wantCharges(2)
		}
	})
}

// TestTwinLeftBehind: whatever became of the twin's order, a name waits for it no longer than a day,
// even if the twin is no longer configured.
func TestTwinLeftBehind(t *testing.T) {
	for name, c := range map[string]struct {
		fault *hostile.Fault
		after func(w *world)
	}{
		"never arrived":    {fault: &hostile.Fault{Endpoint: "place", Kind: hostile.HTML, Times: 1}},
		"answer lost":      {fault: &hostile.Fault{Endpoint: "place", Phase: hostile.AfterEffect, Kind: hostile.HTML, Times: 1}},
		"pending for ever": {},
		"cancelled":        {after: func(w *world) { _ = w.ca.SetStatus(w.ca.Orders()[0].ID, hostile.StatusCancelled) }},
	} {
		inBubble(t, name, func(t *testing.T) {
			w := newWorld(t, func(c *hostile.Config) { c.IssueDelay = 300 * day })
			if c.fault != nil {
				w.ca.Inject(*c.fault)
			}
			p := w.start(nil, quickly)
			p.configure("example.com")
			time.Sleep(20 * time.Second)
			p.stop()
			if w.entry("example.com") == nil {
				t.Fatal("nothing was left behind")
			}
			if c.after != nil {
				c.after(w)
			}
			p = w.start(nil, quickly)
			synctest.Wait()
			p.site.deny = map[string]bool{"example.com": true}
			p.configure("www.example.com")
			time.Sleep(26 * time.Hour)
			if err := w.ca.Update(func(c *hostile.Config) { c.IssueDelay = 0 }); err != nil {
				t.Fatal(err)
			}
			p.untilServed(2*day, "www.example.com")
			for _, c := range w.ca.Charges()[1:] {
				if slices.Contains(c.Names, "example.com") {
					t.Error("bought for the twin that nobody wants")
				}
			}
		})
	}
}

// TestRefusedRenewal: if the vendor refuses to renew an order, a plain one follows in time.
func TestRefusedRenewal(t *testing.T) {
	tooSlowForRaces(t)
	for name, fault := range map[string]hostile.Fault{
		"state":   {Endpoint: "renew", Kind: hostile.APICode, Code: -5, Errors: "status does not allow"},
		"input":   {Endpoint: "renew", Kind: hostile.APICode, Code: -1, Errors: "renewId"},
		"product": {Endpoint: "renew", Kind: hostile.APICode, Code: -3, Errors: "product"},
	} {
		inBubble(t, name, func(t *testing.T) {
			w := newWorld(t, func(c *hostile.Config) { c.Quirks.ClipToTerm = true })
			w.ca.Inject(fault)
			p := w.start(nil, nil)
			stop := p.maintain(false)
			p.mustObtain("example.com")
			for d := range 410 {
				time.Sleep(day)
				p.untilServed(0, "example.com")
				if d == 345 {
					// The old order is no longer usable.
					w.ca.Inject(hostile.Fault{Endpoint: "replace", Kind: hostile.APICode, Code: -5, Errors: "status does not allow"})
				}
			}
			w.wantCharges(2)
			if w.ca.Calls("renew") == 0 || w.ca.Calls("renew") > 2 {
				t.Errorf("renew was called %d times", w.ca.Calls("renew"))
			}
			stop()
		})
	}
}

// TestLostRenewal: a renewal whose answer is lost is looked up like any other order, while the
// previous one still serves. One that never arrived is bought when it is needed.
func TestLostRenewal(t *testing.T) {
	tooSlowForRaces(t)
	for _, phase := range []hostile.Phase{hostile.BeforeEffect, hostile.AfterEffect} {
		inBubble(t, "", func(t *testing.T) {
			w := newWorld(t, nil)
			w.ca.Inject(hostile.Fault{Endpoint: "renew", Phase: phase, Kind: hostile.Reset, Times: 1})
			p := w.start(nil, nil)
			stop := p.maintain(false)
			p.mustObtain("example.com")
			time.Sleep(340 * day)
			p.mustObtain("example.com")
			time.Sleep(200 * day)
			p.untilServed(0, "example.com")
			w.wantCharges(2)
			w.allKnown()
			stop()
		})
	}
}

// TestOtherAccountWithoutLabel: after a change of account without a label, the orders of the
// previous account are unknown. The entry is flagged, and once a person says that there is no order,
// the name gets its certificate.
func TestOtherAccountWithoutLabel(t *testing.T) {
	const other = "another-token-of-the-tests"
	for _, issued := range []bool{true, false} {
		inBubble(t, "", func(t *testing.T) {
			w := newWorld(t, func(c *hostile.Config) {
				c.Accounts = append(c.Accounts, hostile.Account{Token: other, Balance: 1_000_000})
				if !issued {
					c.IssueDelay = 5 * day
				}
			})
			p := w.start(nil, quickly)
			p.configure("example.com")
			if issued {
				p.untilServed(day, "example.com")
			} else {
				w.until(day, "it is paid", func() bool { return w.charges() == 1 })
			}
			client, err := racent.New(racent.Config{
				Secret: other, Endpoint: "http://127.0.0.1:1/ssl", Timeout: 30 * time.Second, Logger: w.logger,
				Transport: w.ca.Transport(), Description: p.about,
			}, racent.Options{})
			if err != nil {
				t.Fatal(err)
			}
			p.reload(func(f *flow) { f.vendor = client })
			stop := p.maintain(false)
			w.until(200*day, "the entry is flagged", func() bool { return w.entry("example.com").Flag != nil })
			w.wantCharges(1)
			w.resolve(operator.Action{About: "example.com", None: true})
			w.until(3*day, "it is bought from the other account", func() bool { return w.charges() == 2 })
			time.Sleep(6 * day)
			p.untilServed(0, "example.com")
			stop()
		})
	}
}

// TestResolvedOrderWithOtherKey: an order whose CSR is not the ledger's, and that a person names, is
// reissued.
func TestResolvedOrderWithOtherKey(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		id := w.orderElsewhere([]string{"example.com"}, nil)
		w.ca.Inject(hostile.Fault{Endpoint: "place", Kind: hostile.HTML, Times: 1})
		p := w.start(nil, func(f *flow) {
			quickly(f)
			f.vendor = noSearch{f.vendor}
		})
		p.configure("example.com")
		w.until(10*day, "the entry is flagged", func() bool { e := w.entry("example.com"); return e != nil && e.Flag != nil })
		w.resolve(operator.Action{About: "example.com", Order: id})
		p.untilServed(25*time.Hour, "example.com")
		w.wantCharges(1)
		if w.ca.Calls("replace") != 1 {
			t.Errorf("%d reissues", w.ca.Calls("replace"))
		}
	})
}

// noSearch is a vendor that cannot look orders up.
type noSearch struct{ vendors.Vendor }

func (v noSearch) Reissue(ctx context.Context, oldOrderID string, r vendors.OrderRequest) (vendors.Order, error) {
	return v.Vendor.(vendors.Reissuer).Reissue(ctx, oldOrderID, r)
}

// TestRevokedOrder: when the certificate of an order is revoked at the vendor while it is served, or
// between two certificates, the entry is flagged, and nothing is bought by itself.
func TestRevokedOrder(t *testing.T) {
	for _, status := range []string{hostile.StatusRevoked, hostile.StatusCancelled} {
		inBubble(t, status, func(t *testing.T) {
			w := newWorld(t, nil)
			p := w.start(nil, nil)
			stop := p.maintain(false)
			p.mustObtain("example.com")
			if err := w.ca.SetStatus(w.ca.Orders()[0].ID, status); err != nil {
				t.Fatal(err)
			}
			w.until(200*day, "the entry is flagged", func() bool { return w.entry("example.com").Flag != nil })
			w.wantCharges(1)
			w.resolve(operator.Action{About: "example.com", None: true})
			w.until(2*day, "another one is bought", func() bool { return w.charges() == 2 })
			p.untilServed(day, "example.com")
			stop()
		})
	}
}

// TestFoundOrderIsWatched: an order whose answer was lost is polled as closely as any other once it
// is found.
func TestFoundOrderIsWatched(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, func(c *hostile.Config) { c.IssueDelay = 8 * time.Hour })
		w.ca.Inject(hostile.Fault{Endpoint: "place", Phase: hostile.AfterEffect, Kind: hostile.Reset, Times: 1})
		broken := w.ca.Inject(hostile.Fault{Endpoint: "certIdByrefId", Kind: hostile.HTTPStatus, Status: 503})
		p := w.start(nil, quickly)
		p.configure("example.com")
		time.Sleep(4 * time.Hour)
		broken()
		w.until(7*time.Hour, "it is found", func() bool { return w.state("example.com") == ledger.Open })
		time.Sleep(time.Until(w.ca.Orders()[0].Created.Add(8*time.Hour + p.rules.pace.Slow + 15*time.Minute)))
		p.untilServed(0, "example.com")
	})
}

// TestForcedReissueOutlivesProcess: a reissue that somebody forced, and that outlives the process,
// is followed although the stored certificate is good.
func TestForcedReissueOutlivesProcess(t *testing.T) {
	for _, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			p := v.start(w, nil, quickly)
			first := p.mustObtain("example.com")
			if err := w.ca.Update(func(c *hostile.Config) { c.IssueDelay = 5 * time.Hour }); err != nil {
				t.Fatal(err)
			}
			_, _ = p.attempt(t.Context(), "example.com")
			time.Sleep(time.Minute)
			p.stop()
			p = v.start(w, nil, quickly)
			p.configure("example.com")
			time.Sleep(5*time.Hour + 2*p.rules.pace.Slow)
			if p.site.serving("example.com").leaf().Equal(first.leaf()) {
				t.Error("the old certificate is served")
			}
			w.wantCharges(1)
		})
	}
}

// TestLateOrderIsLeftAlone: an older order that gives its certificate late does not replace that of
// a newer one, and is not reissued over and over although nobody needs it.
func TestLateOrderIsLeftAlone(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, func(c *hostile.Config) { c.IssueDelay = 3 * day })
		p := w.start(nil, quickly)
		p.configure("example.com")
		time.Sleep(25 * time.Hour) // for a day, the order of its twin blocks it
		p.configure("www.example.com")
		time.Sleep(time.Hour)
		w.wantCharges(2)
		own := w.ca.Charges()[1].OrderID
		if err := w.ca.Update(func(c *hostile.Config) { c.IssueDelay = 27 * time.Hour }); err != nil {
			t.Fatal(err)
		}
		p.untilServed(10*day, "example.com", "www.example.com")
		time.Sleep(10 * day)
		if n := w.ca.Calls("replace"); n != 0 {
			t.Errorf("%d reissues that nobody needs", n)
		}
		serial := serialOf(p.site.serving("www.example.com").leaf())
		for _, e := range w.entries("www.example.com") {
			if e.Certificate.Serial == serial && e.RootID != own {
				t.Errorf("www is served by order %s, its own is %s", e.RootID, own)
			}
		}
	})
}

// nameless is a configuration that has none of the names.
type nameless struct{}

func (nameless) Round(context.Context, string) (time.Duration, bool) { return 0, false }

// TestNameComesBack: a name that was out of the configuration for a while after an attempt is worked
// on again when it is asked for, even if nothing else brings it up.
func TestNameComesBack(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		w.ca.Inject(hostile.Fault{Endpoint: "place", Kind: hostile.APICode, Code: -1, Errors: "no", Times: 1})
		p := w.start(nil, all(quickly, func(f *flow) { f.rules.allowOnDemand = true }))
		p.site.strange = map[string]bool{"example.com": true}
		if _, err := p.attempt(t.Context(), "example.com"); err == nil {
			t.Fatal("no error")
		}
		p.stop()
		leave := p.line.Attach(w.ctx, nameless{})
		time.Sleep(time.Hour)
		leave()
		p.attach()
		_, _ = p.attempt(t.Context(), "example.com")
		p.untilServed(10*time.Minute, "example.com")
		w.wantCharges(1)
	})
}
