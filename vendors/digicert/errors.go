package digicert

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/vendorhttp"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// problem is one error of an answer. Its code may carry a suffix behind "|" or ":",
// for example not_found|order or invalid_value:validity_years (documented).
type problem struct {
	Code    text `json:"code"`
	Message text `json:"message"`
}

// problems reads the errors of an answer: a list, or a single object (observed).
func problems(body []byte) []problem {
	var many struct {
		Errors loose[[]problem] `json:"errors"`
	}
	var one struct {
		Errors loose[problem] `json:"errors"`
	}
	_ = json.Unmarshal(body, &many)
	_ = json.Unmarshal(body, &one)
	list := many.Errors.V
	if len(list) == 0 {
		list = []problem{one.Errors.V}
	}
	var told []problem
	for _, p := range list {
		if p.Code.Word() != "" || p.Message.Word() != "" {
			told = append(told, p)
		}
	}
	return told
}

// pauseWhenLimited is how long to stay quiet after HTTP 429, which comes without
// Retry-After (observed). The limit is 100 requests in 5 seconds (documented, "Rate
// limits").
const pauseWhenLimited = 5 * time.Second

// explained turns a failed call into an error, with the vendor's own words if the
// answer has them.
//
// Refusals are told by the HTTP status: 400, 401, 403 and 404 with a list of errors
// mean that the request was turned down (documented), and so does any other 4xx with
// codes of the service's own, except for those that tell of a moment: 408, 425 and 429.
// The same status without such a list comes from something in front of the service, and
// proves nothing.
func (c *client) explained(endpoint string, err error) *vendors.Error {
	e := vendorhttp.TransportError(c.vendor, endpoint, err)
	low, ok := errors.AsType[*vendorhttp.Error](err)
	if !ok {
		return e
	}
	if low.Status == http.StatusTooManyRequests && e.RetryAfter == 0 {
		e.RetryAfter = pauseWhenLimited
	}
	list := problems(low.Body)
	if len(list) == 0 || low.Status < 400 {
		return e
	}
	var codes, messages []string
	for _, p := range list {
		codes = append(codes, p.Code.Word())
		messages = append(messages, p.Message.Word())
	}
	e.Code = short(c.http.Scrub(strings.Join(codes, ", ")))
	e.Message = short(c.http.Scrub(strings.Join(messages, "; ")))
	e.Err = nil
	switch low.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		// Observed: a wrong key is HTTP 403, not 401.
		e.Verdict, e.Err = vendors.Permanent, vendors.ErrCredential
	case http.StatusTooManyRequests:
		// Documented with a list of errors ("Rate limits"): the key is blocked, and
		// the request was not looked at.
		e.Verdict = vendors.Retryable
	case http.StatusBadRequest, http.StatusNotFound:
		c.refused(e, list)
	case http.StatusRequestTimeout, http.StatusTooEarly:
	default:
		if low.Status < 500 && strings.Trim(e.Code, ", ") != "" {
			c.refused(e, list)
		}
		if low.Status == http.StatusPaymentRequired && e.Verdict == vendors.Permanent && e.Err == nil {
			e.Err = vendors.ErrBalance
		}
	}
	return e
}

// refused makes an error one about a request that was turned down.
func (c *client) refused(e *vendors.Error, list []problem) {
	e.Verdict, e.Err = vendors.Permanent, meaning(list)
	if errors.Is(e.Err, vendors.ErrStillIssuing) {
		e.Verdict = vendors.Retryable
	}
}

// meaning is what callers decide on, nil if there is nothing to it.
func meaning(list []problem) error {
	for _, p := range list {
		switch code, _, _ := strings.Cut(p.Code.Word(), ":"); {
		case code == "not_found|order":
			return vendors.ErrNotFound
		case isNotYet(code):
			return vendors.ErrStillIssuing
		// No page tells the code for an account without money. Assumed: its name
		// or text says so.
		case mentions(p, "balance"), mentions(p, "funds"):
			return vendors.ErrBalance
		}
	}
	return nil
}

func mentions(p problem, word string) bool {
	return strings.Contains(strings.ToLower(string(p.Code+" "+p.Message)), word)
}

// isNotYet reports whether a code of check-dcv says that the proof was not found
// (documented). The CA goes on looking.
func isNotYet(code string) bool {
	switch code {
	case "file_random_value_not_found", "invalid_dns_txt", "invalid_dns_cname":
		return true
	}
	return false
}

// hasCode reports whether an error of the API has the code.
func hasCode(err error, code string) bool {
	e, ok := errors.AsType[*vendors.Error](err)
	if !ok {
		return false
	}
	for have := range strings.SplitSeq(e.Code, ", ") {
		if have == code {
			return true
		}
	}
	return false
}

// maxMessage bounds a vendor's message in an error, in bytes.
const maxMessage = 400

// short puts a text of the vendor into one line of bounded length.
func short(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxMessage {
		s = strings.ToValidUTF8(s[:maxMessage], "") + "…"
	}
	return s
}
