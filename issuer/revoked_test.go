package issuer

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// revokeUnseen lets the CA issue the latest certificate of an order and revoke it while no server
// checks: the process is stopped between validation and issue.
func (w *world) revokeUnseen(p *process, index int) *process {
	w.tb.Helper()
	time.Sleep(10 * time.Minute) // the CA sees the proof
	p.stop()
	time.Sleep(2 * time.Hour)
	if err := w.ca.RevokeCertificate(w.ca.Orders()[index].ID); err != nil {
		w.tb.Fatal(err)
	}
	p = w.startDigiCert(nil, quickly)
	p.configure("example.com")
	return p
}

// TestRevokedCertificateOfALivingOrder: an order stays active when its certificate is revoked. It is
// reissued once, and paid for once.
func TestRevokedCertificateOfALivingOrder(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, func(c *hostile.Config) { c.IssueDelay = time.Hour })
		p := w.startDigiCert(nil, quickly)
		p.configure("example.com")
		w.until(time.Hour, "it is ordered", func() bool { return w.state("example.com") == ledger.Open })
		p = w.revokeUnseen(p, 0)
		p.untilServed(6*time.Hour, "example.com")
		w.wantCharges(1)
		if got := w.ca.Calls("reissue"); got != 1 || w.ca.Revoked(p.site.Served("example.com")[0].SerialNumber) {
			t.Errorf("%d reissues", got)
		}
		if e := w.entry("example.com"); e.Flag != nil || e.Certificate.Lost || e.Issued != 2 {
			t.Errorf("%+v", e)
		}
	})
}

// TestRevokedReissueAsksAPerson: if the reissue's certificate is revoked at once, too, the entry is
// flagged.
func TestRevokedReissueAsksAPerson(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, func(c *hostile.Config) { c.IssueDelay = time.Hour })
		p := w.startDigiCert(nil, quickly)
		p.configure("example.com")
		w.until(time.Hour, "it is ordered", func() bool { return w.state("example.com") == ledger.Open })
		p = w.revokeUnseen(p, 0)
		w.until(6*time.Hour, "it is reissued", func() bool { return w.ca.Calls("reissue") == 1 })
		w.revokeUnseen(p, 1)
		w.until(6*time.Hour, "the entry is flagged", func() bool { return w.entry("example.com").Flag != nil })
		time.Sleep(7 * 24 * time.Hour)
		if e := w.entry("example.com"); w.ca.Calls("reissue") != 1 || e.Flag == nil || e.Flag.Ended {
			t.Errorf("%d reissues, %+v", w.ca.Calls("reissue"), e)
		}
		w.wantCharges(1)
	})
}

// revokeTaken revokes a certificate that one server has taken before another name of its order had
// it. That name gets a certificate from a reissue.
func revokeTaken(t *testing.T, vendor func(vendors.Vendor) vendors.Vendor) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		names := []string{"a.example.com", "b.example.com"}
		start := func() *process {
			p := w.startDigiCert(nil, func(f *flow) {
				quickly(f)
				f.rules.groups, f.vendor = [][]string{names}, vendor(f.vendor)
			})
			p.configure(names...)
			return p
		}
		p := start()
		p.untilServed(6*time.Hour, names...)
		p.stop()
		if err := w.storage.Delete(t.Context(), pairKey(names[1])); err != nil {
			t.Fatal(err)
		}
		if err := w.ca.RevokeCertificate(w.ca.Orders()[0].ID); err != nil {
			t.Fatal(err)
		}
		p = start()
		p.untilServed(6*time.Hour, names[1])
		if w.ca.Revoked(p.site.Served(names[1])[0].SerialNumber) || w.ca.Calls("reissue") != 1 {
			t.Errorf("%d reissues", w.ca.Calls("reissue"))
		}
		w.wantCharges(1)
	})
}

// TestRevokedCertificateIsNotDelivered: a certificate that was revoked after one server took it is
// not given to another name.
func TestRevokedCertificateIsNotDelivered(t *testing.T) {
	revokeTaken(t, func(v vendors.Vendor) vendors.Vendor { return v })
}

// gone is a vendor that reports that a certificate was revoked, and does not deliver it.
type gone struct{ vendors.Vendor }

func (v gone) Status(ctx context.Context, id string) (vendors.Order, error) {
	order, err := v.Vendor.Status(ctx, id)
	if order.Status == vendors.StatusIssued {
		order.CertificateRevoked, order.Certificates = true, nil
	}
	return order, err
}

// TestRevokedCertificateThatIsGone: if the vendor does not deliver the revoked certificate, the
// entry is flagged as for an order that has ended.
func TestRevokedCertificateThatIsGone(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.startDigiCert(nil, func(f *flow) { quickly(f); f.vendor = gone{f.vendor} })
		p.configure("example.com")
		w.until(6*time.Hour, "the entry is flagged", func() bool { e := w.entry("example.com"); return e != nil && e.Flag != nil })
		time.Sleep(7 * 24 * time.Hour)
		if e := w.entry("example.com"); !e.Flag.Ended || w.ca.Calls("reissue") != 0 {
			t.Errorf("%+v, %d reissues", e.Flag, w.ca.Calls("reissue"))
		}
		w.wantCharges(1)
	})
}

// hiding is a vendor that does not deliver certificates that were revoked.
type hiding struct {
	vendors.Vendor
	vendors.Reissuer
	vendors.Finder
}

func (v hiding) Status(ctx context.Context, id string) (vendors.Order, error) {
	order, err := v.Vendor.Status(ctx, id)
	if order.CertificateRevoked {
		order.Certificates = nil
	}
	return order, err
}

// TestRevokedCertificateThatIsHidden: if a certificate that one server has taken is revoked and no
// longer delivered, no other name stays without one: the order is reissued.
func TestRevokedCertificateThatIsHidden(t *testing.T) {
	revokeTaken(t, func(v vendors.Vendor) vendors.Vendor {
		return hiding{v, v.(vendors.Reissuer), v.(vendors.Finder)}
	})
}

// elsewhere is a vendor that delivers another certificate instead of the first one.
type elsewhere struct {
	vendors.Vendor
	vendors.Reissuer
	vendors.Finder
	first, other [][]byte
}

func (v elsewhere) Status(ctx context.Context, id string) (vendors.Order, error) {
	order, err := v.Vendor.Status(ctx, id)
	if len(order.Certificates) > 0 && bytes.Equal(order.Certificates[0], v.first[0]) {
		order.Certificates = v.other
	}
	return order, err
}

// TestReissuedElsewhere: if somebody reissued an order for a key of theirs, before all names had its
// certificate, no name stays without one: the order is reissued once the vendor has reported that a
// few times.
func TestReissuedElsewhere(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		names := []string{"a.example.com", "b.example.com"}
		var other [][]byte
		start := func() *process {
			p := w.start(nil, func(f *flow) {
				group(names...)(f)
				quickly(f)
				if other != nil {
					order, err := f.vendor.Status(t.Context(), w.entry(names[0]).OrderID)
					if err != nil {
						t.Fatal(err)
					}
					f.vendor = elsewhere{f.vendor, f.vendor.(vendors.Reissuer), f.vendor.(vendors.Finder), order.Certificates, other}
				}
			})
			p.configure(names...)
			return p
		}
		p := start()
		p.untilServed(6*time.Hour, names...)
		p.stop()
		if err := w.storage.Delete(t.Context(), pairKey(names[1])); err != nil {
			t.Fatal(err)
		}
		theirs, err := p.vendor.Status(t.Context(), w.orderElsewhere(names, group(names...)))
		if err != nil {
			t.Fatal(err)
		}
		other = theirs.Certificates
		before := w.charges()
		p = start()
		p.untilServed(2*24*time.Hour, names[1])
		if got := w.ca.Calls("replace"); got != 1 {
			t.Errorf("%d reissues", got)
		}
		w.wantCharges(before)
	})
}

// TestReissueLeftOpen: a reissue that somebody requested elsewhere and never proved, or that was
// lost track of, does not silently block those after it: the certificate is renewed, or the entry is
// flagged.
func TestReissueLeftOpen(t *testing.T) {
	for _, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			p := v.start(w, nil, quickly)
			stop := p.maintain(false)
			defer stop()
			p.configure("example.com")
			p.untilServed(day, "example.com")
			first := p.site.serving("example.com").leaf()
			time.Sleep(30 * day)
			key, err := p.site.NewKey()
			if err != nil {
				t.Fatal(err)
			}
			_, csr, err := p.requestFor(&errand{name: "example.com", want: wantFor(t, "example.com", key)}, []string{"example.com"})
			if err != nil {
				t.Fatal(err)
			}
			elsewhere := vendors.OrderRequest{
				OrderConfig: p.order, Reference: "elsewhere", Names: []string{"example.com"}, CSR: csr, Unique: "elsewhere",
			}
			if _, err := p.vendor.(vendors.Reissuer).Reissue(t.Context(), w.entry("example.com").OrderID, elsewhere); err != nil {
				t.Fatal(err)
			}
			time.Sleep(150 * day)
			renewed := !p.site.serving("example.com").leaf().Equal(first)
			// If a reissue has an ID of its own, only a person can find it.
			if asked := w.entry("example.com").Flag != nil; renewed == asked || asked != (v.name == "racent") {
				t.Errorf("renewed: %v, flagged: %v", renewed, asked)
			}
			w.wantCharges(1)
		})
	}
}

// TestReissueThatIsAlwaysLost: a vendor whose reissues are lost for weeks is not asked endlessly,
// and the certificate is renewed once they arrive again.
func TestReissueThatIsAlwaysLost(t *testing.T) {
	tooSlowForRaces(t)
	for _, phase := range []hostile.Phase{hostile.BeforeEffect, hostile.AfterEffect} {
		inBubble(t, fmt.Sprint(phase), func(t *testing.T) {
			w := newWorld(t, nil)
			p := w.start(nil, quickly)
			stop := p.maintain(false)
			defer stop()
			p.configure("example.com")
			p.untilServed(day, "example.com")
			first := p.site.serving("example.com").leaf()
			mend := w.ca.Inject(hostile.Fault{Endpoint: "replace", Phase: phase, Kind: hostile.HTTPStatus, Status: 503})
			w.until(190*day, "the reissue is requested", func() bool { return w.ca.Calls("replace") > 0 })
			time.Sleep(20 * day)
			if n := w.ca.Calls("replace"); n > 120 || phase == hostile.AfterEffect && n > 2 {
				t.Errorf("%d reissues were requested in 20 days", n)
			}
			mend()
			time.Sleep(day)
			if p.site.serving("example.com").leaf().Equal(first) {
				t.Error("the certificate is not renewed")
			}
			w.wantCharges(1)
		})
	}
}

// TestRevokedReissueIsResolved: a person who has investigated may let the paid order be reissued
// once more.
func TestRevokedReissueIsResolved(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, func(c *hostile.Config) { c.IssueDelay = time.Hour })
		p := w.startDigiCert(nil, quickly)
		p.configure("example.com")
		w.until(time.Hour, "it is ordered", func() bool { return w.state("example.com") == ledger.Open })
		p = w.revokeUnseen(p, 0)
		w.until(6*time.Hour, "it is reissued", func() bool { return w.ca.Calls("reissue") == 1 })
		p = w.revokeUnseen(p, 1)
		w.until(6*time.Hour, "the entry is flagged", func() bool { return w.entry("example.com").Flag != nil })
		w.resolve(operator.Action{About: "example.com", Order: w.entry("example.com").OrderID})
		p.untilServed(2*24*time.Hour, "example.com")
		if got := w.ca.Calls("reissue"); got != 2 || w.ca.Revoked(p.site.Served("example.com")[0].SerialNumber) {
			t.Errorf("%d reissues", got)
		}
		w.wantCharges(1)
	})
}
