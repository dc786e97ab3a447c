package operator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// ending is a way to end an order at its vendor.
type ending struct {
	verb  string
	what  string // of the order
	as    ledger.Ending
	call  func(ctx context.Context, orderID, reason string) error
	means string
	until time.Time
}

// cancel has an order cancelled. It goes on blocking its names: nothing is bought in its place
// before a person says so.
func (d *Desk) cancel(ctx context.Context, a Action) (deed, error) {
	return d.end(ctx, a, func(k known) (ending, error) {
		v, ok := k.account.Vendor.(vendors.Canceler)
		if !ok {
			return ending{}, k.notByAPI("cancel orders", "cancel")
		}
		about := k.account.About
		e := ending{verb: "cancel", what: "the order", as: ledger.Cancelled, call: v.Cancel, means: about.Cancelling}
		if first := firstIssued(k.entry); about.CancelWithin > 0 && !first.IsZero() {
			e.until = first.Add(about.CancelWithin).UTC()
		}
		return e, k.cancellable()
	})
}

// revoke has the certificate of an order revoked. If the order lives on, it gives another one.
func (d *Desk) revoke(ctx context.Context, a Action) (deed, error) {
	return d.end(ctx, a, func(k known) (ending, error) {
		v, ok := k.account.Vendor.(vendors.Revoker)
		if !ok {
			return ending{}, k.notByAPI("revoke certificates", "revoke the certificate of")
		}
		e := ending{verb: "revoke", what: "the certificate", as: ledger.Revoked, call: v.Revoke, means: k.account.About.Revoking}
		if k.entry.State != ledger.Issued {
			return e, refuse("order %s for %s is %s: there is no certificate that could be revoked", Word(k.entry.OrderID), k.entry.Names[0], k.entry.State)
		}
		return e, nil
	})
}

func (k known) notByAPI(what, do string) error {
	name := k.entry.Names[0]
	return refuse("%s cannot %s through its API; %s order %s at %s, and then: caddy commercial resolve %s --none, to have another one placed, or remove the site",
		k.account.About.Name, what, do, Word(k.entry.OrderID), k.account.About.Portal, name)
}

// cancellable refuses to cancel an order that is not known to exist, or that is being reissued.
func (k known) cancellable() error {
	e := k.entry
	switch {
	case e.OrderID == "" || e.State == ledger.Asked && e.Attempt.Kind != ledger.KindReissue:
		return refuse("whether there is an order for %s is not known yet (%s since %s), so none can be cancelled; "+
			"wait, or look at %s, and then: caddy commercial resolve %s --order <its ID> or --none",
			e.Names[0], e.State, timeOf(e.Attempt.Started), k.account.About.Portal, e.Names[0])
	case e.State != ledger.Issued && e.Attempt.Kind == ledger.KindReissue:
		return refuse("order %s for %s is being reissued (since %s), and some vendors would cancel the reissue in its place; wait until that is done",
			e.OrderID, e.Names[0], timeOf(e.Attempt.Started))
	}
	return nil
}

// firstIssued is when the order gave its first certificate; zero if that is not known, as of an order
// that was bought elsewhere. A story that has become long may have left it out.
func firstIssued(e *ledger.Entry) (first time.Time) {
	given := 0
	for _, event := range e.Story {
		if event.What == ledger.Given {
			if given++; given == 1 {
				first = event.Time
			}
		}
	}
	switch {
	case e.BoughtElsewhere():
		return time.Time{}
	case given > 0 && given == e.Issued:
		return first
	case e.Issued == 1 && e.Certificate != nil:
		return e.Certificate.NotBefore
	}
	return time.Time{}
}

// end plans an ending.
func (d *Desk) end(ctx context.Context, a Action, how func(known) (ending, error)) (deed, error) {
	k, err := d.one(ctx, a, false)
	if err == nil {
		err = k.served(d)
	}
	if err != nil {
		return deed{}, err
	}
	e := k.entry
	if e.Flag != nil && e.Flag.Ended {
		return deed{}, refuse("order %s for %s has ended already: %s. To have another one placed: caddy commercial resolve %s --none", e.OrderID, e.Names[0], e.Flag.Reason, e.Names[0])
	}
	ends, err := how(k)
	if err != nil {
		return deed{}, err
	}
	order, err := k.ask(ctx)
	if err != nil {
		return deed{}, err
	}
	plan := k.begin(d.now())
	plan.Said, plan.Does, plan.Means, plan.Until = order.Describe(), "the vendor is asked to "+ends.verb+" "+ends.what, ends.means, ends.until
	finish := func(ctx context.Context) (string, error) { return k.finish(ctx, a, ends) }
	switch {
	case e.State == ledger.Issued && order.Status == vendors.StatusPending:
		return deed{}, refuse("%s says that order %s is being reissued (%s), and would not %s the order now; wait until that is done", k.account.About.Name, e.OrderID, order.Describe(), ends.verb)
	case order.Status == vendors.StatusReplaced:
		return deed{}, refuse("%s says that order %s was reissued under another ID (%s); look at %s", k.account.About.Name, e.OrderID, order.Describe(), k.account.About.Portal)
	case ends.isDone(order):
		plan.Does, plan.Means, plan.Until = "nothing is asked of the vendor, which says that it is done; the ledger is put right", "", time.Time{}
		finish = func(ctx context.Context) (string, error) {
			if _, _, err := k.note(ctx, a, ends); err != nil {
				return "", err
			}
			return k.putRight(ctx, ends, order)
		}
	}
	name := e.Names[0]
	if ends.as == ledger.Revoked {
		plan.Then = append(plan.Then, "the certificate is served until there is another one, though browsers may refuse it",
			"if the vendor says that the order is still active, it is reissued, free of charge and for a new key, "+k.goesOn())
	} else if e.Certificate != nil {
		plan.Then = append(plan.Then, "the certificate is served for as long as it is valid, though browsers may refuse it")
	}
	plan.Then = append(plan.Then, "if the order has ended, nothing is bought in its place by itself, whatever replace_ended_orders says")
	if k.managed() {
		plan.Then = append(plan.Then, "to have another order placed, and paid for: caddy commercial resolve "+name+" --none",
			"to have none: remove the site from the config")
	}
	return deed{plan: plan, priced: &k, do: func(ctx context.Context) (string, error) {
		return k.alone(ctx, func() (string, error) { return finish(ctx) })
	}}, nil
}

// isDone reports whether the vendor says that it was done.
func (e ending) isDone(order vendors.Order) bool {
	return order.Status.Ended() || e.as == ledger.Revoked && order.CertificateRevoked
}

// ask asks the vendor where the order stands.
func (k known) ask(ctx context.Context) (vendors.Order, error) {
	order, err := k.account.Vendor.Status(ctx, k.entry.OrderID)
	switch name := k.account.About.Name; {
	case errors.Is(err, vendors.ErrNotFound):
		return order, refuse("%s does not know order %s; is it another account's? Look at %s: %w", name, k.entry.OrderID, k.account.About.Portal, err)
	case err != nil:
		return order, fmt.Errorf("asking %s about order %s failed, so nothing was done: %w", name, k.entry.OrderID, err)
	}
	return order, nil
}

// note writes down that a person has the order ended, and returns the entry once all servers see that,
// as they have left it.
func (k known) note(ctx context.Context, a Action, ends ending) (noted, now *ledger.Entry, err error) {
	l := k.ledger()
	noted, err = l.Write(ctx, k.entry, func(e *ledger.Entry) {
		e.Decide(l.Time(), a.words(ends.verb))
		e.EndedByHand = ends.as
	})
	if err == nil {
		now, err = k.stands(ctx, noted)
	}
	return noted, now, err
}

// finish has the order ended: the intent is written down, the vendor is called, and then asked what
// came of it, which is written down as well.
func (k known) finish(ctx context.Context, a Action, ends ending) (string, error) {
	l, before := k.ledger(), k.entry.EndedByHand
	noted, now, err := k.note(ctx, a, ends)
	if err != nil {
		return "", err
	}
	if now.Revision != noted.Revision {
		_, err := l.Write(ctx, now, func(e *ledger.Entry) {
			e.Decide(l.Time(), "caddy commercial "+ends.verb+" was not done, as a server was at work on the order")
			e.EndedByHand = before
		})
		return "", errors.Join(fmt.Errorf("%w: a server has gone on with the order", ledger.ErrConflict), err)
	}
	id := k.entry.OrderID
	called := ends.call(ctx, id, a.Note)
	if called != nil && vendors.VerdictOf(called) != vendors.Uncertain {
		err := k.record(ctx, func(e *ledger.Entry) {
			e.Decide(l.Time(), "caddy commercial "+ends.verb+" was refused: "+called.Error())
			e.EndedByHand = before
		})
		return "", errors.Join(refuse("order %s was not %s: %w", id, ends.as, called), err)
	}
	order, err := k.account.Vendor.Status(ctx, id)
	switch {
	case err == nil && ends.isDone(order):
		return k.putRight(ctx, ends, order)
	case called == nil && err == nil:
		called = fmt.Errorf("%s accepted the request, but says of the order: %s", k.account.About.Name, order.Describe())
	case called == nil:
		called = fmt.Errorf("%s accepted the request, but could not be asked about the order since: %w", k.account.About.Name, err)
	default:
		called = fmt.Errorf("the vendor's answer was lost: %w", called)
	}
	problem := fmt.Sprintf("%s by hand, but it is not certain yet: %s", ends.as, Word(called.Error()))
	err = k.record(ctx, func(e *ledger.Entry) { e.Problem = problem })
	return "", errors.Join(fmt.Errorf("whether order %s was %s is not certain: %w. Run the command again in a moment: the vendor is asked first", id, ends.as, called), err)
}

// putRight writes down what the vendor says of an order that was ended by hand.
func (k known) putRight(ctx context.Context, ends ending, order vendors.Order) (string, error) {
	l, says := k.ledger(), order.Describe()
	lives := ends.as == ledger.Revoked && (order.Status == vendors.StatusRevoked || !order.Status.Ended())
	err := k.record(ctx, func(e *ledger.Entry) {
		e.EndedByHand = ends.as
		dead := order.Status == vendors.StatusRevoked || order.Status == vendors.StatusCancelled || order.CertificateRevoked
		if c := e.Certificate; c != nil && dead {
			c.Lost, c.Unwanted = true, false
		}
		e.Problem = e.WhyEnded(says)
		if lives {
			return // whether it gives another certificate, the answer to a reissue tells
		}
		e.State = ledger.Open
		if e.Flag == nil {
			e.Flag = &ledger.Flag{Since: l.Time()}
		}
		e.Flag.Reason, e.Flag.Ended = e.Problem, true
	})
	if err != nil {
		return "", fmt.Errorf("order %s was %s (%s), but the ledger could not be written: %w. Run the command again", order.ID, ends.as, says, err)
	}
	name := k.entry.Names[0]
	if lives {
		return fmt.Sprintf("%s: the certificate of order %s is revoked (%s); if the order is still active, it is reissued, free of charge, %s. If not, it needs a decision",
			strings.Join(k.entry.Names, ", "), k.entry.OrderID, says, k.goesOn()), nil
	}
	return fmt.Sprintf("%s: order %s has ended (%s); nothing is bought in its place. To have another one placed, and paid for: caddy commercial resolve %s --none. To have none: remove the site",
		strings.Join(k.entry.Names, ", "), k.entry.OrderID, says, name), nil
}

// recordTries is how often writing down what has happened at the vendor is tried.
const recordTries = 5

// record writes down what has happened to the order at the vendor, whoever has written to its entry
// meanwhile. An order that was given up meanwhile, or goes on under another ID, is left alone, which is
// an error.
func (k known) record(ctx context.Context, change func(*ledger.Entry)) error {
	l := k.ledger()
	var err error
	for range recordTries {
		var e *ledger.Entry
		if e, err = l.Load(ctx, k.entry.ID); err != nil {
			return err
		}
		if e.State == ledger.Gone || e.OrderID != k.entry.OrderID {
			return fmt.Errorf("meanwhile, the ledger has gone on (entry %s, order %s, %s)", e.ID, Word(e.OrderID), e.State)
		}
		if _, err = l.Write(ctx, e, change); !errors.Is(err, ledger.ErrConflict) {
			return err
		}
	}
	return errors.New(err.Error()) // not ErrConflict, of which Do says that nothing was done
}
