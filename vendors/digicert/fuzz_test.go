package digicert

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// FuzzVendorAnswer answers every call with arbitrary bytes: nothing panics, no order comes without
// an ID, and no failed payment is mistaken for a harmless one unless the vendor clearly refused.
func FuzzVendorAnswer(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `[]`, `null`, `{"id":1}`, `{"id":[]}`, `{"id":"1","status":"issued","certificate":{"id":2}}`, `{"id":1,"status":"pending","dcv_method":"http-token"}`,
		`{"errors":[{"code":"access_denied","message":"x"}]}`, `{"errors":{"code":"not_found|order"}}`, `{"errors":[null]}`, `{"errors":"x"}`, `<html>`,
		`{"orders":[{"id":1,"order_id":"2","date_created":"2026-03-20T20:05:28+00:00","organization":[]}]}`, `{"orders":[null]}`,
		`{"id":1,"status":"issued","certificate":{"common_name":"example.com","dns_names":"x"},"certificate_chain":[{"pem":"-----BEGIN CERTIFICATE-----"}]}`,
		`{"products":[{"name_id":"x","type":"ssl_certificate"}],"total_price":"1e9","total_available_funds":{}}`,
		"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
	} {
		f.Add(200, []byte(seed))
		f.Add(204, []byte(seed))
		f.Add(400, []byte(seed))
		f.Add(404, []byte(seed))
	}
	var status int
	var body []byte
	answer := roundTripFunc(func(r *http.Request) (*http.Response, error) {
		if r.Body != nil {
			io.Copy(io.Discard, r.Body)
		}
		return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body))}, nil
	})
	orders, err := New(Config{Secret: testKey, Endpoint: "https://127.0.0.1", Transport: answer, Description: vendors.Description{Name: "digicert"}}, Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, httpStatus int, answerBody []byte) {
		status, body = 200+(httpStatus%400+400)%400, answerBody
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		req := workedRequest()
		paid := func(what string, order vendors.Order, err error) {
			if err == nil {
				if order.ID == "" || status > 299 {
					t.Errorf("%s: success with ID %q and HTTP %d", what, order.ID, status)
				}
				return
			}
			e, ok := err.(*vendors.Error) //nolint:errorlint // the contract asks for the type itself
			if !ok {
				t.Fatalf("%s: error is a %T", what, err)
			}
			told := e.Code != "" || e.Message != "" || len(problems(body)) > 0
			refused := told && status >= 400 && status < 500 && status != 408 && status != 425
			if e.Verdict != vendors.Uncertain && !refused && status != 429 {
				t.Errorf("%s: verdict %v: %v", what, e.Verdict, err)
			}
			_ = fmt.Sprint(err)
		}
		order, err := orders.Place(ctx, req)
		paid("order", order, err)
		order, err = orders.Renew(ctx, "123", req)
		paid("renewal", order, err)
		if order, err = orders.Reissue(ctx, "123", workedReissue()); err == nil && order.ID != "123" {
			t.Errorf("reissue: %+v", order)
		}
		order, err = orders.Status(ctx, "123")
		if err == nil && (order.ID != "123" || order.Status == vendors.StatusIssued && len(order.Certificates) == 0) {
			t.Errorf("status: %+v", order)
		}
		for _, ch := range order.Challenges {
			if strings.Trim(ch.FileContent+ch.RecordValue, lettersAndDigits+".") != "" {
				t.Errorf("challenge: %+v", ch)
			}
		}
		ids, err := orders.Find(ctx, vendors.Lookup{Reference: "ref", Names: req.Names, Sent: time.Now()})
		for _, id := range ids {
			if id == "" || err != nil {
				t.Errorf("found %q, %v", ids, err)
			}
		}
		for _, err := range []error{
			orders.Validate(ctx, req), orders.Cancel(ctx, "123", ""), orders.Revoke(ctx, "123", ""),
			orders.Recheck(ctx, "123", req.Names, vendors.MethodHTTP),
		} {
			if err != nil && err.Error() == "" {
				t.Error("error without a text")
			}
		}
		_, _ = orders.Products(ctx)
	})
}
