package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Resolution is what a person found out about an order. One of OrderID and None is set.
type Resolution struct {
	// OrderID is the vendor's ID of the order that is there after all, or of another one
	// to use from now on.
	OrderID string

	// None means that there is no such order, or that it is given up, so that another one
	// may be placed.
	None bool

	// Words are what the person says of the decision, for the story of the order.
	Words string
}

// ErrNothingToResolve says that there is no order that a person could decide about.
var ErrNothingToResolve = errors.New("there is nothing to resolve")

// Check refuses a resolution that says nothing, or both.
func (r Resolution) Check() error {
	if r.None == (r.OrderID != "") {
		return errors.New("give either an order ID or none")
	}
	return nil
}

// ClockSkew is how far the clocks of servers that share a ledger may be apart.
const ClockSkew = time.Hour

// MayResolve reports why a person cannot settle the entry now; nil if that is possible.
func (l *Ledger) MayResolve(e *Entry) error {
	if e.State == Gone {
		return fmt.Errorf("%w: the order for %s is gone", ErrNothingToResolve, strings.Join(e.Names, ", "))
	}
	if e.State == Asked {
		ready := e.Attempt.Started.Add(e.Attempt.AbsenceAge)
		if e.Flag == nil { // otherwise a server has waited for as long by its own clock
			ready = ready.Add(ClockSkew)
		}
		if l.Time().Before(ready) {
			return fmt.Errorf("the request with reference %s for %s was sent at %s and may still be on its way; "+
				"try again after %s", e.Attempt.Reference, strings.Join(e.Names, ", "),
				e.Attempt.Started.UTC().Format(time.RFC3339), ready.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// Settle settles the entry, in any state but gone, if it is still the one that was read. No vendor
// is asked: an order ID is verified when the issuer next uses it. While a request is so young that
// it may still be on its way, it is refused.
func (l *Ledger) Settle(ctx context.Context, e *Entry, r Resolution) (*Entry, error) {
	if err := l.MayResolve(e); err != nil {
		return nil, err
	}
	next, err := l.Write(ctx, e, func(e *Entry) {
		if r.Words != "" {
			e.Decide(l.Time(), r.Words)
		}
		stands := e.StandsWithoutReissue()
		e.Flag, e.Problem = nil, ""
		switch {
		case r.None && stands:
			e.State = Issued
		case r.None:
			e.State = Gone
		default:
			e.use(r.OrderID, e.State == Asked && e.Attempt.Kind == KindReissue, l.Time())
		}
	})
	if err == nil && r.None {
		// Nobody gets a certificate for it any more. Servers remove keys that were left behind.
		_ = l.ForgetKey(ctx, e.Attempt.Reference)
	}
	return next, err
}

// StandsWithoutReissue reports whether the paid order is as it was before if the vendor never made
// the reissue whose answer is not known.
func (e *Entry) StandsWithoutReissue() bool {
	ended := e.Flag != nil && e.Flag.Ended
	return e.State == Asked && e.Attempt.Kind == KindReissue && e.Certificate != nil && !ended
}

// use makes the entry go on with the order of the given ID.
func (e *Entry) use(id string, reissue bool, now time.Time) {
	if known := e.OrderID == id || e.State == Asked; !known {
		// Nothing is known of the CSR that this order was placed with.
		e.Attempt = Attempt{Kind: KindAdoption, Reference: e.Attempt.Reference, Started: now}
		if id != e.RootID {
			e.Substitute = true
			// It may have been bought just now, and its term is told with its certificate at best.
			if ends := EndOfTerm(now, e.Term); ends.After(e.Ends) {
				e.Ends = ends
			}
		}
	}
	e.Attempt.AnyKey, e.EndedByHand = true, ""
	if !reissue {
		e.RootID = id
	}
	e.OrderID, e.State = id, Open
}
