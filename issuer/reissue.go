package issuer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// serveOrReplace deals with a record whose order has a certificate: it is the
// job's own, or it is replaced, for free while the paid term lasts.
func (f *flow) serveOrReplace(ctx context.Context, j job, rec *Record) (chain, error) {
	if rec.Attempt.isFor(j) {
		// Another flow was faster to record it.
		order, err := f.vendor.Status(ctx, rec.Order.ID)
		if err != nil {
			return nil, forCertmagic(fmt.Errorf("asking for the certificate of order %s: %w", rec.Order.ID, err))
		}
		if got, err := f.certificate(rec.Attempt, "", order); err == nil {
			return f.deliver(j.logger, j, rec, got)
		}
	}
	left := time.Until(rec.Order.TermEnds)
	if f.isAdopted(j.name) && left > 0 {
		// Nothing may be bought for it, so the term is used to its end.
		return nil, f.reissue(ctx, j, rec)
	}
	if left <= f.margin() {
		j.logger.Info("the paid term ends; a new order is due",
			zap.String("order_id", rec.Order.ID), zap.Time("term_ends", rec.Order.TermEnds))
		kind := KindOrder
		if left > 0 && left <= f.about.RenewWindow {
			kind = KindRenewal
		}
		return nil, f.buy(ctx, j, rec, kind)
	}
	return nil, f.reissue(ctx, j, rec)
}

// margin is how much of the paid term is given up in order to have the next order
// in time: what is configured, or a twelfth of the term but at most 30 days.
func (f *flow) margin() time.Duration {
	if f.rules.renewMargin > 0 {
		return f.rules.renewMargin
	}
	now := time.Now()
	return min(termEnd(now, f.order.Term).Sub(now)/12, 30*24*time.Hour)
}

// reissue asks for a certificate with the job's key on the paid order.
func (f *flow) reissue(ctx context.Context, j job, rec *Record) error {
	r, ok := f.vendor.(vendors.Reissuer)
	if !ok {
		return noRetry(fmt.Errorf("order %s for %s is paid until %s, but %s cannot reissue it for a new key, and a second order is not placed",
			rec.Order.ID, rec.primary(), rec.Order.TermEnds.Format(time.DateOnly), f.about.Name))
	}
	a, err := f.newAttempt(ctx, j, KindReissue, rec.Order.Names)
	if err != nil {
		return err
	}
	a.PreviousID, a.Product = rec.Order.ID, rec.Order.Product
	if err := f.presentAndWait(ctx, rec, a); err != nil {
		return err
	}
	rec.State, rec.Attempt, rec.Problem = StateReissuing, a, ""
	if err := f.ledger.write(ctx, rec); err != nil {
		f.prove.CleanUp(ctx, f.proof(a))
		return err
	}
	log := j.logger.With(zap.String("order_id", rec.Order.ID), zap.String("reference", a.Reference))
	log.Info("reissuing certificate, free of charge", zap.Time("term_ends", rec.Order.TermEnds))
	req := f.request(a)
	order, err := r.Reissue(ctx, vendors.ReissueRequest{
		OrderConfig: req.OrderConfig,
		OrderID:     rec.Order.ID,
		Reference:   a.Reference,
		Names:       a.Names,
		CSR:         a.CSR,
		Unique:      a.Unique,
	})
	switch {
	case err == nil:
		return f.reissued(ctx, log, rec, order)
	case vendors.VerdictOf(err) == vendors.Uncertain:
		log.Warn("the answer to a reissue was lost; looking it up by its reference", zap.Error(err))
		rec.Problem = err.Error()
		return f.ledger.write(ctx, rec)
	case errors.Is(err, vendors.ErrWrongState):
		// The order is not what the ledger says. Look, then decide.
		return f.compare(ctx, j, rec, err)
	default:
		return f.reissueFailed(ctx, rec, err)
	}
}

// reissued records what the reissue is to be followed under.
func (f *flow) reissued(ctx context.Context, log *zap.Logger, rec *Record, order vendors.Order) error {
	if order.ID != "" {
		rec.Order.ID = order.ID
	}
	if order.CAOrderID != "" {
		rec.Order.CAOrderID = order.CAOrderID
	}
	rec.State, rec.Problem = StatePending, ""
	return f.writeAndHeed(ctx, log, rec, order)
}

// reissueFailed goes back to the paid order after a reissue that had no effect.
func (f *flow) reissueFailed(ctx context.Context, rec *Record, cause error) error {
	f.prove.CleanUp(ctx, f.proof(rec.Attempt))
	rec.State, rec.Problem = StateIssued, cause.Error()
	if err := f.ledger.write(ctx, rec); err != nil {
		return errors.Join(cause, err)
	}
	return forCertmagic(fmt.Errorf("reissuing order %s for %s: %w", rec.Order.ID, rec.primary(), cause))
}

// compare asks where an order stands whose reissue was refused or lost, and puts
// the record right.
func (f *flow) compare(ctx context.Context, j job, rec *Record, cause error) error {
	log := j.logger.With(zap.String("order_id", rec.Order.ID), zap.String("reference", rec.Attempt.Reference))
	order, err := f.vendor.Status(ctx, rec.Attempt.PreviousID)
	if err != nil {
		return forCertmagic(fmt.Errorf("asking for the status of order %s after its reissue failed (%w): %w", rec.Attempt.PreviousID, cause, err))
	}
	switch {
	case order.Status == vendors.StatusIssued:
		if _, err := f.certificate(rec.Attempt, rec.Order.Serial, order); err == nil {
			return f.reissued(ctx, log, rec, order)
		}
		if errors.Is(cause, errNeverReissued) && !f.waitedTooLong(j, 0) {
			rec.State, rec.Problem = StateIssued, cause.Error()
			return f.ledger.write(ctx, rec)
		}
		return f.reissueFailed(ctx, rec, cause)
	case order.Status == vendors.StatusReplaced:
		return f.giveUp(ctx, rec, fmt.Sprintf("order %s was reissued under another ID, which is not known here", rec.Attempt.PreviousID))
	case order.Status.Ended():
		f.prove.CleanUp(ctx, f.proof(rec.Attempt))
		rec.State, rec.Problem = StateDead, order.Describe()
		if err := f.ledger.write(ctx, rec); err != nil {
			return err
		}
		return f.bury(ctx, rec)
	}
	return f.reissued(ctx, log, rec, order)
}

// errNeverReissued is the cause of a reissue that the vendor knows nothing of. Being
// free, it is simply asked for again.
var errNeverReissued = errors.New("its answer was lost, and the vendor knows nothing of it")

// resolveReissue finds out what became of a reissue whose answer is not in the
// ledger. No money is at stake, only the ID under which the order lives on.
func (f *flow) resolveReissue(ctx context.Context, j job, rec *Record) error {
	a := rec.Attempt
	log := j.logger.With(zap.String("reference", a.Reference), zap.String("order_id", rec.Order.ID))
	finder, ok := f.vendor.(vendors.Finder)
	if !ok {
		return f.compare(ctx, j, rec, errNeverReissued)
	}
	id, err := f.lookUp(ctx, j, rec, finder)
	switch {
	case err != nil:
		return err
	case id == "":
		return f.compare(ctx, j, rec, errNeverReissued)
	}
	log.Info("reissue found by its reference", zap.String("found_order_id", id))
	return f.reissued(ctx, log, rec, vendors.Order{ID: id})
}
