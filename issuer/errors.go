package issuer

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/ledger"
)

// UncertainError says that money may have been spent and that only a person can
// find out. Nothing more is bought for the names until then.
type UncertainError struct {
	Vendor    string
	Portal    string
	Names     []string
	Reference string
	Sent      time.Time
	Reason    string
}

func (e *UncertainError) Error() string {
	return fmt.Sprintf("it is not known whether %s has an order for %s (%s), so nothing more is bought for it. "+
		"Look at %s for an order of about %s with reference %s. "+
		"If it is there: caddy commercial resolve %s --order <its ID>. If it is not: caddy commercial resolve %s --none",
		e.Vendor, strings.Join(e.Names, ", "), e.Reason,
		e.Portal, e.Sent.UTC().Format(time.RFC3339), e.Reference,
		e.Names[0], e.Names[0])
}

// DeadOrderError says that a paid order ended without a usable certificate.
// Nothing more is bought for the names until a person decides, or until the term
// that was paid for is over.
type DeadOrderError struct {
	Vendor   string
	Portal   string
	Names    []string
	OrderID  string
	Reason   string
	TermEnds time.Time
	Replaced bool // another one is bought if the vendor goes on saying so
}

func (e *DeadOrderError) Error() string {
	if e.Replaced {
		return fmt.Sprintf("the paid order %s at %s for %s was ended by the vendor (%s), though its term runs until %s; "+
			"if the vendor says the same for %s, another one is placed, as replace_ended_orders allows. See %s",
			e.OrderID, e.Vendor, strings.Join(e.Names, ", "), e.Reason, e.TermEnds.UTC().Format(time.DateOnly), replaceAfter, e.Portal)
	}
	return fmt.Sprintf("the paid order %s at %s for %s has ended (%s) before its term, which runs until %s, so no other is bought for it. "+
		"See %s. To order anew: caddy commercial resolve %s --none. To use another order: caddy commercial resolve %s --order <its ID>",
		e.OrderID, e.Vendor, strings.Join(e.Names, ", "), e.Reason, e.TermEnds.UTC().Format(time.DateOnly),
		e.Portal, e.Names[0], e.Names[0])
}

// PendingError says that a certificate is on its way, or waits for something that comes by
// itself. The issuer goes on with it in the background, whether or not anybody asks again.
type PendingError struct {
	Vendor  string
	Names   []string
	OrderID string        // empty before there is an order
	Waited  time.Duration // by the call that ends; zero if it did not wait
	Detail  string
}

// pendingText is in the text of a PendingError, HoldError and SpendLimitError, for where only
// the text of an error arrives.
const pendingText = "goes on in the background, and nothing is ordered again"

func (e *PendingError) Error() string {
	what := "the certificate for " + strings.Join(e.Names, ", ")
	if e.OrderID != "" {
		what = "order " + e.OrderID
	}
	msg := fmt.Sprintf("%s at %s is pending", what, e.Vendor)
	if e.Waited > 0 {
		msg += fmt.Sprintf(" after %s (max_wait)", e.Waited.Round(time.Millisecond))
	}
	msg += "; it " + pendingText
	if e.Detail != "" {
		msg += ": " + e.Detail
	}
	return msg
}

// pending is the error for an order that takes its time.
func (f *flow) pending(e *ledger.Entry, detail string) error {
	return &PendingError{Vendor: f.about.Name, Names: e.Names, OrderID: e.OrderID, Detail: detail}
}

var (
	// errDelivered ends a call of Issue for a name whose certificate was made for another
	// key. The issuer itself stores it.
	errDelivered = errors.New("there is a certificate for another key, which is being stored")

	// errSuperseded ends a call of Issue that was followed by another one for its name.
	errSuperseded = errors.New("a later call asks for the same name")

	errNothingBought = errors.New("nothing was bought")

	errPanicked = errors.New("it panicked")
)

// waits reports whether an error is no failure: the name waits for what comes by itself.
func waits(err error) bool {
	if _, ok := errors.AsType[*PendingError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*SpendLimitError](err); ok {
		return true
	}
	_, ok := errors.AsType[*HoldError](err)
	return ok
}

// isPending is like waits, but also takes errors of which only the text is left.
func isPending(err error) bool {
	return err != nil && (waits(err) || strings.Contains(err.Error(), pendingText))
}

// isFinal reports whether only another configuration helps.
func isFinal(err error) bool {
	_, ok := errors.AsType[certmagic.ErrNoRetry](err)
	return ok
}

// HoldError says that paid calls for a name are held back for a while because
// earlier ones led to nothing.
type HoldError struct {
	Name     string
	Failures int
	Until    time.Time
	Problem  string
}

func (e *HoldError) Error() string {
	return fmt.Sprintf("no order is placed for %s before %s, because %d earlier attempts failed; it %s; last problem: %s",
		e.Name, e.Until.UTC().Format(time.RFC3339), e.Failures, pendingText, e.Problem)
}

// noRetry tells certmagic not to retry after an error. Within a round, it marks an
// error that only a person can mend, see isFinal. certmagic's maintenance asks again
// all the same, which is why nothing relies on it: the ledger decides.
func noRetry(err error) error { return certmagic.ErrNoRetry{Err: err} }

// SpendLimitError says that the limit of paid orders is reached.
type SpendLimitError struct {
	Limit SpendLimit
	Next  time.Time // when the next order is allowed
}

func (e *SpendLimitError) Error() string {
	return fmt.Sprintf("spend_limit reached: %d paid orders within %s; the next is allowed at %s (raise spend_limit if this is intended); it %s",
		e.Limit.Orders, time.Duration(e.Limit.Per), e.Next.UTC().Format(time.RFC3339), pendingText)
}
