package issuer

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/app"
	"github.com/caddy-commercial/caddy-commercial/ledger"
)

// Issue returns a certificate for the CSR, if it can be had soon: from the pending order,
// by a reissue of the paid one, or by a new order, in this order of preference.
//
// certmagic holds one of its slots for jobs and a lock in storage while it waits for
// Issue, and much depends on what an error of Issue does to it. So the work is the
// scheduler's from the beginning, and Issue only waits for it, for at most max_wait. Every
// error tells certmagic not to retry: either the scheduler goes on, and stores the
// certificate itself, or a person must act. Only a configuration that is still starting is
// asked again.
func (iss *Issuer) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	if err := iss.checkSubjects(csr); err != nil {
		return nil, noRetry(err)
	}
	w, err := iss.newWant(ctx, csr)
	if err != nil {
		return nil, noRetry(err)
	}
	line := iss.borrowLine()
	if line == nil {
		return nil, errors.New("the issuer was not given its TLS config")
	}
	defer line.Release()
	// After a reload that failed, certmagic asks the issuer of the failed configuration.
	// The configuration that is attached to the line is the one that runs.
	if err := iss.waitStarted(ctx, line); err != nil {
		return nil, fmt.Errorf("%s: %w", iss.about.Name, err)
	}
	f := iss.flowOn(line)
	got, entry, err := f.issue(ctx, w)
	if err != nil {
		return nil, noRetry(fmt.Errorf("%s: %w", iss.about.Name, err))
	}
	return issuedCertificate(iss.about, got, entry), nil
}

// newWant takes over the private key of the CSR, which certmagic made a moment ago or has
// stored.
func (iss *Issuer) newWant(ctx context.Context, csr *x509.CertificateRequest) (*want, error) {
	id, err := keyID(csr.PublicKey)
	if err != nil {
		return nil, err
	}
	w := &want{name: csr.DNSNames[0], key: id, extras: extrasOf(csr), config: iss.config()}
	key, known := keys.find(csr.PublicKey)
	if known {
		keys.forget(csr.PublicKey)
	} else if magic := iss.config(); magic != nil {
		key, known = storedKey(ctx, magic.Storage, issuerKeysOf(magic), w.name, id)
	}
	if !known {
		w.csr = csr.Raw
		return w, nil
	}
	w.pem, err = encodeKey(key)
	return w, err
}

// startPatience is how long Issue waits for its configuration to start. Apps are started in
// random order, and the HTTP app asks for certificates as soon as it has started.
const startPatience = time.Minute

func (iss *Issuer) waitStarted(ctx context.Context, line *app.Line) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startPatience, errors.New("the configuration has not started yet"))
	defer cancel()
	return line.Attached(ctx)
}

// issue has the scheduler work on the want, and waits for the outcome for as long as a
// call may.
func (f *flow) issue(ctx context.Context, w *want) (chain, *ledger.Entry, error) {
	started := time.Now()
	handshake := f.background(ctx, w.name)
	if err := f.refuseStranger(w.name); err != nil {
		handshake.hold(ctx)
		return nil, nil, err
	}
	patience := f.patience(ctx, w.name)
	done, why, ours := f.account.ask(w)
	if !ours {
		if errors.Is(why, errDelivered) {
			return nil, nil, f.inBackground(w, why)
		}
		if !f.busy(w.name) {
			f.wake(w.name) // a configuration without the name has dropped it
		}
		handshake.hold(ctx)
		if why != nil {
			return nil, nil, why
		}
		return nil, nil, f.inBackground(w, errors.New("an earlier request is being worked on"))
	}
	f.wake(w.name)
	if leave, ok := f.account.enter(); ok {
		defer leave()
	} else {
		patience = 0
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	var with answer
	answered := true
	select {
	case with = <-done:
	case <-timer.C:
		with, answered = f.account.hangUp(w, done)
	case <-ctx.Done():
		with, answered = f.account.hangUp(w, done)
	}
	switch {
	case !answered:
		return nil, nil, f.stillPending(w, time.Since(started))
	case errors.Is(with.err, errDelivered):
		// Whoever stores it waits for certmagic's lock, which this call holds.
		return nil, nil, f.inBackground(w, with.err)
	case errors.Is(with.err, errSuperseded):
		handshake.hold(ctx)
		return nil, nil, f.inBackground(w, with.err)
	case with.err != nil:
		handshake.hold(ctx)
		return nil, nil, with.err
	}
	return with.got, with.entry, nil
}

// inBackground is the error of a call that has no part in what goes on for its name.
func (f *flow) inBackground(w *want, why error) error {
	return &PendingError{Vendor: f.about.Name, Names: []string{w.name}, Detail: why.Error()}
}

// stillPending is the error of a call that ends before the certificate is there.
func (f *flow) stillPending(w *want, waited time.Duration) error {
	pending := &PendingError{Vendor: f.about.Name, Names: []string{w.name}, Waited: waited}
	why := f.account.why(w)
	if p, ok := errors.AsType[*PendingError](why); ok {
		pending.OrderID, pending.Detail = p.OrderID, p.Detail
	} else if why != nil {
		pending.Detail = why.Error()
	}
	f.logger.Info("the certificate takes its time; going on in the background", zap.String("identifier", w.name),
		zap.String("vendor", f.about.Name), zap.String("order_id", pending.OrderID), zap.String("detail", pending.Detail))
	return pending
}

// deadlineReserve is how much of a handshake's time is left for the rest of the handshake.
const deadlineReserve = 2 * time.Second

// patience is how long a call may wait: max_wait; or, for a handshake, until shortly before
// it gives up; or not at all, if a certificate of ours is served that is not due, because then
// it is certmagic's only maintenance goroutine that would wait.
func (f *flow) patience(ctx context.Context, name string) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return max(time.Until(deadline)-deadlineReserve, 0)
	}
	for _, served := range f.site.Served(name) {
		if !f.site.Due(served) && f.account.ledger.HasSerial(name, serialOf(served)) {
			return 0
		}
	}
	if f.rules.maxWait == 0 {
		return 365 * 24 * time.Hour
	}
	return f.rules.maxWait
}

// handshake is a call for a renewal that a handshake asks for while the old certificate is
// served. Its zero value is any other call.
type handshake struct{ until time.Time }

// background returns the handshake that a call is for, or the zero value.
func (f *flow) background(ctx context.Context, name string) handshake {
	deadline, ok := ctx.Deadline()
	if _, onDemand := f.site.Allows(name); !ok || !onDemand {
		return handshake{}
	}
	for _, served := range f.site.Served(name) {
		if time.Now().Before(served.NotAfter) {
			return handshake{until: deadline.Add(-deadlineReserve)}
		}
	}
	return handshake{}
}

// hold keeps a call from ending early with an error. Otherwise the next handshake would
// call again at once, and so on, hundreds of times per second.
func (h handshake) hold(ctx context.Context) {
	if h.until.IsZero() {
		return
	}
	timer := time.NewTimer(time.Until(h.until))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// refuseStranger refuses what a handshake may not order, if no order is known for the name. It
// does so before anything else is done, and without a look into storage.
func (f *flow) refuseStranger(name string) error {
	_, onDemand := f.site.Allows(name)
	if f.rules.allowOnDemand || !onDemand || !f.account.ledger.Listed() || f.account.ledger.Knows(name) {
		return nil
	}
	return errOnDemand(name)
}

func errOnDemand(name string) error {
	return noRetry(fmt.Errorf("a certificate for %s would have to be paid for, and TLS handshakes may not order any; "+
		"set allow_on_demand to permit it", name))
}
