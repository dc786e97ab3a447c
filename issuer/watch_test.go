package issuer

import (
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/ledger"
)

// watching has issued orders looked at once an hour.
func watching(f *flow) { f.rules.watch = time.Hour }

// good reports whether the process serves a certificate for the name that is not revoked.
func (p *process) good(name string) bool {
	got := p.site.serving(name)
	return got != nil && time.Now().Before(got.leaf().NotAfter) && !p.w.ca.Revoked(got.leaf().SerialNumber)
}

// revoke has the latest certificate of the name's order revoked.
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

// A certificate that is revoked while its order lives on is replaced within the interval, free
// of charge and for a new key, whatever certmagic does with keys. Until then it is served.
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
			time.Sleep(30 * day)
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
			time.Sleep(30 * day)
			if n := w.reissued(); n != 1 {
				t.Errorf("%d reissues", n)
			}
			if n := w.logs.FilterMessageSnippet("clients that check revocation refuse it").Len(); n != 1 {
				t.Errorf("said %d times", n)
			}
			w.wantCharges(1)
			w.noSecrets()
		})
	}
}

// An order that ends after it has given its certificate is a person's matter. The site is served
// on, and nothing is bought.
func TestEndedOrderAsksAPerson(t *testing.T) {
	for _, v := range vendorKinds {
		for _, status := range []string{hostile.StatusRevoked, hostile.StatusCancelled} {
			inBubble(t, v.name+" "+status, func(t *testing.T) {
				w := newWorld(t, nil)
				p := v.start(w, nil, all(quickly, watching))
				stop := p.maintain(false)
				defer stop()
				p.configure("example.com")
				p.untilServed(day, "example.com")
				time.Sleep(30 * day)
				if _, err := w.ca.EndAll(status); err != nil {
					t.Fatal(err)
				}
				w.until(3*time.Hour, "a person is asked", func() bool { return w.entry("example.com").Flag != nil })
				e := w.entry("example.com")
				if !e.Flag.Ended || !e.Certificate.Lost || e.State != ledger.Open {
					t.Errorf("%+v", e)
				}
				if n := w.logs.FilterMessageSnippet("getting a certificate failed").Len(); n == 0 {
					t.Error("nobody is told")
				}
				time.Sleep(100 * day)
				if p.site.serving("example.com") == nil || w.reissued() != 0 || len(w.entries("example.com")) != 1 {
					t.Errorf("%d reissues, %d entries", w.reissued(), len(w.entries("example.com")))
				}
				w.wantCharges(1)
				w.noSecrets()
			})
		}
	}
}
