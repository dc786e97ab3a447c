package issuer

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/internal/poll"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// maxUnknown is how often in a row a vendor may deny knowing an order that the
// ledger has before that is an error. A fresh order can take a moment to appear.
const maxUnknown = 5

// follow watches a pending order until it has a certificate or is dead.
func (f *flow) follow(ctx context.Context, j job, rec *Record) (chain, error) {
	id := rec.Order.ID
	log := j.logger.With(zap.String("order_id", id))
	a := rec.Attempt
	f.presentAgain(ctx, log, a)
	f.waitPropagation(ctx, j, a)
	schedule := f.schedule()
	nudge := nudges{every: nudgeAfter * f.rules.pollMin, last: time.Now()}
	if !f.predicts(a) {
		// The proofs were published only after the order, so the CA cannot have
		// found them by itself.
		nudge.every = 0
	}
	detail, unknown, stale := "", 0, 0
	for {
		wait := schedule.Next()
		order, err := f.vendor.Status(ctx, id)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)

		case errors.Is(err, vendors.ErrNotFound):
			detail = err.Error()
			if unknown++; unknown >= maxUnknown {
				return nil, fmt.Errorf("%s does not know order %s, which the ledger has for %s; is it another account? nothing is ordered again: %w",
					f.about.Name, id, rec.primary(), err)
			}

		case err != nil && vendors.VerdictOf(err) == vendors.Permanent:
			return nil, forCertmagic(fmt.Errorf("asking for the status of order %s: %w", id, err))

		case err != nil:
			log.Warn("asking for the status of an order failed", zap.Error(err), zap.Duration("wait", wait))
			detail = err.Error()
			if e, ok := errors.AsType[*vendors.Error](err); ok {
				wait = min(max(wait, e.RetryAfter), f.rules.pollMax)
			}

		case order.Status == vendors.StatusIssued:
			got, err := f.certificate(a, rec.Order.Serial, order)
			if err == nil {
				return f.issued(ctx, j, rec, order, got)
			}
			if f.reissueWithdrawn(a, rec, order) {
				if stale++; stale >= maxUnknown {
					return nil, f.reissueFailed(ctx, rec, errWithdrawn)
				}
			}
			log.Error("the vendor delivered a certificate that cannot be used; asking again", zap.Error(err), zap.Duration("wait", wait))
			detail = err.Error()

		case order.Status.Ended():
			return nil, f.ended(ctx, j, rec, order)

		default:
			unknown = 0
			detail = order.Describe()
			log.Debug("order is pending", zap.String("status", order.RawStatus), zap.String("detail", detail), zap.Duration("wait", wait))
			if f.heed(ctx, log, a, order.Challenges) {
				if err := f.ledger.write(ctx, rec); err != nil {
					return nil, err
				}
				f.waitPropagation(ctx, j, a)
			}
			f.recheck(ctx, log, rec, order, &nudge)
		}
		if f.waitedTooLong(j, wait) {
			if seen := f.prove.Seen(f.proof(a)); seen != "" {
				detail = strings.TrimPrefix(detail+"; "+seen, "; ")
			}
			return nil, &StillPendingError{f.about.Name, id, time.Since(j.started), detail}
		}
		if err := poll.Wait(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// errWithdrawn is the cause of a reissue that is no longer on its way.
var errWithdrawn = errors.New("the vendor delivers the old certificate and is making no other; was the reissue withdrawn?")

// reissueWithdrawn reports whether an order that keeps its ID through reissues is done
// with the old certificate, so late that the reissue must have begun.
func (f *flow) reissueWithdrawn(a *Attempt, rec *Record, order vendors.Order) bool {
	if a.Kind != KindReissue || a.PreviousID != rec.Order.ID || time.Since(a.Started) < f.about.AbsenceAge {
		return false
	}
	old, err := buildChain(order.Certificates, nil)
	return err == nil && serialOf(old.leaf()) == rec.Order.Serial
}

// nudges paces the requests to look at the challenges again. A CA that has just
// looked in vain may remember that for minutes, so they grow apart.
type nudges struct {
	every time.Duration
	last  time.Time
}

// nudgeAfter is the first pause before a nudge, in units of the shortest poll;
// maxNudge the longest pause.
const (
	nudgeAfter = 6
	maxNudge   = 30 * time.Minute
)

func (f *flow) recheck(ctx context.Context, log *zap.Logger, rec *Record, order vendors.Order, n *nudges) {
	r, ok := f.vendor.(vendors.Rechecker)
	if !ok || time.Since(n.last) < n.every {
		return
	}
	var open []string
	for _, name := range order.Names {
		if !name.Verified {
			open = append(open, name.Name)
		}
	}
	if len(open) == 0 && len(order.Names) > 0 || len(rec.Attempt.Challenges) == 0 {
		return
	}
	if len(open) == 0 {
		open = rec.Attempt.Names
	}
	n.last, n.every = time.Now(), min(max(2*n.every, nudgeAfter*f.rules.pollMin), maxNudge)
	err := r.Recheck(ctx, order.ID, open, rec.Attempt.Method)
	if err != nil && !errors.Is(err, vendors.ErrStillIssuing) {
		log.Warn("asking the vendor to check the proofs of control again failed", zap.Error(err))
		return
	}
	log.Info("asked the vendor to check the proofs of control again",
		zap.Strings("names", open), zap.String("seen", f.prove.Seen(f.proof(rec.Attempt))))
}

// presentAgain presents the proofs of an order that is paid for. If that fails, the
// order is watched all the same: the CA may have seen them, or another server may
// serve them.
func (f *flow) presentAgain(ctx context.Context, log *zap.Logger, a *Attempt) {
	if len(a.Challenges) == 0 {
		return
	}
	if err := f.prove.Present(ctx, f.proof(a)); err != nil {
		log.Error("presenting the proofs of control of a pending order failed", zap.Error(err))
	}
}

// waitPropagation waits until the records of a paid order can be seen, but not longer
// than the job may. If the wait is in vain, the CA may succeed all the same.
func (f *flow) waitPropagation(ctx context.Context, j job, a *Attempt) {
	if a.Method != vendors.MethodDNS || len(a.Challenges) == 0 {
		return
	}
	if f.rules.maxWait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.rules.maxWait-time.Since(j.started))
		defer cancel()
	}
	if err := f.prove.Wait(ctx, f.proof(a)); err != nil && ctx.Err() == nil {
		j.logger.Warn("a DNS record for validation cannot be seen yet", zap.Strings("identifiers", a.Names), zap.Error(err))
	}
}

// heed presents what the vendor asks for where that differs from what is presented,
// and reports whether it does. The vendor's word wins, unless it cannot be presented.
func (f *flow) heed(ctx context.Context, log *zap.Logger, a *Attempt, asked []vendors.Challenge) bool {
	if len(asked) == 0 || reflect.DeepEqual(asked, a.Challenges) {
		return false
	}
	wanted := f.proof(a)
	wanted.Challenges = asked
	if err := f.prove.Present(ctx, wanted); err != nil {
		log.Error("the vendor asks for proofs of control that cannot be presented; keeping those expected", zap.Error(err))
		return false
	}
	if len(a.Challenges) > 0 {
		log.Warn("the vendor asks for other proofs of control than expected; presenting what it asks for",
			zap.Int("expected", len(a.Challenges)), zap.Int("asked", len(asked)))
	}
	a.Challenges = asked
	return true
}

// certificate picks and judges the certificate of an issued order.
func (f *flow) certificate(a *Attempt, oldSerial string, order vendors.Order) (chain, error) {
	var key any
	if len(a.CSR) > 0 {
		csr, err := x509.ParseCertificateRequest(a.CSR)
		if err != nil {
			return nil, fmt.Errorf("parsing the CSR in the ledger: %w", err)
		}
		key = csr.PublicKey
	}
	got, err := buildChain(order.Certificates, key)
	if err != nil {
		return nil, err
	}
	return got, checkCertificate(got, a.Names, oldSerial, time.Now())
}

// issued records that the attempt gave a certificate, and returns it if it is for
// the job's key.
func (f *flow) issued(ctx context.Context, j job, rec *Record, order vendors.Order, got chain) (chain, error) {
	a, leaf := rec.Attempt, got.leaf()
	rec.State, rec.Problem, rec.Hold = StateIssued, "", nil
	o := rec.Order
	o.Covered, o.Serial, o.NotAfter = slices.Clone(leaf.DNSNames), serialOf(leaf), leaf.NotAfter.UTC()
	o.Issued++
	if !order.TermEnds.IsZero() {
		o.TermEnds = order.TermEnds.UTC()
	}
	if order.CAOrderID != "" {
		o.CAOrderID = order.CAOrderID
	}
	if err := f.ledger.write(ctx, rec); err != nil {
		return nil, err
	}
	f.prove.CleanUp(ctx, f.proof(a))
	log := j.logger.With(zap.String("order_id", o.ID))
	log.Info("certificate issued",
		zap.Strings("names", leaf.DNSNames), zap.String("serial", o.Serial),
		zap.Time("not_after", leaf.NotAfter), zap.Time("term_ends", o.TermEnds))
	if !a.isFor(j) {
		log.Info("the certificate is for a key that is gone; it will be reissued for the new one, free of charge")
		return nil, nil
	}
	return f.deliver(log, j, rec, got)
}

// deliver hands out a chain if it covers the job's name. If it does not, the name
// is not among those of the order, and the next step looks for another record.
func (f *flow) deliver(log *zap.Logger, j job, rec *Record, got chain) (chain, error) {
	if err := got.leaf().VerifyHostname(j.name); err != nil {
		if slices.Contains(rec.Names, j.name) {
			return nil, fmt.Errorf("%w: %w", errWrongCertificate, err)
		}
		log.Info("the order does not cover this name after all", zap.Error(err))
		return nil, nil
	}
	if first := firstName(got.leaf()); first != j.name {
		log.Warn("the certificate's first name is another one; Caddy will ask to renew under that name, and this order will answer",
			zap.String("first_name", first))
	}
	return got, nil
}

// ended deals with an order that will not give a certificate.
func (f *flow) ended(ctx context.Context, j job, rec *Record, order vendors.Order) error {
	a := rec.Attempt
	f.prove.CleanUp(ctx, f.proof(a))
	log := j.logger.With(zap.String("order_id", rec.Order.ID))
	reason := order.Describe()
	if a.Kind == KindReissue && a.PreviousID != "" && a.PreviousID != rec.Order.ID {
		// The reissue failed; the order it was for may be as good as before.
		old, err := f.vendor.Status(ctx, a.PreviousID)
		if err == nil && old.Status == vendors.StatusIssued {
			log.Error("a reissue was refused; the paid order stands", zap.String("reason", reason))
			rec.Order.ID, rec.State, rec.Problem = a.PreviousID, StateIssued, "reissue refused: "+reason
			if err := f.ledger.write(ctx, rec); err != nil {
				return err
			}
			return fmt.Errorf("the reissue of order %s at %s for %s was refused: %s", a.PreviousID, f.about.Name, rec.primary(), reason)
		}
	}
	rec.State, rec.Problem = StateDead, reason
	if err := f.ledger.write(ctx, rec); err != nil {
		return err
	}
	return f.bury(ctx, rec)
}
