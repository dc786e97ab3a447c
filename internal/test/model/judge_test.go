package model

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// request is an order as the config of a history without choices wants it.
func request(p *Process, ref string, names ...string) vendors.OrderRequest {
	_, csr := newKey()
	return vendors.OrderRequest{
		OrderConfig: vendors.OrderConfig{Product: "dv", Term: vendors.Term{Days: p.Params.Terms[0]}, Method: vendors.MethodHTTP},
		Reference:   ref, Names: names, CSR: csr(names),
	}
}

// TestJudge breaks each rule about money once.
func TestJudge(t *testing.T) {
	place := func(t *testing.T, v vendors.Vendor, p *Process, req vendors.OrderRequest) {
		t.Helper()
		if _, err := v.Place(p.Context(), req); err != nil && p.Context().Err() == nil {
			t.Log(err)
		}
	}
	for _, test := range []struct {
		kind string
		tape []uint16
		do   func(*testing.T, vendors.Vendor, *Process)
	}{
		{PaidTwice, nil, func(t *testing.T, v vendors.Vendor, p *Process) {
			place(t, v, p, request(p, "1", nameA, nameB))
			wait(p.Context(), time.Hour)
			place(t, v, p, request(p, "2", nameB))
		}},
		{BoughtOther, nil, func(t *testing.T, v vendors.Vendor, p *Process) {
			req := request(p, "1", nameA)
			req.Product = "plus"
			place(t, v, p, req)
		}},
		{BoughtOther, nil, func(t *testing.T, v vendors.Vendor, p *Process) {
			req := request(p, "1", nameA)
			req.Term.Days++
			place(t, v, p, req)
		}},
		{BoughtUnasked, nil, func(t *testing.T, v vendors.Vendor, p *Process) {
			place(t, v, p, request(p, "1", "other.example"))
		}},
		{BoughtUnasked, nil, func(t *testing.T, _ vendors.Vendor, p *Process) {
			place(t, p.Vendor(1, ""), p, request(p, "1", nameA))
		}},
		{LimitPassed, nil, func(t *testing.T, v vendors.Vendor, p *Process) {
			p.w.p.Limit = 2
			for _, n := range []string{nameA, nameB, nameC} {
				place(t, v, p, request(p, n, n))
			}
		}},
		{BoughtThoughCovered, nil, func(t *testing.T, v vendors.Vendor, p *Process) {
			p.w.traits.coversTwin = true
			o, err := v.Place(p.Context(), request(p, "1", nameA))
			if err != nil {
				t.Error(err)
			}
			wait(p.Context(), time.Hour)
			if _, err := v.Status(p.Context(), o.ID); err != nil {
				t.Error(err)
			}
			wait(p.Context(), 7*time.Hour)
			place(t, v, p, request(p, "2", nameW))
		}},
		{BoughtForAdopted, nil, func(t *testing.T, v vendors.Vendor, p *Process) {
			p.event("adopt", func() { p.server.loaded[0].Adopt = map[string]string{nameA: p.w.foreign[0]} })
			place(t, v, p, request(p, "1", nameA))
		}},
	} {
		t.Run(test.kind, func(t *testing.T) {
			r := play(t, DataTape(test.tape), nil, func(p *Process) {
				if p.Server == 0 {
					test.do(t, p.Vendor(0, ""), p)
				}
			})
			if r.Violation == nil || r.Violation.Kind != test.kind {
				t.Errorf("%v, want %q", r.Violation, test.kind)
			}
		})
	}
}

// TestVendor follows an order from its placement through a reissue, with each way of
// reissuing.
func TestVendor(t *testing.T) {
	for newID, trait := range map[bool]Trait{false: No, true: Yes} {
		done := false
		play(t, DataTape(nil), func(p *Params) { p.NewID, p.CoversTwin, p.TellsTerm, p.Chaos = trait, Yes, Yes, 3*day }, func(p *Process) {
			if p.Server != 0 {
				return
			}
			ctx, v := p.Context(), p.Vendor(0, "")
			o, err := v.Place(ctx, request(p, "1", nameA))
			if err != nil {
				t.Error(err)
				return
			}
			if ids, err := v.(vendors.Finder).Find(ctx, vendors.Lookup{Reference: "1"}); err != nil || len(ids) != 1 || ids[0] != o.ID {
				t.Errorf("find: %v %v", ids, err)
			}
			wait(ctx, 2*time.Minute)
			req := request(p, "2", nameA)
			reissue := vendors.OrderRequest{Reference: "2", Names: req.Names, CSR: req.CSR}
			if _, err := v.(vendors.Reissuer).Reissue(ctx, o.ID, reissue); err == nil {
				t.Error("an order was reissued that nobody saw issued") // Status is what lets time take effect
			}
			if got, err := v.Status(ctx, o.ID); err != nil || got.Status != vendors.StatusIssued || got.TermEnds.IsZero() {
				t.Errorf("status: %+v %v", got, err)
			}
			again, err := v.(vendors.Reissuer).Reissue(ctx, o.ID, reissue)
			if err != nil {
				t.Error(err)
				return
			}
			if (again.ID != o.ID) != newID {
				t.Errorf("the reissue of %s is %s", o.ID, again.ID)
			}
			wait(ctx, 2*time.Minute)
			got, err := v.Status(ctx, again.ID)
			if err != nil || len(got.Certificates) != 2 {
				t.Errorf("status: %+v %v", got, err)
				return
			}
			leaf, err := x509.ParseCertificate(got.Certificates[0])
			if err != nil {
				t.Error(err)
				return
			}
			csr, err := x509.ParseCertificateRequest(req.CSR)
			if err != nil {
				t.Error(err)
				return
			}
			if !sameKey(leaf.PublicKey, csr.PublicKey) || leaf.VerifyHostname(nameW) != nil {
				t.Errorf("the certificate is for %v, its key ours: %t", leaf.DNSNames, sameKey(leaf.PublicKey, csr.PublicKey))
			}
			if _, err := p.Vendor(0, "second").Status(ctx, o.ID); vendors.VerdictOf(err) != vendors.Permanent {
				t.Errorf("another account sees the order: %v", err)
			}
			done = true
		})
		if !done {
			t.Errorf("new ID %t: the scenario did not finish", newID)
		}
	}
}

// TestAbilities expects that any ability can be missing.
func TestAbilities(t *testing.T) {
	for i := range 8 {
		trait := func(bit int) Trait { return []Trait{No, Yes}[i>>bit&1] }
		play(t, DataTape(nil), func(p *Params) { p.NoFinder, p.Prepares, p.Predicts = trait(0), trait(1), trait(2) }, func(p *Process) {
			v := p.Vendor(0, "")
			_, finds := v.(vendors.Finder)
			_, prepares := v.(vendors.Preparer)
			_, predicts := v.(vendors.Predictor)
			if finds != (i&1 == 0) || prepares != (i&2 != 0) || predicts != (i&4 != 0) {
				t.Errorf("%03b: finds %t, prepares %t, predicts %t", i, finds, prepares, predicts)
			}
		})
	}
}
