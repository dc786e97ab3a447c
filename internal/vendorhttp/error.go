package vendorhttp

import (
	"errors"
	"fmt"
	"time"
)

// Error is a call that brought no usable answer.
type Error struct {
	// Endpoint is the request's.
	Endpoint string

	// Status is the HTTP status, 0 when no answer came back.
	Status int

	// NoEffect is whether the request certainly changed nothing at the vendor.
	NoEffect bool

	// RetryAfter is the vendor's wish, at most MaxRetryAfter. Zero if none.
	RetryAfter time.Duration

	// Body is the answer if it was JSON with a status other than 2xx, for
	// vendors that explain refusals so. It may hold secrets.
	Body []byte

	// Err is the cause. It holds no secret and matches context errors.
	Err error

	// again is whether a Read is worth another attempt.
	again bool
}

func (e *Error) Error() string {
	if e.Status != 0 && (e.Status < 200 || e.Status > 299) {
		return fmt.Sprintf("%s: HTTP %d: %v", e.Endpoint, e.Status, e.Err)
	}
	return fmt.Sprintf("%s: %v", e.Endpoint, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// errTimeout is our own limit on one attempt.
var errTimeout = errors.New("no complete answer within the time limit")

// joinCause puts the reason of a broken answer behind its description.
func joinCause(what, why error) error { return fmt.Errorf("%w: %w", what, why) }
