package vendors

import (
	"errors"

	"github.com/caddy-commercial/caddy-commercial/internal/vendorhttp"
)

// TransportError turns a failure of the HTTP path into an Error of the named
// vendor: Retryable if the request certainly had no effect, otherwise Uncertain.
func TransportError(vendor, endpoint string, err error) *Error {
	e := &Error{Vendor: vendor, Endpoint: endpoint, Verdict: Uncertain, Err: err}
	if failed, ok := errors.AsType[*vendorhttp.Error](err); ok {
		e.HTTPStatus, e.RetryAfter, e.Err = failed.Status, failed.RetryAfter, failed.Err
		if failed.NoEffect {
			e.Verdict = Retryable
		}
	}
	return e
}
