package issuer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-commercial/caddy-commercial/issuer/proof"
	"github.com/caddy-commercial/caddy-commercial/ledger"
)

const day = 24 * time.Hour

// inBubble runs a test in a bubble of simulated time.
func inBubble(t *testing.T, name string, test func(*testing.T)) {
	t.Helper()
	if name == "" {
		synctest.Test(t, test)
		return
	}
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}

// maintenance behaves as certmagic's does: every ten minutes it renews what is in the cache and due,
// under the first name of the certificate. A failed renewal is retried after growing pauses,
// whatever its error. Names without a certificate were asked for once.
type maintenance struct {
	p      *process
	reuse  bool // whether private keys are reused
	paused map[string]time.Time
	failed map[string]int
	busy   map[string]bool
	done   chan string // names whose renewal succeeded, or failed with an exclamation mark
}

// maintenancePauses are the waits after errors; the last one is repeated.
var maintenancePauses = []time.Duration{
	time.Minute, 2 * time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 20 * time.Minute,
	20 * time.Minute, 30 * time.Minute, time.Hour, time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour,
}

// maintain runs certmagic's maintenance of the process until it is stopped.
func (p *process) maintain(reuse bool) (stop func()) {
	ctx, cancel := context.WithCancel(p.w.ctx)
	m := &maintenance{
		p: p, reuse: reuse, paused: make(map[string]time.Time), failed: make(map[string]int),
		busy: make(map[string]bool), done: make(chan string, 100),
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		m.run(ctx)
	}()
	return func() {
		cancel()
		<-ended
	}
}

func (m *maintenance) run(ctx context.Context) {
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
			m.look(ctx)
		case name := <-m.done:
			m.note(name)
		case <-ctx.Done():
		}
	}
	for len(m.busy) > 0 {
		m.note(<-m.done)
	}
}

func (m *maintenance) note(name string) {
	failed := name[0] == '!'
	if failed {
		name = name[1:]
	}
	delete(m.busy, name)
	if !failed {
		delete(m.failed, name)
		delete(m.paused, name)
		return
	}
	m.paused[name] = time.Now().Add(maintenancePauses[min(m.failed[name], len(maintenancePauses)-1)])
	m.failed[name]++
}

func (m *maintenance) look(ctx context.Context) {
	site := m.p.site
	site.mu.Lock()
	var due []string
	for _, got := range site.served {
		leaf := got.leaf()
		name := firstName(leaf)
		if first := site.served[name]; first != nil && !site.Due(first.leaf()) {
			continue
		}
		if site.Due(leaf) && !site.strange[name] && !m.busy[name] && !slices.Contains(due, name) && time.Now().After(m.paused[name]) {
			due = append(due, name)
		}
	}
	site.mu.Unlock()
	for _, name := range due {
		if stored, _, err := site.load(ctx, name); err == nil && !site.Due(stored.leaf()) {
			_ = site.Reload(ctx, name) // another server has renewed it
			continue
		}
		m.busy[name] = true
		go func() {
			if m.renew(ctx, name) != nil {
				name = "!" + name
			}
			m.done <- name
		}()
	}
}

func (m *maintenance) renew(ctx context.Context, name string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if m.reuse {
		if _, old, err := m.p.site.load(ctx, name); err == nil {
			key = old.(*ecdsa.PrivateKey)
		}
	}
	// It renews what is in the cache, whatever names the configuration has.
	managed := slices.Contains(m.p.site.names(), name)
	_, err = m.p.attemptWith(ctx, name, key)
	if !managed {
		m.p.site.unmanage(name)
	}
	return err
}

func (s *testSite) unmanage(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.managed = slices.DeleteFunc(s.managed, func(n string) bool { return n == name })
}

// configure is what certmagic does when it is given the names of a configuration: it loads what
// is stored, and asks for the others, once.
func (p *process) configure(names ...string) {
	for _, name := range names {
		p.site.manage(name)
		if p.site.Reload(p.w.ctx, name) == nil {
			continue
		}
		go func() { _, _ = p.attempt(p.w.ctx, name) }()
	}
}

// handshake is what certmagic does for an on-demand name when a client comes.
func (p *process) handshake(name string) {
	served := p.site.serving(name)
	if served == nil && p.site.Reload(p.w.ctx, name) == nil {
		served = p.site.serving(name)
	}
	switch {
	case served == nil:
		p.onDemand(name, 180*time.Second)
	case p.site.Due(served.leaf()):
		if stored, _, err := p.site.load(p.w.ctx, name); err == nil && !p.site.Due(stored.leaf()) {
			_ = p.site.Reload(p.w.ctx, name)
			return
		}
		p.onDemand(name, 90*time.Second)
	}
}

func (p *process) onDemand(name string, patience time.Duration) {
	ctx, cancel := context.WithTimeout(p.w.ctx, patience)
	defer cancel()
	_, _ = p.attempt(ctx, name)
}

// quickly makes a call wait long enough for an order to be placed, and hardly longer, so a test can
// ask and continue.
func quickly(f *flow) { f.rules.maxWait = 3 * time.Second }

// until waits for a condition, for at most the given time, and fails otherwise.
func (w *world) until(patience time.Duration, what string, is func() bool) {
	w.tb.Helper()
	step := min(max(patience/2000, 10*time.Second), 6*time.Hour)
	for start := time.Now(); ; time.Sleep(step) {
		synctest.Wait()
		if is() {
			return
		}
		if time.Since(start) > patience {
			w.tb.Fatalf("%s: not so after %s; charges %d", what, patience, w.charges())
		}
	}
}

// untilServed waits until the process serves a good certificate for each of the names.
func (p *process) untilServed(patience time.Duration, names ...string) {
	p.w.tb.Helper()
	for _, name := range names {
		p.w.until(patience, name+" is served", func() bool {
			got := p.site.serving(name)
			return got != nil && time.Now().Before(got.leaf().NotAfter)
		})
		p.w.verify(p.site.serving(name), name)
	}
}

// wantCharges fails unless exactly that many orders were paid for, and logs which were.
func (w *world) wantCharges(want int) {
	w.tb.Helper()
	if w.charges() == want {
		return
	}
	w.tb.Errorf("charges = %d, want %d", w.charges(), want)
	for _, c := range w.ca.Charges() {
		w.tb.Logf("charged on %s: %s of %s for %v, order %s", c.Time.Format(time.DateOnly), c.Kind, c.Product, c.Names, c.OrderID)
	}
}

// orderElsewhere places an order that this ledger knows nothing about, and returns its ID.
func (w *world) orderElsewhere(names []string, change func(*flow)) string {
	w.tb.Helper()
	p := w.start(nil, func(f *flow) {
		f.ledger.Storage = newMemStorage()
		f.site.(*testSite).storage = f.ledger.Storage
		f.rules.groups = [][]string{names}
		if change != nil {
			change(f)
		}
	})
	p.mustObtain(names[0])
	p.stop()
	orders := w.ca.Orders()
	return orders[len(orders)-1].ID
}

// ahead sets the wall clock of a process wrong by the given duration.
func ahead(by time.Duration) func(*flow) {
	return func(f *flow) { f.ledger.Now = func() time.Time { return time.Now().UTC().Round(0).Add(by) } }
}

// group makes names share an order.
func group(names ...string) func(*flow) {
	return func(f *flow) {
		f.order.Product = "comodo-positive-multi-domain"
		f.rules.groups = [][]string{names}
	}
}

// all applies several changes.
func all(changes ...func(*flow)) func(*flow) {
	return func(f *flow) {
		for _, change := range changes {
			change(f)
		}
	}
}

// refusingProver cannot prove control of some names, and reports that before anything is paid.
type refusingProver struct {
	proof.Prover
	lost map[string]bool // names whose DNS leads elsewhere
}

func (p refusingProver) Wait(ctx context.Context, what proof.Proof) error {
	for _, name := range what.Names {
		if p.lost[name] {
			return errLost
		}
	}
	return p.Prover.Wait(ctx, what)
}

type lostError struct{}

func (lostError) Error() string { return "the name leads elsewhere" }

var errLost = lostError{}

// states are those of all entries of a name, the newest first.
func (w *world) states(name string) []ledger.State {
	var list []ledger.State
	for _, e := range w.entries(name) {
		list = append(list, e.State)
	}
	return list
}
