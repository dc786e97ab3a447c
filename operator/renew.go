package operator

import (
	"context"
	"fmt"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// renew has the paid order give another certificate now, for a new key and free of charge, as if
// the CA had revoked the one that it has.
func (d *Desk) renew(ctx context.Context, a Action) (deed, error) {
	k, err := d.one(ctx, a, false)
	if err == nil {
		err = k.served(d)
	}
	if err == nil {
		err = k.renewable(d)
	}
	if err != nil {
		return deed{}, err
	}
	c := k.entry.Certificate
	after := *k.entry
	unwanted := *c
	unwanted.Lost, unwanted.Unwanted = true, true
	after.Certificate = &unwanted
	next := known{entry: &after, account: k.account, place: k.place}.row(d.now())
	plan := k.begin(d.now())
	plan.Does = "another certificate is asked for, free of charge and for a new key"
	plan.Means = fmt.Sprintf("the present one, serial number %s, valid until %s, is served until the new one is there, and is not revoked by this", c.Serial, dayOf(c.NotAfter))
	then := "nothing is bought by it"
	if !next.NextCharge.IsZero() {
		then += fmt.Sprintf("; the next order is placed, and paid for, from about %s on", dayOf(next.NextCharge))
	}
	plan.Then = append(plan.Then, "it is asked for "+k.goesOn(), then)
	return deed{plan: plan, do: func(ctx context.Context) (string, error) {
		return k.alone(ctx, func() (string, error) { return k.reissue(ctx, a) })
	}}, nil
}

// renewable refuses a renewal that makes no sense.
func (k known) renewable(d *Desk) error {
	e, now := k.entry, d.now()
	_, reissues := k.account.Vendor.(vendors.Reissuer)
	free := e.Ends.Add(-e.Margin(k.account.Margin(e)))
	switch {
	case e.Flag != nil:
		return refuse("order %s waits for a decision: %s. Resolve that first: caddy commercial resolve %s", Word(e.OrderID), e.Flag.Reason, e.Names[0])
	case e.State != ledger.Issued:
		return refuse("a certificate of order %s for %s is on its way already (%s since %s)", Word(e.OrderID), e.Names[0], e.State, timeOf(e.Attempt.Started))
	case e.LostCertificate():
		return refuse("the certificate of order %s for %s is being replaced already: %s", e.OrderID, e.Names[0], Word(e.Problem))
	case !reissues:
		return refuse("%s cannot reissue certificates through its API; look at %s", k.account.About.Name, k.account.About.Portal)
	case !k.managed():
		return refuse("no site of the config needs a certificate of order %s for %s, so none would be asked for", e.OrderID, strings.Join(e.Names, ", "))
	case !now.Before(free) && k.row(now).NextCharge.IsZero():
		return refuse("the term of order %s ends on %s, and so close to its end nothing is reissued by hand; no other order is placed, as the option order gives this one",
			e.OrderID, dayOf(e.Ends))
	case !now.Before(free):
		return refuse("the term of order %s ends on %s, and so close to its end nothing is reissued by hand: the next order is placed, and paid for, on %s",
			e.OrderID, dayOf(e.Ends), dayOf(k.row(now).NextCharge))
	}
	return nil
}

func (k known) reissue(ctx context.Context, a Action) (string, error) {
	l := k.ledger()
	e, err := l.Write(ctx, k.entry, func(e *ledger.Entry) {
		e.Decide(l.Time(), a.words("renew"))
		e.Certificate.Lost, e.Certificate.Unwanted = true, true
		e.Problem = "a person asked for another certificate"
	})
	if err == nil {
		_, err = k.stands(ctx, e)
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s: another certificate of order %s is asked for, %s", strings.Join(k.entry.Names, ", "), k.entry.OrderID, k.goesOn()), nil
}
