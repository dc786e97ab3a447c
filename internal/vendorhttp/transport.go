package vendorhttp

import (
	"errors"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// TransportError turns a failure of the HTTP path into an Error of the named
// vendor: Retryable if the request certainly had no effect, otherwise Uncertain.
func TransportError(vendor, endpoint string, err error) *vendors.Error {
	e := &vendors.Error{Vendor: vendor, Endpoint: endpoint, Verdict: vendors.Uncertain, Err: err}
	if failed, ok := errors.AsType[*Error](err); ok {
		e.HTTPStatus, e.RetryAfter, e.Err = failed.Status, failed.RetryAfter, failed.Err
		if failed.NoEffect {
			e.Verdict = vendors.Retryable
		}
	}
	return e
}
