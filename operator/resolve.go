package operator

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	if r.OrderID != "" {
		if err := d.unheld(ctx, k, r.OrderID); err != nil {
			return deed{}, err
		}
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
	default:
		plan.Does = "the order is given up in the ledger; nothing is done at the vendor"
		then, buys := k.givenUp()
		plan.Then = append(plan.Then, then...)
		if buys {
			got.priced = &k
		}
	}
	got.plan = plan
	return got, nil
}

// unheld refuses an order that another entry goes on with: an order has one entry.
func (d *Desk) unheld(ctx context.Context, k known, id string) error {
	return d.each(ctx, Query{Vendor: k.place.Vendor + "/" + k.place.Account}, func(other known) error {
		// One that cannot be read keeps nobody from settling another one.
		if e := other.entry; other.err == nil && e.ID != k.entry.ID && other.storage == k.storage &&
			e.State != ledger.Gone && !e.Over(d.now()) && (e.OrderID == id || e.RootID == id) {
			return refuse("order %s is in the ledger already (entry %s, %s), for %s", id, e.ID, e.State, strings.Join(e.Names, ", "))
		}
		return nil
	})
}

// givenUp tells what follows once the order is given up, and whether the config has another one bought.
func (k known) givenUp() (then []string, buys bool) {
	if k.account == nil {
		return []string{"a Caddy whose config needs its names places another order, and pays for it, " + k.goesOn()}, false
	}
	some := func(is func(name string) bool) bool { return slices.ContainsFunc(namesOf(k.entry), is) }
	rules := func(name string) Rules {
		if k.account.Rules == nil {
			return Rules{Allowed: true}
		}
		return k.account.Rules(name)
	}
	switch {
	case some(func(name string) bool { return k.account.Manages(name) && !rules(name).Adopted }):
		return []string{"another order is placed, and paid for, " + k.whenBoughtAgain(), "to have none placed, remove the site from the config before"}, true
	case k.managed():
		return []string{"no other order is placed, as the option order gives one for its names; if it is this one, give another one there"}, false
	case k.account.OnDemand && some(func(name string) bool { return rules(name).Allowed && !rules(name).Adopted }):
		return []string{"another order is placed, and paid for, when a TLS handshake asks for one of its names"}, true
	}
	return []string{"nothing: no site of the config needs its names"}, false
}

// whenBoughtAgain says when the config has another order placed once this one is given up: a certificate
// that is good is used until it is due.
func (k known) whenBoughtAgain() string {
	c := k.entry.Certificate
	if c == nil || c.Lost {
		return k.goesOn()
	}
	due := ledger.RenewalBegins(c.NotBefore, c.NotAfter, k.account.WindowRatio)
	if !k.account.Ledger.Time().Before(due) {
		return k.goesOn()
	}
	return fmt.Sprintf("when its certificate is due, on %s; for a name that does not have that, %s", dayOf(due), k.goesOn())
}

func (k known) settle(ctx context.Context, r ledger.Resolution) (string, error) {
	e, err := k.ledger().Settle(ctx, k.entry, r)
	if err == nil {
		_, err = k.stands(ctx, e)
	}
	if err != nil {
		return "", err
	}
	what := fmt.Sprintf("order %s is used, %s", e.OrderID, k.goesOn())
	if e.State == ledger.Gone {
		what = "there is no order, and a new one may be placed, " + k.goesOn()
		if k.account != nil {
			what = "there is no order, and a new one may be placed, " + k.whenBoughtAgain()
		}
	}
	return fmt.Sprintf("%s: %s", strings.Join(e.Names, ", "), what), nil
}
