package issuer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/internal/poll"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// paidCallTimeout bounds a paid call where the vendor's AbsenceAge does not.
const paidCallTimeout = 2 * time.Minute

// reloadGrace is how long a paid call that is on its way may still wait for its
// answer after the config was unloaded. Without it, each reload at a bad moment would
// cost a look-up of the reference.
const reloadGrace = 10 * time.Second

// begin starts with a record that has no order: by adopting the configured one,
// or by buying.
func (f *flow) begin(ctx context.Context, j job, rec *Record) error {
	for _, a := range f.rules.adopted {
		if a.Names[0] == rec.primary() {
			return f.adopt(ctx, j, rec, a)
		}
	}
	if waited, err := f.awaitTwin(ctx, j); err != nil || waited {
		return err
	}
	return f.buy(ctx, j, rec, KindOrder)
}

// buy places a paid order for the record's names, or renews the one it has. The
// record says so before the vendor hears of it.
func (f *flow) buy(ctx context.Context, j job, rec *Record, kind AttemptKind) error {
	if err := f.mayBuy(ctx, j, rec); err != nil {
		return err
	}
	a, err := f.newAttempt(ctx, j, kind, rec.Names)
	if err != nil {
		return err
	}
	if rec.Order != nil {
		a.PreviousID = rec.Order.ID
	}
	log := j.logger.With(zap.String("reference", a.Reference))
	if err := f.presentAndWait(ctx, rec, a); err != nil {
		return err
	}
	bought := false
	defer func() {
		if !bought {
			f.prove.CleanUp(ctx, f.proof(a))
		}
	}()
	if v, ok := f.vendor.(vendors.Validator); ok {
		if err := v.Validate(ctx, f.request(a)); err != nil {
			return forCertmagic(fmt.Errorf("validating the order for %s: %w", rec.primary(), err))
		}
	}
	if p, ok := f.vendor.(vendors.Preparer); ok {
		if a.PreparedID, err = p.Prepare(ctx, f.request(a)); err != nil {
			return forCertmagic(fmt.Errorf("preparing the order for %s: %w", rec.primary(), err))
		}
	}
	if err := f.ledger.reserveSpending(ctx, f.rules.spend, a.Reference, rec.primary()); err != nil {
		return err
	}
	before := rec.State
	a.Started = time.Now().UTC()
	rec.State, rec.Attempt, rec.Problem = StateIntent, a, ""
	if err := f.claim(ctx, j, rec); err != nil {
		// Nothing was sent, so nothing was spent.
		return errors.Join(err, f.ledger.releaseSpending(ctx, a.Reference))
	}
	bought = true

	log.Info("ordering certificate", zap.String("product", a.Product), zap.String("kind", string(kind)))
	order, err := f.pay(ctx, a)
	switch {
	case err == nil && order.ID != "":
		log.Info("order placed", zap.String("order_id", order.ID), zap.String("ca_order_id", order.CAOrderID))
		return f.accept(ctx, log, rec, order)

	case err != nil && vendors.VerdictOf(err) != vendors.Uncertain:
		bought = false
		rec.State, rec.Problem = before, err.Error()
		if werr := f.ledger.write(ctx, rec); werr != nil {
			return errors.Join(err, werr)
		}
		return forCertmagic(errors.Join(
			fmt.Errorf("ordering for %s (nothing was bought): %w", rec.primary(), err),
			f.ledger.releaseSpending(ctx, a.Reference)))

	default:
		if err == nil {
			err = errors.New("the answer has no order ID")
		}
		log.Warn("the answer to a paid order was lost; looking the order up by its reference", zap.Error(err))
		rec.Problem = err.Error()
		return f.ledger.write(ctx, rec)
	}
}

// claim writes the intent to buy. The twin's record is looked at under the same
// lock, so that two servers that start with example.com and www.example.com at
// the same moment do not both order.
func (f *flow) claim(ctx context.Context, j job, rec *Record) error {
	t := dcv.Twin(j.name)
	if t == "" || !f.about.CoversTwin || len(rec.Names) > 1 {
		return f.ledger.write(ctx, rec)
	}
	unlock, err := f.ledger.lockPair(ctx, j.name, t)
	if err != nil {
		return err
	}
	defer unlock()
	if other, busy, err := f.busyTwin(ctx, j.name); err != nil {
		return err
	} else if busy || other != nil && other.live() && other.covers(j.name) {
		return fmt.Errorf("%w: there is an order of %s meanwhile", errConflict, t)
	}
	return f.ledger.write(ctx, rec)
}

// pay sends the attempt's paid call. It is given up long before the absence of the
// order could be taken for proof, so that a late request cannot follow a look-up.
func (f *flow) pay(ctx context.Context, a *Attempt) (vendors.Order, error) {
	timeout := paidCallTimeout
	if half := f.about.AbsenceAge / 2; half > 0 && half < timeout {
		timeout = half
	}
	paidCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		grace := time.AfterFunc(reloadGrace, cancel)
		context.AfterFunc(paidCtx, func() { grace.Stop() })
	})
	defer stop()

	// The machine may have slept since the record was written.
	if late := time.Since(a.Started); late > timeout {
		return vendors.Order{}, &vendors.Error{
			Vendor: f.about.Name, Endpoint: "order", Verdict: vendors.Retryable,
			Err: fmt.Errorf("not sent: %s passed since it was recorded", late.Round(time.Second)),
		}
	}
	if r, ok := f.vendor.(vendors.Renewer); ok && a.Kind == KindRenewal && a.PreviousID != "" {
		return r.Renew(paidCtx, a.PreviousID, f.request(a))
	}
	return f.vendor.Place(paidCtx, f.request(a))
}

// accept records the order that the attempt bought.
func (f *flow) accept(ctx context.Context, log *zap.Logger, rec *Record, order vendors.Order) error {
	a := rec.Attempt
	rec.retire()
	rec.Order = &PaidOrder{
		ID:        order.ID,
		Reference: a.Reference,
		Names:     a.Names,
		Product:   a.Product,
		CAOrderID: order.CAOrderID,
		PaidAt:    a.Started,
		TermEnds:  termEnd(a.Started, f.order.Term),
	}
	if !order.TermEnds.IsZero() {
		rec.Order.TermEnds = order.TermEnds.UTC()
	}
	if v, ok := f.vendor.(vendors.ForeignPreparer); ok && v.ForeignCSR(a.PreparedID) {
		a.CSR = nil
	}
	rec.State, rec.Problem, rec.Hold = StatePending, "", nil
	return f.writeAndHeed(ctx, log, rec, order)
}

// writeAndHeed records what the vendor answered before anything else is done about it,
// and then publishes what it asks for, which can take a while.
func (f *flow) writeAndHeed(ctx context.Context, log *zap.Logger, rec *Record, order vendors.Order) error {
	if err := f.ledger.write(ctx, rec); err != nil || !f.heed(ctx, log, rec.Attempt, order.Challenges) {
		return err
	}
	return f.ledger.write(ctx, rec)
}

// termEnd reckons the end of a paid term.
func termEnd(from time.Time, t vendors.Term) time.Time {
	return from.AddDate(t.Years, 0, t.Days)
}

// resolveIntent finds out what became of a paid call whose answer is not in the
// ledger.
func (f *flow) resolveIntent(ctx context.Context, j job, rec *Record) error {
	a := rec.Attempt
	log := j.logger.With(zap.String("reference", a.Reference))
	finder, ok := f.vendor.(vendors.Finder)
	if !ok {
		return f.giveUp(ctx, rec, f.about.Name+" cannot look orders up by reference")
	}
	// Until it is known that there is no order, the CA may come for the file.
	f.presentAgain(ctx, log, a)
	id, err := f.lookUp(ctx, j, rec, finder)
	switch {
	case err != nil:
		return err
	case id == "":
		return f.neverPlaced(ctx, log, rec)
	}
	log.Info("order found by its reference", zap.String("order_id", id))
	return f.accept(ctx, log, rec, vendors.Order{ID: id})
}

// lookUp asks the vendor what became of the attempt, until there is an answer. An
// empty ID without an error means that it is proven to have had no effect: the vendor
// said so at least twice, and so long after the request that it cannot be on its
// way any more.
func (f *flow) lookUp(ctx context.Context, j job, rec *Record, finder vendors.Finder) (string, error) {
	a := rec.Attempt
	schedule := f.schedule()
	for absences := 0; ; {
		ids, err := finder.Find(ctx, vendors.Lookup{Reference: a.Reference, PreparedID: a.PreparedID, Names: a.Names, Sent: a.Started})
		switch {
		case ctx.Err() != nil:
			return "", context.Cause(ctx)
		case errors.Is(err, vendors.ErrUndecidable) && time.Since(a.Started) >= f.about.AbsenceAge:
			return "", f.giveUp(ctx, rec, err.Error())
		case err != nil && vendors.VerdictOf(err) == vendors.Permanent:
			return "", forCertmagic(fmt.Errorf("looking up reference %s at %s: %w", a.Reference, f.about.Name, err))
		case err != nil:
			j.logger.Warn("looking up a reference failed", zap.String("reference", a.Reference), zap.Error(err))
		case len(ids) == 1:
			return ids[0], nil
		case len(ids) > 1:
			return "", f.giveUp(ctx, rec, fmt.Sprintf("%s knows %d orders with this reference: %v", f.about.Name, len(ids), ids))
		default:
			absences++
			if absences >= 2 && time.Since(a.Started) >= f.about.AbsenceAge {
				return "", nil
			}
		}
		wait := schedule.Next()
		if absences > 0 {
			wait = max(min(wait, time.Until(a.Started.Add(f.about.AbsenceAge))), f.rules.pollMin)
		}
		if f.waitedTooLong(j, wait) {
			return "", fmt.Errorf("what became of the request with reference %s at %s is not known yet (last problem: %v); it is looked up again later",
				a.Reference, f.about.Name, err)
		}
		if err := poll.Wait(ctx, wait); err != nil {
			return "", err
		}
	}
}

// neverPlaced notes that a lost paid call bought nothing.
func (f *flow) neverPlaced(ctx context.Context, log *zap.Logger, rec *Record) error {
	a := rec.Attempt
	log.Info("the lost order was never placed; nothing was bought")
	f.prove.CleanUp(ctx, f.proof(a))
	rec.State = StateNone
	if rec.Order != nil {
		rec.State = StateIssued
	}
	if rec.Hold == nil {
		rec.Hold = new(Hold)
	}
	rec.Hold.Failures++
	rec.Hold.Until = time.Now().Add(holdFor(rec.Hold.Failures)).UTC()
	if err := f.ledger.write(ctx, rec); err != nil {
		return err
	}
	return f.ledger.releaseSpending(ctx, a.Reference)
}

// holdFor is how long to hold paid calls back after so many in a row led to nothing.
// The first may be repeated at once: its absence is proven.
func holdFor(failures int) time.Duration {
	steps := []time.Duration{0, 10 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour}
	return steps[min(failures-1, len(steps)-1)]
}

// giveUp hands the record to a person.
func (f *flow) giveUp(ctx context.Context, rec *Record, reason string) error {
	rec.State = StateUncertain
	rec.Problem = reason
	if err := f.ledger.write(ctx, rec); err != nil {
		return err
	}
	return noRetry(f.uncertain(rec, reason))
}

func (f *flow) schedule() *poll.Schedule {
	return &poll.Schedule{Min: f.rules.pollMin, Max: f.rules.pollMax}
}

// waitedTooLong reports whether the next wait would go beyond max_wait.
func (f *flow) waitedTooLong(j job, next time.Duration) bool {
	return f.rules.maxWait > 0 && time.Since(j.started)+next > f.rules.maxWait
}
