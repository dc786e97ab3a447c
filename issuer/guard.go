package issuer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/internal/poll"
)

// mayBuy refuses a purchase that the rules do not allow, before anything else is
// done about it.
func (f *flow) mayBuy(ctx context.Context, j job, rec *Record) error {
	if f.isAdopted(j.name) {
		return noRetry(fmt.Errorf("the order that was bought elsewhere for %s is used up, and the option order forbids to place another one; "+
			"give the ID of a new order, or remove the option", j.name))
	}
	if j.onDemand && !f.rules.allowOnDemand {
		return noRetry(fmt.Errorf("a certificate for %s would have to be paid for, and TLS handshakes may not order any; "+
			"set allow_on_demand to permit it", j.name))
	}
	if h := rec.Hold; h != nil && time.Now().Before(h.Until) {
		return &HoldError{rec.primary(), h.Failures, h.Until, rec.Problem}
	}
	return nil
}

// awaitTwin waits while an order for the www or apex twin of the job's name is on
// its way that may turn out to cover this name, too. It reports whether it had to,
// so that the records are read again.
func (f *flow) awaitTwin(ctx context.Context, j job) (waited bool, err error) {
	schedule := f.schedule()
	for ; ; waited = true {
		other, busy, err := f.busyTwin(ctx, j.name)
		if err != nil || !busy {
			return waited, err
		}
		if !waited {
			j.logger.Info("waiting for the order of another name, which may cover this one", zap.String("other", other.primary()))
		}
		wait := schedule.Next()
		if f.waitedTooLong(j, wait) {
			return waited, fmt.Errorf("%s waits for the order of %s, which may cover it; nothing is ordered for it before that is known",
				j.name, other.primary())
		}
		if err := poll.Wait(ctx, wait); err != nil {
			return waited, err
		}
	}
}

// busyTwin reports whether the first certificate of the twin's order is awaited.
func (f *flow) busyTwin(ctx context.Context, name string) (*Record, bool, error) {
	t := dcv.Twin(name)
	if t == "" || !f.about.CoversTwin {
		return nil, false, nil
	}
	other, err := f.ledger.load(ctx, t)
	if _, damaged := errors.AsType[*DamagedRecordError](err); damaged {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	busy := other.State == StateIntent || other.State == StatePending && other.Order.Issued == 0
	return other, busy, nil
}
