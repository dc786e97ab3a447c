package issuer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/internal/poll"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// The waits of orders that only a person can settle, or maybe time alone.
const (
	// flagAfter is how long the fate of a request may be unknown before a person is asked.
	flagAfter = 7 * 24 * time.Hour

	// flaggedWait is how often the vendor is asked about an order while a person is asked, too.
	flaggedWait = 24 * time.Hour

	// lookUpWait is the longest wait between two look-ups of a request that is not flagged.
	lookUpWait = 6 * time.Hour
)

// lookUp finds out what became of a request whose answer is not in the ledger. To prove
// absence takes two denials in a row, the last of them so long after this process first saw
// the request, by its own monotonic clock, that the request cannot be on its way any more:
// other servers' clocks may be wrong.
func (f *flow) lookUp(ctx context.Context, j *errand, e *ledger.Entry) move {
	a := e.Attempt
	reissue := a.Kind == ledger.KindReissue
	log := j.log.With(zap.String("reference", a.Reference))
	// Until it is known that there is no order, the CA may come for the proof.
	f.present(ctx, j, e)
	look := f.account.look(a.Reference)
	age := time.Since(look.first)
	request := vendors.Lookup{Reference: a.Reference, PreparedID: a.PreparedID, Names: e.Names, CSR: a.CSR, Sent: a.Started}
	if reissue {
		request.OrderID = a.PreviousID
	}
	ids, err := f.find(ctx, request)
	switch {
	case ctx.Err() != nil:
		return ends(progress{err: context.Cause(ctx)})
	case errors.Is(err, vendors.ErrUndecidable) && age >= f.about.AbsenceAge:
		if reissue {
			return f.reconcileReissue(ctx, j, e, err)
		}
		return f.flag(e, err.Error())
	case err != nil:
		look.absences = 0
		return f.unknownYet(e, look, fmt.Errorf("looking up reference %s at %s: %w", a.Reference, f.about.Name, err))
	case len(ids) == 1 && reissue:
		log.Info("reissue found by its reference", zap.String("found_order_id", ids[0]))
		return f.reissued(e, vendors.Order{ID: ids[0]})
	case len(ids) == 1:
		log.Info("order found by its reference", zap.String("order_id", ids[0]))
		return f.placed(e, vendors.Order{ID: ids[0]})
	case len(ids) > 1:
		return f.flag(e, fmt.Sprintf("%s knows %d orders with this reference: %v", f.about.Name, len(ids), ids))
	}
	look.absences++
	if look.absences < 2 || age < f.about.AbsenceAge {
		return f.unknownYet(e, look, fmt.Errorf("%s does not know reference %s yet", f.about.Name, a.Reference))
	}
	if reissue {
		return f.reconcileReissue(ctx, j, e, errNeverReissued)
	}
	log.Info("the lost order was never placed; nothing was bought")
	f.forgetKey(ctx, a.Reference)
	return move{
		change: func(e *ledger.Entry) {
			e.State, e.Flag = ledger.Gone, nil
			if e.Problem == "" {
				e.Problem = "its answer was lost, and the vendor knows nothing of it"
			}
		},
		done: &progress{err: f.pending(e, "the lost order was never placed"), wait: time.Second},
	}
}

// find looks a request up at the vendor, if that can.
func (f *flow) find(ctx context.Context, request vendors.Lookup) ([]string, error) {
	if finder, ok := f.vendor.(vendors.Finder); ok {
		return finder.Find(ctx, request)
	}
	return nil, fmt.Errorf("%s cannot look orders up by reference: %w", f.about.Name, vendors.ErrUndecidable)
}

// unknownYet ends a round with a request whose fate is not known yet.
func (f *flow) unknownYet(e *ledger.Entry, look *look, why error) move {
	if f.ledger.Time().Sub(e.Attempt.Started) > flagAfter {
		return f.flag(e, why.Error())
	}
	if look.lookUps.Min == 0 {
		look.lookUps = poll.Schedule{Min: f.rules.pace.Min, Max: max(f.rules.pace.Max, lookUpWait)}
	}
	wait := look.lookUps.Next(f.jitter)
	if left := f.about.AbsenceAge - time.Since(look.first); left > 0 {
		wait = max(min(wait, left), f.rules.pace.Min)
	} else if look.absences == 1 {
		wait = f.rules.pace.Min
	}
	return ends(progress{err: f.pending(e, why.Error()), wait: wait})
}

// flag hands an order to a person. It stays as it is, and the vendor is asked once a day.
func (f *flow) flag(e *ledger.Entry, reason string) move {
	now := f.ledger.Time()
	done := &progress{err: f.flagged(e, reason), wait: flaggedWait}
	if e.Flag != nil && e.Flag.Reason == reason {
		return move{done: done}
	}
	return move{done: done, change: func(e *ledger.Entry) {
		if e.Flag == nil {
			e.Flag = &ledger.Flag{Since: now}
		}
		e.Flag.Reason, e.Problem = reason, reason
	}}
}

// flagEnded flags an order that gives no more certificates under its known ID.
func (f *flow) flagEnded(e *ledger.Entry, reason string) move {
	m := f.flag(e, reason)
	change := m.change
	if change == nil && e.Flag.Ended {
		return m
	}
	m.change = func(e *ledger.Entry) {
		if change != nil {
			change(e)
		}
		e.Flag.Ended = true
	}
	return m
}

// flagged is the error for an order that a person must look at.
func (f *flow) flagged(e *ledger.Entry, reason string) error {
	if e.OrderID == "" || e.State == ledger.Asked {
		return noRetry(&UncertainError{
			Vendor: f.about.Name, Portal: f.about.Portal, Names: e.Names,
			Reference: e.Attempt.Reference, Sent: e.Attempt.Started, Reason: reason,
		})
	}
	return noRetry(&DeadOrderError{f.about.Name, f.about.Portal, e.Names, e.OrderID, reason, e.Ends, false})
}
