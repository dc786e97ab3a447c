package digicert

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

// The endpoints, each with the page of dev.digicert.com that documents it. Requests are JSON
// with the key in the header X-DC-DEVKEY; refusals come with a 4xx status and a list of
// errors ("Services API", "Errors").

// callOrder buys, also when it renews. "Order DV SSL", "Order Basic OV" and their neighbours.
func callOrder(product string) kit.Call {
	return post("order", "/order/certificate/"+url.PathEscape(product))
}

// callReissue is free. "Reissue certificate".
func callReissue(id string) kit.Call { return post("reissue", orderPath(id, "/reissue")) }

// callInfo tells of an order, callValidation what it waits for. "Order info", "Validation status".
func callInfo(id string) kit.Call       { return get("info", orderPath(id, "")) }
func callValidation(id string) kit.Call { return get("validation", orderPath(id, "/validation")) }

// callRandomValue tells the value that is valid, or makes one if it has expired. "Generate DCV
// token" in its newer revision; older ones call it a generator, but repeating is safe.
func callRandomValue(id string) kit.Call {
	return kit.Call{Name: "dcv-random-value", Method: http.MethodPut, Path: orderPath(id, "/dcv-random-value"), Class: kit.Read}
}

// callChangeMethod is for pending orders. "Change DCV method".
func callChangeMethod(id string) kit.Call { return put("dcv-method", orderPath(id, "/dcv-method")) }

// callCheckDCV has the CA look now. "Check DCV". It has no body: the pages disagree on its
// one field.
func callCheckDCV(id string) kit.Call { return put("check-dcv", orderPath(id, "/check-dcv")) }

// callCancel takes back a pending order, or a pending reissue. "Update order status"; the
// value is case-sensitive and the note required.
func callCancel(id string) kit.Call { return put("cancel", orderPath(id, "/status")) }

// callRevoke is about all certificates of the order. "Revoke order certificates". Without
// the right to skip approval the answer is the request that somebody has to approve.
func callRevoke(id string) kit.Call { return put("revoke", orderPath(id, "/revoke")) }

// callDownload answers PEM. "Download certificate"; the formats are in the glossary.
func callDownload(certificateID, format string) kit.Call {
	return get("download", "/certificate/"+url.PathEscape(certificateID)+"/download/format/"+format)
}

// callAlternate lists the orders that were placed with the reference as alternative_order_id.
// "Get orders by alternative order ID", whose example shows two, so it is not unique.
func callAlternate(reference string) kit.Call {
	return get("alternate", "/order/alternate/"+url.PathEscape(reference))
}

// callList lists the newest orders for a name, be it the common name or another one. "List
// orders"; the service gives up to 1000.
func callList(name string) kit.Call {
	query := url.Values{"filters[domain_name]": {name}, "sort": {"-date_created"}, "limit": {"100"}}
	return get("list", "/order/certificate?"+query.Encode())
}

// callChanges lists the orders whose status has changed in the last minutes, with the one
// that they have. "Status change list".
func callChanges(minutes int) kit.Call {
	return get("status-changes", "/order/certificate/status-changes?minutes="+strconv.Itoa(minutes))
}

// callProduct and callProducts tell what the account may buy. "Product info", "Product list".
func callProduct(code string) kit.Call { return get("product", "/product/"+url.PathEscape(code)) }
func callProducts() kit.Call           { return get("products", "/product") }

// callOrganization was observed.
func callOrganization(id int) kit.Call { return get("organization", "/organization/"+strconv.Itoa(id)) }

// callBalance is about a division, or with 0 about that of the key. "View balance".
func callBalance(containerID int) kit.Call {
	if containerID > 0 {
		return get("balance", "/finance/balance?container_id="+strconv.Itoa(containerID))
	}
	return get("balance", "/finance/balance")
}

// callPrice estimates, where 0 means that there is no estimate. "Price estimate".
func callPrice() kit.Call {
	return kit.Call{Name: "price", Path: "/finance/order-pricing", Class: kit.Read}
}

func get(name, path string) kit.Call {
	return kit.Call{Name: name, Method: http.MethodGet, Path: path, Class: kit.Read}
}

func put(name, path string) kit.Call { return kit.Call{Name: name, Method: http.MethodPut, Path: path} }

func post(name, path string) kit.Call { return kit.Call{Name: name, Path: path} }

func orderPath(id, rest string) string { return "/order/certificate/" + url.PathEscape(id) + rest }

// do sends a call with the JSON of body, nil for none, and decodes its answer.
func do[T any](ctx context.Context, o *Orders, call kit.Call, body any) (answer T, err error) {
	resp, err := o.send(ctx, call, body, false)
	if err == nil {
		err = o.http.Decode(call, resp, &answer)
	}
	return answer, err
}

// doOrNothing is do for a call that may be answered with HTTP 204, which has no body.
func doOrNothing[T any](ctx context.Context, o *Orders, call kit.Call, body any) (answer T, err error) {
	resp, err := o.send(ctx, call, body, true)
	if err == nil && (resp.Status != http.StatusNoContent || len(resp.Body) > 0) {
		err = o.http.Decode(call, resp, &answer)
	}
	return answer, err
}

// send sends a call. Raw accepts an answer that is not JSON.
func (o *Orders) send(ctx context.Context, call kit.Call, body any, raw bool) (*kit.Response, error) {
	// Observed: clients name the type on every request, and it chooses the form of errors.
	req := kit.Request{Call: call, Header: http.Header{"X-Dc-Devkey": {o.key}}, ContentType: "application/json", Raw: raw}
	if body != nil {
		req.Body = kit.JSON(body)
	}
	resp, err := o.http.Do(ctx, req)
	if err != nil {
		return nil, o.explained(call, resp, err)
	}
	return resp, nil
}

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

// pauseWhenLimited is how long to stay quiet after HTTP 429, which comes without Retry-After
// (observed). The limit is 100 requests in 5 seconds (documented, "Rate limits").
const pauseWhenLimited = 5 * time.Second

// explained adds the vendor's own words to the error of a failed call, if its answer has them.
//
// Refusals are told by the HTTP status: 400, 401, 403 and 404 with a list of errors mean that
// the request was turned down (documented), and so does any other 4xx with codes of the
// service's own, except for those that tell of a moment: 408, 425 and 429. The same status
// without such a list comes from something in front of the service, and proves nothing.
func (o *Orders) explained(call kit.Call, resp *kit.Response, err error) error {
	low, ok := errors.AsType[*vendors.Error](err)
	if !ok {
		return err
	}
	if low.HTTPStatus == http.StatusTooManyRequests {
		low.RetryAfter = cmp.Or(low.RetryAfter, pauseWhenLimited)
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
	switch status := e.HTTPStatus; {
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status >= 500:
	case status == http.StatusTooManyRequests:
		// Documented with a list of errors ("Rate limits"): the key is blocked, and
		// the request was not looked at.
		e.Verdict = vendors.Retryable
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		// Observed: a wrong key is HTTP 403, not 401.
		e.Verdict, e.Err = vendors.Permanent, vendors.ErrCredential
	case status == http.StatusBadRequest, status == http.StatusNotFound, strings.Trim(e.Code, ", ") != "":
		e.Verdict, e.Err = vendors.Permanent, meaning(list, status)
		if errors.Is(e.Err, vendors.ErrStillIssuing) {
			e.Verdict = vendors.Retryable
		}
	}
	return e
}

// meaning is what callers decide on, nil if there is nothing to it.
func meaning(list []problem, status int) error {
	for _, p := range list {
		switch code, _, _ := strings.Cut(p.Code, ":"); code {
		case "not_found|order":
			return vendors.ErrNotFound
		case "file_random_value_not_found", "invalid_dns_txt", "invalid_dns_cname":
			// Of check-dcv (documented). The CA goes on looking.
			return vendors.ErrStillIssuing
		}
		// No page tells the code for an account without money. Assumed: its name
		// or text says so, or the status does.
		text := strings.ToLower(p.Code + " " + p.Message)
		if strings.Contains(text, "balance") || strings.Contains(text, "funds") || status == http.StatusPaymentRequired {
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
