package issuer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/app"
	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/issuer/proof"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/racent"
)

const testToken = "secret-token-of-the-tests"

// world is a CA, a storage that several processes share, and the web in which
// their validation files are found. It is made for testing/synctest: nothing in it
// uses the network, and all time is the bubble's.
type world struct {
	tb      testing.TB
	ca      *hostile.CA
	storage *memStorage
	web     *web
	logs    *observer.ObservedLogs
	logger  *zap.Logger
	ctx     context.Context // ends with the test

	events  recorder                                  // of all processes
	traffic *traffic                                  // nil unless the calls are counted
	through func(http.RoundTripper) http.RoundTripper // what calls to the CA go through; nil: nothing
	share   int                                       // the share of DigiCert's limits that a server keeps to; 0: no limits
}

// transport leads to the CA.
func (w *world) transport() http.RoundTripper {
	if w.through == nil {
		return w.ca.Transport()
	}
	return w.through(w.ca.Transport())
}

func newWorld(tb testing.TB, change func(*hostile.Config)) *world {
	tb.Helper()
	awaitDay(tb)
	core, logs := observer.New(zap.DebugLevel)
	ctx, cancel := context.WithCancel(context.Background())
	tb.Cleanup(cancel)
	w := &world{tb: tb, ctx: ctx, storage: newMemStorage(), web: &web{files: make(map[string]string)}, logs: logs, logger: zap.New(core)}
	cfg := hostile.Config{
		Core: hostile.Core{Accounts: []hostile.Account{{Token: testToken, Balance: 1_000_000}}, Transport: w.web},
		// A second order with the same reference must show up as a charge.
		Quirks: hostile.Quirks{LooseRefID: true},
	}
	cfg.Calendar = *flagDay != ""
	if change != nil {
		change(&cfg)
	}
	ca, err := hostile.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(ca.Close)
	w.ca = ca
	return w
}

var flagDay = flag.String("day", "", "when tests in simulated time begin, for example 2027-03-01, with a CA that keeps the rules of each day")

// awaitDay waits for the day of the flag, if it is set.
func awaitDay(tb testing.TB) {
	tb.Helper()
	if *flagDay == "" {
		return
	}
	day, err := time.Parse(time.DateOnly, *flagDay)
	if err != nil {
		tb.Fatal(err)
	}
	if inBubble := time.Now().Year() == 2000; inBubble { // where bubbles begin
		time.Sleep(time.Until(day))
	}
}

func testContact() vendors.Contact {
	return vendors.Contact{
		FirstName: "Ada", LastName: "Lovelace", Email: "ada@example.com", Phone: "+44.2012345678",
		Organization: "Engines", JobTitle: "Analyst", Address: "1 Square", City: "London",
		State: "London", PostalCode: "W1", Country: "GB",
	}
}

// process is one server: a flow with its own connection to the vendor, its own scheduler, a memory
// that is lost with it, and certmagic's side as it really behaves.
type process struct {
	*flow
	mu    sync.Mutex // guards flow against a reload during a call
	w     *world
	fuse  *fuse
	site  *testSite
	sched *app.Scheduler
	line  *app.Line
	stop  func()
}

// start makes a process. Its fuse is nil for one that never dies.
func (w *world) start(f *fuse, change func(*flow)) *process {
	w.tb.Helper()
	about := vendors.Description{
		Name: "racent", Account: "test", Portal: "https://portal.example",
		AbsenceAge: 10 * time.Minute, RenewWindow: 90 * 24 * time.Hour, RenewKeepsProduct: true,
	}
	client, err := racent.New(racent.Config{
		Secret: testToken, Endpoint: "http://127.0.0.1:1/ssl", Timeout: 30 * time.Second, Logger: w.logger,
		Transport: fusedTransport{f, w.transport()}, Description: about,
	}, racent.Options{})
	if err != nil {
		w.tb.Fatal(err)
	}
	return w.startVendor(f, client, change)
}

// startVendor makes a process that buys from the given vendor.
func (w *world) startVendor(f *fuse, vendor vendors.Vendor, change func(*flow)) *process {
	p := &process{w: w, fuse: f, sched: app.NewScheduler()}
	p.line = p.sched.Line("test", func() any { return newAccount() })
	account := p.line.Memory().(*account)
	storage := &fusedStorage{w.storage, f}
	p.site = &testSite{w: w, storage: storage, served: make(map[string]chain)}
	p.flow = &flow{
		vendor: vendor, about: vendor.Describe(),
		ledger: &ledger.Ledger{Storage: storage, Prefix: ledger.Prefix("racent", "test"), Memory: &account.ledger},
		prove:  &webProver{f, w.web}, files: dcv.Live, server: "server", account: account, site: p.site, wake: p.line.Wake, busy: func(name string) bool { _, busy := p.line.Due(name); return busy }, logger: w.logger,
		order: vendors.OrderConfig{Product: "comodo-positivessl", Term: vendors.Term{Years: 1}, Method: vendors.MethodHTTP, Contact: testContact()},
		rules: rules{
			pace: defaultPace, maxWait: time.Hour, settle: time.Second,
			spend: SpendLimit{defaultSpendOrders, caddy.Duration(defaultSpendPer)},
		},
	}
	if change != nil {
		change(p.flow)
	}
	p.emit, p.ledger.Written = w.events.note, p.written
	p.attach()
	return p
}

// attach begins the work of the process's configuration.
func (p *process) attach() {
	ctx, cancel := context.WithCancel(p.w.ctx)
	detach := p.line.Attach(ctx, p.flow)
	var sweeping sync.WaitGroup
	f := p.flow
	sweeping.Go(func() {
		f.sweep(ctx, p.site.names, func(string) bool { return true })
	})
	sweeping.Go(func() { f.watch(ctx, func(string) bool { return true }) })
	p.stop = sync.OnceFunc(func() {
		cancel()
		detach()
		sweeping.Wait()
	})
	p.w.tb.Cleanup(p.stop)
}

// reload gives the process another configuration.
func (p *process) reload(change func(*flow)) {
	old := p.stop
	next := *p.flow
	change(&next)
	p.mu.Lock()
	p.flow = &next
	p.mu.Unlock()
	p.attach()
	old()
}

// attempt does what certmagic does to obtain or renew a certificate, once: its lock, a new key, a
// CSR without common name, one call, and its files. After an error it does not ask again, because
// certmagic would not.
func (p *process) attempt(ctx context.Context, name string) (chain, error) {
	p.w.tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.w.tb.Fatal(err)
	}
	return p.attemptWith(ctx, name, key)
}

func (p *process) attemptWith(ctx context.Context, name string, key *ecdsa.PrivateKey) (chain, error) {
	p.w.tb.Helper()
	p.site.manage(name)
	unlock, err := p.w.lockName(ctx, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if p.fuse.burnt() {
		return nil, errDied
	}
	p.mu.Lock()
	f := p.flow
	p.mu.Unlock()
	got, _, err := f.issue(ctx, wantFor(p.w.tb, name, key))
	if err != nil {
		return nil, err
	}
	if err := p.site.save(ctx, name, key, got.pem()); err != nil {
		return nil, err
	}
	if f.account.stored(name) {
		f.wake(name)
	}
	return got, nil
}

// wantFor returns the want of a call of Issue with this key.
func wantFor(tb testing.TB, name string, key crypto.Signer) *want {
	tb.Helper()
	id, err := keyID(key.Public())
	if err != nil {
		tb.Fatal(err)
	}
	pem, err := encodeKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return &want{name: name, key: id, pem: pem}
}

// testSite is certmagic's storage and cache, and the names of a configuration.
type testSite struct {
	w       *world
	storage certmagic.Storage
	deny    map[string]bool // names that the configuration does not have
	strange map[string]bool // names that a handshake brings up

	mu      sync.Mutex
	managed []string
	served  map[string]chain
}

func (s *testSite) manage(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.managed, name) && !s.strange[name] {
		s.managed = append(s.managed, name)
	}
}

func (s *testSite) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.managed)
}

func (s *testSite) Allows(name string) (configured, onDemand bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.deny[name], s.strange[name]
}

func (s *testSite) Manages(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.deny[name] && !s.strange[name] && slices.Contains(s.managed, name)
}

func pairKey(name string) string { return "certificates/test/" + name }

func (s *testSite) load(ctx context.Context, name string) (chain, crypto.Signer, error) {
	data, err := s.storage.Load(ctx, pairKey(name))
	if err != nil {
		return nil, nil, err
	}
	keyPEM, rest, _ := strings.Cut(string(data), "\n----\n")
	key, err := certmagic.PEMDecodePrivateKey([]byte(keyPEM))
	if err != nil {
		return nil, nil, err
	}
	var got chain
	for block, more := pem.Decode([]byte(rest)); block != nil; block, more = pem.Decode(more) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, nil, err
		}
		got = append(got, cert)
	}
	return got, key, nil
}

func (s *testSite) Stored(ctx context.Context, name string) (*x509.Certificate, crypto.Signer, error) {
	got, key, err := s.load(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	return got.leaf(), key, nil
}

func (s *testSite) Served(name string) []*x509.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := s.served[name]; got != nil {
		return []*x509.Certificate{got.leaf()}
	}
	for _, got := range s.served { // a certificate may be stored for another of its names
		if got != nil && slices.Contains(got.leaf().DNSNames, name) {
			return []*x509.Certificate{got.leaf()}
		}
	}
	return nil
}

func (s *testSite) IsServed(name string) bool {
	return slices.ContainsFunc(s.Served(name), func(leaf *x509.Certificate) bool { return time.Now().Before(leaf.NotAfter) })
}

func (s *testSite) Due(leaf *x509.Certificate) bool {
	return time.Now().After(leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 3))
}

func (s *testSite) NewKey() (crypto.Signer, error) {
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

func (s *testSite) FindKey(ctx context.Context, name, want string) (crypto.Signer, bool) {
	_, key, err := s.load(ctx, name)
	if err != nil {
		return nil, false
	}
	id, err := keyID(key.Public())
	return key, err == nil && id == want
}

// save stores a pair and serves it.
func (s *testSite) save(ctx context.Context, name string, key crypto.Signer, certPEM []byte) error {
	keyPEM, err := certmagic.PEMEncodePrivateKey(key)
	if err != nil {
		return err
	}
	if err := s.storage.Store(ctx, pairKey(name), slices.Concat(keyPEM, []byte("\n----\n"), certPEM)); err != nil {
		return err
	}
	return s.Reload(ctx, name)
}

func (s *testSite) Deliver(ctx context.Context, name string, key crypto.Signer, cert *certmagic.IssuedCertificate) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	unlock, err := s.w.lockName(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	return s.save(ctx, name, key, cert.Certificate)
}

func (s *testSite) Reload(ctx context.Context, name string) error {
	got, _, err := s.load(ctx, name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.served[name] = got
	return nil
}

// lockName takes certmagic's lock for a name, which all processes share.
func (w *world) lockName(ctx context.Context, name string) (unlock func(), err error) {
	if err := w.storage.Lock(ctx, "issue_cert_"+name); err != nil {
		return nil, err
	}
	return func() { _ = w.storage.Unlock(ctx, "issue_cert_"+name) }, nil
}

// charges returns how many charges there were, which is what most tests check.
func (w *world) charges() int { return len(w.ca.Charges()) }

// entry returns the newest entry of the ledger for a name, or nil.
func (w *world) entry(name string) *ledger.Entry {
	w.tb.Helper()
	if list := w.entries(name); len(list) > 0 {
		return list[0]
	}
	return nil
}

// entries returns all entries of the ledger for a name, newest first.
func (w *world) entries(name string) []*ledger.Entry {
	w.tb.Helper()
	l := &ledger.Ledger{Storage: w.storage, Prefix: ledger.Prefix("racent", "test"), Memory: new(ledger.Memory)}
	if err := l.Refresh(context.Background()); err != nil {
		w.tb.Fatal(err)
	}
	list, err := l.About(context.Background(), name)
	if err != nil {
		w.tb.Fatal(err)
	}
	return list
}

// state returns that of the newest entry, empty if there is none.
func (w *world) state(name string) ledger.State {
	if e := w.entry(name); e != nil {
		return e.State
	}
	return ""
}

// mustObtain lets certmagic ask once, and expects that the name is served with a new certificate
// that verifies against the CA's root, at once or later.
func (p *process) mustObtain(name string) chain {
	p.w.tb.Helper()
	return p.mustObtainWithin(name, 30*24*time.Hour)
}

func (p *process) mustObtainWithin(name string, patience time.Duration) chain {
	p.w.tb.Helper()
	before := p.site.serving(name)
	got, err := p.attempt(context.Background(), name)
	if err != nil && !waits(err) && patience <= 0 {
		p.w.tb.Fatalf("obtaining %s: %v", name, err)
	}
	for start := time.Now(); got == nil; time.Sleep(15 * time.Second) {
		if now := p.site.serving(name); now != nil && (before == nil || !now.leaf().Equal(before.leaf())) {
			got = now
		} else if time.Since(start) > patience {
			p.w.tb.Fatalf("obtaining %s: not served after %s: %v", name, patience, err)
		}
	}
	p.w.verify(got, name)
	return got
}

func (s *testSite) serving(name string) chain {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served[name]
}

func (w *world) verify(got chain, name string) {
	w.tb.Helper()
	pool := x509.NewCertPool()
	for _, cert := range got[1:] {
		pool.AddCert(cert)
	}
	now := time.Now()
	if begins := got.leaf().NotBefore; begins.Sub(now) <= maxSkew && begins.After(now) {
		now = begins
	}
	_, err := got.leaf().Verify(x509.VerifyOptions{DNSName: name, Roots: w.ca.Roots(), Intermediates: pool, CurrentTime: now})
	if err != nil {
		w.tb.Fatalf("certificate for %s: %v", name, err)
	}
}

// noSecrets fails if the token is in a log or in the storage, or a private key where none belongs.
func (w *world) noSecrets() {
	w.tb.Helper()
	for _, entry := range w.logs.All() {
		if strings.Contains(fmt.Sprint(entry.Message, entry.ContextMap()), testToken) {
			w.tb.Errorf("the token is in the log: %s", entry.Message)
		}
	}
	w.events.check(w)
	for key, value := range w.storage.snapshot() {
		key0 := strings.HasPrefix(key, "certificates/") || strings.Contains(key, "/keys/")
		if strings.Contains(value, testToken) || !key0 && strings.Contains(value, "PRIVATE KEY") {
			w.tb.Errorf("there is a secret in the storage at %s", key)
		}
	}
}

// web is where validation files are fetched from.
type web struct {
	mu      sync.Mutex
	files   map[string]string // host and path to body
	noTwins bool              // twins do not lead here
}

func (w *web) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	body, ok := w.files[r.URL.Hostname()+r.URL.Path]
	w.mu.Unlock()
	status := http.StatusOK
	if !ok {
		status, body = http.StatusNotFound, "not found"
	}
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"text/plain"}}, Body: io.NopCloser(strings.NewReader(body)),
		ContentLength: int64(len(body)), Request: r,
	}, nil
}

// contents are those of the files.
func (w *web) contents() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Values(w.files))
}

// webProver presents files on the web.
type webProver struct {
	fuse *fuse
	web  *web
}

func (p *webProver) Present(_ context.Context, what proof.Proof) error {
	if p.fuse.burnt() {
		return errDied
	}
	if err := proof.Check(what); err != nil {
		return err
	}
	p.web.mu.Lock()
	defer p.web.mu.Unlock()
	for _, ch := range what.Challenges {
		hosts := what.Names
		if ch.Name != "" {
			hosts = []string{ch.Name}
		}
		for _, host := range hosts {
			path := dcv.PathPrefix + ch.FileName
			p.web.files[host+path] = ch.FileContent
			twin := dcv.Twin(host) + path
			if _, own := p.web.files[twin]; !own && !p.web.noTwins {
				p.web.files[twin] = ch.FileContent
			}
		}
	}
	return nil
}

func (p *webProver) Wait(context.Context, proof.Proof) error { return nil }

// CleanUp leaves the files: a file that stays up too long is harmless, and these tests are not about
// when files are removed.
func (p *webProver) CleanUp(context.Context, proof.Proof) {}
func (p *webProver) Seen(proof.Proof) string              { return "" }

// errDied is what a process gets from the world after its death.
var errDied = errors.New("this process is dead")

// fuse kills a process at its n-th contact with the world. Contacts are counted before and after
// each one takes effect, so a fuse can end a process with or without the effect. A dead process no
// longer changes anything.
type fuse struct {
	mu     sync.Mutex
	left   int // contacts until death; negative is never
	seen   int
	points []string // what each contact was, for the reader of a failure
	dead   bool
	died   func()
}

func (f *fuse) contact(what string) error {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		return errDied
	}
	f.points = append(f.points, what)
	if f.seen == f.left {
		f.dead = true
		if f.died != nil {
			f.died()
		}
		return errDied
	}
	f.seen++
	return nil
}

func (f *fuse) burnt() bool {
	if f == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

type fusedTransport struct {
	fuse *fuse
	next http.RoundTripper
}

func (t fusedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	call := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	if err := t.fuse.contact("before " + call); err != nil {
		return nil, err
	}
	resp, err := t.next.RoundTrip(r)
	if died := t.fuse.contact("after " + call); died != nil {
		return nil, died
	}
	return resp, err
}

type fusedStorage struct {
	*memStorage
	fuse *fuse
}

func (s *fusedStorage) Store(ctx context.Context, key string, value []byte) error {
	if err := s.fuse.contact("before writing " + key); err != nil {
		return err
	}
	if err := s.memStorage.Store(ctx, key, value); err != nil {
		return err
	}
	return s.fuse.contact("after writing " + key)
}

func (s *fusedStorage) Delete(ctx context.Context, key string) error {
	if err := s.fuse.contact("before deleting " + key); err != nil {
		return err
	}
	if err := s.memStorage.Delete(ctx, key); err != nil {
		return err
	}
	return s.fuse.contact("after deleting " + key)
}

func (s *fusedStorage) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	if s.fuse.burnt() {
		return nil, errDied
	}
	return s.memStorage.List(ctx, prefix, recursive)
}

func (s *fusedStorage) Load(ctx context.Context, key string) ([]byte, error) {
	if s.fuse.burnt() {
		return nil, errDied
	}
	return s.memStorage.Load(ctx, key)
}

func (s *fusedStorage) Lock(ctx context.Context, name string) error {
	if s.fuse.burnt() {
		return errDied
	}
	return s.memStorage.Lock(ctx, name)
}

// memStorage is a storage in memory whose locks have no lease.
type memStorage struct {
	mu    sync.Mutex
	data  map[string]string
	locks map[string]chan struct{}
}

func newMemStorage() *memStorage {
	return &memStorage{data: make(map[string]string), locks: make(map[string]chan struct{})}
}

func (s *memStorage) snapshot() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]string, len(s.data))
	for k, v := range s.data {
		out[k] = v
	}
	return out
}

func (s *memStorage) Lock(ctx context.Context, name string) error {
	for {
		s.mu.Lock()
		held, taken := s.locks[name]
		if !taken {
			s.locks[name] = make(chan struct{})
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		select {
		case <-held:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *memStorage) Unlock(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	held, taken := s.locks[name]
	if !taken {
		return fmt.Errorf("%s is not locked", name)
	}
	delete(s.locks, name)
	close(held)
	return nil
}

func (s *memStorage) Store(_ context.Context, key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data[key] = string(value)
	return nil
}

func (s *memStorage) Load(_ context.Context, key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	value, ok := s.data[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(value), nil
}

func (s *memStorage) Delete(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.data[key]; !ok {
		return fs.ErrNotExist
	}
	delete(s.data, key)
	return nil
}

func (s *memStorage) Exists(_ context.Context, key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.data[key]
	return ok
}

func (s *memStorage) List(_ context.Context, prefix string, _ bool) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []string
	for key := range s.data {
		if strings.HasPrefix(key, prefix+"/") {
			keys = append(keys, key)
		}
	}
	if keys == nil {
		return nil, fs.ErrNotExist
	}
	slices.Sort(keys)
	return keys, nil
}

func (s *memStorage) Stat(_ context.Context, key string) (certmagic.KeyInfo, error) {
	return certmagic.KeyInfo{Key: key}, nil
}
