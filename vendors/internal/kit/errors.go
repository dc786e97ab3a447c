package kit

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Fail is the error about an answer of a call that refuses, or that cannot be used: code
// and message are the vendor's own words, err is what callers decide on, or a short text
// of ours. Each may be empty. No secret passes, and no text of the vendor is longer than
// MaxMessage.
//
// The verdict is that of the call's class: an Effect is Uncertain, anything else Retryable.
// Where a vendor is known to have done nothing, the caller makes it Permanent.
func (c *Client) Fail(call Call, code, message string, err error) *vendors.Error {
	if err != nil && c.secrets.scrub(err.Error()) != err.Error() {
		err = c.secrets.scrubError(err)
	}
	e := &vendors.Error{
		Vendor: c.about.Name, Endpoint: call.Name, Verdict: vendors.Uncertain,
		Code: c.Text(code), Message: c.Text(message), Err: err,
	}
	if call.Class != Effect {
		e.Verdict = vendors.Retryable
	}
	return e
}

// Decode is Unmarshal for the answer of a call. An answer of another form than that of v is
// an error of the call.
func (c *Client) Decode(call Call, resp *Response, v any) error {
	err := Unmarshal(resp.Body, v)
	if err == nil {
		return nil
	}
	e := c.Fail(call, "", "", err)
	e.HTTPStatus = resp.Status
	return e
}

// Refuse is the error about a call that is not made, and will not be, because of err.
func (c *Client) Refuse(call Call, err error) *vendors.Error {
	e := c.Fail(call, "", "", err)
	e.Verdict = vendors.Permanent
	return e
}

// IsMissing reports whether a call failed because the service does not have it.
func IsMissing(err error) bool {
	e, ok := errors.AsType[*vendors.Error](err)
	return ok && (e.HTTPStatus == http.StatusNotFound || e.HTTPStatus == http.StatusMethodNotAllowed)
}

// IsTooLarge reports whether a call failed because its answer is larger than the call
// allows.
func IsTooLarge(err error) bool { return errors.Is(err, errTooLarge) }

const (
	// MaxMessage bounds a text of the vendor in an error, in bytes.
	MaxMessage = 400

	// maxSearched is far more than is shown, and far less than what is slow to search.
	maxSearched = 16 << 10
)

// Text is a text of the vendor for people: in one line, of bounded length, and without
// secrets and control characters.
func (c *Client) Text(s string) string {
	if len(s) > maxSearched {
		s = c.secrets.scrubCut(s[:maxSearched])
	} else {
		s = c.secrets.scrub(s)
	}
	return vendors.OneLine(s, MaxMessage)
}

// failure is a request that brought no usable answer.
type failure struct {
	// status is the HTTP status, 0 when no answer came back.
	status int

	// noEffect is whether the request certainly changed nothing at the vendor.
	noEffect bool

	// retryAfter is the vendor's wish, at most MaxRetryAfter. Zero if none.
	retryAfter time.Duration

	// err is the cause.
	err error

	// again is whether a Read is worth another attempt.
	again bool
}

func (f *failure) Error() string { return f.err.Error() }

// error turns a failure into the error of its call.
func (c *Client) error(req Request, f *failure) *vendors.Error {
	e := c.Fail(req.Call, "", "", c.secrets.scrubError(f.err))
	e.HTTPStatus, e.RetryAfter = f.status, f.retryAfter
	if f.status == http.StatusTooManyRequests {
		e.RetryAfter = cmp.Or(f.retryAfter, minPause) // DigiCert tells none (observed)
	}
	if f.noEffect {
		e.Verdict = vendors.Retryable
	}
	return e
}

// errTimeout is our own limit on one attempt.
var errTimeout = errors.New("no complete answer within the time limit")

// joinCause puts the reason of a broken answer behind its description.
func joinCause(what, why error) error { return fmt.Errorf("%w: %w", what, why) }
