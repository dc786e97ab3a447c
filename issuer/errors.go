package issuer

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/vendors"
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
	return fmt.Sprintf("whether %s has an order for %s cannot be told (%s), so nothing more is bought for it. "+
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
}

func (e *DeadOrderError) Error() string {
	return fmt.Sprintf("the paid order %s at %s for %s is dead (%s), and its term runs until %s, so no other is bought for it. "+
		"See %s. To order anew: caddy commercial resolve %s --none. To use another order: caddy commercial resolve %s --order <its ID>",
		e.OrderID, e.Vendor, strings.Join(e.Names, ", "), e.Reason, e.TermEnds.UTC().Format(time.DateOnly),
		e.Portal, e.Names[0], e.Names[0])
}

// StillPendingError says that an order is alive but took longer than one call
// may wait. The next call goes on with it.
type StillPendingError struct {
	Vendor  string
	OrderID string
	Waited  time.Duration
	Detail  string
}

func (e *StillPendingError) Error() string {
	msg := fmt.Sprintf("order %s at %s is still pending after %s (max_wait); it goes on, and nothing is ordered again",
		e.OrderID, e.Vendor, e.Waited.Round(time.Millisecond))
	if e.Detail != "" {
		msg += ": " + e.Detail
	}
	return msg
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
	return fmt.Sprintf("no order is placed for %s before %s, because %d earlier ones led to nothing; last problem: %s",
		e.Name, e.Until.UTC().Format(time.RFC3339), e.Failures, e.Problem)
}

// noRetry marks an error that only a person can mend, for certmagic. Its
// maintenance asks again all the same, which is why the ledger keeps its own counsel.
func noRetry(err error) error { return certmagic.ErrNoRetry{Err: err} }

// forCertmagic marks the errors of a vendor that only a person can mend here. An empty
// account is filled elsewhere, so that it is worth asking again.
func forCertmagic(err error) error {
	if err == nil || errors.Is(err, vendors.ErrBalance) {
		return err
	}
	if e, ok := errors.AsType[*vendors.Error](err); ok && e.Verdict == vendors.Permanent {
		return noRetry(err)
	}
	return err
}
