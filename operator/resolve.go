package operator

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/ledger"
)

// resolve settles an order whose fate only a person can find out. No vendor is asked for it.
func (d *Desk) resolve(ctx context.Context, a Action) (deed, error) {
	r := ledger.Resolution{OrderID: strings.TrimSpace(a.Order), None: a.None, Words: a.words("resolve")}
	if err := r.Check(); err != nil {
		return deed{}, &RefusedError{err}
	}
	k, err := d.one(ctx, a, true)
	if errors.Is(err, ErrUnknown) || errors.Is(err, errNotInForce) {
		return deed{}, &RefusedError{fmt.Errorf("%w: %w", ledger.ErrNothingToResolve, err)}
	}
	if err != nil {
		return deed{}, err
	}
	if err := k.ledger().MayResolve(k.entry); err != nil {
		return deed{}, &RefusedError{err}
	}
	plan := k.begin(d.now())
	got := deed{do: func(ctx context.Context) (string, error) {
		return k.alone(ctx, func() (string, error) { return k.settle(ctx, r) })
	}}
	switch {
	case r.OrderID != "":
		plan.Does = fmt.Sprintf("order %s is used from now on", r.OrderID)
		plan.Then = append(plan.Then, "the vendor is asked for it, "+k.goesOn())
	case k.entry.StandsWithoutReissue():
		plan.Does = "it is noted that the reissue was not made; the paid order stands"
		plan.Then = append(plan.Then, "it is asked for again, free of charge, "+k.goesOn())
	case k.account != nil && k.managed():
		plan.Does = "the order is given up in the ledger; nothing is done at the vendor"
		plan.Then = append(plan.Then, "another order is placed, and paid for, "+k.goesOn(),
			"to have none placed, remove the site from the config before")
		got.priced = &k
	case k.account == nil:
		plan.Does = "the order is given up in the ledger; nothing is done at the vendor"
		plan.Then = append(plan.Then, "a Caddy whose config needs its names places another order, and pays for it, "+k.goesOn())
	default:
		plan.Does = "the order is given up in the ledger; nothing is done at the vendor"
		plan.Then = append(plan.Then, "nothing: no site of the config needs its names")
	}
	got.plan = plan
	return got, nil
}

func (k known) settle(ctx context.Context, r ledger.Resolution) (string, error) {
	e, err := k.ledger().Settle(ctx, k.entry, r)
	if err != nil {
		return "", err
	}
	what := fmt.Sprintf("order %s is used", e.OrderID)
	if e.State == ledger.Gone {
		what = "there is no order, and a new one may be placed"
	}
	return fmt.Sprintf("%s: %s, %s", strings.Join(e.Names, ", "), what, k.goesOn()), nil
}
