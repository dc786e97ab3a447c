package digicert

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

// The endpoints, each with the page of dev.digicert.com that documents it. Requests are JSON
// with the key in the header X-DC-DEVKEY; refusals come with a 4xx status and a list of
// errors ("Services API", "Errors").
var (
	// "Order DV SSL", "Order Basic OV" and their neighbours: it buys, also when it renews.
	callOrder = kit.Call{Name: "order", Path: "/order/certificate/%s"}

	callReissue    = kit.Call{Name: "reissue", Path: "/order/certificate/%s/reissue"} // "Reissue certificate"
	callInfo       = get("info", "/order/certificate/%s")                             // "Order info"
	callValidation = get("validation", "/order/certificate/%s/validation")            // "Validation status"

	// "Generate DCV token": the value that is valid, or a new one if it has expired after 30
	// days, so repeating is safe.
	callRandomValue = kit.Call{Name: "dcv-random-value", Method: http.MethodPut, Path: "/order/certificate/%s/dcv-random-value", Class: kit.Read}

	// "Change DCV method", for pending orders. "Check DCV": the CA looks now; there is no body,
	// because the pages disagree on its one field.
	callChangeMethod = put("dcv-method", "/order/certificate/%s/dcv-method")
	callCheckDCV     = put("check-dcv", "/order/certificate/%s/check-dcv")

	// "Update order status": a pending order, or a pending reissue, is taken back. The value
	// is case-sensitive and the note required.
	callCancel = put("cancel", "/order/certificate/%s/status")

	// "Revoke order certificates": all of the order. Without the right to skip approval the
	// answer is the request that somebody has to approve.
	callRevoke = put("revoke", "/order/certificate/%s/revoke")

	// "Download certificate"; in this format leaf, intermediate and root are one PEM text ("Glossary").
	callDownload = get("download", "/certificate/%s/download/format/pem_all")

	// "Get orders by alternative order ID": those with our reference. The example shows two of
	// them, so it is not unique. "List orders": the newest for a name, common name or not.
	callAlternate = get("alternate", "/order/alternate/%s")
	callList      = get("list", "/order/certificate?filters%%5Bdomain_name%%5D=%s&limit=100&sort=-date_created")

	// "List orders": all of them, page by page, the newest first, so that none is missed if others
	// are placed meanwhile.
	callAudit = get("list", "/order/certificate?limit=%s&offset=%s&sort=-date_created")

	// "Status change list": the orders whose status has changed in the last so many minutes,
	// each with its present status.
	callChanges = get("status-changes", "/order/certificate/status-changes?minutes=%s")

	callProduct      = get("product", "/product/%s")           // "Product info"
	callProducts     = get("products", "/product")             // "Product list": what the account may buy
	callOrganization = get("organization", "/organization/%s") // observed

	callBalance         = get("balance", "/finance/balance") // "View balance"
	callDivisionBalance = get("balance", "/finance/balance?container_id=%s")

	// "Price estimate", where 0 means that there is none.
	callPrice = kit.Call{Name: "price", Path: "/finance/order-pricing", Class: kit.Read}
)

func get(name, path string) kit.Call {
	return kit.Call{Name: name, Method: http.MethodGet, Path: path, Class: kit.Read}
}

func put(name, path string) kit.Call { return kit.Call{Name: name, Method: http.MethodPut, Path: path} }

// do sends a call with body as JSON, or without one if it is nil, and decodes the answer, which
// is JSON unless T is a string. The arguments go into the path. A PUT that changes something may
// be answered with HTTP 204, which has no body (documented).
func do[T any](ctx context.Context, o *Orders, call kit.Call, body any, args ...any) (answer T, err error) {
	// Observed: clients name the type on every request, and it chooses the form of errors.
	req := kit.Request{Call: call.With(args...), Header: http.Header{"X-Dc-Devkey": {o.key}}, ContentType: "application/json"}
	if body != nil {
		req.Body = kit.JSON(body)
	}
	text, isText := any(&answer).(*string)
	req.Raw = isText || call.Method == http.MethodPut && call.Class == kit.Effect
	resp, err := o.Do(ctx, req)
	switch {
	case err != nil:
		err = o.explained(resp, err)
	case isText:
		*text = string(resp.Body)
	case resp.Status != http.StatusNoContent || len(resp.Body) > 0:
		err = o.Decode(call, resp, &answer)
	}
	return answer, err
}

// problem is one error of an answer. Its code may carry a suffix behind "|" or ":",
// for example not_found|order or invalid_value:validity_years (documented).
type problem struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// problems reads the errors of an answer: a list, or a single object (observed).
func problems(body []byte) []problem {
	var answer struct{ Errors json.RawMessage }
	_ = kit.Unmarshal(body, &answer)
	list := make([]problem, 1)
	if kit.Unmarshal(answer.Errors, &list[0]) != nil {
		_ = kit.Unmarshal(answer.Errors, &list)
	}
	return slices.DeleteFunc(list, func(p problem) bool { return p == problem{} })
}

// explained adds the vendor's own words to the error of a failed call, if its answer has them.
//
// Refusals are told by the HTTP status: 400, 401, 403 and 404 with a list of errors mean that
// the request was turned down (documented), and so does any other 4xx with codes of the
// service's own, except for 408, 425 and 429, which are about the moment only. The same status
// without such a list comes from something in front of the service, and proves nothing.
func (o *Orders) explained(resp *kit.Response, err error) error {
	e, ok := errors.AsType[*vendors.Error](err)
	if !ok || resp == nil || resp.Status < 400 {
		return err
	}
	list := problems(resp.Body)
	if len(list) == 0 {
		return err
	}
	var codes, messages []string
	for _, p := range list {
		codes, messages = append(codes, p.Code), append(messages, p.Message)
	}
	e.Code, e.Message, e.Err = o.Text(strings.Join(codes, ", ")), o.Text(strings.Join(messages, "; ")), nil
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

// meaning is the error of package vendors that callers act on, nil if there is none.
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
