package issuer

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/internal/poll"
	"github.com/caddy-commercial/caddy-commercial/issuer/proof"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// flow turns a CSR into a certificate, paying at most once per term. It knows no
// vendor by name and no way of serving a file: those are the vendor and the
// prover. What it remembers is in the ledger only, so that any number of flows,
// in this process and in others, can work on the same names.
type flow struct {
	vendor vendors.Vendor
	about  vendors.Description
	ledger *ledger
	prove  proof.Prover
	order  vendors.OrderConfig
	rules  rules

	// findKey returns the private key of a CSR that certmagic made.
	findKey func(ctx context.Context, name string, csr *x509.CertificateRequest) (key crypto.Signer, ok bool)
}

// proof is that of the names of an attempt. The trial is written down by way of the
// reference that it is made of.
func (f *flow) proof(a *Attempt) proof.Proof {
	p := proof.Proof{ID: a.Reference, Names: a.Names, Method: a.Method, Challenges: a.Challenges}
	if !f.predicts(a) {
		p.Trial = proof.Trial(p.ID, p.Method, f.about)
	}
	return p
}

// rules are the operator's bounds on what a flow may do.
type rules struct {
	pollMin, pollMax time.Duration
	maxWait          time.Duration // zero: none
	renewMargin      time.Duration // zero: see flow.margin
	spend            SpendLimit
	allowOnDemand    bool
	groups           [][]string // names that share one order
	adopted          []AdoptedOrder
	probe            proof.Mode
}

// job is one call of Issue.
type job struct {
	name     string
	csr      *x509.CertificateRequest
	key      string // public key, see publicID
	started  time.Time
	onDemand bool
	logger   *zap.Logger
}

// maxConflicts bounds how often a job starts over because another writer was
// faster. Every conflict means that somebody made progress.
const maxConflicts = 50

// obtain returns the certificate for the job, in as many steps as it takes.
func (f *flow) obtain(ctx context.Context, j job) (chain, *Record, error) {
	conflicts := 0
	for {
		rec, err := f.find(ctx, j)
		if err != nil {
			return nil, nil, err
		}
		got, err := f.step(ctx, j, rec)
		if errors.Is(err, errConflict) && conflicts < maxConflicts {
			conflicts++
			if err := poll.Wait(ctx, time.Duration(conflicts)*10*time.Millisecond); err != nil {
				return nil, rec, err
			}
			continue
		}
		if got != nil || err != nil {
			return got, rec, err
		}
		if err := ctx.Err(); err != nil {
			return nil, rec, context.Cause(ctx)
		}
	}
}

// step does what the record's state calls for. It returns a chain when the job is
// done, and neither chain nor error when the record moved on.
func (f *flow) step(ctx context.Context, j job, rec *Record) (chain, error) {
	switch rec.State {
	case StateNone:
		return nil, f.begin(ctx, j, rec)
	case StateIntent:
		return nil, f.resolveIntent(ctx, j, rec)
	case StatePending:
		return f.follow(ctx, j, rec)
	case StateIssued:
		return f.serveOrReplace(ctx, j, rec)
	case StateReissuing:
		return nil, f.resolveReissue(ctx, j, rec)
	case StateUncertain:
		return nil, noRetry(f.uncertain(rec, rec.Problem))
	case StateDead:
		return nil, f.bury(ctx, rec)
	}
	return nil, fmt.Errorf("ledger state %q is unknown", rec.State)
}

// find returns the record that answers for the job's name: that of its group, its
// own, or another one whose live order covers the name.
func (f *flow) find(ctx context.Context, j job) (*Record, error) {
	names := f.namesFor(j.name)
	own, err := f.ledger.load(ctx, names[0])
	if err != nil {
		return nil, err
	}
	if own.live() && !own.covers(j.name) {
		// The names were put together after the order was placed.
		if f.isAdopted(j.name) {
			return nil, noRetry(fmt.Errorf("order %s at %s, which the ledger has for %s, is not for %s, and the option order forbids to place another one",
				own.Order.ID, f.about.Name, strings.Join(own.Names, ", "), j.name))
		}
		names = []string{j.name}
		if own, err = f.ledger.load(ctx, j.name); err != nil {
			return nil, err
		}
	}
	if own.State != StateNone || own.Hold != nil {
		return own, nil
	}
	if len(names) == 1 {
		other, err := f.ledger.coveredBy(ctx, j.name)
		if err != nil {
			return nil, err
		}
		if other != nil && other.live() && other.covers(j.name) {
			return other, nil
		}
	}
	own.Names = names
	return own, nil
}

// namesFor returns the names of the order that a name belongs to, in the
// configured order; usually just itself.
func (f *flow) namesFor(name string) []string {
	for _, group := range f.rules.groups {
		if slices.Contains(group, name) {
			return slices.Clone(group)
		}
	}
	for _, a := range f.rules.adopted {
		if slices.Contains(a.Names, name) {
			return slices.Clone(a.Names)
		}
	}
	return []string{name}
}

// isAdopted reports whether an order bought elsewhere is configured for the name.
func (f *flow) isAdopted(name string) bool {
	return slices.ContainsFunc(f.rules.adopted, func(a AdoptedOrder) bool { return slices.Contains(a.Names, name) })
}

// bury ends with a dead order when its paid term is over, and refuses before.
func (f *flow) bury(ctx context.Context, rec *Record) error {
	if time.Now().Before(rec.Order.TermEnds) {
		return noRetry(&DeadOrderError{f.about.Name, f.about.Portal, rec.Names, rec.Order.ID, rec.Problem, rec.Order.TermEnds})
	}
	rec.State = StateNone
	rec.retire()
	return f.ledger.write(ctx, rec)
}

// retire moves the order in force to the past.
func (r *Record) retire() {
	if r.Order == nil {
		return
	}
	r.Past = append(r.Past, *r.Order)
	if extra := len(r.Past) - pastOrders; extra > 0 {
		r.Past = slices.Delete(r.Past, 0, extra)
	}
	r.Order = nil
}

// newAttempt prepares a request for the record's names with the job's key.
func (f *flow) newAttempt(ctx context.Context, j job, kind AttemptKind, names []string) (*Attempt, error) {
	der, err := f.csrFor(ctx, j, names)
	if err != nil {
		return nil, noRetry(err)
	}
	a := &Attempt{
		Kind:      kind,
		Reference: newReference(),
		Started:   time.Now().UTC(),
		Names:     names,
		CSR:       der,
		Product:   f.order.Product,
		Method:    f.order.Method,
	}
	if f.about.NeedsUnique {
		a.Unique = newUnique()
	}
	if p, ok := f.vendor.(vendors.Predictor); ok {
		if a.Challenges, err = p.Predict(f.request(a)); err != nil {
			return nil, fmt.Errorf("computing the validation challenge for %s: %w", names[0], err)
		}
	}
	return a, nil
}

// csrFor returns the DER of the CSR to send: the job's own if it will do,
// otherwise one signed again with its key.
func (f *flow) csrFor(ctx context.Context, j job, names []string) ([]byte, error) {
	if f.about.NeedsCommonName && len(names[0]) > maxCommonName {
		return nil, fmt.Errorf("%s has %d bytes, but %s needs it as common name, which holds at most %d (RFC 5280, ub-common-name)",
			names[0], len(names[0]), f.about.Name, maxCommonName)
	}
	if key, ok := f.findKey(ctx, j.name, j.csr); ok {
		return orderCSR(j.csr, names, key)
	}
	fits := slices.Equal(names, j.csr.DNSNames) && (!f.about.NeedsCommonName || j.csr.Subject.CommonName == names[0])
	if !fits {
		return nil, fmt.Errorf("the CSR for %s has no common name and its private key is not at hand to sign one that has; "+
			"%s requires it", names[0], f.about.Name)
	}
	return j.csr.Raw, nil
}

// maxCommonName is the upper bound of a common name, RFC 5280 appendix A.1.
const maxCommonName = 64

func (f *flow) request(a *Attempt) vendors.OrderRequest {
	cfg := f.order
	cfg.Product, cfg.Method = a.Product, a.Method
	return vendors.OrderRequest{
		OrderConfig: cfg,
		Reference:   a.Reference,
		Names:       a.Names,
		CSR:         a.CSR,
		Unique:      a.Unique,
		PreparedID:  a.PreparedID,
	}
}

// predicts reports whether the attempt's challenges were known before the vendor told.
func (f *flow) predicts(a *Attempt) bool {
	p, ok := f.vendor.(vendors.Predictor)
	if !ok || len(a.CSR) == 0 {
		return false
	}
	challenges, err := p.Predict(f.request(a))
	return err == nil && len(challenges) > 0
}

// request returns the attempt's CSR and the ID of its key.
func (a *Attempt) request() (csr *x509.CertificateRequest, key string, ok bool) {
	if a == nil || len(a.CSR) == 0 {
		return nil, "", false
	}
	csr, err := x509.ParseCertificateRequest(a.CSR)
	if err != nil {
		return nil, "", false
	}
	key, err = publicID(csr.PublicKey)
	return csr, key, err == nil
}

// isFor reports whether the attempt's CSR has the job's key.
func (a *Attempt) isFor(j job) bool {
	_, key, ok := a.request()
	return ok && key == j.key
}

// presentAndWait presents the attempt's proof, and waits until the CA would find it. DNS records do not go
// away by themselves when the process dies, so that the ledger knows of them first.
func (f *flow) presentAndWait(ctx context.Context, rec *Record, a *Attempt) error {
	if a.Method == vendors.MethodDNS {
		if old := rec.Attempt; old != nil && old.Draft {
			f.prove.CleanUp(ctx, f.proof(old))
		}
		a.Draft = true
		rec.Attempt = a
		if err := f.ledger.write(ctx, rec); err != nil {
			return err
		}
		a.Draft = false
	}
	if err := f.prove.Present(ctx, f.proof(a)); err != nil {
		return fmt.Errorf("presenting the proof of control of %s: %w", a.Names[0], err)
	}
	if err := f.prove.Wait(ctx, f.proof(a)); err != nil {
		f.prove.CleanUp(ctx, f.proof(a))
		return fmt.Errorf("checking that the CA can validate %s: %w", a.Names[0], err)
	}
	return nil
}

// newReference makes an ID that no other request ever has, in letters and digits
// only, because nothing is known of what vendors' reference fields accept.
func newReference() string { return "cc" + randomHex(12) }

// newUnique makes a unique value: at most 20 letters and digits (Sectigo, "request
// token").
func newUnique() string { return randomHex(10) }

func randomHex(n int) string {
	b := make([]byte, n)
	// Read never fails; see its documentation.
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

// uncertain makes the error for a record that a person must look at.
func (f *flow) uncertain(rec *Record, reason string) error {
	e := &UncertainError{Vendor: f.about.Name, Portal: f.about.Portal, Names: rec.Names, Reason: reason}
	if rec.Attempt != nil {
		e.Reference, e.Sent = rec.Attempt.Reference, rec.Attempt.Started
	}
	return e
}
