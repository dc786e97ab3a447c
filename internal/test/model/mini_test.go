package model

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// rules of the mini system that can be taken away, to show that the model notices.
type rules struct {
	noSecondList, wallClockAbsence, noLateCheck, uncapped, wholeGroup, oneAbsence, noCompare, noFinish, noSettle bool
	absenceAge                                                                                                   time.Duration // 0: the vendor's
}

// mini follows the rules in miniature: an entry is one paid order and one file, and
// writing it, then listing, is what makes an order safe.
type mini struct {
	p *Process
	rules

	mu     sync.Mutex
	lines  map[string]*line
	certs  map[string]*tls.Certificate
	read   map[string]string        // what was read for a name
	rounds map[string]chan struct{} // wakes the rounds of a name
	cfg    Config
	ctx    context.Context
	cancel context.CancelFunc
}

// line is what a process remembers of one account.
type line struct {
	m       *mini
	number  int
	account string
	vendor  vendors.Vendor
	about   vendors.Description
	dir     string

	mu     sync.Mutex
	known  map[string]*entry
	seen   map[string]time.Time // attempts without an answer, by this process's clock
	absent map[string]int
	claims map[string]bool
	held   map[string]bool
	ids    int
	chance *mathrand.Rand // repeatable
}

type state string

const (
	asked  state = "asked"
	open   state = "open"
	issued state = "issued"
	gone   state = "gone"
)

type entry struct {
	ID                    string
	Names, Maybe, Covered []string
	State                 state
	Reissue               bool
	Adopted               bool
	Ref                   string
	Key                   []byte
	Order, Root, Prev     string
	Term                  time.Duration
	Started, Ends, Flag   time.Time
	Leaf                  []byte
	Rev                   int
}

func newMini(r rules) Factory {
	return func(p *Process) System {
		return &mini{p: p, rules: r, lines: make(map[string]*line), certs: make(map[string]*tls.Certificate), read: make(map[string]string)}
	}
}

func (m *mini) Load(_ context.Context, cfg Config) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cancel != nil {
		m.cancel()
	}
	m.cfg, m.rounds = cfg, make(map[string]chan struct{})
	m.ctx, m.cancel = context.WithCancel(m.p.Context())
	for _, name := range cfg.Names {
		m.start(name)
	}
	return nil
}

// start begins the rounds of a name, or wakes them. m.mu is held.
func (m *mini) start(name string) {
	if wake := m.rounds[name]; wake != nil {
		select {
		case wake <- struct{}{}:
		default:
		}
		return
	}
	wake := make(chan struct{}, 1)
	m.rounds[name] = wake
	ctx, cfg, l := m.ctx, m.cfg, m.line(m.cfg.Vendor, m.cfg.Account)
	go func() {
		for ctx.Err() == nil {
			t := time.NewTimer(l.round(ctx, cfg, name))
			select {
			case <-t.C:
			case <-wake:
			case <-ctx.Done():
			}
			t.Stop()
		}
	}()
}

func (m *mini) line(number int, account string) *line {
	key := fmt.Sprintf("%d-%s", number, account)
	if m.lines[key] == nil {
		v := m.p.Vendor(number, account)
		m.lines[key] = &line{
			m: m, number: number, account: account, vendor: v, about: v.Describe(), dir: "commercial/" + key,
			known: make(map[string]*entry), seen: make(map[string]time.Time), absent: make(map[string]int), claims: make(map[string]bool), held: make(map[string]bool),
			chance: mathrand.New(mathrand.NewPCG(uint64(m.p.Server), uint64(m.p.Life))),
		}
	}
	return m.lines[key]
}

func (m *mini) Issue(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() == nil {
		m.start(name)
	}
	return certmagic.ErrNoRetry{Err: errors.New("it is being worked on")}
}

func (m *mini) Served(name string) *tls.Certificate {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.certs[name]
}

func (m *mini) Crash() {}

// due reports whether a name needs a certificate.
func (m *mini) due(name string) bool {
	c := m.Served(name)
	return c == nil || old(c.Leaf, m.p.Now())
}

// better reports whether a certificate is to be served in place of another one.
func better(leaf, have *x509.Certificate, now time.Time) bool {
	if old(leaf, now) != old(have, now) {
		return old(have, now)
	}
	return leaf.NotAfter.After(have.NotAfter)
}

func old(leaf *x509.Certificate, now time.Time) bool {
	return now.After(leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 3))
}

type pair struct{ Key, Leaf []byte }

// reload serves what is stored, if it lasts longer.
func (m *mini) reload(ctx context.Context, name string) {
	b, err := m.p.Storage.Load(ctx, "certificates/"+name)
	if err != nil {
		return
	}
	m.mu.Lock()
	same := m.read[name] == string(b)
	m.read[name] = string(b)
	m.mu.Unlock()
	var pr pair
	if !same && json.Unmarshal(b, &pr) == nil {
		m.serve(name, pr)
	}
}

func (m *mini) serve(name string, pr pair) {
	key, err := x509.ParsePKCS8PrivateKey(pr.Key)
	if err != nil {
		return
	}
	leaf, err := x509.ParseCertificate(pr.Leaf)
	if err != nil || leaf.VerifyHostname(name) != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if have := m.certs[name]; have == nil || better(leaf, have.Leaf, m.p.Now()) {
		m.certs[name] = &tls.Certificate{Certificate: [][]byte{pr.Leaf}, PrivateKey: key, Leaf: leaf}
	}
}

func (e *entry) speaks(name string) bool {
	if slices.Contains(e.Names, name) {
		return true
	}
	if e.Covered == nil {
		return slices.Contains(e.Maybe, name)
	}
	return slices.Contains(e.Covered, name)
}

// blocks counts names and the end of the term, never the state.
func (l *line) blocks(e *entry, name string, cfg Config) bool {
	if e.State == gone || !e.speaks(name) {
		return false
	}
	now := l.m.p.Now()
	if e.Covered == nil && !slices.Contains(e.Names, name) && (!e.Flag.IsZero() || now.Sub(e.Started) > day) {
		return false
	}
	margin := min(cfg.Margin, e.Term/2)
	if l.m.uncapped {
		margin = cfg.Margin
	}
	return e.Ends.Sub(now) > margin
}

func (l *line) load(ctx context.Context, id string) (*entry, error) {
	b, err := l.m.p.Storage.Load(ctx, l.dir+"/"+id)
	if errors.Is(err, fs.ErrNotExist) {
		l.mu.Lock()
		delete(l.known, id)
		l.mu.Unlock()
		return nil, nil //nolint:nilnil // absence is no error here
	}
	if err != nil {
		return nil, err
	}
	e := new(entry)
	if err := json.Unmarshal(b, e); err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.known[id] = e
	l.mu.Unlock()
	return e, nil
}

func (l *line) store(ctx context.Context, e *entry) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return l.m.p.Storage.Store(ctx, l.dir+"/"+e.ID, b)
}

// all returns copies of the entries that are known.
func (l *line) all() []*entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*entry
	for _, e := range l.known {
		c := *e
		out = append(out, &c)
	}
	slices.SortFunc(out, func(a, b *entry) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// refresh lists the folder and loads what is not known or not yet issued.
func (l *line) refresh(ctx context.Context) ([]string, error) {
	keys, err := l.m.p.Storage.List(ctx, l.dir, false)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	ids := make([]string, len(keys))
	for i, k := range keys {
		ids[i] = path.Base(k)
	}
	for _, e := range l.all() {
		if !slices.Contains(ids, e.ID) {
			l.mu.Lock()
			delete(l.known, e.ID)
			l.mu.Unlock()
		}
	}
	for _, id := range ids {
		l.mu.Lock()
		e := l.known[id]
		l.mu.Unlock()
		if e == nil || e.Covered == nil && e.State != gone {
			if _, err := l.load(ctx, id); err != nil {
				return nil, err
			}
		}
	}
	return ids, nil
}

// fresh loads again what speaks for any of the names.
func (l *line) fresh(ctx context.Context, names ...string) ([]*entry, error) {
	var out []*entry
	for _, e := range l.all() {
		if e.State == gone || !slices.ContainsFunc(names, e.speaks) {
			continue
		}
		now, err := l.load(ctx, e.ID)
		if err != nil {
			return nil, err
		}
		if now != nil && now.State != gone {
			out = append(out, now)
		}
	}
	return out, nil
}

func (l *line) unfinished(name string) bool {
	return !l.m.noFinish && slices.ContainsFunc(l.all(), func(e *entry) bool {
		return e.Covered == nil && e.State != gone && e.Flag.IsZero() && slices.Contains(e.Names, name) && e.Ends.After(l.m.p.Now())
	})
}

// round does for a name what can be done now, and returns when to come back.
func (l *line) round(ctx context.Context, cfg Config, name string) time.Duration {
	m := l.m
	m.reload(ctx, name)
	if !m.due(name) && !l.unfinished(name) {
		return 5 * time.Hour
	}
	if _, err := l.refresh(ctx); err != nil {
		return time.Minute
	}
	l.sweep(ctx)
	entries, err := l.fresh(ctx, name)
	if err != nil {
		return time.Minute
	}
	due := m.due(name)
	entries = slices.DeleteFunc(entries, func(e *entry) bool {
		return !e.speaks(name) || !e.Ends.After(m.p.Now()) || !due && e.Covered != nil
	})
	if id := cfg.Adopt[name]; due && id != "" && !slices.ContainsFunc(entries, func(e *entry) bool { return e.Root == id }) {
		if l.adopt(ctx, name, id) {
			return 5 * time.Second
		}
	}
	if due && !slices.ContainsFunc(entries, func(e *entry) bool { return l.blocks(e, name, cfg) }) {
		if again := l.buy(ctx, cfg, name); again > 0 {
			return again
		}
	}
	slices.SortFunc(entries, func(a, b *entry) int { return b.Ends.Compare(a.Ends) })
	pause := time.Hour
	for _, e := range entries {
		done, again := l.drive(ctx, name, e.ID)
		if done {
			return 10 * time.Minute
		}
		pause = min(pause, again)
	}
	return pause
}

// sweep deletes what has been over for longer than anything looks back.
func (l *line) sweep(ctx context.Context) {
	for _, e := range l.all() {
		limit := l.m.p.Now().Add(-3 * day)
		if e.Ends.Before(limit) || e.State == gone && e.Started.Before(limit) {
			if now, err := l.load(ctx, e.ID); err == nil && now != nil && (now.Ends.Before(limit) || now.State == gone) {
				_ = l.m.p.Storage.Delete(ctx, l.dir+"/"+e.ID)
			}
		}
	}
}

func (l *line) adopt(ctx context.Context, name, id string) bool {
	o, err := l.vendor.Status(ctx, id)
	if err != nil || o.Status != vendors.StatusIssued && o.Status != vendors.StatusPending {
		return false
	}
	now := l.m.p.Now()
	e := &entry{ID: "x-" + id, State: open, Adopted: true, Order: id, Root: id, Term: 20 * day, Started: now, Ends: o.TermEnds, Rev: 1}
	if e.Ends.IsZero() {
		e.Ends = now.Add(e.Term)
	}
	for _, n := range o.Names {
		e.Names = append(e.Names, n.Name)
	}
	if !slices.Contains(e.Names, name) {
		return false
	}
	if have, err := l.load(ctx, e.ID); err != nil || have != nil {
		return false
	}
	return l.store(ctx, e) == nil
}

// spent counts the orders of the last day.
func (l *line) spent() int {
	n := 0
	for _, e := range l.all() {
		if !e.Adopted && e.Started.After(l.m.p.Now().Add(-day)) {
			n++
		}
	}
	return n
}

func newKey() (pkcs8 []byte, csr func(names []string) []byte) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	if pkcs8, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		panic(err)
	}
	return pkcs8, func(names []string) []byte {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: names}, key)
		if err != nil {
			panic(err)
		}
		return der
	}
}

func (l *line) newID() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ids++
	return fmt.Sprintf("%d-%d-%d-%d", l.m.p.Now().Unix(), l.m.p.Server, l.m.p.Life, l.ids)
}

// soon is a pause that is by chance, so that two names which were in each other's way are
// not again.
func (l *line) soon() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return 5*time.Second + time.Duration(l.chance.IntN(60))*time.Second
}

var holds = []time.Duration{0, 10 * time.Minute, time.Hour, 6 * time.Hour, day}

// buy buys an order for the name's group. It returns when to come back, 0 if it may not.
func (l *line) buy(ctx context.Context, cfg Config, name string) time.Duration {
	m, now := l.m, l.m.p.Now
	if !cfg.MayBuy(name) {
		return 0
	}
	group := slices.DeleteFunc(slices.Clone(cfg.GroupOf(name)), func(n string) bool { return !cfg.MayBuy(n) })
	entries, err := l.fresh(ctx, group...)
	if err != nil {
		return time.Minute
	}
	blocked := func(n string) bool {
		return slices.ContainsFunc(entries, func(e *entry) bool { return l.blocks(e, n, cfg) })
	}
	if blocked(name) {
		return l.soon()
	}
	names := group
	if !m.wholeGroup {
		names = slices.DeleteFunc(slices.Clone(group), blocked)
	}
	var last time.Time
	n := 0
	for _, e := range l.all() {
		if e.State == gone && slices.Contains(e.Names, name) && now().Sub(e.Started) < day {
			n++
			last = e.Started
		}
	}
	if n > 0 && now().Before(last.Add(holds[min(n-1, len(holds)-1)])) || l.spent() >= m.p.Params.Limit {
		return 0
	}
	if !l.claim(names) {
		return l.soon()
	}
	defer l.release(names)

	pkcs8, csr := newKey()
	e := &entry{ID: l.newID(), Names: names, State: asked, Key: pkcs8, Term: time.Duration(cfg.Term) * day, Rev: 1}
	e.Ref = "r" + e.ID
	if l.about.CoversTwin {
		for _, n := range names {
			if t := Twin(n); t != "" && !slices.Contains(names, t) {
				e.Maybe = append(e.Maybe, t)
			}
		}
	}
	req := vendors.OrderRequest{
		OrderConfig: vendors.OrderConfig{Product: cfg.Product, Term: vendors.Term{Days: cfg.Term}, Method: vendors.Method(cfg.Method)},
		Reference:   e.Ref, Names: names, CSR: csr(names),
	}
	if m.p.Work(ctx) != nil {
		return 0
	}
	if v, ok := l.vendor.(vendors.Preparer); ok {
		if req.PreparedID, err = v.Prepare(ctx, req); err != nil {
			return 0
		}
	}
	if ctx.Err() != nil {
		return time.Minute
	}
	// From here on a reload changes nothing.
	ctx = m.p.Context()
	e.Started = now()
	e.Ends = e.Started.Add(e.Term)
	began := time.Now()
	if ok := l.announce(ctx, e, cfg); !ok || !m.noLateCheck && time.Since(began) > m.p.Params.LateCheck {
		_ = m.p.Storage.Delete(ctx, l.dir+"/"+e.ID)
		l.mu.Lock()
		delete(l.known, e.ID)
		l.mu.Unlock()
		return l.soon()
	}
	l.hold(e.ID)
	defer l.free(e.ID)
	o, err := l.vendor.Place(ctx, req)
	switch {
	case err == nil:
		l.answer(ctx, e, func(e *entry) { e.State, e.Order, e.Root = open, o.ID, o.ID })
	case vendors.VerdictOf(err) != vendors.Uncertain:
		_ = m.p.Storage.Delete(ctx, l.dir+"/"+e.ID)
		l.mu.Lock()
		delete(l.known, e.ID)
		l.mu.Unlock()
		return 5 * time.Minute
	}
	return time.Second
}

// announce writes the entry, then lists: no other one may speak for its names.
func (l *line) announce(ctx context.Context, e *entry, cfg Config) bool {
	if l.store(ctx, e) != nil {
		return false
	}
	if s := l.m.p.Params.Settle; s > 0 && !l.m.noSettle {
		wait(ctx, s)
	}
	if l.m.noSecondList {
		return true
	}
	ids, err := l.refresh(ctx)
	if err != nil || !slices.Contains(ids, e.ID) || l.spent() > l.m.p.Params.Limit {
		return false
	}
	others, err := l.fresh(ctx, e.Names...)
	if err != nil {
		return false
	}
	mine := false
	for _, x := range others {
		if x.ID == e.ID {
			mine = x.Rev == 1
			continue
		}
		for _, n := range e.Names {
			if l.blocks(x, n, cfg) {
				return false
			}
		}
	}
	return mine
}

func (l *line) claim(names []string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range names {
		if l.claims[n] {
			return false
		}
	}
	for _, n := range names {
		l.claims[n] = true
	}
	return true
}

func (l *line) release(names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range names {
		delete(l.claims, n)
	}
}

func (l *line) hold(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[id] {
		return false
	}
	l.held[id] = true
	return true
}

func (l *line) free(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, id)
}

// answer writes what the vendor said; it wins over any guess.
func (l *line) answer(ctx context.Context, e *entry, change func(*entry)) {
	for ctx.Err() == nil {
		now, err := l.load(ctx, e.ID)
		if err == nil {
			if now == nil || now.Rev == e.Rev {
				now = e
			}
			next := *now
			change(&next)
			next.Rev++
			if err = l.store(ctx, &next); err == nil {
				*e = next
				return
			}
		}
		wait(ctx, 2*time.Second)
	}
}

// change compares, then writes.
func (l *line) change(ctx context.Context, e *entry, do func(*entry)) bool {
	if !l.m.noCompare {
		now, err := l.load(ctx, e.ID)
		if err != nil || now == nil || now.Rev != e.Rev {
			return false
		}
	}
	next := *e
	do(&next)
	next.Rev++
	if l.store(ctx, &next) != nil {
		return false
	}
	*e = next
	return true
}

func (l *line) flag(ctx context.Context, e *entry) {
	if e.Flag.IsZero() {
		l.change(ctx, e, func(e *entry) { e.Flag = l.m.p.Now() })
	}
}
