package digicert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"

	"github.com/caddy-commercial/caddy-commercial/internal/vendorhttp"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// client has one method per endpoint. Requests are JSON with the key in the header
// X-DC-DEVKEY; refusals come with a 4xx status and a list of errors (documented,
// dev.digicert.com, "Services API" and "Errors"). Every error is a *vendors.Error.
type client struct {
	http   *vendorhttp.Client
	vendor string
	key    string
}

// call is one request.
type call struct {
	endpoint string // its name in errors and logs
	method   string
	path     string
	class    vendorhttp.Class
	body     any // nil for none

	// answer receives the JSON of the answer. Nil accepts any JSON, or none with
	// status 204.
	answer any
}

// Order is POST /order/certificate/{product}: it buys, also when it renews.
// Documented under "Order DV SSL", "Order Basic OV" and their neighbours.
func (c *client) Order(ctx context.Context, product string, body orderBody) (placed, error) {
	var p placed
	err := c.do(ctx, call{
		endpoint: "order", method: http.MethodPost, path: "/order/certificate/" + url.PathEscape(product),
		body: body, answer: &p,
	})
	return p, err
}

// Info is GET /order/certificate/{id}. Documented under "Order info".
func (c *client) Info(ctx context.Context, id string) (orderInfo, error) {
	var info orderInfo
	err := c.do(ctx, call{
		endpoint: "info", method: http.MethodGet, path: orderPath(id, ""),
		class: vendorhttp.Read, answer: &info,
	})
	if err == nil && info.ID.Word() == "" && info.Status.Word() == "" {
		err = c.fail("info", vendors.Retryable, "answer has no order")
	}
	return info, err
}

// Validation is GET /order/certificate/{id}/validation: what is still to be
// validated. Documented under "Validation status".
func (c *client) Validation(ctx context.Context, id string) (validation, error) {
	var v validation
	err := c.do(ctx, call{
		endpoint: "validation", method: http.MethodGet, path: orderPath(id, "/validation"),
		class: vendorhttp.Read, answer: &v,
	})
	return v, err
}

// RandomValue is PUT /order/certificate/{id}/dcv-random-value: the value that is
// valid, or a new one once it has expired. Documented under "Generate DCV token"
// in its newer revision; older ones call it a generator, but repeating is safe.
func (c *client) RandomValue(ctx context.Context, id string) (randomValue, error) {
	var v randomValue
	err := c.do(ctx, call{
		endpoint: "dcv-random-value", method: http.MethodPut, path: orderPath(id, "/dcv-random-value"),
		class: vendorhttp.Read, answer: &v,
	})
	return v, err
}

// ChangeMethod is PUT /order/certificate/{id}/dcv-method, for pending orders.
// Documented under "Change DCV method".
func (c *client) ChangeMethod(ctx context.Context, id, method string) (randomValue, error) {
	var v randomValue
	err := c.do(ctx, call{
		endpoint: "dcv-method", method: http.MethodPut, path: orderPath(id, "/dcv-method"),
		body: map[string]string{"dcv_method": method}, answer: &v,
	})
	return v, err
}

// CheckDCV is PUT /order/certificate/{id}/check-dcv: the CA looks now. Documented
// under "Check DCV". No body is sent: the pages disagree on its one field.
func (c *client) CheckDCV(ctx context.Context, id string) error {
	var answer struct {
		OrderStatus text `json:"order_status"`
	}
	return c.do(ctx, call{
		endpoint: "check-dcv", method: http.MethodPut, path: orderPath(id, "/check-dcv"),
		class: vendorhttp.Effect, answer: &answer,
	})
}

// Reissue is POST /order/certificate/{id}/reissue. Documented under "Reissue
// certificate".
func (c *client) Reissue(ctx context.Context, id string, body orderBody) (placed, error) {
	var p placed
	err := c.do(ctx, call{
		endpoint: "reissue", method: http.MethodPost, path: orderPath(id, "/reissue"),
		body: body, answer: &p,
	})
	return p, err
}

// Revoke is PUT /order/certificate/{id}/revoke: all certificates of the order.
// Documented under "Revoke order certificates". Without the right to skip
// approval the answer is the request that somebody has to approve.
func (c *client) Revoke(ctx context.Context, id, reason, comments string) (request, error) {
	var answer request
	err := c.do(ctx, call{
		endpoint: "revoke", method: http.MethodPut, path: orderPath(id, "/revoke"),
		body: map[string]any{"revocation_reason": reason, "comments": comments, "skip_approval": true},

		answer: optional{&answer},
	})
	return answer, err
}

// Cancel is PUT /order/certificate/{id}/status: it takes back a pending order, or
// a pending reissue. Documented under "Update order status"; the value is
// case-sensitive and the note required.
func (c *client) Cancel(ctx context.Context, id, note string) error {
	return c.do(ctx, call{
		endpoint: "cancel", method: http.MethodPut, path: orderPath(id, "/status"),
		body: map[string]string{"status": "canceled", "note": note},
	})
}

// Download is GET /certificate/{id}/download/format/{format}, which answers PEM.
// Documented under "Download certificate"; the formats in the glossary.
func (c *client) Download(ctx context.Context, certificateID, format string) (string, error) {
	resp, err := c.send(ctx, call{
		endpoint: "download", method: http.MethodGet, class: vendorhttp.Read,
		path: "/certificate/" + url.PathEscape(certificateID) + "/download/format/" + format,
	}, true)
	if err != nil {
		return "", err
	}
	return string(resp.Body), nil
}

// Alternate is GET /order/alternate/{reference}: the orders that were placed with
// the reference as alternative_order_id. Documented under "Get orders by
// alternative order ID", whose example shows two of them, so it is not unique.
func (c *client) Alternate(ctx context.Context, reference string) (orderList, error) {
	var list orderList
	err := c.do(ctx, call{
		endpoint: "alternate", method: http.MethodGet, path: "/order/alternate/" + url.PathEscape(reference),
		class: vendorhttp.Read, answer: &list,
	})
	return list, err
}

// List is GET /order/certificate: the newest orders for a name, be it the common
// name or another one. Documented under "List orders".
func (c *client) List(ctx context.Context, name string) (orderList, error) {
	query := url.Values{
		"filters[domain_name]": {name},
		"sort":                 {"-date_created"},
		"limit":                {strconv.Itoa(listLimit)},
	}
	var list orderList
	err := c.do(ctx, call{
		endpoint: "list", method: http.MethodGet, path: "/order/certificate?" + query.Encode(),
		class: vendorhttp.Read, answer: &list,
	})
	return list, err
}

// listLimit is how many orders List asks for; the service gives up to 1000.
const listLimit = 100

// Product is GET /product/{name_id}. Documented under "Product info".
func (c *client) Product(ctx context.Context, code string) (productData, error) {
	var p productData
	err := c.do(ctx, call{
		endpoint: "product", method: http.MethodGet, path: "/product/" + url.PathEscape(code),
		class: vendorhttp.Read, answer: &p,
	})
	return p, err
}

// Products is GET /product: what the account may buy. Documented under "Product
// list".
func (c *client) Products(ctx context.Context) (list []productData, err error) {
	var answer struct {
		Products loose[[]productData] `json:"products"`
	}
	err = c.do(ctx, call{
		endpoint: "products", method: http.MethodGet, path: "/product",
		class: vendorhttp.Read, answer: &answer,
	})
	return answer.Products.V, err
}

// Organization is GET /organization/{id} (observed).
func (c *client) Organization(ctx context.Context, id int) (organizationData, error) {
	var org organizationData
	err := c.do(ctx, call{
		endpoint: "organization", method: http.MethodGet, path: "/organization/" + strconv.Itoa(id),
		class: vendorhttp.Read, answer: &org,
	})
	return org, err
}

// Balance is GET /finance/balance. Documented under "View balance".
func (c *client) Balance(ctx context.Context, containerID int) (balance, error) {
	path := "/finance/balance"
	if containerID > 0 {
		path += "?container_id=" + strconv.Itoa(containerID)
	}
	var b balance
	err := c.do(ctx, call{
		endpoint: "balance", method: http.MethodGet, path: path,
		class: vendorhttp.Read, answer: &b,
	})
	return b, err
}

// Price is POST /finance/order-pricing: an estimate, free of charge, where 0 means
// that there is none. Documented under "Price estimate".
func (c *client) Price(ctx context.Context, product string, names []string, term validity) (price, error) {
	var p price
	err := c.do(ctx, call{
		endpoint: "price", method: http.MethodPost, path: "/finance/order-pricing",
		class: vendorhttp.Read, answer: &p,
		body: map[string]any{
			"certificate":     map[string]any{"dns_names": names},
			"order_validity":  term,
			"product_name_id": product,
		},
	})
	return p, err
}

func orderPath(id, rest string) string {
	return "/order/certificate/" + url.PathEscape(id) + rest
}

// do sends a call and decodes its answer.
func (c *client) do(ctx context.Context, call call) error {
	target, mayBeEmpty := call.answer, call.answer == nil
	if o, ok := target.(optional); ok {
		target, mayBeEmpty = o.target, true
	}
	resp, err := c.send(ctx, call, mayBeEmpty)
	switch {
	case err != nil:
		return err
	case mayBeEmpty && resp.Status == http.StatusNoContent:
		return nil
	case target == nil:
		target = new(json.RawMessage)
	}
	if json.Unmarshal(resp.Body, target) != nil {
		e := c.fail(call.endpoint, vendors.Uncertain, "answer is not of the documented form")
		e.HTTPStatus = resp.Status
		if call.class == vendorhttp.Read {
			e.Verdict = vendors.Retryable
		}
		return e
	}
	return nil
}

// optional is an answer that is missing when the status is 204.
type optional struct{ target any }

// send sends a call. Raw accepts an answer that is not JSON.
func (c *client) send(ctx context.Context, call call, raw bool) (*vendorhttp.Response, error) {
	req := vendorhttp.Request{
		Endpoint: call.endpoint,
		Method:   call.method,
		Path:     call.path,
		Class:    call.class,
		Header:   http.Header{"X-Dc-Devkey": {c.key}},
		Raw:      raw,
		// Observed: clients name the type on every request, and it chooses the
		// form of errors.
		ContentType: "application/json",
	}
	if call.body != nil {
		var body bytes.Buffer
		enc := json.NewEncoder(&body)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(call.body); err != nil {
			return nil, &vendors.Error{Vendor: c.vendor, Endpoint: call.endpoint, Verdict: vendors.Permanent, Err: err}
		}
		req.Body = bytes.TrimSpace(body.Bytes())
	}
	resp, err := c.http.Do(ctx, req)
	if err != nil {
		return nil, c.explained(call.endpoint, err)
	}
	return resp, nil
}

func (c *client) fail(endpoint string, verdict vendors.Verdict, text string) *vendors.Error {
	return &vendors.Error{Vendor: c.vendor, Endpoint: endpoint, Verdict: verdict, Err: errors.New(text)}
}
