package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/internal/test/zerossltest"

	// The vendor under measurement.
	_ "github.com/caddy-commercial/caddy-commercial/vendors/racent"
)

const (
	issueToken = "bench"

	// vendorDelay is how long the vendor takes for each answer on top of its work. A real
	// one is farther away; the closer it is, the harder the claim.
	vendorDelay = 30 * time.Millisecond
)

// benchIssue buys certificates, from a CA that validates and issues at once, and compares
// the time with what the vendor took for its answers. A storage and an issuer are made
// for each one, so each is a first one.
func benchIssue(ctx context.Context, o options) ([]row, error) {
	ports, err := freePorts(ctx, 1)
	if err != nil {
		return nil, err
	}
	ca, err := hostile.New(hostile.Config{Core: hostile.Core{
		Accounts: []hostile.Account{{Token: issueToken, Balance: 100_000_000}},
		HTTPPort: ports[0],
	}})
	if err != nil {
		return nil, err
	}
	defer ca.Close()
	ca.Inject(hostile.Fault{Kind: hostile.Delay, Phase: hostile.AfterEffect, Delay: vendorDelay})
	seller := &meter{next: ca}
	api := httptest.NewServer(seller)
	defer api.Close()

	var wall, vendor, ratios, overhead []float64
	var calls []string
	rounds := pick(o, 31, 5)
	for i := range rounds + 1 {
		seller.reset()
		took, err := issueOnce(ctx, subdir(o, i), api.URL, ports[0], fmt.Sprintf("shop%d.example.com", i))
		if err != nil {
			return nil, err
		}
		if i == 0 {
			continue // the first one ever in this process
		}
		spent, made := seller.read()
		calls = made
		wall = append(wall, took.Seconds()*1e3)
		vendor = append(vendor, spent.Seconds()*1e3)
		ratios = append(ratios, float64(took)/float64(spent))
		overhead = append(overhead, (took-spent).Seconds()*1e3)
	}
	if charges := len(ca.Charges()); charges != rounds+1 {
		return nil, fmt.Errorf("%d certificates were charged %d times", rounds+1, charges)
	}
	counted, err := countOperations(ctx, o, rounds+1, api.URL, ports[0])
	if err != nil {
		return nil, err
	}
	return []row{
		{
			claim: fmt.Sprintf("issuing a certificate, against the vendor's answer times (%s, %s each or more)", strings.Join(calls, ", "), vendorDelay),
			ours:  number(median(wall)) + " ms", peer: number(median(vendor)) + " ms",
			value: median(ratios), unit: "×", want: bound{atMost, 1.5, 0.1},
		},
		{claim: "time of our own in it, network and validation file included", ours: number(median(overhead)) + " ms", peer: "-", value: median(overhead), unit: " ms"},
		counted,
	}, nil
}

func issueOnce(ctx context.Context, dir, api string, port int, name string) (time.Duration, error) {
	s, err := newBuyer(dir, api, port)
	if err != nil {
		return 0, err
	}
	defer s.close()
	csr, err := s.request(name)
	if err != nil {
		return 0, err
	}
	started := time.Now()
	cert, err := s.Issue(ctx, csr)
	took := time.Since(started)
	if err != nil {
		return 0, err
	}
	leaf, _ := pem.Decode(cert.Certificate)
	if leaf == nil {
		return 0, errors.New("there is no certificate")
	}
	parsed, err := x509.ParseCertificate(leaf.Bytes)
	if err != nil {
		return 0, err
	}
	return took, parsed.VerifyHostname(name)
}

// newBuyer makes a server that buys from the CA.
func newBuyer(dir, api string, port int) (*server, error) {
	cfg, err := issuerConfig(map[string]any{
		"name": "racent", "api_token": issueToken, "endpoint": api + "/ssl", "test_service": true,
	}, port)
	if err != nil {
		return nil, err
	}
	cfg.PollMin = caddy.Duration(50 * time.Millisecond)
	return newServer(newStorage(dir), cfg)
}

const (
	// maxOperations is how many storage operations of the issuer an issuance may take.
	maxOperations = 12

	// untilSweep is when an issuer checks all its names, which is not part of an
	// issuance.
	untilSweep = 2 * time.Second
)

// operations are the storage operations of an issuance: those of the issuer, on keys of
// its own, and those of certmagic around it.
type operations struct{ issuer, certmagic int64 }

func (o operations) String() string {
	return fmt.Sprintf("%d, with certmagic's %d: %d", o.issuer, o.certmagic, o.issuer+o.certmagic)
}

// countOperations counts the storage operations of an issuance, from when certmagic
// begins until nothing is left to do. If that takes too long, it tries again.
func countOperations(ctx context.Context, o options, first int, api string, port int) (row, error) {
	peer, err := countZeroSSL(ctx, filepath.Join(o.dir, "peer"), port)
	if err != nil {
		return row{}, fmt.Errorf("zerossl's issuer: %w", err)
	}
	for i := range 10 {
		name := fmt.Sprintf("counted%d.example.com", i)
		ours, took, err := countOnce(ctx, subdir(o, first+i), api, port, name)
		if err != nil {
			return row{}, err
		}
		if took > untilSweep {
			continue
		}
		return row{
			claim: "storage operations for it, the first of its account, until nothing is left to do: the issuer's own (peer: certmagic's ZeroSSL issuer)",
			ours:  ours.String(), peer: peer.String(),
			value: float64(ours.issuer), want: bound{kind: atMost, limit: maxOperations},
		}, nil
	}
	return row{}, errors.New("this machine is too slow to count the storage operations of an issuance")
}

func countOnce(ctx context.Context, dir, api string, port int, name string) (counted operations, took time.Duration, err error) {
	started := time.Now()
	s, err := newBuyer(dir, api, port)
	if err != nil {
		return counted, 0, err
	}
	defer s.close()
	all, before := s.storage.all(), s.storage.own.Load()
	if err := s.magic.ObtainCertSync(ctx, name); err != nil {
		return counted, 0, err
	}
	counted.certmagic = s.storage.all() - all - (s.storage.own.Load() - before)
	// Last of all, the private key that was kept for the order is removed.
	for tick := time.NewTicker(time.Millisecond); ; {
		left, err := filepath.Glob(filepath.Join(dir, "commercial", "*", "*", "keys", "*"))
		if err != nil {
			return counted, 0, err
		}
		if len(left) == 0 {
			counted.issuer = s.storage.own.Load() - before
			return counted, time.Since(started), nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return counted, 0, ctx.Err()
		}
	}
}

// countZeroSSL counts the same for certmagic's ZeroSSL issuer and a stand-in for its API.
// The issuer's client uses the default transport, which leads to the stand-in meanwhile.
func countZeroSSL(ctx context.Context, dir string, port int) (counted operations, err error) {
	authority, err := zerossltest.New(port, 0)
	if err != nil {
		return counted, err
	}
	server := httptest.NewServer(authority)
	defer server.Close()
	api, err := url.Parse(server.URL)
	if err != nil {
		return counted, err
	}
	next := http.DefaultTransport
	defer func() { http.DefaultTransport = next }()
	http.DefaultTransport = &zerossltest.Detour{API: api, Next: next}

	storage := newStorage(dir)
	storage.prefix = zeroSSLKeys
	var magic *certmagic.Config
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return magic, nil },
		Logger:           zap.NewNop(),
	})
	defer cache.Stop()
	magic = certmagic.New(cache, certmagic.Config{
		Storage: storage, Logger: zap.NewNop(),
		Issuers: []certmagic.Issuer{&certmagic.ZeroSSLIssuer{
			APIKey: issueToken, Storage: storage, ListenHost: "127.0.0.1", AltHTTPPort: port, Logger: zap.NewNop(),
		}},
	})
	if err := magic.ObtainCertSync(ctx, "counted.example.com"); err != nil {
		return counted, err
	}
	counted.issuer = storage.own.Load()
	counted.certmagic = storage.all() - counted.issuer
	return counted, nil
}

// meter adds up how long a vendor takes for its answers, from the request read to the
// answer written, and notes what was asked for. What the network takes in addition is not
// counted, because it would count in our favour.
type meter struct {
	next   http.Handler
	flight sync.WaitGroup

	mu    sync.Mutex
	spent time.Duration
	calls []string
}

func (m *meter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.flight.Add(1)
	defer m.flight.Done()
	started := time.Now()
	m.next.ServeHTTP(w, r)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.spent += time.Since(started)
	m.calls = append(m.calls, path.Base(r.URL.Path))
}

func (m *meter) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.spent, m.calls = 0, nil
}

// read first waits for calls whose answer has arrived but which are not noted yet.
func (m *meter) read() (spent time.Duration, calls []string) {
	m.flight.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.spent, slices.Clone(m.calls)
}
