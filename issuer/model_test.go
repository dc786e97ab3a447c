package issuer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/app"
	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/internal/test/model"
	"github.com/caddy-commercial/caddy-commercial/issuer/proof"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// modelSystem is the real flow, ledger and scheduler in one process of the model's world, together
// with certmagic's side.
type modelSystem struct {
	p     *model.Process
	sched *app.Scheduler

	mu     sync.Mutex
	lines  map[string]*app.Line
	served map[string]*tls.Certificate
	config model.Config
	flow   *flow
	stop   func()
	random *mathrand.Rand
}

func newModelSystem(p *model.Process) model.System {
	return &modelSystem{
		p: p, sched: app.NewScheduler(), lines: make(map[string]*app.Line), served: make(map[string]*tls.Certificate), stop: func() {},
		random: mathrand.New(mathrand.NewPCG(uint64(p.Server), uint64(p.Life))),
	}
}

func (s *modelSystem) fill(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range b {
		b[i] = byte(s.random.Uint32())
	}
}

func lineKey(vendor int, account string) string { return fmt.Sprintf("v%d/%s", vendor, account) }

// ledgerOf returns the ledger of a line.
func (s *modelSystem) ledgerOf(vendor int, account string) (*ledger.Ledger, *app.Line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := lineKey(vendor, account)
	line := s.lines[key]
	if line == nil {
		line = s.sched.Line(key, func() any { return newAccount() })
		s.lines[key] = line
	}
	return &ledger.Ledger{
		Storage: s.p.Storage, Prefix: ledger.Prefix(fmt.Sprintf("vendor%d", vendor), strings.TrimSuffix("model.example/"+account, "/")), Memory: &line.Memory().(*accountState).ledger,
		Now: s.p.Now, Random: s.fill,
	}, line
}

// accountState is account, for places where a variable has that name.
type accountState = account

// Load implements model.System.
func (s *modelSystem) Load(_ context.Context, cfg model.Config) error {
	l, line := s.ledgerOf(cfg.Vendor, cfg.Account)
	vendor := s.p.Vendor(cfg.Vendor, cfg.Account)
	site := &modelSite{s: s, cfg: cfg, key: lineKey(cfg.Vendor, cfg.Account)}
	order := vendors.OrderConfig{Product: cfg.Product, Term: vendors.Term{Days: cfg.Term}, Method: vendors.Method(cfg.Method)}
	real, _ := s.p.Market().(*market)
	if real != nil {
		order.Product, order.Term = real.product(cfg.Vendor, cfg.Product, cfg.Groups), vendors.Term{Years: cfg.Term / 365}
		order.Contact = testContact()
	}
	f := &flow{
		vendor: vendor, about: vendor.Describe(), ledger: l, account: line.Memory().(*account), site: site,
		prove: modelProver{s.p, real}, files: dcv.Live, wake: line.Wake, busy: func(name string) bool { _, busy := line.Due(name); return busy }, logger: s.p.Logger,
		order: order,
		rules: rules{
			pace:    vendors.Pace{Min: time.Minute, Max: 20 * time.Minute, Fresh: 2 * time.Hour, Slow: 20 * time.Minute},
			maxWait: s.p.Params.MaxWait, renewMargin: cfg.Margin, settle: s.p.Params.Settle,
			spend:         SpendLimit{s.p.Params.Limit, caddy.Duration(24 * time.Hour)},
			allowOnDemand: cfg.OnDemand, groups: cfg.Groups, watch: day, replaceEnded: len(s.p.Params.Office) > 0,
		},
	}
	l.Written = f.written
	byOrder := make(map[string][]string)
	for _, name := range slices.Sorted(maps.Keys(cfg.Adopt)) {
		byOrder[cfg.Adopt[name]] = append(byOrder[cfg.Adopt[name]], name)
	}
	for _, id := range slices.Sorted(maps.Keys(byOrder)) {
		f.rules.adopted = append(f.rules.adopted, AdoptedOrder{id, byOrder[id]})
	}
	ctx, cancel := context.WithCancel(s.p.Context())
	detach := line.Attach(ctx, f)
	var sweeping sync.WaitGroup
	sweeping.Go(func() {
		f.sweep(ctx, func() []string { return cfg.Names }, func(string) bool { return true })
	})
	sweeping.Go(func() { f.watch(ctx, func(string) bool { return true }) })
	s.mu.Lock()
	before := s.stop
	s.config, s.flow = cfg, f
	s.stop = sync.OnceFunc(func() {
		cancel()
		detach()
		sweeping.Wait()
	})
	s.mu.Unlock()
	before()
	for _, name := range cfg.Names {
		// certmagic loads what it has stored for the issuer.
		_ = site.Reload(ctx, name)
	}
	return nil
}

// Issue implements model.System: one attempt by certmagic.
func (s *modelSystem) Issue(ctx context.Context, name string) error {
	s.mu.Lock()
	f := s.flow
	s.mu.Unlock()
	unlock, err := s.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	id, err := keyID(key.Public())
	if err != nil {
		return err
	}
	pem, err := encodeKey(key)
	if err != nil {
		return err
	}
	got, _, err := f.issue(ctx, &want{name: name, key: id, pem: pem})
	if err != nil {
		return noRetry(err)
	}
	if err := f.site.(*modelSite).save(ctx, name, key, got.pem()); err != nil {
		return err
	}
	if f.account.stored(name) {
		f.wake(name)
	}
	return nil
}

// lock takes certmagic's lock, which is released whatever happens.
func (s *modelSystem) lock(ctx context.Context, name string) (unlock func(), err error) {
	lock := "issue_cert_" + name
	if err := s.p.Storage.Lock(ctx, lock); err != nil {
		return nil, err
	}
	return func() { _ = s.p.Storage.Unlock(context.WithoutCancel(ctx), lock) }, nil
}

// Served implements model.System.
func (s *modelSystem) Served(name string) *tls.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served[name]
}

// Crash implements model.System.
func (s *modelSystem) Crash() { s.stop() }

// everyLedger calls do with the ledgers of all possible lines.
func (s *modelSystem) everyLedger(do func(vendor int, account string, l *ledger.Ledger) error) error {
	for vendor := range 2 {
		for _, account := range []string{"", "second"} {
			l, _ := s.ledgerOf(vendor, account)
			l = &ledger.Ledger{Storage: l.Storage, Prefix: l.Prefix, Memory: new(ledger.Memory), Now: l.Now, Random: l.Random}
			if err := l.Refresh(s.p.Context()); err != nil {
				return err
			}
			if err := do(vendor, account, l); err != nil {
				return err
			}
		}
	}
	return nil
}

// Flagged implements model.Resolver.
func (s *modelSystem) Flagged(context.Context) ([]model.Flag, error) {
	var flags []model.Flag
	err := s.everyLedger(func(vendor int, account string, l *ledger.Ledger) error {
		for _, e := range l.Memory.Flagged() {
			reference := e.Attempt.Reference
			if s.p.Market() != nil && e.Attempt.PreparedID != "" {
				reference = e.Attempt.PreparedID // of a vendor that keeps no references
			}
			flags = append(flags, model.Flag{
				ID: e.ID, Vendor: vendor, Account: account, Reference: reference, OrderID: e.OrderID, Since: e.Flag.Since,
			})
		}
		return nil
	})
	return flags, err
}

// Resolve implements model.Resolver with what a person would type.
func (s *modelSystem) Resolve(ctx context.Context, f model.Flag, truth model.Truth) error {
	l, _ := s.ledgerOf(f.Vendor, f.Account)
	l = &ledger.Ledger{Storage: l.Storage, Prefix: l.Prefix, Memory: new(ledger.Memory), Now: l.Now, Random: l.Random}
	e, err := l.Load(ctx, f.ID)
	if err == nil {
		_, err = l.Settle(ctx, e, ledger.Resolution{OrderID: truth.OrderID, None: truth.Gone})
	}
	return err
}

// Desk implements model.Office.
func (s *modelSystem) Desk(running bool) *operator.Desk {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flow == nil {
		return nil
	}
	names := s.config.Names
	d := deskOf(s.flow, func() []string { return names }, running)
	d.Now = s.p.Now
	return d
}

// modelSite is certmagic's storage and cache for one configuration.
type modelSite struct {
	s   *modelSystem
	cfg model.Config
	key string
}

func (m *modelSite) Allows(name string) (configured, onDemand bool) {
	if slices.Contains(m.cfg.Names, name) {
		return true, false
	}
	return m.cfg.OnDemand, true
}

func (m *modelSite) Manages(name string) bool { return slices.Contains(m.cfg.Names, name) }

func (m *modelSite) pairKey(name string) string { return "certificates/" + m.key + "/" + name }

func (m *modelSite) load(ctx context.Context, name string) (*tls.Certificate, error) {
	data, err := m.s.p.Storage.Load(ctx, m.pairKey(name))
	if err != nil {
		return nil, err
	}
	return pairs.parse(data)
}

// pairs caches parsed pairs, because parsing checks the signatures of the same pairs over and over.
var pairs pairCache

type pairCache struct {
	mu     sync.Mutex
	parsed map[string]*tls.Certificate
}

func (c *pairCache) parse(data []byte) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if pair := c.parsed[string(data)]; pair != nil {
		return pair, nil
	}
	pair, err := tls.X509KeyPair(data, data)
	if err != nil {
		return nil, err
	}
	if len(c.parsed) > 1000 || c.parsed == nil {
		c.parsed = make(map[string]*tls.Certificate)
	}
	c.parsed[string(data)] = &pair
	return &pair, nil
}

func (m *modelSite) Stored(ctx context.Context, name string) (*x509.Certificate, crypto.Signer, error) {
	pair, err := m.load(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	return pair.Leaf, pair.PrivateKey.(crypto.Signer), nil
}

func (m *modelSite) Served(name string) []*x509.Certificate {
	if pair := m.s.Served(name); pair != nil {
		return []*x509.Certificate{pair.Leaf}
	}
	return nil
}

func (m *modelSite) IsServed(name string) bool {
	pair := m.s.Served(name)
	return pair != nil && m.s.p.Now().Before(pair.Leaf.NotAfter)
}

func (m *modelSite) Due(leaf *x509.Certificate) bool {
	return m.s.p.Now().After(leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 3))
}

func (m *modelSite) NewKey() (crypto.Signer, error) {
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

func (m *modelSite) FindKey(ctx context.Context, name, want string) (crypto.Signer, bool) {
	_, key, err := m.Stored(ctx, name)
	if err != nil {
		return nil, false
	}
	id, err := keyID(key.Public())
	return key, err == nil && id == want
}

func (m *modelSite) save(ctx context.Context, name string, key crypto.Signer, certPEM []byte) error {
	keyPEM, err := certmagic.PEMEncodePrivateKey(key)
	if err != nil {
		return err
	}
	if err := m.s.p.Storage.Store(ctx, m.pairKey(name), slices.Concat(certPEM, keyPEM)); err != nil {
		return err
	}
	return m.Reload(ctx, name)
}

func (m *modelSite) Deliver(ctx context.Context, name string, key crypto.Signer, cert *certmagic.IssuedCertificate) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	unlock, err := m.s.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	return m.save(ctx, name, key, cert.Certificate)
}

func (m *modelSite) Reload(ctx context.Context, name string) error {
	pair, err := m.load(ctx, name)
	if err != nil {
		return err
	}
	if m.s.p.Now().After(pair.Leaf.NotAfter) {
		return errors.New("it has expired")
	}
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	m.s.served[name] = pair
	return nil
}

// modelProver fails occasionally.
type modelProver struct {
	p    *model.Process
	real *market // nil: nobody checks proofs
}

func (m modelProver) Present(ctx context.Context, what proof.Proof) error {
	if m.real == nil {
		return nil
	}
	return m.real.Present(ctx, what)
}

func (m modelProver) Wait(ctx context.Context, _ proof.Proof) error { return m.p.Work(ctx) }
func (m modelProver) CleanUp(context.Context, proof.Proof)          {}
func (m modelProver) Seen(proof.Proof) string                       { return "" }

// TestModel runs random histories of servers, storages, vendors and configs to the end: when all is
// calm, every name has its certificate.
func TestModel(t *testing.T) {
	n := 60
	if raceEnabled {
		n = 1
	}
	model.Check(t, n, model.Kinds(modelParams(model.Quick())), newModelSystem)
}

// TestModelBrief runs many more histories, in which a person acts on orders, too, and checks only the
// money.
func TestModelBrief(t *testing.T) {
	n := 190
	if raceEnabled {
		n = 2
	}
	model.Check(t, n, model.Kinds(modelParams(model.Brief())), newModelSystem)
}

// TestModelVendors runs histories of years with the vendors' own clients, at the sandbox. Histories
// in which look-ups never decide are left out, because none of the three vendors is like that.
func TestModelVendors(t *testing.T) {
	for i, v := range realVendors {
		if raceEnabled && i > 0 {
			continue
		}
		t.Run(v.name, func(t *testing.T) {
			p := model.Years()
			p.Market = newMarket(t, v.name)
			kinds := slices.DeleteFunc(model.Kinds(p), func(k model.Kind) bool { return k.Name == "blind" })
			if raceEnabled {
				kinds = kinds[:1]
				kinds[0].Chaos, kinds[0].Calm = 60*day, 0
			}
			model.Check(t, 1, kinds, newModelSystem)
		})
	}
}

func modelParams(p model.Params) model.Params {
	p.Describe = func(d *vendors.Description, keeps bool) { d.RenewKeepsProduct = keeps }
	return p
}
