package digicert

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

// problem is one error of an answer. Its code may carry a suffix behind "|" or ":",
// for example not_found|order or invalid_value:validity_years (documented).
type problem struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// problems reads the errors of an answer: a list, or a single object (observed).
func problems(body []byte) []problem {
	var many struct {
		Errors []problem `json:"errors"`
	}
	var one struct {
		Errors problem `json:"errors"`
	}
	_, _ = kit.Unmarshal(body, &many), kit.Unmarshal(body, &one)
	list := append(many.Errors, one.Errors)
	return slices.DeleteFunc(list, func(p problem) bool { return p == problem{} })
}

// pauseWhenLimited is how long to stay quiet after HTTP 429, which comes without
// Retry-After (observed). The limit is 100 requests in 5 seconds (documented, "Rate
// limits").
const pauseWhenLimited = 5 * time.Second

// explained adds the vendor's own words to the error of a failed call, if its answer has
// them.
//
// Refusals are told by the HTTP status: 400, 401, 403 and 404 with a list of errors
// mean that the request was turned down (documented), and so does any other 4xx with
// codes of the service's own, except for those that tell of a moment: 408, 425 and 429.
// The same status without such a list comes from something in front of the service, and
// proves nothing.
func (o *Orders) explained(call kit.Call, resp *kit.Response, err error) error {
	low, ok := errors.AsType[*vendors.Error](err)
	if !ok {
		return err
	}
	if low.HTTPStatus == http.StatusTooManyRequests && low.RetryAfter == 0 {
		low.RetryAfter = pauseWhenLimited
	}
	if resp == nil || resp.Status < 400 {
		return low
	}
	list := problems(resp.Body)
	if len(list) == 0 {
		return low
	}
	var codes, messages []string
	for _, p := range list {
		codes, messages = append(codes, p.Code), append(messages, p.Message)
	}
	e := o.http.Fail(call, strings.Join(codes, ", "), strings.Join(messages, "; "), nil)
	e.HTTPStatus, e.RetryAfter = low.HTTPStatus, low.RetryAfter
	switch {
	case e.HTTPStatus == http.StatusUnauthorized, e.HTTPStatus == http.StatusForbidden:
		// Observed: a wrong key is HTTP 403, not 401.
		e.Verdict, e.Err = vendors.Permanent, vendors.ErrCredential
	case e.HTTPStatus == http.StatusTooManyRequests:
		// Documented with a list of errors ("Rate limits"): the key is blocked, and
		// the request was not looked at.
		e.Verdict = vendors.Retryable
	case e.HTTPStatus == http.StatusRequestTimeout, e.HTTPStatus == http.StatusTooEarly, e.HTTPStatus >= 500:
	case e.HTTPStatus == http.StatusBadRequest, e.HTTPStatus == http.StatusNotFound, strings.Trim(e.Code, ", ") != "":
		refused(e, list)
	}
	return e
}

// refused makes an error one about a request that was turned down.
func refused(e *vendors.Error, list []problem) {
	e.Verdict, e.Err = vendors.Permanent, meaning(list)
	switch {
	case errors.Is(e.Err, vendors.ErrStillIssuing):
		e.Verdict = vendors.Retryable
	case e.HTTPStatus == http.StatusPaymentRequired && e.Err == nil:
		e.Err = vendors.ErrBalance
	}
}

// meaning is what callers decide on, nil if there is nothing to it.
func meaning(list []problem) error {
	for _, p := range list {
		switch code, _, _ := strings.Cut(p.Code, ":"); code {
		case "not_found|order":
			return vendors.ErrNotFound
		case "file_random_value_not_found", "invalid_dns_txt", "invalid_dns_cname":
			// Of check-dcv (documented). The CA goes on looking.
			return vendors.ErrStillIssuing
		}
		// No page tells the code for an account without money. Assumed: its name
		// or text says so.
		if text := strings.ToLower(p.Code + " " + p.Message); strings.Contains(text, "balance") || strings.Contains(text, "funds") {
			return vendors.ErrBalance
		}
	}
	return nil
}

// hasCode reports whether an error of the API has the code.
func hasCode(err error, code string) bool {
	e, ok := errors.AsType[*vendors.Error](err)
	return ok && slices.Contains(strings.Split(e.Code, ", "), code)
}
