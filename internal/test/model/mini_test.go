package model

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// rules are those of the mini system that can be removed, to show that the model notices.
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

// line is what a process remembers about one account.
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
		leaf := m.Served(name).Leaf
		due := leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 3)
		return min(5*time.Hour, due.Sub(m.p.Now())+time.Second)
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

// sweep deletes what ended longer ago than anything looks back.
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
