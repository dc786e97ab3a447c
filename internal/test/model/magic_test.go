//go:build !race

// These tests run thousands of operations to notice anything, and the race detector makes
// them take ten times as long.

package model

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// magic is a system on the real certmagic, with an issuer that buys each time. Only the
// synchronous calls of certmagic work in a bubble: its job queue belongs to the program,
// and so would mix the bubbles. Therefore its own maintenance must never run; but what
// ends before the next maintenance counts as due, so the adapter must decide what is due.
type magic struct {
	p     *Process
	cache *certmagic.Cache
	cfg   *certmagic.Config
}

func newMagic(p *Process) System {
	m := &magic{p: p}
	never := 100_000 * time.Hour // the world does the maintenance
	m.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:  func(certmagic.Certificate) (*certmagic.Config, error) { return m.cfg, nil },
		OCSPCheckInterval: never, RenewCheckInterval: never, Logger: p.Logger,
	})
	return m
}

func (m *magic) Load(ctx context.Context, cfg Config) error {
	m.cfg = certmagic.New(m.cache, certmagic.Config{
		Storage: m.p.Storage, OCSP: certmagic.OCSPConfig{DisableStapling: true}, Logger: m.p.Logger,
		Issuers: []certmagic.Issuer{buyer{m.p, cfg}},
	})
	for _, name := range cfg.Names {
		_, _ = m.cfg.CacheManagedCertificate(ctx, name) // there may be none yet
	}
	return nil
}

func (m *magic) Issue(ctx context.Context, name string) error {
	if err := m.cfg.ObtainCertSync(ctx, name); err != nil {
		return err
	}
	// Another server may have renewed it.
	if _, err := m.cfg.CacheManagedCertificate(ctx, name); err != nil {
		return err
	}
	if !old(m.Served(name).Leaf, m.p.Now()) {
		return nil
	}
	if err := m.cfg.RenewCertSync(ctx, name, true); err != nil {
		return err
	}
	_, err := m.cfg.CacheManagedCertificate(ctx, name)
	return err
}

func (m *magic) Served(name string) *tls.Certificate {
	var best *tls.Certificate
	for _, c := range m.cache.AllMatchingCertificates(name) {
		if best == nil || c.Leaf.NotAfter.After(best.Leaf.NotAfter) {
			best = &c.Certificate
		}
	}
	return best
}

func (m *magic) Crash() { m.cache.Stop() }

// buyer is a certmagic issuer that places an order each time.
type buyer struct {
	p   *Process
	cfg Config
}

func (buyer) IssuerKey() string { return "model" }

func (b buyer) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	v := b.p.Vendor(b.cfg.Vendor, b.cfg.Account)
	o, err := v.Place(ctx, vendors.OrderRequest{
		OrderConfig: vendors.OrderConfig{Product: b.cfg.Product, Term: vendors.Term{Days: b.cfg.Term}},
		Reference:   csr.DNSNames[0], Names: csr.DNSNames, CSR: csr.Raw,
	})
	for err == nil && o.Status == vendors.StatusPending && wait(ctx, 5*time.Minute) {
		o, err = v.Status(ctx, o.ID)
	}
	if err != nil {
		return nil, err
	}
	if o.Status != vendors.StatusIssued {
		return nil, errors.New("the order is dead")
	}
	var chain []byte
	for _, der := range o.Certificates {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return &certmagic.IssuedCertificate{Certificate: chain}, nil
}

// TestCertmagic expects that the real certmagic runs in the world: without faults two
// servers get a certificate for each name, and pay again when it is due, because there is
// no ledger.
func TestCertmagic(t *testing.T) {
	p := Quick()
	p.Chaos, p.Terms, p.Limit = 0, []int{10}, 100 // calm from the start
	r := History(t, DataTape(nil), p, newMagic, nil)
	if r.Violation == nil || r.Violation.Kind != PaidTwice || r.Violation.At < p.Life/2 {
		t.Errorf("%v, want that the first renewal is paid for", r.Violation)
	}
	if r.Charges != 5 {
		t.Errorf("%d charges, want one for each name and one more", r.Charges)
	}
}
