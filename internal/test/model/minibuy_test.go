package model

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

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

// soon is a random pause, so that two names that were in each other's way are not in it
// again.
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
		prepared, err := v.Prepare(ctx, req)
		if err != nil {
			return 0
		}
		req.PreparedID = prepared.ID
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
