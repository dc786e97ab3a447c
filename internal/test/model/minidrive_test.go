package model

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// drive moves an entry on for as long as something changes. It reports whether the name
// has its certificate, and otherwise when to come back.
func (l *line) drive(ctx context.Context, name, id string) (bool, time.Duration) {
	if !l.hold(id) {
		return false, time.Minute
	}
	defer l.free(id)
	for range 10 {
		e, err := l.load(ctx, id)
		if err != nil {
			return false, time.Minute
		}
		if e == nil || e.State == gone || !e.Ends.After(l.m.p.Now()) {
			return false, time.Hour
		}
		switch e.State {
		case asked:
			if !l.lookUp(ctx, e) {
				if !e.Flag.IsZero() {
					return false, 3 * time.Hour
				}
				return false, 5 * time.Minute
			}
		case open:
			if !l.follow(ctx, e) {
				return false, l.pace(e)
			}
		case issued:
			if !e.speaks(name) || !l.m.due(name) {
				return !l.m.due(name), time.Hour
			}
			if l.deliver(ctx, e) {
				return true, 0
			}
			if !l.reissue(ctx, e) {
				return false, time.Duration(5+17*l.m.p.Server) * time.Minute
			}
		case gone:
		}
	}
	return false, 5 * time.Minute
}

// pace is slower for what takes long or waits for a person.
func (l *line) pace(e *entry) time.Duration {
	age := l.m.p.Now().Sub(e.Started)
	switch {
	case !e.Flag.IsZero():
		return 3 * time.Hour
	case age > 3*time.Hour:
		return time.Hour
	}
	return 10 * time.Minute
}

// deliver stores and serves the certificate of an entry, if its key is ours and it lasts.
func (l *line) deliver(ctx context.Context, e *entry) bool {
	key, err := x509.ParsePKCS8PrivateKey(e.Key)
	if err != nil {
		return false
	}
	leaf, err := x509.ParseCertificate(e.Leaf)
	if err != nil || !fits(key, leaf) || old(leaf, l.m.p.Now()) {
		return false
	}
	pr := pair{e.Key, e.Leaf}
	b, err := json.Marshal(pr)
	if err != nil {
		return false
	}
	for _, n := range leaf.DNSNames {
		if have := l.m.Served(n); have != nil && !better(leaf, have.Leaf, l.m.p.Now()) {
			continue
		}
		if l.m.p.Storage.Store(ctx, "certificates/"+n, b) == nil {
			l.m.serve(n, pr)
		}
	}
	return true
}

// lookUp asks for an order whose answer is missing. Absence takes two lookups, and an age
// by this process's own clock.
func (l *line) lookUp(ctx context.Context, e *entry) bool {
	l.mu.Lock()
	if l.seen[e.Ref].IsZero() {
		l.seen[e.Ref] = time.Now()
	}
	age := time.Since(l.seen[e.Ref])
	l.mu.Unlock()
	if l.m.wallClockAbsence {
		age = l.m.p.Now().Sub(e.Started)
	}
	absence := l.about.AbsenceAge
	if l.m.absenceAge > 0 {
		absence = l.m.absenceAge
	}
	ids, err := []string(nil), vendors.ErrUndecidable
	if f, ok := l.vendor.(vendors.Finder); ok {
		ids, err = f.Find(ctx, vendors.Lookup{Reference: e.Ref, Names: e.Names, Sent: e.Started})
	}
	free := e.Reissue && e.Order != ""
	switch {
	case errors.Is(err, vendors.ErrUndecidable):
		if age >= absence {
			if free {
				return l.compare(ctx, e)
			}
			l.flag(ctx, e)
		}
	case err != nil:
	case len(ids) == 1:
		return l.change(ctx, e, func(e *entry) {
			e.State, e.Order = open, ids[0]
			if !free {
				e.Root, e.Flag = ids[0], time.Time{}
			}
		})
	case len(ids) == 0:
		l.mu.Lock()
		l.absent[e.Ref]++
		looks := l.absent[e.Ref]
		l.mu.Unlock()
		if age < absence || looks < 2 && !l.m.oneAbsence {
			return false
		}
		if free {
			return l.compare(ctx, e)
		}
		return l.change(ctx, e, func(e *entry) { e.State = gone })
	}
	return false
}

// compare finds out what became of a reissue from the order that was to be reissued.
func (l *line) compare(ctx context.Context, e *entry) bool {
	o, err := l.vendor.Status(ctx, e.Prev)
	if err != nil {
		return false
	}
	switch o.Status {
	case vendors.StatusIssued:
		return l.change(ctx, e, func(e *entry) { e.State, e.Order, e.Leaf = issued, e.Prev, o.Certificates[0] })
	case vendors.StatusReplaced:
		l.flag(ctx, e)
		return false
	default:
		return l.change(ctx, e, func(e *entry) { e.State, e.Order = open, e.Prev })
	}
}

// follow asks for the status of an order.
func (l *line) follow(ctx context.Context, e *entry) bool {
	o, err := l.vendor.Status(ctx, e.Order)
	if errors.Is(err, vendors.ErrNotFound) {
		l.mu.Lock()
		l.absent[e.Order]++
		looks := l.absent[e.Order]
		l.mu.Unlock()
		if looks > 8 {
			l.flag(ctx, e)
		}
		return false
	}
	if err != nil {
		return false
	}
	if o.Status == vendors.StatusIssued {
		leaf, err := x509.ParseCertificate(o.Certificates[0])
		if err != nil {
			return false
		}
		return l.change(ctx, e, func(e *entry) {
			e.State, e.Leaf, e.Covered, e.Flag = issued, leaf.Raw, leaf.DNSNames, time.Time{}
			if !o.TermEnds.IsZero() {
				e.Ends = o.TermEnds
			}
		})
	}
	if o.Status.Ended() {
		if e.Reissue && e.Prev != "" && e.Prev != e.Order {
			if p, err := l.vendor.Status(ctx, e.Prev); err == nil && p.Status == vendors.StatusIssued {
				return l.change(ctx, e, func(e *entry) { e.State, e.Order = issued, e.Prev })
			}
		}
		l.flag(ctx, e)
	}
	return false
}

// reissue asks for a certificate with a new key.
func (l *line) reissue(ctx context.Context, e *entry) bool {
	if l.m.p.Work(ctx) != nil {
		return false
	}
	pkcs8, csr := newKey()
	ref := "f" + l.newID()
	prev := e.Order
	if !l.change(ctx, e, func(e *entry) {
		e.State, e.Reissue, e.Ref, e.Key, e.Prev = asked, true, ref, pkcs8, e.Order
	}) {
		return false
	}
	if s := l.m.p.Params.Settle; s > 0 {
		wait(ctx, s)
	}
	now, err := l.load(ctx, e.ID)
	if err != nil || now == nil || now.Ref != ref {
		return false
	}
	o, err := l.vendor.(vendors.Reissuer).Reissue(ctx, prev, vendors.OrderRequest{Reference: ref, Names: e.Names, CSR: csr(e.Names)})
	switch {
	case err == nil:
		l.answer(ctx, e, func(e *entry) { e.State, e.Order = open, o.ID })
	case errors.Is(err, vendors.ErrWrongState):
		l.compare(ctx, e)
		return false
	case vendors.VerdictOf(err) != vendors.Uncertain:
		l.change(ctx, e, func(e *entry) { e.State = issued })
		return false
	}
	return true
}

// Flagged lists what a person must decide.
func (m *mini) Flagged(ctx context.Context) ([]Flag, error) {
	var flags []Flag
	for _, l := range m.everyLine() {
		if _, err := l.refresh(ctx); err != nil {
			return nil, err
		}
		for _, e := range l.all() {
			if now, err := l.load(ctx, e.ID); err == nil && now != nil && !now.Flag.IsZero() && now.State != gone {
				flags = append(flags, Flag{ID: now.ID, Vendor: l.number, Account: l.account, Reference: now.Ref, OrderID: now.Order, Since: now.Flag})
			}
		}
	}
	return flags, nil
}

func (m *mini) everyLine() []*line {
	m.mu.Lock()
	defer m.mu.Unlock()
	lines := make([]*line, 0, 4)
	for number := range 2 {
		for _, account := range []string{"", "second"} {
			lines = append(lines, m.line(number, account))
		}
	}
	return lines
}

// Resolve settles an entry.
func (m *mini) Resolve(ctx context.Context, f Flag, truth Truth) error {
	i := slices.IndexFunc(m.everyLine(), func(l *line) bool { return l.number == f.Vendor && l.account == f.Account })
	l := m.everyLine()[i]
	e, err := l.load(ctx, f.ID)
	if err != nil || e == nil {
		return errors.Join(err, errors.New("there is no such entry"))
	}
	e.Flag = time.Time{}
	if truth.Gone {
		e.State = gone
	} else {
		e.State, e.Order = open, truth.OrderID
		if e.Root == "" {
			e.Root = truth.OrderID
		}
	}
	e.Rev++
	return l.store(ctx, e)
}
