package issuer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/internal/poll"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// reissue asks for another certificate on the paid order, free of charge.
func (f *flow) reissue(ctx context.Context, j *errand, e *ledger.Entry) move {
	if _, ok := f.vendor.(vendors.Reissuer); !ok {
		return ends(progress{err: noRetry(fmt.Errorf("order %s for %s is paid until %s, but %s cannot reissue it for a new key, and a second order is not placed",
			e.OrderID, e.Names[0], e.Ends.Format(time.DateOnly), f.about.Name))})
	}
	if wait := f.account.reissueWait(e.ID); wait > 0 {
		return ends(progress{err: reissueError(e, errors.New(cmp.Or(e.Problem, "it was reissued a short while ago"))), wait: wait})
	}
	if e.LostCertificate() && !f.account.replacements.enter(e.ID, j.name, f.mostReplacements()) {
		return ends(progress{err: f.pending(e, "others whose certificates were revoked go first"), wait: replaceLater})
	}
	asked := *j
	asked.want = unrevoked(j.want, e)
	key, csr, err := f.requestFor(&asked, e.Names)
	if err != nil {
		f.account.replacements.leave(e.ID, f.wake)
		return ends(progress{err: err})
	}
	a := ledger.Attempt{
		Kind: ledger.KindReissue, Reference: f.newReference(), AbsenceAge: f.about.AbsenceAge, CSR: csr, PreviousID: e.OrderID,
	}
	if f.about.NeedsUnique {
		a.Unique = f.newUnique()
	}
	draft := *e
	draft.Attempt = a
	noted := false
	p, err := f.presentAndWait(ctx, &draft, &noted)
	if err == nil {
		err = f.keepKey(ctx, key, a.Reference)
	}
	if err != nil {
		f.prove.CleanUp(ctx, p)
		if noted {
			f.forgetDraft(ctx, a.Reference)
		}
		f.account.replacements.leave(e.ID, f.wake) // others may have more luck
		return ends(progress{err: err})
	}
	f.account.use(asked.want)
	a.Challenges = p.Challenges
	a.Started = f.ledger.Time()
	return move{presented: &p, armed: a.Reference, change: func(e *ledger.Entry) {
		e.State, e.Attempt, e.Problem = ledger.Asked, a, ""
	}}
}

// sendReissue sends the reissue that was just stored, if it still stands: another server
// may have stored one of its own, and the later of two makes the earlier one useless.
func (f *flow) sendReissue(ctx context.Context, j *errand, e *ledger.Entry) move {
	if e.LostCertificate() {
		leave, err := f.account.replacements.send(ctx)
		if err != nil {
			return ends(progress{err: err})
		}
		defer leave()
	}
	if f.rules.settle > 0 {
		if poll.Wait(ctx, f.rules.settle) != nil {
			return ends(progress{err: context.Cause(ctx)})
		}
		now, err := f.ledger.Load(ctx, e.ID)
		if err != nil {
			return ends(progress{err: err})
		}
		if now.Attempt.Reference != e.Attempt.Reference {
			return ends(progress{err: f.pending(now, "another server reissues it"), wait: f.rules.pace.Min})
		}
		if now.State != ledger.Asked {
			return ends(progress{err: f.pending(now, "another server, or a person, has gone on with it"), wait: f.rules.pace.Min})
		}
	}
	log := j.log.With(zap.String("order_id", e.OrderID), zap.String("reference", e.Attempt.Reference))
	f.account.reissuing(e.ID, f.jitter)
	log.Info("reissuing certificate, free of charge", zap.Time("term_ends", e.Ends))
	order, err := f.vendor.(vendors.Reissuer).Reissue(ctx, e.OrderID, f.request(e))
	switch {
	case err == nil:
		return f.reissued(e, order)
	case vendors.VerdictOf(err) == vendors.Uncertain:
		log.Warn("the answer to a reissue was lost; looking it up by its reference", zap.Error(err))
		problem := err.Error()
		return move{change: func(e *ledger.Entry) { e.Problem = problem }, done: &progress{err: f.pending(e, problem), wait: f.rules.pace.Min}}
	case errors.Is(err, vendors.ErrWrongState):
		// The order is not in the state that the ledger says. Look, then decide.
		return f.reconcileReissue(ctx, j, e, err)
	case vendors.VerdictOf(err) == vendors.Permanent:
		order, unknown := f.vendor.Status(ctx, e.OrderID)
		switch {
		case errors.Is(unknown, vendors.ErrNotFound):
			return f.reissueUnknown(ctx, e, err)
		case unknown == nil && order.Status == vendors.StatusRevoked && e.LostCertificate():
			// This status can also be that of an order that lives, and the refusal may be about
			// anything.
		case unknown == nil && order.Status.Ended():
			return f.reconcileReissue(ctx, j, e, err)
		}
	}
	return f.reissueFailed(ctx, e, err)
}

// reissueUnknown goes back to the paid order after the refusal of a reissue, and asks a person,
// because the vendor does not know the order: it is another account's, or was removed.
func (f *flow) reissueUnknown(ctx context.Context, e *ledger.Entry, cause error) move {
	f.forgetKey(ctx, e.Attempt.Reference)
	m := f.flag(e, fmt.Sprintf("%s does not know order %s; is it another account? (%v)", f.about.Name, e.OrderID, cause))
	flagged := m.change
	m.change = func(e *ledger.Entry) {
		e.State = ledger.Issued
		if flagged != nil {
			flagged(e)
		}
	}
	return m
}

// reissued is the vendor's word that there is a reissue, and the ID under which to follow it.
func (f *flow) reissued(e *ledger.Entry, order vendors.Order) move {
	asked := f.presentable(e, order.Challenges)
	return move{answer: true, change: func(e *ledger.Entry) {
		e.State, e.Flag, e.Problem = ledger.Open, nil, ""
		if order.ID != "" {
			e.OrderID = order.ID
		}
		if order.CAOrderID != "" {
			e.CAOrderID = order.CAOrderID
		}
		if asked != nil {
			e.Attempt.Challenges = asked
		}
	}}
}

// reissueFailed goes back to the paid order after a reissue that had no effect.
func (f *flow) reissueFailed(ctx context.Context, e *ledger.Entry, cause error) move {
	if vendors.VerdictOf(cause) == vendors.Permanent {
		cause = fmt.Errorf("%w. It is paid until %s, so no other order is placed, and the reissue is asked for again; "+
			"see %s. To order anew all the same: caddy commercial resolve %s --none",
			cause, e.Ends.UTC().Format(time.DateOnly), f.about.Portal, e.Names[0])
	}
	problem := cause.Error()
	f.forgetKey(ctx, e.Attempt.Reference)
	return move{
		change: func(e *ledger.Entry) { e.State, e.Flag, e.Problem = ledger.Issued, nil, problem },
		done:   &progress{err: reissueError(e, cause)},
	}
}

// unrevoked returns the want, or nil if its key is that of a lost certificate of one of the entries:
// a key that was revoked is not certified again.
func unrevoked(w *want, about ...*ledger.Entry) *want {
	if w != nil && slices.ContainsFunc(about, func(e *ledger.Entry) bool { return e.LostCertificate() && e.Certificate.Key == w.key }) {
		return nil
	}
	return w
}

func reissueError(e *ledger.Entry, cause error) error {
	return fmt.Errorf("reissuing order %s for %s: %w", e.OrderID, e.Names[0], cause)
}

// errNeverReissued is the cause if the vendor knows nothing of a reissue. As reissues are
// free, it is simply asked for again.
var errNeverReissued = errors.New("its answer was lost, and the vendor knows nothing of it")

// reconcileReissue asks where an order stands whose reissue was refused or lost, and puts
// the entry right.
func (f *flow) reconcileReissue(ctx context.Context, j *errand, e *ledger.Entry, cause error) move {
	order, err := f.vendor.Status(ctx, e.Attempt.PreviousID)
	look := f.account.look(e.Attempt.Reference)
	switch {
	case ctx.Err() != nil:
		return ends(progress{err: context.Cause(ctx)})
	case err != nil:
		return f.unknownYet(e, look, fmt.Errorf("asking for the status of order %s after its reissue failed (%w): %w", e.Attempt.PreviousID, cause, err))
	case order.Status == vendors.StatusIssued:
		if _, err := f.chainOf(e, order); err == nil {
			return f.reissued(e, order)
		}
		if errors.Is(cause, errNeverReissued) && e.Certificate != nil {
			return f.neverReissued(ctx, e, cause)
		}
		return f.reissueFailed(ctx, e, cause)
	case order.Status == vendors.StatusRevoked && e.LostCertificate() && vendors.VerdictOf(cause) != vendors.Permanent:
		// Only the answer to a reissue tells whether the order was revoked or just its certificate.
		return f.neverReissued(ctx, e, cause)
	case order.Status == vendors.StatusReplaced:
		return f.flagEnded(e, fmt.Sprintf("order %s was reissued under another ID, which is not known here", e.Attempt.PreviousID))
	case order.Status.Ended():
		j.log.Error("an order ended while it was being reissued", zap.String("order_id", e.OrderID), zap.String("status", order.Describe()))
		return f.reissued(e, order) // the next look says what it came to
	}
	return f.reissued(e, order)
}

// neverReissued goes back to the paid order after a reissue that the vendor knows nothing of, so
// that the next round asks for it again.
func (f *flow) neverReissued(ctx context.Context, e *ledger.Entry, cause error) move {
	problem := cause.Error()
	f.forgetKey(ctx, e.Attempt.Reference)
	return move{
		change: func(e *ledger.Entry) { e.State, e.Flag, e.Problem = ledger.Issued, nil, problem },
		done:   &progress{err: f.pending(e, problem), wait: time.Second},
	}
}
