package issuer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"pgregory.net/rapid"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// The model: two servers on one storage attempt to get a certificate again and
// again, over two terms of fake time, from a vendor that does anything it may do,
// while both crash at any contact with the world. What may happen is drawn from
// tapes of bytes, so that rapid can shrink a history that fails.

// tape yields decisions. At its end everything goes well.
type tape struct {
	mu    sync.Mutex
	bytes []byte
}

// pick returns a number below n; an exhausted tape yields 0, the good outcome.
func (t *tape) pick(n int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.bytes) == 0 {
		return 0
	}
	b := t.bytes[0]
	t.bytes = t.bytes[1:]
	return int(b) % n
}

// shop is the vendor of the model: in memory, without HTTP, with a real CA key.
type shop struct {
	tape   *tape
	finder bool // whether it can look references up

	mu      sync.Mutex
	orders  map[string]*shopOrder
	byRef   map[string][]string
	charges []string // references
	serial  int64
	delay   time.Duration // of each order, added to what the tape says
}

type shopOrder struct {
	id, root   string // root is the paid order that a reissue belongs to
	csr        *x509.CertificateRequest
	cert       []byte
	status     vendors.Status
	paid       time.Time
	readyAfter time.Time
}

const modelTerm = 365 * 24 * time.Hour

var modelCA = sync.OnceValue(func() (ca struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "model"}, IsCA: true, BasicConstraintsValid: true,
		// The bubble's clock begins with the year 2000.
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC),
		Issuer: pkix.Name{CommonName: "the root above the model"},
	}
	// Signed by a root that nobody sees, so that it is an intermediate.
	root := *template
	root.Subject = template.Issuer
	der, err := x509.CreateCertificate(rand.Reader, template, &root, key.Public(), key)
	if err != nil {
		panic(err)
	}
	ca.key = key
	if ca.cert, err = x509.ParseCertificate(der); err != nil {
		panic(err)
	}
	return ca
})

func newShop(t *tape, finder bool) *shop {
	return &shop{tape: t, finder: finder, orders: make(map[string]*shopOrder), byRef: make(map[string][]string), serial: 1}
}

// loss decides about the answer of a call: whether it takes effect, and what the
// caller sees.
func (s *shop) loss(endpoint string) (effect bool, err error) {
	fail := func(v vendors.Verdict, cause error) error {
		return &vendors.Error{Vendor: "model", Endpoint: endpoint, Verdict: v, Err: cause}
	}
	switch s.tape.pick(8) {
	case 1:
		return true, fail(vendors.Uncertain, errors.New("answer lost"))
	case 2:
		return false, fail(vendors.Uncertain, errors.New("request lost"))
	case 3:
		return false, fail(vendors.Retryable, errors.New("busy"))
	case 4:
		if s.tape.pick(4) == 0 {
			return false, fail(vendors.Permanent, errors.New("refused"))
		}
	}
	return true, nil
}

func (s *shop) Describe() vendors.Description {
	return vendors.Description{
		Name: "model", Account: "a", Portal: "https://model.example", Methods: []vendors.Method{vendors.MethodHTTP},
		NeedsCommonName: true, AbsenceAge: 2 * time.Minute, RenewWindow: 90 * 24 * time.Hour, CoversTwin: true,
	}
}

func (s *shop) Place(_ context.Context, req vendors.OrderRequest) (vendors.Order, error) {
	time.Sleep(time.Duration(s.tape.pick(50)) * time.Second) // below half of AbsenceAge
	effect, err := s.loss("place")
	var o vendors.Order
	if effect {
		o = s.create(req.Reference, "", req.CSR)
	}
	if err != nil {
		return vendors.Order{}, err
	}
	return o, nil
}

func (s *shop) create(reference, root string, der []byte) vendors.Order {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := fmt.Sprintf("o%d", len(s.orders)+1)
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		panic(err)
	}
	o := &shopOrder{id: id, root: root, csr: csr, status: vendors.StatusPending, paid: time.Now()}
	o.readyAfter = time.Now().Add([]time.Duration{0, time.Minute, time.Hour, 30 * time.Hour}[s.tape.pick(4)] + s.delay)
	if root == "" {
		o.root = id
		s.charges = append(s.charges, reference)
	} else {
		o.paid = s.orders[root].paid
	}
	s.orders[id] = o
	s.byRef[reference] = append(s.byRef[reference], id)
	return vendors.Order{ID: id, Status: vendors.StatusPending}
}

func (s *shop) Reissue(_ context.Context, req vendors.ReissueRequest) (vendors.Order, error) {
	effect, err := s.loss("reissue")
	s.mu.Lock()
	old := s.orders[req.OrderID]
	allowed := old != nil && old.status == vendors.StatusIssued
	root := ""
	if old != nil {
		root = old.root
	}
	if allowed && effect {
		old.status = vendors.StatusReplaced
	}
	s.mu.Unlock()
	if !allowed {
		return vendors.Order{}, &vendors.Error{Vendor: "model", Endpoint: "reissue", Verdict: vendors.Permanent, Err: vendors.ErrWrongState}
	}
	var o vendors.Order
	if effect {
		o = s.create(req.Reference, root, req.CSR)
	}
	if err != nil {
		return vendors.Order{}, err
	}
	return o, nil
}

func (s *shop) Status(_ context.Context, id string) (vendors.Order, error) {
	if s.tape.pick(6) == 1 {
		return vendors.Order{}, &vendors.Error{Vendor: "model", Endpoint: "status", Verdict: vendors.Retryable, Err: errors.New("busy")}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.orders[id]
	if o == nil {
		return vendors.Order{}, &vendors.Error{Vendor: "model", Endpoint: "status", Verdict: vendors.Permanent, Err: vendors.ErrNotFound}
	}
	if o.status == vendors.StatusPending && !time.Now().Before(o.readyAfter) {
		switch s.tape.pick(20) {
		case 1:
			o.status = vendors.StatusRejected
		case 2:
			o.status = vendors.StatusCancelled
		default:
			o.status = vendors.StatusIssued
			o.cert = s.sign(o.csr)
		}
	}
	out := vendors.Order{ID: id, Status: o.status, TermEnds: s.orders[o.root].paid.Add(modelTerm)}
	if o.status == vendors.StatusIssued {
		out.Certificates = [][]byte{o.cert, modelCA().cert.Raw}
		if s.tape.pick(8) == 1 {
			out.Certificates = out.Certificates[:1] // the intermediate is missing this time
		}
	}
	return out, nil
}

func (s *shop) sign(csr *x509.CertificateRequest) []byte {
	s.serial++
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(s.serial), Subject: csr.Subject, DNSNames: csr.DNSNames,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(199 * 24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, modelCA().cert, csr.PublicKey, modelCA().key)
	if err != nil {
		panic(err)
	}
	return der
}

// findingShop is a shop that can look references up.
type findingShop struct{ *shop }

func (s findingShop) Find(_ context.Context, req vendors.Lookup) ([]string, error) {
	if s.tape.pick(6) == 1 {
		return nil, &vendors.Error{Vendor: "model", Endpoint: "find", Verdict: vendors.Retryable, Err: errors.New("busy")}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byRef[req.Reference], nil
}

// fusedVendor counts each call as a contact of its process.
type fusedVendor struct {
	findingShop
	fuse *fuse
}

func (v fusedVendor) around(call string, do func() error) error {
	if err := v.fuse.contact("before " + call); err != nil {
		return &vendors.Error{Vendor: "model", Verdict: vendors.Uncertain, Err: err}
	}
	err := do()
	if died := v.fuse.contact("after " + call); died != nil {
		return &vendors.Error{Vendor: "model", Verdict: vendors.Uncertain, Err: died}
	}
	return err
}

func (v fusedVendor) Place(ctx context.Context, req vendors.OrderRequest) (o vendors.Order, err error) {
	err = v.around("place", func() error { o, err = v.findingShop.Place(ctx, req); return err })
	return o, err
}

func (v fusedVendor) Reissue(ctx context.Context, req vendors.ReissueRequest) (o vendors.Order, err error) {
	err = v.around("reissue", func() error { o, err = v.findingShop.Reissue(ctx, req); return err })
	return o, err
}

func (v fusedVendor) Status(ctx context.Context, id string) (o vendors.Order, err error) {
	err = v.around("status", func() error { o, err = v.findingShop.Status(ctx, id); return err })
	return o, err
}

func (v fusedVendor) Find(ctx context.Context, req vendors.Lookup) (ids []string, err error) {
	err = v.around("find", func() error { ids, err = v.findingShop.Find(ctx, req); return err })
	return ids, err
}

// blindVendor hides Find.
type blindVendor struct{ v fusedVendor }

func (b blindVendor) Describe() vendors.Description { return b.v.Describe() }
func (b blindVendor) Place(ctx context.Context, r vendors.OrderRequest) (vendors.Order, error) {
	return b.v.Place(ctx, r)
}

func (b blindVendor) Status(ctx context.Context, id string) (vendors.Order, error) {
	return b.v.Status(ctx, id)
}

func (b blindVendor) Reissue(ctx context.Context, r vendors.ReissueRequest) (vendors.Order, error) {
	return b.v.Reissue(ctx, r)
}

// history is one run of the model.
type history struct {
	tb      testing.TB
	storage *memStorage
	shop    *shop
	web     *web
	start   time.Time

	mu   sync.Mutex
	jobs int // how many were handed out
}

func (h *history) process(f *fuse) *process {
	s := h.shop
	about := s.Describe()
	fused := fusedVendor{findingShop{s}, f}
	var vendor vendors.Vendor = fused
	if !s.finder {
		vendor = blindVendor{fused}
	}
	ring := newKeyring()
	storage := &fusedStorage{h.storage, f}
	p := &process{fuse: f, keys: ring, flow: &flow{
		vendor: vendor, about: about, ledger: newLedger(storage, about), prove: &webProver{f, h.web},
		order: vendors.OrderConfig{Term: vendors.Term{Years: 1}, Method: vendors.MethodHTTP},
		rules: rules{
			pollMin: 30 * time.Second, pollMax: 6 * time.Hour, maxWait: 48 * time.Hour,
			spend: SpendLimit{100, caddy.Duration(24 * time.Hour)},
		},
	}}
	p.findKey = ringFinder(ring)
	return p
}

// modelJobs is a stock of jobs with keys of their own, more than a history needs,
// because making them would be most of the work.
var modelJobs = sync.OnceValue(func() []modelJob {
	jobs := make([]modelJob, 512)
	for i := range jobs {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			panic(err)
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"example.com"}}, key)
		if err != nil {
			panic(err)
		}
		csr, err := x509.ParseCertificateRequest(der)
		if err != nil {
			panic(err)
		}
		id, err := publicID(key.Public())
		if err != nil {
			panic(err)
		}
		jobs[i] = modelJob{key, job{name: "example.com", csr: csr, key: id, logger: zap.NewNop()}}
	}
	return jobs
})

type modelJob struct {
	signer *ecdsa.PrivateKey
	job
}

// job returns the next job of the history, with a key that no other one had, as
// certmagic makes one for each attempt.
func (h *history) job(p *process) job {
	h.mu.Lock()
	defer h.mu.Unlock()
	next := modelJobs()[h.jobs%len(modelJobs())]
	h.jobs++
	p.keys.remember(next.signer)
	next.started = time.Now()
	return next.job
}

// serve is one server's life: attempts whenever it has no certificate or an old one,
// and crashes.
func (h *history) serve(crashes []int, until time.Duration) (served bool, last error) {
	next := func() *process {
		f := &fuse{left: -1}
		if len(crashes) > 0 {
			f.left, crashes = crashes[0], crashes[1:]
		}
		return h.process(f)
	}
	p := next()
	var renewAt time.Time
	for time.Since(h.start) < until {
		if time.Now().Before(renewAt) {
			time.Sleep(min(time.Until(renewAt), until-time.Since(h.start)) + time.Second)
			continue
		}
		j := h.job(p)
		got, _, err := p.obtain(context.Background(), j)
		p.keys.forget(j.csr.PublicKey)
		if err == nil {
			served, last = true, nil
			renewAt = time.Now().Add(time.Until(got.leaf().NotAfter) * 2 / 3)
			continue
		}
		last = err
		if p.fuse.burnt() {
			p = next()
			continue
		}
		// certmagic would ask more often; what a person must settle stays as it is.
		pause := 6 * time.Hour
		if is[certmagic.ErrNoRetry](err) {
			pause = 20 * 24 * time.Hour
		}
		time.Sleep(pause)
	}
	return served, last
}

// histories is how many histories the model test runs.
const histories = 10_000

// TestModel checks the invariants over random histories, in two halves side by side.
// The race detector makes them ten times slower and gets fewer of them.
func TestModel(t *testing.T) {
	n := histories
	if raceEnabled || testing.Short() {
		n /= 50
	}
	checks := flag.Lookup("rapid.checks")
	if checks.Value.String() == checks.DefValue {
		if err := checks.Value.Set(strconv.Itoa(n / 2)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = checks.Value.Set(checks.DefValue) })
	}
	var all ends
	t.Run("halves", func(t *testing.T) {
		for half := range 2 {
			t.Run(strconv.Itoa(half), func(t *testing.T) {
				t.Parallel()
				modelHistories(t, &all)
			})
		}
	})
	for end, n := range all.count {
		t.Logf("%6d servers ended: %s", n, end)
	}
	t.Logf("%6d histories", all.histories)
	for _, end := range []string{"served", "uncertain, says so", "dead, says so"} {
		// The rarest end comes about once in sixty histories.
		if all.count[end] == 0 && all.histories >= 1000 {
			t.Errorf("the model never ends with: %s", end)
		}
	}
}

// ends counts how servers ended.
type ends struct {
	mu        sync.Mutex
	count     map[string]int
	histories int
}

func (e *ends) add(servers []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.count == nil {
		e.count = make(map[string]int)
	}
	for _, end := range servers {
		e.count[end]++
	}
	e.histories++
}

func modelHistories(t *testing.T, all *ends) {
	rapid.Check(t, func(rt *rapid.T) {
		decisions := rapid.SliceOfN(rapid.Byte(), 0, 60).Draw(rt, "decisions")
		crashesA := rapid.SliceOfN(rapid.IntRange(0, 40), 0, 4).Draw(rt, "crashes of server A")
		crashesB := rapid.SliceOfN(rapid.IntRange(0, 40), 0, 4).Draw(rt, "crashes of server B")
		two := rapid.Bool().Draw(rt, "two servers")
		finder := rapid.IntRange(0, 3).Draw(rt, "blind below one") > 0
		years := rapid.IntRange(1, 2).Draw(rt, "terms")

		var mu sync.Mutex
		var problem string
		var charges int
		ended := make([]string, 0, 2)
		synctest.Test(t, func(*testing.T) {
			h := &history{tb: t, storage: newMemStorage(), shop: newShop(&tape{bytes: decisions}, finder), web: &web{files: make(map[string]string)}, start: time.Now()}
			until := time.Duration(years)*(modelTerm-31*24*time.Hour) - 24*time.Hour
			var wg sync.WaitGroup
			servers := [][]int{crashesA}
			if two {
				servers = append(servers, crashesB)
			}
			for _, crashes := range servers {
				wg.Go(func() {
					served, last := h.serve(crashes, until)
					end := outcome(last)
					if last == nil && !served {
						end = "nothing happened"
					}
					mu.Lock()
					defer mu.Unlock()
					ended = append(ended, end)
				})
			}
			wg.Wait()
			charges = len(h.shop.charges)
			problem = h.judge(years)
		})
		all.add(ended)
		for _, end := range ended {
			if end == "nothing happened" {
				rt.Fatalf("a history ended with nothing said: %v", ended)
			}
		}
		if problem != "" {
			rt.Fatalf("%s (charges %d, ends %v)", problem, charges, ended)
		}
	})
}

// judge checks the invariants at the end of a history.
func (h *history) judge(terms int) string {
	if n := len(h.shop.charges); n > terms {
		return fmt.Sprintf("%d charges in %d terms", n, terms)
	}
	l := newLedger(h.storage, h.shop.Describe())
	recs, err := l.all(context.Background())
	if err != nil {
		return err.Error()
	}
	known := make(map[string]bool)
	for _, rec := range recs {
		if rec.Attempt != nil {
			known[rec.Attempt.Reference] = true
		}
		if rec.Order != nil {
			known[rec.Order.Reference] = true
		}
		for _, past := range rec.Past {
			known[past.Reference] = true
		}
		if (rec.State == StateUncertain || rec.State == StateDead) && rec.Problem == "" {
			return fmt.Sprintf("state %s without a reason", rec.State)
		}
	}
	for _, reference := range h.shop.charges {
		if !known[reference] {
			return "a paid order cannot be reached from the ledger: " + reference
		}
	}
	return ""
}

// countedShop counts the status calls.
type countedShop struct {
	findingShop
	status atomic.Int64
}

func (s *countedShop) Status(ctx context.Context, id string) (vendors.Order, error) {
	s.status.Add(1)
	return s.findingShop.Status(ctx, id)
}

// watcher is what a watch runs for a job.
func (p *process) watcher(j job, issued chan<- string) func(context.Context) {
	return func(ctx context.Context) {
		p.finish(ctx, j, func(chain, *Record) error {
			issued <- j.name
			return nil
		})
	}
}

// Interface guards
var (
	_ vendors.Finder   = fusedVendor{}
	_ vendors.Reissuer = fusedVendor{}
	_ vendors.Reissuer = blindVendor{}
)

// stubborn is a shop whose reissues keep the order's ID and are withdrawn at once.
type stubborn struct{ findingShop }

func (s stubborn) Reissue(_ context.Context, req vendors.ReissueRequest) (vendors.Order, error) {
	return vendors.Order{ID: req.OrderID, Status: vendors.StatusPending}, nil
}

// TestWithdrawnReissue expects that a reissue which somebody took back is noticed, and
// asked for again instead of waited for.
func TestWithdrawnReissue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &history{tb: t, storage: newMemStorage(), shop: newShop(&tape{}, true), web: &web{files: make(map[string]string)}}
		p := h.process(nil)
		p.vendor = stubborn{findingShop{h.shop}}
		if _, _, err := p.obtain(t.Context(), h.job(p)); err != nil {
			t.Fatal(err)
		}
		_, rec, err := p.obtain(t.Context(), h.job(p))
		if !errors.Is(err, errWithdrawn) || rec.State != StateIssued {
			t.Errorf("state %s, error %v", rec.State, err)
		}
		p.vendor = findingShop{h.shop}
		if _, _, err := p.obtain(t.Context(), h.job(p)); err != nil {
			t.Errorf("the next reissue: %v", err)
		}
		if len(h.shop.charges) != 1 {
			t.Errorf("charges = %d, want 1", len(h.shop.charges))
		}
	})
}
