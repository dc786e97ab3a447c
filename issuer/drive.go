package issuer

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/issuer/proof"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// errand is one name's interest in an entry.
type errand struct {
	name string
	want *want             // nil if certmagic does not ask
	have *x509.Certificate // the stored certificate; nil if there is none
	log  *zap.Logger

	// armed is the reference of the attempt that this very round has stored, and that is
	// to be sent. Any other attempt whose answer is missing is looked up, and never sent.
	armed string
	since time.Time // when it was stored
	paid  func()    // ends the turn of a paid call; set for those
}

// move is what a step comes to: a change of the entry, which is written in one place, and
// what follows.
type move struct {
	change    func(*ledger.Entry) // nil if there is nothing to write
	answer    bool                // the change is the vendor's word, which wins over any guess
	remove    bool                // the request bought nothing, and the entry holds nothing else
	armed     string              // reference of the attempt that the change makes, to be sent
	presented *proof.Proof        // what was presented for that attempt
	wakes     bool                // the other names of the order have something to fetch
	done      *progress           // ends the round
}

func ends(p progress) move { return move{done: &p} }

// maxSteps bounds the steps of one round. Each of them writes or ends the round.
const maxSteps = 10

// drive takes an order a few steps on, as far as that goes without waiting for the CA.
func (f *flow) drive(ctx context.Context, name string, w *want, e *ledger.Entry, have *x509.Certificate) progress {
	j := &errand{name: name, want: w, have: have, log: f.logger.With(zap.String("identifier", name), zap.String("vendor", f.about.Name))}
	release, ok := f.account.drive(e.ID)
	if !ok {
		return progress{err: f.pending(e, "another name's turn"), wait: f.rules.pace.Min}
	}
	defer release()
	return f.steps(ctx, j, e)
}

// steps is the one place where entries are written, and where proofs that a new state has no
// use for are removed: after the write, so that a writer that loses a conflict removes nothing
// that the other one needs.
func (f *flow) steps(ctx context.Context, j *errand, e *ledger.Entry) progress {
	for range maxSteps {
		m := f.step(ctx, j, e)
		j.armed = ""
		next, err := f.write(ctx, e, m)
		switch {
		case err != nil && m.presented != nil:
			f.prove.CleanUp(ctx, *m.presented)
			fallthrough
		case err != nil:
			if errors.Is(err, ledger.ErrConflict) {
				return progress{err: f.pending(e, "another server works on it"), wait: f.rules.pace.Min}
			}
			return progress{err: err}
		case next != e:
			f.cleanUpAfter(ctx, e, next)
			if next == nil || next.Flag != nil || next.State == ledger.Issued || next.State == ledger.Gone {
				f.account.replacements.leave(e.ID, f.wake)
			}
			if m.wakes {
				f.wakeOthers(j.name, next)
			}
		}
		if m.done != nil {
			if m.done.entry == nil {
				m.done.entry = next
			}
			return *m.done
		}
		if next == nil {
			return progress{err: fmt.Errorf("order for %s: %w", j.name, errNothingBought)}
		}
		if m.armed != "" {
			j.armed, j.since = m.armed, time.Now()
		}
		if ctx.Err() != nil {
			return progress{err: context.Cause(ctx)}
		}
		e = next
	}
	return progress{err: f.pending(e, "it goes on in a moment"), wait: f.rules.pace.Min}
}

func (f *flow) write(ctx context.Context, e *ledger.Entry, m move) (*ledger.Entry, error) {
	change := func(e *ledger.Entry) {
		m.change(e)
		f.tellVisits(e)
	}
	switch {
	case m.remove:
		return nil, f.ledger.Delete(ctx, e.ID)
	case m.change != nil && m.answer:
		return f.ledger.Answer(ctx, e, change)
	case m.change != nil:
		return f.ledger.Write(ctx, e, change)
	}
	return e, nil
}

// step does what the entry's state calls for.
func (f *flow) step(ctx context.Context, j *errand, e *ledger.Entry) move {
	switch e.State {
	case ledger.Asked:
		if j.armed != "" && j.armed == e.Attempt.Reference {
			return f.send(ctx, j, e)
		}
		return f.lookUp(ctx, j, e)
	case ledger.Open:
		return f.follow(ctx, j, e)
	case ledger.Issued:
		return f.useOrReissue(ctx, j, e)
	case ledger.Gone:
	}
	return ends(progress{err: fmt.Errorf("the order for %s is gone", j.name)})
}

// send sends the request of the attempt that was just stored.
func (f *flow) send(ctx context.Context, j *errand, e *ledger.Entry) move {
	if e.Attempt.Kind == ledger.KindReissue {
		return f.sendReissue(ctx, j, e)
	}
	return f.pay(ctx, j, e)
}

// cleanUpAfter takes away the proofs that are not needed any more after an entry has
// changed, or has gone.
func (f *flow) cleanUpAfter(ctx context.Context, before, after *ledger.Entry) {
	if !needsProof(before) {
		return
	}
	if after != nil && needsProof(after) && after.Attempt.Reference == before.Attempt.Reference {
		return
	}
	f.cleanUp(ctx, before)
}

// needsProof reports whether the CA may still come to look.
func needsProof(e *ledger.Entry) bool {
	return e.State == ledger.Asked || e.State == ledger.Open && len(e.Attempt.Challenges) > 0
}

func (f *flow) cleanUp(ctx context.Context, e *ledger.Entry) {
	p := f.proofOf(e)
	f.prove.CleanUp(ctx, p)
	if e.Method == vendors.MethodDNS {
		f.forgetDraft(ctx, p.ID)
	}
}

func (f *flow) forgetDraft(ctx context.Context, reference string) {
	if err := f.ledger.ForgetDraft(ctx, reference); err != nil {
		f.logger.Warn("removing a note of DNS records failed", zap.String("reference", reference), zap.Error(err))
	}
}

func (f *flow) proofOf(e *ledger.Entry) proof.Proof {
	return proof.Proof{ID: e.Attempt.Reference, Names: e.Names, Method: e.Method, Challenges: e.Attempt.Challenges}
}

// present presents the proofs of a request that was sent, once per configuration. If that
// fails, the order is watched all the same: the CA may have seen them, or another server
// may present them.
func (f *flow) present(ctx context.Context, j *errand, e *ledger.Entry) {
	l := f.account.look(e.Attempt.Reference)
	if l.config == f.config && sameChallenges(l.presented, e.Attempt.Challenges) || len(e.Attempt.Challenges) == 0 {
		return
	}
	p := f.proofOf(e)
	if e.Method == vendors.MethodDNS {
		if err := f.keepDraft(ctx, p); err != nil {
			j.log.Error("noting DNS records failed", zap.Error(err))
		}
	}
	if err := f.prove.Present(ctx, p); err != nil {
		j.log.Error("presenting the proofs of control of a pending order failed", zap.String("order_id", e.OrderID), zap.Error(err))
		return
	}
	l.config, l.presented = f.config, e.Attempt.Challenges
	if e.Method == vendors.MethodDNS {
		if err := f.prove.Wait(ctx, p); err != nil && ctx.Err() == nil {
			j.log.Warn("a DNS record for validation cannot be seen yet", zap.Strings("identifiers", p.Names), zap.Error(err))
		}
	}
}

func (f *flow) keepDraft(ctx context.Context, p proof.Proof) error {
	return f.ledger.KeepDraft(ctx, ledger.Draft{
		Reference: p.ID, Names: p.Names, Method: p.Method, Challenges: append(p.Challenges[:len(p.Challenges):len(p.Challenges)], p.Trial...),
		Started: f.ledger.Time(),
	})
}

// tidy removes DNS records left behind by processes that are gone.
func (f *flow) tidy(ctx context.Context) {
	left, err := f.ledger.LeftBehind(ctx)
	if err != nil {
		f.logger.Warn("looking for DNS records that were left behind failed", zap.Error(err))
		return
	}
	needed := make(map[string]bool)
	for _, e := range f.ledger.Memory.Pending() {
		if needsProof(e) {
			needed[e.Attempt.Reference] = true
		}
	}
	for _, d := range left {
		if needed[d.Reference] {
			continue
		}
		f.logger.Info("removing DNS records that were left behind", zap.Strings("identifiers", d.Names), zap.String("reference", d.Reference))
		f.prove.CleanUp(ctx, proof.Proof{ID: d.Reference, Names: d.Names, Method: d.Method, Challenges: d.Challenges})
		f.forgetDraft(ctx, d.Reference)
	}
}

// useOrReissue deals with an order that has a certificate: the certificate is used for the
// name, or the order is reissued, free of charge while the paid term lasts.
func (f *flow) useOrReissue(ctx context.Context, j *errand, e *ledger.Entry) move {
	if !e.Speaks(j.name) {
		j.log.Info("the order does not cover this name after all", zap.String("order_id", e.OrderID))
		return ends(progress{err: f.pending(e, "it does not cover the name"), wait: time.Second})
	}
	c := e.Certificate
	fresh := f.better(e, j.name, j.have)
	if fresh && f.account.waitsFor(j.want, c.Key) {
		got, err := f.certificateOf(ctx, e)
		if err != nil {
			return f.unfetched(e, err)
		}
		return ends(progress{got: got, entry: e})
	}
	if fresh {
		key, ok, err := f.keyOf(ctx, e)
		if err != nil {
			return ends(progress{err: err})
		}
		if ok {
			return f.deliver(ctx, j, e, key)
		}
	}
	if j.have != nil && !f.site.Due(j.have) && !f.lost(j.name, j.have) && (f.overtaken(j, e) || j.want == nil && !fresh) {
		// Another server has renewed it, or nobody needs another one.
		if err := f.site.Reload(ctx, j.name); err != nil {
			return ends(progress{err: fmt.Errorf("serving the stored certificate of %s: %w", j.name, err)})
		}
		return ends(progress{done: true, entry: e})
	}
	return f.reissue(ctx, j, e)
}

// overtaken reports whether the stored certificate is newer than what this process serves,
// so that the call of certmagic is out of date.
func (f *flow) overtaken(j *errand, e *ledger.Entry) bool {
	if j.want == nil {
		return false
	}
	for _, served := range f.site.Served(j.name) {
		if serialOf(served) == serialOf(j.have) {
			return false
		}
	}
	return e.Certificate.Serial == serialOf(j.have)
}

// due reports whether a certificate that is not loaded is due for renewal.
func (f *flow) due(c *ledger.Certificate) bool {
	return f.site.Due(&x509.Certificate{NotBefore: c.NotBefore, NotAfter: c.NotAfter})
}

// fetch reads the latest certificate of an order from the vendor.
func (f *flow) fetch(ctx context.Context, e *ledger.Entry) (chain, error) {
	order, err := f.vendor.Status(ctx, e.OrderID)
	if err != nil {
		return nil, fmt.Errorf("asking for the certificate of order %s: %w", e.OrderID, err)
	}
	if order.CertificateRevoked { // it may not be shown any more
		return nil, fmt.Errorf("order %s: %w", e.OrderID, errRevoked)
	}
	got, err := f.chainOf(e, order)
	if err != nil {
		return nil, err
	}
	if serialOf(got.leaf()) != e.Certificate.Serial {
		return nil, fmt.Errorf("%w: order %s has the serial number %s, and the ledger %s", errWrongCertificate, e.OrderID, serialOf(got.leaf()), e.Certificate.Serial)
	}
	return got, nil
}

// unfetched decides what follows when the latest certificate of an order cannot be had. If it
// was revoked, or if the vendor has had another one in its place for a while, such as one that
// somebody had reissued for another key, the order is reissued, free of charge.
func (f *flow) unfetched(e *ledger.Entry, err error) move {
	look := f.account.look(e.Attempt.Reference)
	if errors.Is(err, errWrongCertificate) {
		look.stale++
	}
	if !errors.Is(err, errRevoked) && look.stale < maxUnknown {
		return ends(progress{err: err})
	}
	look.stale = 0
	return move{change: func(e *ledger.Entry) { e.Certificate.Lost, e.Problem = true, err.Error() }}
}

// certificateOf returns the latest certificate of an order.
func (f *flow) certificateOf(ctx context.Context, e *ledger.Entry) (chain, error) {
	if got := f.account.chain(e.Certificate.Serial); got != nil {
		return got, nil
	}
	return f.fetch(ctx, e)
}

// deliver stores the latest certificate of an order for the name and serves it.
func (f *flow) deliver(ctx context.Context, j *errand, e *ledger.Entry, key crypto.Signer) move {
	got, err := f.certificateOf(ctx, e)
	if err != nil {
		return f.unfetched(e, err)
	}
	end := f.account.store(j.name)
	err = f.site.Deliver(ctx, j.name, key, issuedCertificate(f.about, got, e))
	end(err == nil)
	if err != nil {
		return ends(progress{err: fmt.Errorf("storing the certificate of order %s for %s: %w", e.OrderID, j.name, err)})
	}
	j.log.Info("the site has its commercial certificate", zap.String("order_id", e.OrderID), zap.String("serial", e.Certificate.Serial))
	f.forgetKey(ctx, e.Certificate.Reference)
	return ends(progress{done: true, entry: e})
}

// keyOf returns the private key of an order's latest certificate: from this process's
// memory, from where it is kept until the certificate is stored, or from beside the
// certificate of another name of the order.
func (f *flow) keyOf(ctx context.Context, e *ledger.Entry) (crypto.Signer, bool, error) {
	c := e.Certificate
	var err error
	pem := f.account.wanted(slices.Concat(e.Names, e.Covered), c.Key)
	if pem == nil {
		pem, err = f.ledger.Key(ctx, c.Reference)
	}
	switch {
	case err == nil:
		if key, ok := decodeKey(pem, c.Key); ok {
			return key, true, nil
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, false, err
	}
	for _, name := range e.Covered {
		if key, ok := f.site.FindKey(ctx, name, c.Key); ok {
			return key, true, nil
		}
	}
	return nil, false, nil
}

// wakeOthers lets the other names of an order have its certificate, too.
func (f *flow) wakeOthers(name string, e *ledger.Entry) {
	for _, other := range e.Covered {
		if other == name {
			continue
		}
		if f.site.Manages(other) {
			f.wake(other)
		}
	}
}
