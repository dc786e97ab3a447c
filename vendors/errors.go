package vendors

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Verdict is what an error means for the caller. Callers branch on it, never on
// an error's text.
type Verdict int

const (
	// Uncertain means that the request may have taken effect although no usable
	// answer came back. For a paid call this is money at stake: look the
	// reference up before anything else.
	Uncertain Verdict = iota

	// Retryable means that the request had no effect and the same request may
	// succeed later.
	Retryable

	// Permanent means that the request had no effect and will fail again until a
	// person changes something: credentials, product, contact, balance.
	Permanent
)

func (v Verdict) String() string {
	switch v {
	case Uncertain:
		return "uncertain"
	case Retryable:
		return "retryable"
	case Permanent:
		return "permanent"
	}
	return fmt.Sprintf("verdict(%d)", int(v))
}

var (
	// ErrNotFound matches errors about orders that the vendor does not know.
	ErrNotFound = errors.New("no such order at the vendor")

	// ErrWrongState matches errors that say that an order is in a state that does
	// not allow the request, for example a reissue before the first issue.
	ErrWrongState = errors.New("order is in the wrong state for this request")

	// ErrStillIssuing matches answers that say that the certificate is being made and
	// the caller should come back later.
	ErrStillIssuing = errors.New("certificate is still being issued")

	// ErrCredential matches errors about a refused credential or client address.
	ErrCredential = errors.New("credential or client address refused")

	// ErrBalance matches errors about an account without enough money.
	ErrBalance = errors.New("account balance is too low")

	// ErrUndecidable matches errors of Find that say that the vendor's answers prove
	// neither that there is an order nor that there is none. If time does not resolve
	// it, only a person can tell. An error of Changed that matches it says that more
	// has changed than it returns.
	ErrUndecidable = errors.New("the vendor's answers do not show whether there is an order")
)

// Error is a failed call to a vendor. It never holds a secret.
type Error struct {
	Vendor   string // module name
	Endpoint string // the vendor's name of the call, for example "place"
	Verdict  Verdict

	// HTTPStatus is 0 when no answer came back.
	HTTPStatus int

	// Code and Message are the vendor's own.
	Code    string
	Message string

	// RetryAfter is the vendor's wish, already bounded. Zero if none.
	RetryAfter time.Duration

	// Err is the cause, and what errors.Is matches. May be nil.
	Err error
}

// Error tells vendor, call, what came back and the cause, in one line.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", e.Vendor, e.Endpoint)
	if e.HTTPStatus != 0 && e.HTTPStatus != 200 {
		fmt.Fprintf(&b, ": HTTP %d", e.HTTPStatus)
	}
	if e.Code != "" {
		fmt.Fprintf(&b, ": code %s", e.Code)
	}
	if e.Message != "" {
		fmt.Fprintf(&b, ": %s", e.Message)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// VerdictOf returns the verdict of the Error in err's chain. Any other error is
// Uncertain.
func VerdictOf(err error) Verdict {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Verdict
	}
	return Uncertain
}
