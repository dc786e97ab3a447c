package issuer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
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

	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
	"github.com/caddy-commercial/caddy-commercial/issuer/proof"
	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/racent"
)

const testToken = "secret-token-of-the-tests"

// world is a CA, a storage that several processes share, and the web in which
// their validation files are found. It is made for testing/synctest: nothing in it
// uses the network, and all time is the bubble's.
type world struct {
	tb      testing.TB
	ca      *sandboxca.CA
	storage *memStorage
	web     *web
	logs    *observer.ObservedLogs
	logger  *zap.Logger
	ctx     context.Context // ends with the test
}

func newWorld(tb testing.TB, change func(*sandboxca.Config)) *world {
	tb.Helper()
	core, logs := observer.New(zap.DebugLevel)
	ctx, cancel := context.WithCancel(context.Background())
	tb.Cleanup(cancel)
	w := &world{tb: tb, ctx: ctx, storage: newMemStorage(), web: &web{files: make(map[string]string)}, logs: logs, logger: zap.New(core)}
	cfg := sandboxca.Config{
		Accounts:  []sandboxca.Account{{Token: testToken, Balance: 1_000_000}},
		Transport: w.web,
		// A second order with the same reference must show up as a charge.
		Quirks: sandboxca.Quirks{LooseRefID: true},
	}
	if change != nil {
		change(&cfg)
	}
	ca, err := sandboxca.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(ca.Close)
	w.ca = ca
	return w
}

func testContact() vendors.Contact {
	return vendors.Contact{
		FirstName: "Ada", LastName: "Lovelace", Email: "ada@example.com", Phone: "+44.2012345678",
		Organization: "Engines", JobTitle: "Analyst", Address: "1 Square", City: "London",
		State: "London", PostalCode: "W1", Country: "GB",
	}
}

// process is one server: a flow with its own connection to the vendor and its own
// memory of keys, which ends with it.
type process struct {
	*flow
	w    *world
	fuse *fuse
	keys *keyring

	// background is the certificate that a watch delivered, by name.
	background map[string]chan chain
}

// start makes a process. Its fuse is nil for one that never dies.
func (w *world) start(f *fuse, change func(*flow)) *process {
	w.tb.Helper()
	about := vendors.Description{
		Name: "racent", Account: "test", Portal: "https://portal.example",
		AbsenceAge: 2 * time.Minute, RenewWindow: 90 * 24 * time.Hour,
	}
	client, err := racent.New(racent.Settings{
		Token: testToken, Endpoint: "http://127.0.0.1:1/ssl", Timeout: 30 * time.Second, Logger: w.logger,
		Transport: fusedTransport{f, w.ca.Transport()}, Description: about,
	})
	if err != nil {
		w.tb.Fatal(err)
	}
	ring := newKeyring()
	storage := &fusedStorage{w.storage, f}
	p := &process{w: w, fuse: f, keys: ring, background: make(map[string]chan chain), flow: &flow{
		vendor: client, about: client.Describe(), ledger: newLedger(storage, client.Describe()),
		prove: &webProver{f, w.web},
		order: vendors.OrderConfig{Product: "comodo-positivessl", Term: vendors.Term{Years: 1}, Method: vendors.MethodHTTP, Contact: testContact()},
		rules: rules{
			pollMin: 5 * time.Second, pollMax: 10 * time.Minute, maxWait: time.Hour,
			spend: SpendLimit{defaultSpendOrders, caddy.Duration(defaultSpendPer)},
		},
		findKey: func(_ context.Context, _ string, csr *x509.CertificateRequest) (crypto.Signer, bool) {
			return ring.find(csr.PublicKey)
		},
	}}
	if change != nil {
		change(p.flow)
	}
	return p
}

func ringFinder(ring *keyring) func(context.Context, string, *x509.CertificateRequest) (crypto.Signer, bool) {
	return func(_ context.Context, _ string, csr *x509.CertificateRequest) (crypto.Signer, bool) {
		return ring.find(csr.PublicKey)
	}
}

// attempt does what certmagic does for one call of Issue: a new key, a CSR without
// common name, and one call.
func (p *process) attempt(ctx context.Context, name string) (chain, error) {
	p.w.tb.Helper()
	j := p.newJob(p.w.tb, name)
	j.logger = p.w.logger.With(zap.String("identifier", name))
	if ready := p.background[name]; ready != nil {
		select {
		case got, ok := <-ready:
			delete(p.background, name)
			if ok {
				return got, nil
			}
			// The watch failed for good. A fresh attempt says why.
		default:
			return nil, &StillPendingError{Vendor: "racent", Detail: "watched"}
		}
	}
	got, _, err := p.obtain(ctx, j)
	if is[*StillPendingError](err) {
		// As Issuer.Issue does it.
		ready := make(chan chain, 1)
		p.background[name] = ready
		go func() {
			defer close(ready)
			p.finish(p.w.ctx, j, func(got chain, _ *Record) error {
				ready <- got
				return nil
			})
		}()
	}
	return got, err
}

// newJob makes a key, which the process remembers, and the job of a call of Issue
// with it.
func (p *process) newJob(tb testing.TB, name string) job {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	p.keys.remember(key)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{name}}, key)
	if err != nil {
		tb.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		tb.Fatal(err)
	}
	id, err := publicID(key.Public())
	if err != nil {
		tb.Fatal(err)
	}
	return job{name: name, csr: csr, key: id, started: time.Now(), logger: zap.NewNop()}
}

// charges is the currency of the tests.
func (w *world) charges() int { return len(w.ca.Charges()) }

func (w *world) about() vendors.Description {
	return vendors.Description{Name: "racent", Account: "test"}
}

func (w *world) record(name string) *Record {
	w.tb.Helper()
	l := newLedger(w.storage, w.about())
	rec, err := l.load(context.Background(), name)
	if err != nil {
		w.tb.Fatal(err)
	}
	return rec
}

// mustObtain expects a certificate for name that verifies against the CA's root.
func (p *process) mustObtain(name string) chain {
	p.w.tb.Helper()
	got, err := p.attempt(context.Background(), name)
	if err != nil {
		p.w.tb.Fatalf("obtaining %s: %v", name, err)
	}
	p.w.verify(got, name)
	return got
}

func (w *world) verify(got chain, name string) {
	w.tb.Helper()
	pool := x509.NewCertPool()
	for _, cert := range got[1:] {
		pool.AddCert(cert)
	}
	_, err := got.leaf().Verify(x509.VerifyOptions{DNSName: name, Roots: w.ca.Roots(), Intermediates: pool, CurrentTime: time.Now()})
	if err != nil {
		w.tb.Fatalf("certificate for %s: %v", name, err)
	}
}

// noSecrets fails if the token stands in a log or in the storage.
func (w *world) noSecrets() {
	w.tb.Helper()
	for _, entry := range w.logs.All() {
		if strings.Contains(fmt.Sprint(entry.Message, entry.ContextMap()), testToken) {
			w.tb.Errorf("the token is in the log: %s", entry.Message)
		}
	}
	for key, value := range w.storage.snapshot() {
		if strings.Contains(value, testToken) || strings.Contains(value, "PRIVATE KEY") {
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

// webProver presents files on the web.
type webProver struct {
	fuse *fuse
	web  *web
}

func (p *webProver) Present(_ context.Context, what proof.Proof) error {
	if p.fuse.burnt() {
		return errDied
	}
	p.web.mu.Lock()
	defer p.web.mu.Unlock()
	for _, ch := range what.Challenges {
		if ch.Method != vendors.MethodHTTP && ch.Method != vendors.MethodHTTPS {
			continue
		}
		file, err := dcv.NewChallenge(what.ID, what.Names, ch.FileName, ch.FileContent)
		if err != nil {
			return err
		}
		if ch.Name != "" {
			file.Hosts = []string{dcv.NormalizeHost(ch.Name)}
		}
		for _, host := range file.Hosts {
			p.web.files[host+file.Path] = string(file.Body)
			if !p.web.noTwins {
				p.web.files[dcv.Twin(host)+file.Path] = string(file.Body)
			}
		}
	}
	return nil
}

func (p *webProver) Wait(context.Context, proof.Proof) error { return nil }

// CleanUp leaves the files: a file that stays up too long is harmless, and the
// life of files is not what these tests are about.
func (p *webProver) CleanUp(context.Context, proof.Proof) {}
func (p *webProver) Seen(proof.Proof) string              { return "" }

// errDied is what a process gets from the world after its death.
var errDied = errors.New("this process is dead")

// fuse kills a process at its n-th contact with the world. Contacts are counted
// before and after each one takes effect, so a fuse can end a process with or without
// the effect. A dead process changes nothing any more.
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
