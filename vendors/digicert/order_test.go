package digicert

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

const (
	issuedInfo = `{"id":123,"status":"issued","certificate":{"id":77,"common_name":"example.com","dns_names":["example.com","www.example.com"]}}`
	orderJSON  = `{"certificate":` + workedCertificate + `,"order_validity":{"years":1},"dcv_method":"http-token",` +
		`"skip_approval":true,"comments":"caddy-commercial ref-1","payment_method":"balance","alternative_order_id":"ref-1"}`
	reissueJSON = `{"certificate":` + workedCertificate + `,"dcv_method":"http-token","skip_approval":true,"comments":"caddy-commercial ref-1"}`
	listRequest = "GET /order/certificate?filters%5Bdomain_name%5D=example.com&limit=100&sort=-date_created"
)

// wireCall is a call with the exact request it must send and a good answer.
type wireCall struct {
	endpoint, request, body, good string
	prepare                       func(*fake)
	call                          func(context.Context, *Orders) error
	paid, effect                  bool
}

func wireCalls() []wireCall {
	placed := `{"id":123}`
	first := func(_ any, err error) error { return err }
	return []wireCall{
		{endpoint: "order", request: "POST /order/certificate/ssl_dv_rapidssl", body: orderJSON, good: placed, paid: true, effect: true,
			call: func(ctx context.Context, o *Orders) error { return first(o.Place(ctx, workedRequest())) }},
		{endpoint: "order", request: "POST /order/certificate/ssl_dv_rapidssl", good: placed, paid: true, effect: true,
			body: strings.TrimSuffix(orderJSON, "}") + `,"renewal_of_order_id":4300000001}`,
			call: func(ctx context.Context, o *Orders) error { return first(o.Renew(ctx, "4300000001", workedRequest())) }},
		{endpoint: "reissue", request: "POST /order/certificate/123/reissue", body: reissueJSON, good: placed, paid: true, effect: true,
			prepare: func(f *fake) { f.expect("GET /order/certificate/123", "", 200, issuedInfo) },
			call:    func(ctx context.Context, o *Orders) error { return first(o.Reissue(ctx, "123", workedReissue())) }},
		{endpoint: "info", request: "GET /order/certificate/123", good: `{"id":123,"status":"canceled"}`,
			call: func(ctx context.Context, o *Orders) error { return first(o.Status(ctx, "123")) }},
		{endpoint: "validation", request: "GET /order/certificate/123/validation", good: `{}`,
			call: func(ctx context.Context, o *Orders) error {
				return first(do[validation](ctx, o, callValidation, nil, "123"))
			}},
		{endpoint: "dcv-random-value", request: "PUT /order/certificate/123/dcv-random-value", good: `{"dcv_random_value":"x"}`,
			call: func(ctx context.Context, o *Orders) error {
				return first(do[randomValue](ctx, o, callRandomValue, nil, "123"))
			}},
		{endpoint: "check-dcv", request: "PUT /order/certificate/123/check-dcv", good: `{"order_status":"pending"}`, effect: true,
			call: func(ctx context.Context, o *Orders) error {
				return o.Recheck(ctx, "123", []string{"example.com"}, vendors.MethodHTTP)
			}},
		{endpoint: "dcv-method", request: "PUT /order/certificate/123/dcv-method", body: `{"dcv_method":"http-token"}`, good: `{}`, effect: true,
			call: func(ctx context.Context, o *Orders) error {
				return first(do[struct{}](ctx, o, callChangeMethod, map[string]string{"dcv_method": methodFile}, "123"))
			}},
		{endpoint: "cancel", request: "PUT /order/certificate/123/status", body: `{"status":"canceled","note":"requested by the operator"}`, good: `{}`, effect: true,
			call: func(ctx context.Context, o *Orders) error { return o.Cancel(ctx, "123", " ") }},
		{endpoint: "revoke", request: "PUT /order/certificate/123/revoke", good: `{}`, effect: true,
			body: `{"revocation_reason":"keyCompromise","comments":"key compromise","skip_approval":true}`,
			call: func(ctx context.Context, o *Orders) error { return o.Revoke(ctx, "123", "key compromise") }},
		{endpoint: "alternate", request: "GET /order/alternate/ref-1", good: `{"orders":[{"order_id":123}]}`,
			call: func(ctx context.Context, o *Orders) error {
				return first(o.Find(ctx, vendors.Lookup{Reference: "ref-1"}))
			}},
		{endpoint: "list", request: listRequest, good: `{"orders":[]}`,
			prepare: func(f *fake) { f.expect("GET /order/alternate/ref-1", "", 404, refusal("not_found|order")) },
			call: func(ctx context.Context, o *Orders) error {
				return first(o.Find(ctx, vendors.Lookup{Reference: "ref-1", Names: []string{"example.com"}}))
			}},
		{endpoint: "list", request: "GET /order/certificate?limit=1000&offset=0&sort=-date_created", good: `{"orders":[]}`,
			call: func(ctx context.Context, o *Orders) error {
				return o.ListOrders(ctx, func(vendors.ListedOrder) error { return nil })
			}},
		{endpoint: "status-changes", request: "GET /order/certificate/status-changes?minutes=75", good: `{"orders":[{"order_id":123,"status":"issued"}]}`,
			call: func(ctx context.Context, o *Orders) error {
				return first(do[orderList](ctx, o, callChanges, nil, listMinutes))
			}},
		{endpoint: "product", request: "GET /product/ssl_dv_rapidssl", good: `{"name_id":"ssl_dv_rapidssl"}`,
			call: func(ctx context.Context, o *Orders) error {
				return first(do[productData](ctx, o, callProduct, nil, "ssl_dv_rapidssl"))
			}},
		{endpoint: "products", request: "GET /product", good: `{"products":[]}`,
			call: func(ctx context.Context, o *Orders) error { return first(o.Products(ctx)) }},
		{endpoint: "organization", request: "GET /organization/5000000001", good: `{"id":5000000001}`,
			call: func(ctx context.Context, o *Orders) error {
				return first(do[struct{}](ctx, o, callOrganization, nil, 5000000001))
			}},
		{endpoint: "balance", request: "GET /finance/balance", good: `{}`,
			call: func(ctx context.Context, o *Orders) error { return first(o.funds(ctx)) }},
		{endpoint: "balance", request: "GET /finance/balance?container_id=9", good: `{}`, prepare: func(f *fake) { f.orders.options.ContainerID = 9 },
			call: func(ctx context.Context, o *Orders) error { return first(o.funds(ctx)) }},
		{endpoint: "price", request: "POST /finance/order-pricing", good: `{}`,
			body: `{"certificate":{"dns_names":["example.com"]},"order_validity":{"years":1},"product_name_id":"ssl_dv_rapidssl"}`,
			call: func(ctx context.Context, o *Orders) error {
				return first(o.price(ctx, "ssl_dv_rapidssl", []string{"example.com"}, vendors.Term{Years: 1}))
			}},
	}
}

func TestRequestsOnTheWire(t *testing.T) {
	for _, c := range wireCalls() {
		t.Run(c.endpoint, func(t *testing.T) {
			f := newFake(t)
			if c.prepare != nil {
				c.prepare(f)
			}
			f.expect(c.request, c.body, 200, c.good)
			if err := c.call(t.Context(), f.orders); err != nil {
				t.Error(err)
			}
			if f.calls[c.request] != 1 {
				t.Errorf("sent %d times", f.calls[c.request])
			}
		})
	}
}

func TestUnusableAnswersOfEveryCall(t *testing.T) {
	for _, c := range wireCalls() {
		for name, answer := range map[string]struct {
			status int
			body   string
		}{
			"html 502":   {502, "<html>Bad Gateway</html>"},
			"html 403":   {403, "<html>Request unsuccessful</html>"},
			"json 500":   {500, refusal("server_error")},
			"api error":  {400, refusal("something_new")},
			"cut off":    {200, `{"id":12`},
			"array":      {200, `[]`},
			"empty":      {200, ``},
			"error page": {200, `<html>`},
		} {
			t.Run(c.endpoint+"/"+name, func(t *testing.T) {
				f := newFake(t)
				f.expect("GET /order/certificate/123", "", 200, issuedInfo) // asked by cancel
				if c.prepare != nil {
					c.prepare(f)
				}
				f.expect(c.request, "*", answer.status, answer.body)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second) // leaves no room for a second attempt
				defer cancel()
				err := c.call(ctx, f.orders)
				if name == "array" && slices.Contains([]string{"cancel", "alternate", "list", "status-changes"}, c.endpoint) {
					return // answers nothing but success, or is a list
				}
				if err == nil {
					t.Fatal("no error")
				}
				verdict := vendors.VerdictOf(err)
				switch {
				case name == "api error" && verdict != vendors.Permanent,
					name != "api error" && c.effect && verdict != vendors.Uncertain,
					name != "api error" && !c.effect && verdict != vendors.Retryable:
					t.Errorf("verdict is %v: %v", verdict, err)
				}
				if !strings.HasPrefix(err.Error(), "digicert "+c.endpoint+": ") {
					t.Errorf("error is %q", err)
				}
				if f.calls[c.request] != 1 {
					t.Errorf("sent %d times", f.calls[c.request])
				}
			})
		}
	}
}

func TestRefusalsOfOrders(t *testing.T) {
	for _, tt := range []struct {
		status  int
		body    string
		verdict vendors.Verdict
		is      error
		text    string
	}{
		{403, `{"errors":[{"code":"access_denied|access_denied_invalid_key","message":"Access denied due to access_denied_invalid_key."}]}`,
			vendors.Permanent, vendors.ErrCredential, "access_denied_invalid_key"},
		{401, refusal("unauthorized"), vendors.Permanent, vendors.ErrCredential, "unauthorized"},
		{404, refusal("not_found|product"), vendors.Permanent, nil, "not_found|product"},
		{404, `{"errors":{"code":"not_found|route","message":"no route"}}`, vendors.Permanent, nil, "not_found|route: no route"},
		{400, refusal("invalid_value:validity_years"), vendors.Permanent, nil, "invalid_value:validity_years"},
		{400, `{"errors":[{"code":"a","message":"b"},{"code":"c","message":"d"}]}`, vendors.Permanent, nil, "a, c: b; d"},
		{400, `{"errors":[{"code":"x","message":"Insufficient Funds in account"}]}`, vendors.Permanent, vendors.ErrBalance, "Funds"},
		{400, `{"errors":[]}`, vendors.Uncertain, nil, ""},
		{400, `{}`, vendors.Uncertain, nil, ""},
		{404, `<html>`, vendors.Uncertain, nil, ""},
		{402, refusal("payment_required"), vendors.Permanent, vendors.ErrBalance, "payment_required"},
		{406, refusal("not_acceptable"), vendors.Permanent, nil, "not_acceptable"},
		{409, refusal("conflict"), vendors.Permanent, nil, "conflict"},
		{422, refusal("invalid_value:csr"), vendors.Permanent, nil, "invalid_value:csr"},
		{402, `<html>pay</html>`, vendors.Uncertain, nil, "HTTP 402"},
		{409, `{"errors":[{"message":"of a gateway"}]}`, vendors.Uncertain, nil, "of a gateway"},
		{422, `{"error":"of a gateway"}`, vendors.Uncertain, nil, "HTTP 422"},
		{408, refusal("timeout"), vendors.Uncertain, nil, "timeout"},
		{425, refusal("too_early"), vendors.Uncertain, nil, "too_early"},
		{500, refusal("server_error"), vendors.Uncertain, nil, "server_error"},
		{201, `{"requests":[{"id":1}]}`, vendors.Uncertain, nil, "no id"},
		{201, `{"id":""}`, vendors.Uncertain, nil, "no id"},
		{200, `null`, vendors.Uncertain, nil, "not an object"},
		{429, refusal("request_limit_exceeded"), vendors.Retryable, nil, "request_limit_exceeded"},
	} {
		f := newFake(t)
		f.expect("POST /order/certificate/ssl_dv_rapidssl", "*", tt.status, tt.body)
		order, err := f.orders.Place(t.Context(), workedRequest())
		e, ok := errors.AsType[*vendors.Error](err)
		if !ok || e.Verdict != tt.verdict || order.ID != "" || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("HTTP %d %s: %v", tt.status, tt.body, err)
			continue
		}
		if (tt.status == 429) != (e.RetryAfter > 0) {
			t.Errorf("HTTP %d: retry after %v", tt.status, e.RetryAfter)
		}
	}
}

func TestPlacedOrder(t *testing.T) {
	value := "fdy6m0wy5lq063sz4h0r6qmdt722gyfc"
	file := []vendors.Challenge{{Method: vendors.MethodHTTP, FileName: "fileauth.txt", FileContent: value}}
	chain := strings.ReplaceAll(testPEM("leaf"), "\n", `\r\n`)
	for _, tt := range []struct {
		name, body string
		want       vendors.Order
	}{
		{"bare", `{"id":123456789}`, vendors.Order{ID: "123456789"}},
		{"value", `{"id":"1","certificate_id":2,"dcv_random_value":"` + value + `"}`, vendors.Order{ID: "1", Challenges: file}},
		{"beyond 64 bits", `{"id":18446744073709551617}`, vendors.Order{ID: "18446744073709551617"}},
		{"hostile value", `{"id":1,"dcv_random_value":"../x\n"}`, vendors.Order{ID: "1"}},
		{"approval", `{"id":542772,"requests":[{"id":922432,"status":"pending"}]}`, vendors.Order{ID: "542772"}},
		{"at once", `{"id":1,"requests":[{"id":9,"status":"approved"}],"certificate_chain":[{"subject_common_name":"x","pem":"` + chain + `"},{"pem":"` + chain + `"}]}`,
			vendors.Order{ID: "1"}},
		{"term", `{"id":1,"order_valid_till":"2029-03-20","certificate_chain":[],"requests":{}}`,
			vendors.Order{ID: "1", TermEnds: time.Date(2029, 3, 20, 0, 0, 0, 0, time.UTC)}},
	} {
		f := newFake(t)
		f.expect("POST /order/certificate/ssl_dv_rapidssl", "*", 201, tt.body)
		got, err := f.orders.Place(t.Context(), workedRequest())
		tt.want.Status = vendors.StatusPending
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s:\ngot  %+v, %v\nwant %+v", tt.name, got, err, tt.want)
		}
	}
}

func TestOptionalPartsOfAnOrder(t *testing.T) {
	f := newFake(t, Options{OrganizationID: 5, ContainerID: 6, PaymentMethod: "profile", DNSRecord: "cname"})
	req := workedRequest()
	req.Product, req.Term, req.Method, req.Names = "ssl_basic", vendors.Term{Days: 90}, vendors.MethodDNS, []string{"*.example.com"}
	req.Contact = vendors.Contact{FirstName: "Ada", LastName: "Lovelace", Email: "ada@example.com", Phone: "+44"}
	f.expect("POST /order/certificate/ssl_basic", `{"certificate":{"common_name":"*.example.com","csr":`+workedCSR+`,"signature_hash":"sha256",
		"server_platform":{"id":-1}},"order_validity":{"days":90},"dcv_method":"dns-cname-token","skip_approval":true,
		"comments":"caddy-commercial ref-1","organization":{"id":5},"container":{"id":6},"payment_method":"profile","alternative_order_id":"ref-1",
		"technical_contact":{"first_name":"Ada","last_name":"Lovelace","telephone":"+44","email":"ada@example.com"}}`,
		201, `{"id":1,"dcv_random_value":"abc"}`)
	got, err := f.orders.Place(t.Context(), req)
	want := []vendors.Challenge{{Method: vendors.MethodDNS, RecordName: "_dnsauth", RecordType: "CNAME", RecordValue: "abc.dcv.digicert.com"}}
	if err != nil || !reflect.DeepEqual(got.Challenges, want) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestRenewNeedsANumber(t *testing.T) {
	f := newFake(t)
	for _, id := range []string{"", "12a", "-1", "1e3", "0123"} {
		if _, err := f.orders.Renew(t.Context(), id, workedRequest()); vendors.VerdictOf(err) != vendors.Permanent {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestReissueKeepsAllNames(t *testing.T) {
	f := newFake(t)
	f.expect("GET /order/certificate/123", "", 200, `{"id":123,"status":"issued","organization":[],"certificate":{"id":77,
		"common_name":"www.example.com","dns_names":["www.example.com","Example.com","mail.example.com"]}}`)
	f.expect("POST /order/certificate/123/reissue", strings.Replace(reissueJSON, workedCertificate,
		`{"common_name":"www.example.com","dns_names":["example.com","mail.example.com"],"csr":`+workedCSR+`,"signature_hash":"sha256","server_platform":{"id":-1}}`, 1),
		201, `{"id":999,"requests":[{"id":1}],"certificate_id":78}`)
	got, err := f.orders.Reissue(t.Context(), "123", workedReissue())
	if err != nil || got.ID != "123" || got.Status != vendors.StatusPending {
		t.Errorf("%+v, %v", got, err)
	}

	req := workedReissue()
	req.Names = append(req.Names, "new.example.com")
	if _, err := f.orders.Reissue(t.Context(), "123", req); vendors.VerdictOf(err) != vendors.Permanent || !strings.Contains(fmt.Sprint(err), "new.example.com could cost money") {
		t.Errorf("a name that is not on the order: %v", err)
	}
	f.expect("GET /order/certificate/123", "", 200, `{"id":123,"status":"issued","certificate":{"id":77}}`)
	if _, err := f.orders.Reissue(t.Context(), "123", workedReissue()); vendors.VerdictOf(err) != vendors.Permanent {
		t.Errorf("an order that does not report its names: %v", err)
	}
	if n := f.calls["POST /order/certificate/123/reissue"]; n != 1 {
		t.Errorf("reissued %d times", n)
	}
}

func TestReissueOnlyWhatIsIssued(t *testing.T) {
	for _, status := range []string{"pending", "needs_approval", "reissue_pending", "canceled", "revoked", "strange"} {
		f := newFake(t)
		f.expect("GET /order/certificate/123", "", 200, `{"id":123,"status":"`+status+`"}`)
		_, err := f.orders.Reissue(t.Context(), "123", workedReissue())
		if vendors.VerdictOf(err) != vendors.Permanent || !errors.Is(err, vendors.ErrWrongState) {
			t.Errorf("%s: %v", status, err)
		}
	}
}

func TestCancelAndRevoke(t *testing.T) {
	for after, good := range map[string]bool{"canceled": true, "issued": false, "pending": false} {
		f := newFake(t)
		f.expect("PUT /order/certificate/123/status", "*", 400, refusal("invalid_status"))
		f.expect("GET /order/certificate/123", "", 200, `{"id":123,"status":"`+after+`"}`)
		if err := f.orders.Cancel(t.Context(), "123", "x"); (err == nil) != good {
			t.Errorf("cancelling what is %s: %v", after, err)
		}
	}
	f := newFake(t)
	f.expect("PUT /order/certificate/123/status", "*", 204, "")
	f.expect("PUT /order/certificate/123/revoke", "*", 204, "")
	if err := errors.Join(f.orders.Cancel(t.Context(), "123", "x"), f.orders.Revoke(t.Context(), "123", "")); err != nil {
		t.Error(err)
	}
	f.expect("PUT /order/certificate/123/revoke", "*", 201, `{"id":7,"type":"revoke","status":"pending","requester":{"id":1}}`)
	if err := f.orders.Revoke(t.Context(), "123", ""); vendors.VerdictOf(err) != vendors.Uncertain || !strings.Contains(err.Error(), "request 7 revoke") {
		t.Errorf("revocation that waits: %v", err)
	}
	for after, good := range map[string]bool{"revoked": true, "issued": false, "reissue_pending": false} {
		f := newFake(t)
		f.expect("PUT /order/certificate/123/revoke", "*", 400, refusal("order_already_revoked"))
		f.expect("GET /order/certificate/123", "", 200, `{"id":123,"status":"`+after+`"}`)
		if err := f.orders.Revoke(t.Context(), "123", ""); (err == nil) != good {
			t.Errorf("revoking what is %s: %v", after, err)
		}
	}
	for text, want := range map[string]string{
		"key compromise": "keyCompromise", "cessation of operation": "cessationOfOperation", "affiliation changed": "affiliationChanged",
		"superseded": "superseded", "CA compromise": "unspecified", "": "unspecified",
	} {
		if got := revocationReason(text); got != want {
			t.Errorf("%q: %s", text, got)
		}
	}
}
