package model

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"sync"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// naive buys whenever it is asked, as an issuer without a ledger would.
type naive struct {
	p     *Process
	mu    sync.Mutex
	cfg   Config
	certs map[string]*tls.Certificate
}

func newNaive(p *Process) System { return &naive{p: p, certs: make(map[string]*tls.Certificate)} }

func (s *naive) Load(_ context.Context, cfg Config) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg = cfg
	return nil
}

func (s *naive) Issue(ctx context.Context, name string) error {
	s.mu.Lock()
	cfg := s.cfg
	s.mu.Unlock()
	pkcs8, csr := newKey()
	v := s.p.Vendor(cfg.Vendor, cfg.Account)
	o, err := v.Place(ctx, vendors.OrderRequest{
		OrderConfig: vendors.OrderConfig{Product: cfg.Product, Term: vendors.Term{Days: cfg.Term}},
		Reference:   name, Names: []string{name}, CSR: csr([]string{name}),
	})
	for err == nil && o.Status == vendors.StatusPending && wait(ctx, 5*time.Minute) {
		o, err = v.Status(ctx, o.ID)
	}
	if err != nil {
		return err
	}
	if o.Status != vendors.StatusIssued {
		return errors.New("the order is dead")
	}
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(o.Certificates[0])
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.certs[name] = &tls.Certificate{Certificate: o.Certificates, PrivateKey: key, Leaf: leaf}
	return nil
}

func (s *naive) Served(name string) *tls.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.certs[name]
}

func (s *naive) Crash() {}
